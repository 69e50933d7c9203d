"""Loads the service without what its libraries would load in vain.

Nine tenths of a start are imports, and a third of those is for things that a service never does.
"""

import gc
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


@contextmanager
def lean_imports() -> Iterator[None]:
    """What is imported inside costs no more than a service needs; the collector is off, and stays
    so until `settle_in`."""
    gc.disable()
    with _no_rich(), _no_certificates():
        yield


def settle_in() -> None:
    """The start is over: what was loaded and read until now is passed over by each collection,
    since nearly all of it lives as long as the service."""
    gc.freeze()
    gc.enable()


@contextmanager
def _no_rich() -> Iterator[None]:
    """`rich` seems not to be installed: structlog would load it, with pygments, for tracebacks in
    colour (50 ms, 7 MB)."""
    if "rich" in sys.modules:
        yield
        return
    sys.modules["rich"] = None  # type: ignore[assignment]  # an import of it fails
    try:
        yield
    finally:
        del sys.modules["rich"]


@contextmanager
def _no_certificates() -> Iterator[None]:
    """OpenSSL finds no authorities: aiohttp reads all of them twice when it is imported (40 ms),
    for a client's calls to other hosts. A service makes none, and would fail closed."""
    before = {name: os.environ.get(name) for name in _CERTIFICATES}
    os.environ.update(dict.fromkeys(_CERTIFICATES, os.devnull))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
