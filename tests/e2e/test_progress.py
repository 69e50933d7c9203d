"""Progress however its program writes it: each value is shown, and the last at the end."""

import asyncio
from collections.abc import Iterator

import pytest

from tests.jobs import WAITING, Apps
from tests.service import Service, eventually, eventually_answered, running_service

SHELL = {
    "echo": 'echo $p > "$JOBBUS_PROGRESS"',
    "open-line": 'printf %s $p > "$JOBBUS_PROGRESS"',
    "tee": 'echo $p | tee "$JOBBUS_PROGRESS"',
    "append": 'echo $p >> "$JOBBUS_PROGRESS"',
    "appended-open-line": 'printf "\\n%s" $p >> "$JOBBUS_PROGRESS"',
    "rename": 'echo $p > "$JOBBUS_PROGRESS.new"; mv "$JOBBUS_PROGRESS.new" "$JOBBUS_PROGRESS"',
    "new-file": 'rm "$JOBBUS_PROGRESS"; echo $p > "$JOBBUS_PROGRESS"',
    "redraw": 'printf "$p%%\\r" >> "$JOBBUS_PROGRESS"',
    "bar": r"""printf "\\r$p%%|### | $p/100 [00:01<00:01, 40.00it/s]" >> "$JOBBUS_PROGRESS" """,
    "objects": 'printf \'{"percent": %s}\' $p >> "$JOBBUS_PROGRESS"',
    "fraction": 'echo "$p/100" > "$JOBBUS_PROGRESS"',
    "utf-16": 'printf "$p\\r\\n" | iconv -t UTF-16 > "$JOBBUS_PROGRESS"',
}
PYTHON = {
    "write-text": "pathlib.Path(place).write_text(str(p))",
    "json-dump": 'json.dump({"data": {"l": [17, 18]}, "percent": p}, open(place, "w"), indent=1)',
    # As PowerShell's Set-Content does: cut first, then written, in place.
    "set-content": (
        'f = open(place, "r+"); f.truncate(0); time.sleep(0.02); f.write(f"{p}\\n"); f.close()'
    ),
    "open-file": "print(p, file=kept, flush=True)",
}
ODD = {"link": "ln -s /etc/hostname", "folder": "mkdir", "pipe": "mkfifo"}
VALUES = (9, 10, 20, 3, 100)

PROGRAM = """
import json, os, pathlib, time
place, board = os.environ["JOBBUS_PROGRESS"], pathlib.Path(os.environ["BOARD"])
kept = open(place, "w")
for p in {values}:
    {write}
    while p != {values}[-1] and not (board / f"{way}-{{p}}").exists():
        time.sleep(0.05)
"""


def define(apps: Apps) -> None:
    *some, last = VALUES
    for way, write in SHELL.items():
        script = f"for p in {' '.join(map(str, some))}; do {write}; "
        script += f"{WAITING.format(name=f'{way}-$p')}; done; p={last}; {write}"
        apps.shell(f"P/{way}", script)
    for way, write in PYTHON.items():
        apps.python(f"P/{way}", PROGRAM.format(values=VALUES, write=write, way=way))
    apps.shell(
        "P/words",
        'echo \'about half\' >> "$JOBBUS_PROGRESS"; echo oops >> "$JOBBUS_PROGRESS"',
    )
    for kind, replace in ODD.items():
        apps.shell(f"P/{kind}", f'rm "$JOBBUS_PROGRESS"; {replace} "$JOBBUS_PROGRESS"')


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("progress"), define) as running:
        yield running


async def test_each_value_is_shown_while_it_stands_and_the_last_at_the_end(
    service: Service,
) -> None:
    async def follow(way: str) -> None:
        execution_id = await http.start(f"P/{way}")

        async def percent() -> float | None:
            progress = (await http.execution(execution_id))["progress"]
            shown.append(progress and progress["percent"])
            return progress and shown[-1] == value

        shown: list[float | None] = []
        for value in VALUES[:-1]:
            await eventually_answered(percent, f"{value} % written by {way}")
            service.apps.put(f"{way}-{value}")
        end = await http.ended(execution_id)
        assert end["progress"]["percent"] == VALUES[-1], way
        assert not end["progress"]["note"], way
        assert set(shown) <= {None, *VALUES}, way

    async with service.http() as http:
        await asyncio.gather(*map(follow, (*SHELL, *PYTHON)))


async def test_words_that_are_no_progress_are_reported_once_everywhere(
    service: Service,
) -> None:
    async with service.http() as http:
        end = await http.ended(await http.start("P/words"))
    note = end["progress"]["note"]
    assert note.startswith('"about half" was not understood as progress: write a number')
    assert end["progress"] == {
        "percent": None,
        "message": "",
        "data": None,
        "note": note,
        "reloading": False,
    }
    await eventually(
        lambda: (service.status(end["executionId"]) or {}).get("Note") == note, "its status file"
    )


async def test_what_is_no_file_any_more_is_reported_and_not_read(service: Service) -> None:
    async with service.http() as http:
        for kind in ODD:
            end = await http.ended(await http.start(f"P/{kind}"))
            note = end["progress"]["note"]
            assert note.startswith("the progress file was replaced by a"), kind
            assert end["progress"] == {
                "percent": None,
                "message": "",
                "data": None,
                "note": note,
                "reloading": False,
            }
