"""Command files as PowerShell writes them, byte by byte, put into the queue of a running service.

`tests/fixtures/powershell/README.md` says what wrote each of them and what must become of it.
"""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.jobs import Apps
from tests.service import FINAL, ROOT, Service, eventually, running_service

FILES = ROOT / "tests" / "fixtures" / "powershell"
DEFAULTS = {"Text": "nothing", "Number": "7", "Rate": "0.5", "Big": "1", "On": "false"}
PROGRAM = """
import json, os, pathlib
names = ("Text", "Number", "Rate", "Big", "On")
seen = {name: os.environ["JOBBUS_VAR_" + name] for name in names}
path = pathlib.Path(os.environ["BOARD"], os.environ["JOBBUS_EXECUTION_ID"])
path.write_text(json.dumps(seen))
"""


def define(apps: Apps) -> None:
    apps.python(
        "Origin/Any",
        PROGRAM,
        overlap="queue",
        variables={
            "Text": {"type": "string", "default": "nothing"},
            "Number": {"type": "integer", "default": 7},
            "Rate": {"type": "number", "default": 0.5},
            "Big": {"type": "number", "default": 1},
            "On": {"type": "boolean", "default": False},
        },
    )


@dataclass(frozen=True)
class Completed:
    """The job ran; what it saw that is not a default."""

    text: str
    roles: tuple[str, ...] = ("operator",)
    more: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Rejected:
    """The words that the answer must hold."""

    words: tuple[str, ...]
    code: str
    is_known_as_command: bool = True


ENDS: dict[str, Completed | Rejected] = {
    "utf8": Completed("plain", more={"Number": "30"}),
    "utf8-bom": Completed("bom"),
    "utf16": Completed("utf16 ü"),
    "utf16be": Completed("be ü"),
    "utf32": Completed("32 ü"),
    "ascii": Completed("Gr??e lost"),
    "ansi-1252": Rejected(
        ("line 3", "byte 0xFC", "write it with -Encoding utf8"), "malformed", False
    ),
    "out-file": Completed("out-file"),
    "redirect": Completed(">"),
    "compress": Completed("compressed"),
    "no-newline": Completed("nn"),
    "writealltext": Completed("wat"),
    "crlf": Completed("crlf"),
    "pscustomobject": Completed("pso"),
    "ordered": Completed("o"),
    "guid-object": Completed("g"),
    "date-object": Completed("d"),
    "utc": Completed("d"),
    "dates": Completed("2026-01-26T10:00:00"),
    "types": Completed(
        "types", more={"Number": "9007199254740993", "Rate": "1", "Big": "12.5", "On": "true"}
    ),
    "enum": Rejected(('variable "Text" must be text', "not an integer"), "bad_variables"),
    "enum-as-string": Completed("High"),
    "null-variables": Completed("nothing"),
    "lone-role": Completed("r"),
    "no-roles": Completed("r"),
    "host-roles": Completed(
        "host", roles=("system_admin", "site_admin", "authenticated", "operator")
    ),
    "host-guest": Rejected(
        ('no job "Origin/Any" that alice may see', '"unauthenticated"', "[directory.role_map]"),
        "unknown_job",
    ),
    "depth-cut": Rejected(('variable "Deep"', "text", "not an object"), "bad_variables"),
    "secure-string": Rejected(('variable "Text"', "text", "not an object"), "bad_variables"),
    "escape": Completed("tab\tquote\"back\\slash'😀<a&b>"),
    "escape-nonascii": Completed("ü😀"),
    "escape-html": Completed("<b>&'x'"),
    "psobject-string": Completed("param([string]$Into)"),
    "command-line-file": Rejected(
        ('no variable "Path"', "Text, Number, Rate, Big, On"), "bad_variables"
    ),
    "array-wrapped": Rejected(("one command a file", "-AsArray"), "malformed", False),
    "export-clixml": Rejected(("XML", "ConvertTo-Json"), "malformed", False),
}


def file_of(folder: str) -> Path:
    [path] = (FILES / folder).iterdir()
    return path


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """All files lie in its queue: what is no command has to lie there for some seconds."""
    with running_service(tmp_path_factory.mktemp("powershell"), define) as running:
        for folder in ENDS:
            shutil.copyfile(
                file_of(folder), running.data / "JobCommandQueue" / file_of(folder).name
            )
        yield running


async def result_of(service: Service, folder: str) -> dict[str, Any]:
    command_id = file_of(folder).stem
    return await eventually(lambda: service.result(command_id), f"result of {folder}")


def test_every_file_has_an_expected_end() -> None:
    assert {path.name for path in FILES.iterdir() if path.is_dir()} == set(ENDS)


@pytest.mark.parametrize("folder", [name for name, end in ENDS.items() if type(end) is Completed])
async def test_the_job_runs_with_what_the_file_says(service: Service, folder: str) -> None:
    wanted = ENDS[folder]
    assert isinstance(wanted, Completed)
    result = await result_of(service, folder)
    assert (result["Status"], result["Outcome"], result["Error"]) == ("Completed", "done", None)
    assert (result["CommandID"], result["Command"]) == (file_of(folder).stem, "start")
    assert (result["UserID"], tuple(result["Roles"])) == ("alice", wanted.roles)
    execution_id = result["ExecutionID"]

    def ended() -> dict[str, Any] | None:
        status = service.status(execution_id)
        return status if status is not None and status["Status"] in FINAL else None

    assert (await eventually(ended, f"end of {folder}"))["Status"] == "Succeeded"
    seen = json.loads((service.apps.board / execution_id).read_text(encoding="utf-8"))
    assert seen == DEFAULTS | wanted.more | {"Text": wanted.text}


@pytest.mark.parametrize("folder", [name for name, end in ENDS.items() if type(end) is Rejected])
async def test_the_answer_under_the_id_says_what_is_wrong(service: Service, folder: str) -> None:
    wanted = ENDS[folder]
    assert isinstance(wanted, Rejected)
    result = await result_of(service, folder)
    assert (result["Status"], result["ErrorCode"]) == ("Rejected", wanted.code), result
    assert result["CommandID"] == file_of(folder).stem
    assert not [word for word in wanted.words if word not in result["Error"]], result["Error"]
    await eventually(lambda: file_of(folder).name not in service.queue_files(), "taken away")
    kept = {
        json.loads(path.read_text())["OriginalName"]
        for path in (service.data / "JobCommandRejects").glob("*.reason.json")
    }
    assert (file_of(folder).name in kept) is not wanted.is_known_as_command


@pytest.mark.parametrize("written", ["Origin\\Any", "origin/any"])
async def test_a_job_as_windows_spells_it_is_answered_with_its_name(
    service: Service, written: str
) -> None:
    fields = json.loads(file_of("utf8").read_bytes())
    fields |= {"CommandID": str(uuid4()), "JobID": written}
    queue = service.data / "JobCommandQueue"
    (queue / f"{fields['CommandID']}.json").write_text(json.dumps(fields))
    result = await eventually(lambda: service.result(fields["CommandID"]), written)
    assert result["ErrorCode"] == "unknown_job"
    assert result["Error"].endswith('that alice may see; did you mean "Origin/Any"?')


async def test_so_it_is_where_its_page_is_asked_for(service: Service) -> None:
    async with service.http() as http:
        answer = await http.call("GET", "/jobs/origin/any")
    assert answer.status == 404
    assert answer.json["detail"].endswith('did you mean "Origin/Any"?')
