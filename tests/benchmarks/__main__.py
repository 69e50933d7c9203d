"""`python -m tests.benchmarks NAME …`: runs tables and prints them."""

import argparse
import importlib
import shutil
import sys
import time
from pathlib import Path
from tempfile import mkdtemp

from tests.benchmarks import machine, native

TABLES = {
    "publish": "durable publish in process, 1 and 64 publishers, beside C and queue libraries",
    "http": "one durable command a request, 1 and 64 connections, beside a bare aiohttp handler",
    "claim": "claim to durable result with 100,000 waiting, beside SQLite and persist-queue",
    "latency": "publish to the job's first instruction, over HTTP and by a dropped file",
    "spawn": "start and reap of a short job, 8 live, beside posix_spawn and supervisord",
    "output": "one job printing 300 MB, beside straight to a file",
    "download": "sending 300 MB of output, beside a thread hop a piece and plain reads",
    "idle": "memory at rest, memory a job, wake-ups and CPU with 20 quiet jobs",
    "catalog": "5,000 jobs with schedules: check, load, a changed file in force, cost at rest",
    "startup": "ready with 100,000 kept executions, or waiting files and how fast they are handled",
    "fanout": "SSE to 100, 1000 and 5000 subscribers, beside C, NATS and aiohttp-sse",
}


def main() -> int:
    args = _arguments()
    folder = Path(mkdtemp(prefix="jobbus-bench-", dir=args.folder))
    try:
        print(machine.describe(folder))
        print(f"{args.rounds} rounds of {args.seconds:g} s, {time.strftime('%Y-%m-%d %H:%M')}\n")
        for name in args.name or TABLES:
            module = importlib.import_module(f"tests.benchmarks.{name}")
            print(module.table(folder / name, args.rounds, args.seconds), flush=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        native.clean()
    return 0


def _arguments() -> argparse.Namespace:
    listing = "\n".join(f"  {name:10} {text}" for name, text in TABLES.items())
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks",
        description=f"Measure jobbus beside peers and raw limits. Tables:\n{listing}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="*", help="tables; none means all")
    parser.add_argument("--seconds", type=float, default=2.0, help="per measurement (2)")
    parser.add_argument("--rounds", type=int, default=5, help="everybody so many times (5)")
    parser.add_argument(
        "--folder", default="/var/tmp", help="on the file system to be measured (/var/tmp)"
    )
    args = parser.parse_args()
    unknown = set(args.name) - set(TABLES)
    if unknown:
        parser.error(f"no table {', '.join(sorted(unknown))}; there are {', '.join(TABLES)}")
    return args


if __name__ == "__main__":
    sys.exit(main())
