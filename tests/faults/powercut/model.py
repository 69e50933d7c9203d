"""What a disk may hold after a power cut, given the calls that were made to it.

The model promises no more than the manuals do. Bytes are safe after a sync of their file, a name
after a sync of its directory, everything after `syncfs`. Anything later may be there or not, each
write and each name for itself and in any order; only a rename is one step.
"""

import base64
import json
import os
import random
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECTOR = 512

Line = dict[str, Any]
Keep = Callable[["Pending"], bool]


@dataclass(frozen=True)
class Pending:
    """Something that was done and not synced; `at` is its place in the record."""

    at: int
    is_name: bool
    data: bytes = b""
    offset: int = 0
    size: int | None = None
    changes: tuple[tuple[str, str, "Node | None"], ...] = ()


@dataclass
class Content:
    """`data`, and zeros behind it up to `size`: prepared room is never copied."""

    data: bytearray = field(default_factory=bytearray)
    size: int = 0

    def copy(self) -> "Content":
        return Content(bytearray(self.data), self.size)

    def do(self, change: Pending, tear: random.Random | None = None) -> None:
        if change.size is not None:
            self.size = change.size
            del self.data[change.size :]
            return
        end = change.offset + len(change.data)
        self.size = max(self.size, end)
        if not change.data:
            return
        self.data.extend(bytes(max(0, end - len(self.data))))
        if tear is None:
            self.data[change.offset : end] = change.data
            return
        for begin in range(0, len(change.data), SECTOR):  # sectors reach the disk in any order
            if tear.random() < 0.5:
                part = change.data[begin : begin + SECTOR]
                self.data[change.offset + begin : change.offset + begin + len(part)] = part


@dataclass(eq=False)
class Node:
    """A file or a directory; `inode` is the number it really had."""

    is_directory: bool
    inode: int = 0
    durable: Content = field(default_factory=Content)
    pending: list[Pending] = field(default_factory=list)

    def sync(self) -> None:
        for each in self.pending:
            self.durable.do(each)
        self.pending.clear()

    def content(self, keep: Keep, tear: random.Random | None) -> Content:
        found = self.durable.copy()
        for each in self.pending:
            if keep(each):
                found.do(each, tear)
        return found


class Disk:
    """Everything below one folder, which was empty and durable at first."""

    def __init__(self, root: str) -> None:
        self._root = root
        self._now: dict[str, Node] = {root: Node(is_directory=True)}
        self._durable: dict[str, dict[str, Node]] = {root: {}}
        self._names: list[Pending] = []

    def take(self, at: int, line: Line) -> None:
        """One line of the record was done."""
        paths: list[str] = line["paths"]
        match line["op"]:
            case "open":
                self._open(at, paths[0], line)
            case "write" | "pwrite":
                data = base64.b64decode(line["data"])
                self._change(paths[0], Pending(at, False, data, line["at"]))
            case "ftruncate" | "truncate":
                self._change(paths[0], Pending(at, False, size=line["size"]))
            case "posix_fallocate":
                self._change(paths[0], Pending(at, False, offset=line["size"]))
            case "fallocate":
                pass  # room behind the end of the file: nothing that could be read is another
            case "fsync" | "fdatasync":
                self._sync(paths[0])
            case "syncfs":
                for path in list(self._now):
                    self._sync(path)
            case "mkdir":
                self._now[paths[0]] = Node(is_directory=True)
                self._durable[paths[0]] = {}
                self._name(at, (paths[0], self._now[paths[0]]))
            case "link":
                node = self._now.get(paths[0])
                if node is not None:
                    self._now[paths[1]] = node
                    self._name(at, (paths[1], node))
            case "rename" | "replace":
                node = self._now.pop(paths[0], None)
                if node is not None:
                    self._now[paths[1]] = node
                    self._name(at, (paths[0], None), (paths[1], node))
            case "unlink" | "remove" | "rmdir":
                self._now.pop(paths[0], None)
                self._name(at, (paths[0], None))
            case other:
                raise AssertionError(other)

    def kept(self, keep: Keep) -> frozenset[int]:
        """Which of the unsynced changes are kept: two cuts that keep the same leave the same."""
        changes = [*self._names, *(p for node in self._files() for p in node.pending)]
        return frozenset(id(each) for each in changes if keep(each))

    def _files(self) -> set[Node]:
        named = {node for entries in self._durable.values() for node in entries.values()}
        named.update(
            node for each in self._names for _, _, node in each.changes if node is not None
        )
        return named

    def nodes(self, keep: Keep) -> Iterator[tuple[str, Node]]:
        """What is found after a cut now: paths with their nodes, folders before what is in them."""
        names = {folder: dict(entries) for folder, entries in self._durable.items()}
        for each in self._names:
            if keep(each):
                _rename(names, each)
        waiting = [self._root]
        while waiting:
            folder = waiting.pop()
            for name, node in names.get(folder, {}).items():
                path = f"{folder}/{name}"
                yield path, node
                if node.is_directory:
                    waiting.append(path)

    def _open(self, at: int, path: str, line: Line) -> None:
        node = self._now.get(path)
        if node is None and line["flags"] & os.O_CREAT:
            node = self._now[path] = Node(is_directory=False, inode=line["inode"])
            self._name(at, (path, node))
        elif node is not None and line["flags"] & os.O_TRUNC:
            self._change(path, Pending(at, False, size=0))

    def _change(self, path: str, change: Pending) -> None:
        node = self._now.get(path)
        if node is not None:
            node.pending.append(change)

    def _name(self, at: int, *changes: tuple[str, Node | None]) -> None:
        split = tuple((path.rpartition("/")[0], path.rpartition("/")[2], n) for path, n in changes)
        self._names.append(Pending(at, True, changes=split))

    def _sync(self, path: str) -> None:
        node = self._now.get(path)
        if node is None:
            return
        if not node.is_directory:
            node.sync()
            return
        for each in [p for p in self._names if any(f == path for f, _, _ in p.changes)]:
            _rename(self._durable, each)
            self._names.remove(each)


def _rename(names: dict[str, dict[str, Node]], pending: Pending) -> None:
    for folder, name, node in pending.changes:
        if node is None:
            names.setdefault(folder, {}).pop(name, None)
        else:
            names.setdefault(folder, {})[name] = node


@dataclass(frozen=True)
class Cut:
    """One way to lose what was not synced."""

    name: str
    keep: Keep
    tear: random.Random | None = None


def cuts(at: int, seeds: Iterable[int]) -> Iterator[Cut]:
    """All is kept, nothing is, only names, only bytes, all up to a moment; and by chance."""
    yield Cut("all kept", lambda _: True)
    yield Cut("nothing kept", lambda _: False)
    yield Cut("names without bytes", lambda each: each.is_name)
    yield Cut("bytes without names", lambda each: not each.is_name)
    for seed in seeds:
        chance = random.Random(f"{at}/{seed}")
        until = at - chance.randrange(40)
        yield Cut(f"in order, seed {seed}", lambda each, until=until: each.at <= until)  # type: ignore[misc]
        yield Cut(f"by chance, seed {seed}", _coins(chance))
        yield Cut(f"by chance and torn, seed {seed}", _coins(chance), chance)


def _coins(chance: random.Random) -> Keep:
    thrown: dict[Pending, bool] = {}

    def keep(each: Pending) -> bool:
        if each not in thrown:
            thrown[each] = chance.random() < 0.5
        return thrown[each]

    return keep


def lay_out(disk: Disk, cut: Cut, root: str, target: Path) -> None:
    """The image of the cut is in `target` as if it had always been there."""
    laid: dict[int, Path] = {}
    inodes: dict[str, int] = {}
    for path, node in disk.nodes(cut.keep):
        place = target / path.removeprefix(f"{root}/")
        if node.is_directory:
            place.mkdir(mode=0o700)
        elif id(node) in laid:
            place.hardlink_to(laid[id(node)])
        else:
            content = node.content(cut.keep, cut.tear)
            place.write_bytes(content.data)
            os.truncate(place, content.size)
            place.chmod(0o600)
            laid[id(node)] = place
        inodes[place.name] = node.inode
    _same_files(target / "data" / "Journal", inodes)


def _same_files(journal: Path, inodes: dict[str, int]) -> None:
    """The inodes of its files distinguish a journal from a copy: this one is no copy."""
    try:
        identity = json.loads((journal / "epoch.json").read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return
    for name, mark in identity["files"].items():
        path = journal / name
        if path.exists() and mark["inode"] == inodes[name]:
            identity["files"][name] = {"inode": path.stat().st_ino}
    (journal / "epoch.json").write_bytes(json.dumps(identity).encode())
