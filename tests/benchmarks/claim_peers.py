"""Child: one consumer claims what waits, and makes each result durable before the next claim.

PEER FOLDER SECONDS WAITING
"""

import json
import pickle
import sqlite3
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.benchmarks.closed_loop import print_figures
from tests.benchmarks.publish_peers import PAYLOAD


def sqlite(folder: Path, waiting: int) -> Callable[[], None]:
    """A table as people make it by hand: claim, then the result, each a transaction."""
    db = sqlite3.connect(folder / "jobs.db", isolation_level=None)
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("CREATE TABLE job (id INTEGER PRIMARY KEY, data TEXT, state INTEGER, result TEXT)")
    db.execute("CREATE INDEX by_state ON job (state, id)")
    rows = ((json.dumps(PAYLOAD),) for _ in range(waiting))
    db.execute("BEGIN")
    db.executemany("INSERT INTO job (data, state) VALUES (?, 0)", rows)
    db.execute("COMMIT")
    db.execute("PRAGMA synchronous=FULL")

    def one() -> None:
        [(number, data)] = db.execute(
            "UPDATE job SET state = 1 WHERE id = (SELECT id FROM job WHERE state = 0 ORDER BY id "
            "LIMIT 1) RETURNING id, data"
        ).fetchall()
        json.loads(data)
        db.execute("UPDATE job SET state = 2, result = 'done' WHERE id = ?", (number,))

    return one


def persist_queue(folder: Path, waiting: int) -> Callable[[], None]:
    from persistqueue import SQLiteAckQueue  # imported here: only this peer pays for it

    SQLiteAckQueue(str(folder), multithreading=True, auto_commit=True).close()
    # Its own `put` would take minutes for so many.
    with sqlite3.connect(folder / "data.db") as db:
        [(table,)] = db.execute("SELECT name FROM sqlite_master WHERE name LIKE 'ack_queue_%'")
        row = (pickle.dumps(PAYLOAD), time.time())
        db.executemany(
            f"INSERT INTO {table} (data, timestamp, status) VALUES (?, ?, 1)",
            (row for _ in range(waiting)),
        )
    db.close()
    queue = SQLiteAckQueue(str(folder), multithreading=True, auto_commit=True)

    def one() -> None:
        queue.ack(queue.get(block=False))

    return one


def main(peer: str, folder: Path, seconds: float, waiting: int) -> None:
    one = {"persist-queue": persist_queue, "SQLite": sqlite}[peer](folder, waiting)
    one()
    done = 0
    began_s = time.perf_counter()
    while time.perf_counter() < began_s + seconds:
        one()
        done += 1
    rate = done / (time.perf_counter() - began_s)
    print_figures({"rate": rate, "each_us": 1e6 / rate, "failed": 0.0})  # one ends it


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
