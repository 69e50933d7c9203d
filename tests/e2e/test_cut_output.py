"""What somebody cuts off the files of an output is a gap, and the output is complete at its end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.jobs import Apps
from tests.service import Http, Service, running_service

PRINTED = "one\ntwo\nthree\n"
END = len(PRINTED)
CUTS = {
    "Whole": ('truncate -s 0 "$log"', 0),
    "Part": ('truncate -s 6 "$log"', 6),
    "Line": ('truncate -s 8 "$log"', 8),
    "Rotated": ('cp "$log" "$BOARD/old"; : > "$log"', 0),
    "Removed": ('rm "$log"', 0),
}
"""How, and how many bytes are left."""


def define(apps: Apps) -> None:
    for name, (cut, _) in CUTS.items():
        apps.shell(
            f"Cut/{name}",
            'log="$DATA/JobOutput/$JOBBUS_EXECUTION_ID/output.log"\n'
            f"printf '{PRINTED.encode('unicode_escape').decode()}'\n"
            f'until [ "$(wc -c < "$log")" = {END} ]; do sleep 0.01; done\n{cut}\n',
            env={"DATA": str(apps.root.parent / "data"), "BOARD": str(apps.board)},
        )


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root: Path = tmp_path_factory.mktemp("cut")
    with running_service(root, define) as running:
        yield running


async def pages(http: Http, output: str) -> tuple[str, list[tuple[int, int]]]:
    """All text as JSON gives it page by page, each line ended, and the gaps on the way."""
    text, gaps, at = "", [], 0
    while True:
        page = await http.get(f"{output}?format=json&from={at}")
        text += page["text"]
        if page["gap"] is not None:
            gaps.append((page["gap"]["from"], page["gap"]["to"]))
        if page["complete"]:
            assert (page["to"], page["end"]) == (END, END)
            return text, gaps
        assert page["to"] > at, f"nothing follows, and it is not complete: {page}"
        at = page["to"]


@pytest.mark.parametrize("name", CUTS)
async def test_output_that_was_cut_is_complete_with_a_gap_once_it_has_ended(
    service: Service, name: str
) -> None:
    left = CUTS[name][1]
    kept = PRINTED[:left]
    async with service.http() as http:
        execution_id = await http.start(f"Cut/{name}")
        ended = await http.ended(execution_id)
        assert (ended["status"], ended["outputEnd"]) == ("Succeeded", END)
        output = f"/executions/{execution_id}/output"
        lines = [f"{line}\n" for line in kept.splitlines()]
        assert await pages(http, output) == ("".join(lines), [(left, END)])
        whole = await http.call("GET", output)
        marker = f"\n[jobbus: bytes {left} to {END} of the output were dropped]\n"
        assert whole.body.decode() == kept + marker
        assert (whole.headers["Output-Complete"], whole.headers["Output-To"]) == ("true", str(END))
        one_stream = await http.call("GET", f"{output}?stream=out")
        assert one_stream.body.decode() == kept + marker
        tail = await http.get(f"{output}?format=json&tail=1")
        assert tail["text"] == "".join(lines[-1:])
        third = await http.get(f"{output}?format=json&line=3")
        assert third["gap"]["to"] == END
        stream = await http.call(
            "GET", f"/executions/{execution_id}/stream", Accept="application/x-ndjson"
        )
        assert f'{{"from":{left},"to":{END}' in stream.body.decode()
        lost = await http.call("GET", output, Range=f"bytes={left}-{END - 1}")
        assert (lost.status, lost.json["code"]) == (410, "output_expired")
