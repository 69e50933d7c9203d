"""Reading over HTTP: lists, pages, ETags, output ranges, and what may not be seen."""

import uuid
from typing import Any

import aiohttp
import pytest
from yarl import URL

from bus.commands import StartJob
from bus.envelope import seal
from bus.job_definition import DefinitionFault, Job, RolesSpec
from tests.gateway_fixture import ADMIN, ALICE, ROLELESS, VIEWER, Backend, bearer, serving

START = {"command": "start", "jobId": "App/Job"}


async def get(
    session: aiohttp.ClientSession, path: str, token: str = ALICE, **headers: str
) -> tuple[aiohttp.ClientResponse, Any]:
    spelled = {name.replace("_", "-"): value for name, value in headers.items()}
    async with session.get(path, headers=bearer(token) | spelled) as response:
        is_json = "json" in response.content_type and "nd" not in response.content_type
        body = await (response.json(content_type=None) if is_json else response.read())
        return response, body


async def test_executions_come_newest_first_in_pages_that_join() -> None:
    backend = Backend()
    ids = [backend.queue("App/Job") for _ in range(7)]
    async with serving(backend) as (_, session):
        seen: list[str] = []
        path = "/api/v1/executions?limit=3"
        while path:
            response, page = await get(session, path)
            seen += [item["executionId"] for item in page["items"]]
            assert page["asOf"] == "abc123-7"
            path = URL(response.links["next"]["url"]).raw_path_qs if page["next"] else ""
    assert seen == ids[::-1]


async def test_a_page_goes_on_after_its_record_was_deleted() -> None:
    backend = Backend()
    for _ in range(4):
        backend.queue("App/Job")
    ids = list(backend.table.by_execution)
    async with serving(backend) as (_, session):
        _, page = await get(session, "/api/v1/executions?limit=2")
        del backend.table.by_execution[ids[2]]
        _, rest = await get(session, f"/api/v1/executions?cursor={page['next']}")
    assert len(rest["items"]) <= 2
    assert ids[3] not in {item["executionId"] for item in rest["items"]}


async def test_executions_are_filtered_by_job_user_and_status() -> None:
    backend = Backend()
    mine, other = backend.queue("A/One", "alice"), backend.queue("A/Two", "bob")
    backend.run(other)
    async with serving(backend) as (_, session):
        for query, expected in {
            "job=A/One": [mine],
            "user=bob": [other],
            "status=Running": [other],
            "status=Running&status=Queued": [other, mine],
            "job=A/One&status=Running": [],
        }.items():
            _, page = await get(session, f"/api/v1/executions?{query}")
            assert [item["executionId"] for item in page["items"]] == expected, query


async def test_lists_are_searched_by_the_beginning_of_an_id_among_what_may_be_viewed() -> None:
    backend = Backend()
    execution = backend.queue("App/Job", "alice")
    envelope = seal(
        StartJob(job_id="App/Job"), backend.principals[ALICE], now_ms=backend.clock.now_ms()
    )
    backend.accept(envelope)
    hidden = backend.queue("Secret/Job", "somebody")
    backend.define("Secret/Job", roles=RolesSpec(view=("unassigned",)))
    async with serving(backend) as (_, session):
        for path, field, found in (
            ("executions", "executionId", execution),
            ("commands", "commandId", envelope.id),
        ):
            for begins in (found, found[:13].upper(), found[:8]):
                _, page = await get(session, f"/api/v1/{path}?id={begins}")
                assert found in [item[field] for item in page["items"]], begins
                assert hidden not in str(page)
            _, page = await get(session, f"/api/v1/{path}?id=ffffffff")
            assert page["items"] == []
            for wrong in ("abc", "zzzz", "%25", f"{found}0"):
                answer, _ = await get(session, f"/api/v1/{path}?id={wrong}")
                assert answer.status == 400, wrong


async def test_an_unchanged_answer_is_304() -> None:
    backend = Backend()
    execution = backend.queue("App/Job")
    backend.define("App/Job")
    async with serving(backend) as (_, session):
        for path in (f"/api/v1/executions/{execution}", "/api/v1/executions", "/api/v1/jobs"):
            first, _ = await get(session, path)
            tag = first.headers["ETag"]
            same, _ = await get(session, path, If_None_Match=f'W/"x", {tag}')
            assert (same.status, same.headers["ETag"]) == (304, tag), path
            backend.progress(execution, 1)
            backend.run(execution)
            changed, _ = await get(session, path, If_None_Match=tag)
            assert changed.status == 200, path


async def test_a_job_says_what_you_may_do_and_why_not() -> None:
    backend = Backend()
    backend.define("App/Job", description="counts", disabled=False)
    backend.define("App/Off", disabled=True)
    execution = backend.queue("App/Job")
    async with serving(backend) as (_, session):
        _, operator = await get(session, "/api/v1/jobs/App/Job")
        _, viewer = await get(session, "/api/v1/jobs/App/Job", VIEWER)
        _, off = await get(session, "/api/v1/jobs/App/Off")
        _, jobs = await get(session, "/api/v1/jobs")
    assert operator["may"]["start"] == {"allowed": True, "why": None}
    assert viewer["may"]["view"]["allowed"] is True
    assert viewer["may"]["start"]["allowed"] is False
    assert "operator" in viewer["may"]["start"]["why"]
    assert off["may"]["start"] == {"allowed": False, "why": "disabled by its definition"}
    assert [item["executionId"] for item in operator["lastExecutions"]] == [execution]
    assert [item["jobId"] for item in jobs["items"]] == ["App/Job", "App/Off"]


async def test_a_faulty_job_shows_file_line_and_reason() -> None:
    backend = Backend()
    fault = DefinitionFault(file="App/jobs/Job/job.toml", line=3, reason="unknown key `comand`")
    backend.table.by_job["App/Job"] = Job(id="App/Job", spec=None, fault=fault)
    async with serving(backend) as (_, session):
        _, job = await get(session, "/api/v1/jobs/App/Job")
    shown = {"file": fault.file, "line": 3, "reason": fault.reason, "key": "", "more": []}
    assert job["fault"] == shown
    assert "comand" in job["may"]["start"]["why"]


async def test_what_may_not_be_viewed_does_not_exist() -> None:
    backend = Backend()
    backend.define("Secret/Job", roles=RolesSpec(view=("insider",)))
    execution = backend.queue("Secret/Job", "root")
    async with serving(backend) as (_, session):
        async with session.post("/api/v1/commands", json=START, headers=bearer(ADMIN)) as response:
            command_id = (await response.json())["commandId"]
        missing = str(uuid.uuid4())
        for there, absent in (
            (f"/api/v1/executions/{execution}", f"/api/v1/executions/{missing}"),
            (f"/api/v1/executions/{execution}/output", f"/api/v1/executions/{missing}/output"),
            (f"/api/v1/executions/{execution}/stream", f"/api/v1/executions/{missing}/stream"),
            (f"/api/v1/commands/{command_id}", f"/api/v1/commands/{missing}"),
            ("/api/v1/jobs/Secret/Job", "/api/v1/jobs/Secret/Jab"),
        ):
            hidden, one = await get(session, there, ROLELESS)
            nothing, two = await get(session, absent, ROLELESS)
            assert (hidden.status, nothing.status) == (404, 404)
            assert one["title"] == two["title"]
            assert one["detail"].split()[:4] == two["detail"].split()[:4]
        for path in ("/api/v1/jobs", "/api/v1/executions", "/api/v1/commands"):
            _, page = await get(session, path, ROLELESS)
            assert page["items"] == [], path
            _, full = await get(session, path, ADMIN)
            assert full["items"], path


@pytest.mark.parametrize("method", ["get", "post"])
@pytest.mark.parametrize(
    "id",
    ["..", "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "%00", "x" * 300, "a%0d%0aX:%20y", "%ff%fe", "{id}"],
)
async def test_path_tricks_in_ids_are_just_unknown(id: str, method: str) -> None:
    backend = Backend()
    async with serving(backend) as (url, session):
        for kind, action in (("executions", "stop"), ("commands", "cancel")):
            tail = f"/{action}" if method == "post" else ""
            target = URL(f"{url}/api/v1/{kind}/{id}{tail}", encoded=True)
            call = session.get if method == "get" else session.post
            async with call(target, headers=bearer(ALICE)) as response:
                problem = await response.json(content_type="application/problem+json")
            assert response.status in (404, 405)
            assert problem["status"] == response.status
    assert not backend.published


async def test_commands_are_listed_and_shown_with_links() -> None:
    backend = Backend()
    async with serving(backend) as (_, session):
        ids = []
        for _ in range(3):
            async with session.post("/api/v1/commands", json=START, headers=bearer(ALICE)) as made:
                ids.append((await made.json())["commandId"])
        _, page = await get(session, "/api/v1/commands?limit=2&user=alice&status=Completed")
        _, shown = await get(session, f"/api/v1/commands/{ids[0].upper()}")
    assert [item["commandId"] for item in page["items"]] == [ids[2], ids[1]]
    assert page["next"]
    assert (shown["status"], shown["outcome"], shown["command"]) == ("Completed", "done", "start")
    assert shown["links"]["self"] == f"/api/v1/commands/{ids[0]}"


# output

TEXT = b"line one\nl\xc3\xafne two\nline three"


async def output_backend() -> tuple[Backend, str]:
    backend = Backend()
    execution = backend.queue("App/Job")
    await backend.output.append(execution, TEXT)
    return backend, f"/api/v1/executions/{execution}/output"


async def test_output_as_text_is_the_bytes_themselves() -> None:
    backend, path = await output_backend()
    async with serving(backend) as (_, session):
        whole, body = await get(session, path)
        piece, part = await get(session, f"{path}?from=5&limit=3")
        last, tail = await get(session, f"{path}?tail=1")
        beyond, nothing = await get(session, f"{path}?from=1000")
        backend.end(path.split("/")[4])
        ended, _ = await get(session, path)
    assert body == TEXT
    assert whole.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert whole.headers["X-Content-Type-Options"] == "nosniff"
    assert (whole.headers["Output-From"], whole.headers["Output-To"]) == ("0", str(len(TEXT)))
    assert (whole.headers["Output-Complete"], ended.headers["Output-Complete"]) == ("false", "true")
    assert (part, piece.headers["Output-From"], piece.headers["Output-To"]) == (b"one", "5", "8")
    assert (tail, last.headers["Output-From"]) == (b"line three", "19")
    assert (beyond.status, nothing) == (200, b"")


@pytest.mark.parametrize(
    ("header", "status", "content_range", "body"),
    [
        ("bytes=0-3", 206, "bytes 0-3/29", TEXT[:4]),
        ("bytes=5-", 206, "bytes 5-28/29", TEXT[5:]),
        ("bytes=-5", 206, "bytes 24-28/29", TEXT[-5:]),
        ("bytes=-999", 206, "bytes 0-28/29", TEXT),
        ("bytes=20-999", 206, "bytes 20-28/29", TEXT[20:]),
        ("bytes=29-", 416, "bytes */29", None),
        ("bytes=-0", 416, "bytes */29", None),
        ("bytes=0-1,5-6", 200, None, TEXT),
        ("lines=1-2", 200, None, TEXT),
        ("bytes=9-2", 200, None, TEXT),
        ("bytes=-", 200, None, TEXT),
    ],
)
async def test_ranges_follow_the_standard(
    header: str, status: int, content_range: str | None, body: bytes | None
) -> None:
    backend, path = await output_backend()
    async with serving(backend) as (_, session):
        response, got = await get(session, path, Range=header)
    assert (response.status, response.headers.get("Content-Range")) == (status, content_range)
    if body is None:
        assert got["code"] == "range_not_satisfiable"
    else:
        assert got == body


async def test_output_as_json_is_a_page_of_lines_that_joins_the_next() -> None:
    backend, path = await output_backend()
    async with serving(backend) as (_, session):
        first, cut = await get(session, f"{path}?format=json&limit=5")
        _, rest = await get(session, f"{path}?format=json&from={cut['to']}")
        backend.end(path.split("/")[4])
        _, ended = await get(session, f"{path}?format=json&from={rest['to']}")
        _, third = await get(session, f"{path}?format=json&line=3")
    line = {"number": 1, "at": 0, "end": 9, "text": "line one", "stream": "out"}
    assert cut["lines"] == [line]
    assert (cut["from"], cut["to"], cut["end"], cut["complete"]) == (0, 9, 29, False)
    assert first.headers["Output-First-Line"] == "1"
    assert [x["text"] for x in rest["lines"]] == ["lïne two", "line three"]
    assert (rest["lines"][1]["partial"], rest["to"]) == (True, 19)
    assert (ended["lines"][0]["number"], ended["lines"][0].get("partial")) == (3, None)
    assert (ended["to"], ended["complete"]) == (29, True)
    assert third["lines"] == ended["lines"]


async def test_output_as_ndjson_is_line_by_line() -> None:
    backend, path = await output_backend()
    async with serving(backend) as (_, session):
        response, body = await get(session, f"{path}?format=ndjson")
    assert response.content_type == "application/x-ndjson"
    assert body.decode().splitlines() == [
        '{"number":1,"at":0,"end":9,"text":"line one","stream":"out"}',
        '{"number":2,"at":9,"end":19,"text":"lïne two","stream":"out"}',
        '{"number":3,"at":19,"end":29,"text":"line three","stream":"out","partial":true}',
    ]


async def test_grep_finds_lines_in_every_form_and_says_where_to_go_on() -> None:
    backend, path = await output_backend()
    backend.end(path.split("/")[4])
    async with serving(backend) as (_, session):
        _, found = await get(session, f"{path}?grep=line&format=json&limit=1")
        _, rest = await get(session, f"{path}?grep=line&format=json&from={found['to']}")
        _, text = await get(session, f"{path}?grep=ne")
        nothing, _ = await get(session, f"{path}?grep=absent&format=ndjson")
        empty, _ = await get(session, f"{path}?grep=")
    assert [(x["number"], x["text"]) for x in found["lines"]] == [(1, "line one")]
    assert [x["number"] for x in rest["lines"]] == [3]
    assert (rest["to"], rest["end"]) == (29, 29)
    assert text.decode() == "1:line one\n2:lïne two\n3:line three\n"
    assert (nothing.status, nothing.headers["Output-Complete"]) == (200, "true")
    assert empty.status == 400


async def test_one_stream_may_be_read_alone() -> None:
    backend, path = await output_backend()
    async with serving(backend) as (_, session):
        _, live = await get(session, f"{path}?stream=out")
        backend.end(path.split("/")[4])
        _, out = await get(session, f"{path}?stream=out")
        _, err = await get(session, f"{path}?stream=err")
        wrong, _ = await get(session, f"{path}?stream=both")
    assert (out, err, wrong.status) == (TEXT, b"", 400)
    assert live == TEXT  # its open last line once


async def test_a_dropped_middle_is_named_in_every_form() -> None:
    backend, path = await output_backend()
    backend.output.dropped[path.split("/")[4]] = (9, 19)
    async with serving(backend) as (_, session):
        _, text = await get(session, path)
        _, as_json = await get(session, f"{path}?format=json&from=10")
        _, lines = await get(session, f"{path}?format=ndjson&from=10")
        gone, problem = await get(session, path, Range="bytes=10-12")
    assert text == b"line one\n\n[jobbus: bytes 9 to 19 of the output were dropped]\nline three"
    assert (as_json["gap"], as_json["from"]) == ({"from": 10, "to": 19}, 19)
    assert lines.startswith(b'{"gap":{"from":10,"to":19}}\n')
    assert (gone.status, problem["code"]) == (410, "output_expired")


async def test_a_large_output_is_never_read_at_once() -> None:
    backend, path = await output_backend()
    await backend.output.append(path.split("/")[4], b"x" * 5_000_000)
    async with serving(backend) as (_, session):
        _, body = await get(session, path)
        head = await session.head(path, headers=bearer(ALICE))
        ranged, part = await get(session, path, Range="bytes=100-4000099")
    assert len(body) == 5_000_000 + len(TEXT)
    assert (ranged.status, len(part)) == (206, 4_000_000)
    assert head.headers["Output-To"] == str(len(body))
    assert backend.output.largest_read <= 256 * 1024


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("limit=0", "from 1"),
        ("limit=1048577", "1048576"),
        ("from=-1", "whole number"),
        ("from=1e3", "whole number"),
        ("from=%D9%A1", "whole number"),
        ("tail=10001", "10000"),
        ("from=1&tail=1", "either"),
        ("format=xml", "one of"),
        ("offset=1", "unknown"),
    ],
)
async def test_a_wrong_output_parameter_is_refused_by_name(query: str, says: str) -> None:
    backend, path = await output_backend()
    async with serving(backend) as (_, session):
        response, problem = await get(session, f"{path}?{query}")
    assert response.status == 400
    assert says in problem["detail"]
