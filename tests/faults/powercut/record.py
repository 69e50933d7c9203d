"""A load on a whole service: every call to the disk, and everything that was promised meanwhile."""

import json
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.load import Load, SeamService, define
from tests.faults.powercut.model import Line
from tests.faults.seam import Plan, Recorder


@dataclass
class Promised:
    """What the outside knew at some moment; none of it may be taken back by a power cut."""

    acknowledged: set[str] = field(default_factory=set)
    versions: dict[str, int] = field(default_factory=dict)
    ran: set[str] = field(default_factory=set)
    _shims: dict[int, str] = field(default_factory=dict)

    def take(self, line: Line) -> None:
        """One line of the record; `ran` is recorded by the shim that let the program go."""
        if line["op"] == "open" and line["paths"][0].rpartition("/")[2].startswith("claim"):
            self._shims[line["pid"]] = line["paths"][0].split("/")[-2]
        match line.get("what"):
            case "ack":
                self.acknowledged.add(line["id"])
            case "seen":
                self.versions[line["id"]] = max(line["version"], self.versions.get(line["id"], 0))
            case "ran":
                self.ran.add(self._shims[line["pid"]])
            case _:
                return

    @property
    def anything(self) -> bool:
        return bool(self.acknowledged or self.versions or self.ran)


def record(root: Path) -> list[Line]:
    """All lines of one whole life: the first start, the load with a death of the service in it, the
    end in order, a last start."""
    service = SeamService(root / "disk")
    define(service.apps)
    log = root / "calls"
    service.plan = Plan(root=str(service.root), action="record", log=str(log))
    recorder = Recorder(str(log))

    def note(**fields: object) -> None:
        with recorder.alone():
            recorder.write({"op": "note", **fields})

    load = Load(service, note=note, drops=False)
    try:
        assert service.try_start(), service.log.read_text(encoding="utf-8")
        load.begin()
        with recorder.alone():  # no process is between a call and its line
            service.kill9()
        assert service.try_start(), service.log.read_text(encoding="utf-8")
        load.run_second_half()
        service.restart()
        assert service.end() == 0
    finally:
        service.clear_away()
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
