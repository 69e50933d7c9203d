"""How fast jobbus is, beside peers and raw limits in one run: `python -m tests.benchmarks --help`.

Not collected by pytest, and nothing here asserts a time: tables say what was reached and what was
missed. `docs/performance.md` says how they are to be read.
"""
