"""Sizes as people write them: bytes, or `512M`. Pure."""

import re

_UNITS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}
_SIZE = re.compile(r"([0-9]{1,18})\s*([KMGT]?)(?:iB)?", re.IGNORECASE)

EXAMPLE = 'a number of bytes, or text such as "512M" or "2G" (1024 K are one M)'


def parse_size(size: str | int) -> int | None:
    """The number of bytes; None if it is no size."""
    if isinstance(size, int):
        return size
    match = _SIZE.fullmatch(size.strip())
    if match is None:
        return None
    unit: int = 1024 ** _UNITS[match[2].upper()]
    return int(match[1]) * unit
