"""Every kind of wrong request: a clear answer, nothing left in the queue, a service unharmed."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest

from tests.jobs import Apps
from tests.raw_stream import RawAnswer
from tests.service import Service, running_service

COMMANDS = "/api/v1/commands"
MIB = 1024 * 1024
LONG = "a" * 300
TRICKS = (
    "..",
    "../..",
    "../../admin.token",
    "..%2f..%2fadmin.token",
    "%2e%2e%2fadmin.token",
    "..%5c..%5cadmin.token",
    "%00",
    "a%00b",
    "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b%00",
    "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b.json",
    "%ff%fe",
    "{0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b}",
    LONG,
)


def define(apps: Apps) -> None:
    apps.shell(
        "T/Typed",
        "exit 0",
        max_running=10,
        variables={
            "Count": {"type": "integer", "min": 1, "max": 5, "default": 1},
            "Ratio": {"type": "number", "default": 0.5, "max": 1.0},
            "Loud": {"type": "boolean", "default": False},
            "Mode": {"type": "choice", "choices": ["fast", "slow"], "default": "fast"},
            "Day": {"type": "string", "pattern": r"\d{4}-\d\d", "default": "2026-01"},
            "Slow": {"type": "string", "pattern": r"(\w+\s?)*!", "default": "!"},
            "Name": {"type": "string", "max_length": 8, "default": "x"},
        },
    )
    apps.shell("T/Needs", "exit 0", variables={"Must": {"type": "string", "required": True}})
    apps.shell("T/Off", "exit 0", disabled=True)
    apps.folder("T/Broken").mkdir(parents=True)
    apps.definition("T/Broken").write_text('command = ["true"]\nmax_runing = 2\n')


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("bad"), define) as running:
        yield running


@pytest.fixture(autouse=True)
async def unharmed(service: Service) -> Any:
    """After each test: nothing is in the queue, no job ran, and the service serves."""
    yield
    assert service.queue_files() == []
    assert list((service.data / "JobOutput").iterdir()) == []
    ready = await service.raw("GET", "/readyz")
    assert (ready.status, ready.body) == (200, b"ready\n")


def check_problem(answer: RawAnswer, status: int, *words: str) -> dict[str, Any]:
    """The answer is a whole problem (RFC 9457) of that status, and says all these words."""
    assert answer.status == status, answer.body
    assert answer.headers["content-type"].startswith("application/problem+json")
    body: dict[str, Any] = answer.json
    assert body["status"] == status
    assert body["type"].startswith("/problems/")
    assert body["title"]
    assert body["detail"]
    assert body["code"]
    text = json.dumps(body, ensure_ascii=False)
    assert [word for word in words if word not in text] == []
    assert "Traceback" not in text
    return body


def start(job_id: object = "T/Typed", **fields: object) -> bytes:
    return json.dumps({"command": "start", "jobId": job_id, **fields}).encode()


def with_variable(**variables: object) -> bytes:
    return start(variables=variables)


@dataclass(frozen=True)
class Case:
    """One request to `/commands` and what must stand in the answer."""

    name: str
    body: bytes
    status: int
    words: tuple[str, ...]
    headers: dict[str, str | None] = field(default_factory=dict)


CASES = (
    Case("unknown job", start("T/Typd"), 404, ("T/Typd",)),
    Case("unknown app", start("Nope/Typed"), 404, ("Nope/Typed",)),
    Case("broken definition", start("T/Broken"), 422, ("job.toml", "max_running", "2")),
    Case("disabled job", start("T/Off"), 409, ("disabled",)),
    Case("job id without app", start("Typed"), 404, ("Typed",)),
    Case("job id climbs", start("../../etc"), 404, ("../../etc",)),
    Case("job id with NUL", start("T/\0"), 404, ()),
    Case("job id of 300", start(f"T/{LONG}"), 404, ()),
    Case("job id is a number", start(7), 422, ("/jobId",)),
    Case("no job id", b'{"command": "start"}', 422, ("/jobId",)),
    Case("integer is text", with_variable(Count="x"), 422, ("/variables/Count", "an integer")),
    Case("integer is a fraction", with_variable(Count=1.5), 422, ("/variables/Count",)),
    Case("integer is true", with_variable(Count=True), 422, ("/variables/Count",)),
    Case("integer too high", with_variable(Count=6), 422, ("/variables/Count", "5")),
    Case("integer too low", with_variable(Count=0), 422, ("/variables/Count", "1")),
    Case("integer is huge", with_variable(Count=10**30), 422, ("/variables/Count",)),
    Case("number too high", with_variable(Ratio=1.01), 422, ("/variables/Ratio", "1")),
    Case("boolean is text", with_variable(Loud="maybe"), 422, ("/variables/Loud", "true")),
    Case("no such choice", with_variable(Mode="fst"), 422, ("/variables/Mode", "fast")),
    Case("pattern", with_variable(Day="2026-1"), 422, ("/variables/Day",)),
    Case("pattern with many ways", with_variable(Slow="word " * 800), 422, ("/variables/Slow",)),
    Case("text too long", with_variable(Name="123456789"), 422, ("/variables/Name", "8")),
    Case("text begins with a dash", with_variable(Name="-rf"), 422, ("/variables/Name", "-")),
    Case("text with NUL", with_variable(Name="a\0b"), 422, ("/variables/Name", "NUL")),
    Case("undeclared variable", with_variable(Cout=2), 422, ("/variables/Cout", "Count")),
    Case("variable is a list", with_variable(Count=[1]), 422, ("/variables/Count",)),
    Case("variables are a list", start(variables=[1]), 422, ("/variables",)),
    Case("required variable missing", start("T/Needs"), 422, ("/variables/Must", "required")),
    Case("unknown field", start(varables={}), 422, ("/varables", "variables")),
    Case("unknown command", b'{"command": "strt"}', 422, ("/command", "start")),
    Case("no command", b"{}", 422, ("/command", "missing")),
    Case("command of another type", b'{"command": ["start"]}', 422, ("/command",)),
    Case("an internal command", b'{"command": "report"}', 422, ("/command",)),
    Case("command id climbs", start(commandId="../../x"), 422, ("/commandId", "UUID")),
    Case("command id of 300", start(commandId=LONG), 422, ("/commandId", "UUID")),
    Case("command id with NUL", start(commandId=f"{uuid4()}\0"), 422, ("/commandId",)),
    Case("expiry is no time", start(expiresAt="soon"), 422, ("/expiresAt", "RFC 3339")),
    Case(
        "execution id climbs",
        b'{"command": "stop", "executionId": "../../lock"}',
        422,
        ("/executionId", "UUID"),
    ),
    Case(
        "stop of nothing", b'{"command": "stop"}', 422, ("/jobId", "executionId")
    ),
    Case(
        "unknown execution",
        json.dumps({"command": "stop", "executionId": str(uuid4())}).encode(),
        404,
        ("execution",),
    ),
    Case(
        "grace below zero",
        b'{"command": "stop", "jobId": "T/Typed", "graceS": -1}',
        422,
        ("/graceS",),
    ),
    Case("grace is no number", b'{"command":"stop","jobId":"T/Typed","graceS":NaN}', 400, ()),
    Case("broken JSON", b'{"command": "start", ', 400, ("JSON",)),
    Case("no JSON at all", b"start T/Typed please", 400, ("JSON",)),
    Case("JSON is a list", b'["start"]', 422, ("object",)),
    Case("broken UTF-8", b'{"command": "start", "jobId": "T/\xff"}', 400, ()),
    Case("lone surrogate", b'{"command": "start", "jobId": "T/\\ud800"}', 400, ()),
    Case("deeply nested", b'{"command":' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, ()),
    Case("body of 10 MB", start(note="x" * 10 * MIB), 413, ("1048576",)),
    Case("form", b"command=start&jobId=T/Typed", 415, ("application/json",),
         {"Content-Type": "application/x-www-form-urlencoded"}),
    Case("plain text", start(), 415, ("application/json",), {"Content-Type": "text/plain"}),
    Case("no type", start(), 415, ("application/json",), {"Content-Type": None}),
    Case("UTF-16", start(), 415, ("UTF-8",),
         {"Content-Type": "application/json; charset=utf-16"}),
    Case("no token", start(), 401, ("Authorization",), {"Authorization": None}),
    Case("wrong token", start(), 401, ("token",), {"Authorization": "Bearer jb_admin_wrong"}),
    Case("other scheme", start(), 401, ("Bearer",), {"Authorization": "Basic YTpi"}),
    Case("empty token", start(), 401, ("Bearer",), {"Authorization": "Bearer "}),
    Case("foreign host", start(), 421, ("Host",), {"Host": "evil.example"}),
    Case("host with a path", start(), 421, ("Host",), {"Host": "127.0.0.1/x"}),
    Case("long key", start(), 400, ("Idempotency-Key", "255"), {"Idempotency-Key": LONG}),
    Case("empty key", start(), 400, ("Idempotency-Key",), {"Idempotency-Key": ""}),
    Case("key and id", start(commandId=str(uuid4())), 422, ("/commandId", "dempotency"),
         {"Idempotency-Key": "k"}),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_wrong_command_is_refused(service: Service, case: Case) -> None:
    answer = await service.raw("POST", COMMANDS, case.body, case.headers)
    body = check_problem(answer, case.status, *case.words)
    if case.status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")
    if case.status == 422:
        assert all({"pointer", "detail"} <= error.keys() for error in body.get("errors", []))


@pytest.mark.parametrize("verb", ["start", "stop", "restart", "status"])
@pytest.mark.parametrize(
    ("body", "status"),
    [(b'{"jobId": "T/None"}', 404), (b"{}", 422), (b"[]", 422), (b"{", 400)],
    ids=["unknown job", "no job", "list", "broken"],
)
async def test_wrong_call_of_the_origin_is_refused(
    service: Service, verb: str, body: bytes, status: int
) -> None:
    answer = await service.raw("POST", f"/api/v1/jobs/{verb}", body)
    problem = check_problem(answer, status)
    assert problem["success"] is False


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/api/v1/commands", {"GET", "POST"}),
        ("PATCH", "/api/v1/jobs", {"GET"}),
        ("PUT", "/api/v1/executions/0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b", {"GET"}),
        ("POST", "/api/v1/events", {"GET"}),
        ("GET", "/api/v1/jobs/T/Typed/start", None),
        ("GET", "/api/v2/commands", None),
        ("GET", "/admin.token", None),
        ("GET", "/console/../../pyproject.toml", None),
        ("GET", "/console/..%2f..%2fapp.py", None),
    ],
)
async def test_path_or_method_that_is_not_served_says_so(
    service: Service, method: str, path: str, allowed: set[str] | None
) -> None:
    answer = await service.raw(method, path)
    check_problem(answer, 405 if allowed else 404)
    if allowed is not None:
        offered = set(answer.headers["allow"].split(", "))
        assert allowed <= offered
        assert method not in offered


@pytest.mark.parametrize("trick", TRICKS)
@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/executions/{}",
        "/api/v1/executions/{}/output",
        "/api/v1/executions/{}/stream",
        "/api/v1/commands/{}",
        "/api/v1/jobs/T/{}",
        "/api/v1/jobs/{}/Typed",
    ],
)
async def test_tricks_in_the_ids_of_paths_find_nothing(
    service: Service, path: str, trick: str
) -> None:
    answer = await service.raw("GET", path.format(trick))
    assert answer.status in (400, 404, 405), answer.body
    check_problem(answer, answer.status)
    assert service.token.encode() not in answer.body


@pytest.mark.parametrize("trick", TRICKS)
async def test_tricks_in_the_id_of_a_stop_stop_nothing(service: Service, trick: str) -> None:
    answer = await service.raw("POST", f"/api/v1/executions/{trick}/stop", b"{}")
    assert answer.status in (400, 404, 405), answer.body
    check_problem(answer, answer.status)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/v1/executions?sort=up", ("sort",)),
        ("/api/v1/executions?limit=0", ("limit", "1")),
        ("/api/v1/executions?limit=many", ("limit",)),
        ("/api/v1/executions?status=Runing", ("status", "Running")),
        ("/api/v1/executions?cursor=..%2f", ("cursor",)),
        ("/api/v1/events?start=then", ("start", "snapshot")),
        ("/api/v1/events?typ=x", ("typ",)),
        ("/api/v1/jobs?x=1", ("x",)),
    ],
)
async def test_wrong_query_parameter_is_named(
    service: Service, path: str, words: tuple[str, ...]
) -> None:
    check_problem(await service.raw("GET", path), 400, *words)


async def test_requests_that_are_no_http_are_cut_off_and_do_no_harm(service: Service) -> None:
    for nonsense in ("BREW", "G\x01T", "GET /api/v1/jobs HTTP/9.9\r\nX: y"):
        answer = await service.raw(nonsense, "/")
        assert answer.status == 400
    long = await service.raw("GET", "/api/v1/jobs", headers={"X-Long": "y" * 20_000})
    assert long.status in (400, 431)


async def test_unharmed_service_still_starts_jobs(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """All of the above in one go against one service, and then a job."""
    with running_service(tmp_path_factory.mktemp("after"), define) as service:
        for case in CASES:
            await service.raw("POST", COMMANDS, case.body, case.headers)
        async with service.http() as http:
            listed = await http.get("/commands")
            assert listed["items"] == []
            assert (await http.ended(await http.start("T/Typed")))["status"] == "Succeeded"
