"""Adds up the orders of a file; fails if there are not as many as were announced."""

import csv
import json
import os
import sys
from pathlib import Path

with open(sys.argv[1], newline="", encoding="utf-8") as source:
    amounts = [int(row[2]) for row in csv.reader(source)]
if len(amounts) != int(os.environ["JOBBUS_VAR_Rows"]):
    sys.exit(f"{len(amounts)} orders, {os.environ['JOBBUS_VAR_Rows']} were announced")
Path(os.environ["JOBBUS_RESULT"]).write_text(json.dumps({"total": sum(amounts)}), encoding="utf-8")
print(f"{len(amounts)} orders, {sum(amounts)} in all")
