"""Writes all of a SQLite database as SQL, packed; the result says how much it is."""

import gzip
import json
import os
import sqlite3
import sys
from pathlib import Path

file = Path(sys.argv[1])
if not file.is_file():
    sys.exit(f"there is no database {file}")
target = Path(os.environ["JOBBUS_ARTIFACTS"]) / f"{file.stem}.sql.gz"
statements = 0
# Read only: a dump never makes a database that is not there, nor changes one.
database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
try:
    with gzip.open(target, "wt", encoding="utf-8") as dump:
        for statement in database.iterdump():
            dump.write(statement + "\n")
            statements += 1
finally:
    database.close()
result = {"statements": statements, "bytes": target.stat().st_size}
Path(os.environ["JOBBUS_RESULT"]).write_text(json.dumps(result), encoding="utf-8")
print(f"{statements} statements, {result['bytes']} bytes packed")
