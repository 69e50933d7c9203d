"""Definitions of other tools become job definitions, with a report of what has no equal here.

One pure module for each tool; `sources` and `folders` alone touch the disk.
"""
