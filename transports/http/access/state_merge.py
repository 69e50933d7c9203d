"""A list of records that people and the service both change: what it comes to. Pure."""

from collections.abc import Callable, Iterable
from typing import TypeVar

R = TypeVar("R")


def merged(
    before: Iterable[R],
    ours: Iterable[R],
    theirs: Iterable[R],
    key: Callable[[R], str],
    join: Callable[[R, R], R],
) -> list[R]:
    """The records when both sides have changed the list `before`: `theirs` in a file, `ours` in
    memory.

    A record that either side removed is gone, one that either side added is there. Of one that
    both have, the file's counts; `join(theirs, ours)` adds what only memory can know.
    """
    known = {key(record) for record in before}
    own = {key(record): record for record in ours}
    found = {key(record): record for record in theirs}
    kept = [
        join(record, own[each]) if each in own else record
        for each, record in found.items()
        if each in own or each not in known
    ]
    return kept + [own[each] for each in own if each not in found and each not in known]
