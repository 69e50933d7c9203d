"""Keys of job.toml that nothing else proves in a service: what a program gets, and people see.

docs/job-definition.md names the test of each key.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from tests.jobs import Apps
from tests.service import Http, Service, eventually, running_service

ROLES = {
    "view": ["seer"],
    "start": ["starter"],
    "stop": ["stopper"],
    "restart": ["restarter"],
    "output": ["reader"],
}
CHECK = """
echo "$(date +%s.%N)" >> "$BOARD/checks"
[ -e "$BOARD/well" ] && echo good >> "$BOARD/good"
[ -e "$BOARD/well" ]
"""


def define(apps: Apps) -> None:
    apps.shell(
        "K/Words",
        'pwd > "$BOARD/where"; exit 3',
        name="A plain name",
        description="Takes {{Size}}",
        tags=["one", "two"],
        cwd="sub",
        success_codes=[3],
        variables={"Size": {"default": "much", "description": "how much of it"}},
    )
    (apps.folder("K/Words") / "sub").mkdir()
    apps.shell("K/Roles", "true", roles=ROLES)
    apps.shell(
        "K/Checked",
        'date +%s.%N > "$BOARD/begun"; until [ -e "$BOARD/end" ]; do sleep 0.1; done',
        health={
            "command": ["sh", "check.sh"],
            "every_s": 0.1,
            "failures": 1,
            "successes": 4,
            "start_after_s": 0.6,
        },
    )
    (apps.folder("K/Checked") / "check.sh").write_text(CHECK, encoding="utf-8")


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with running_service(tmp_path_factory.mktemp("keys"), define) as running:
        yield running


@pytest.fixture
async def http(service: Service) -> AsyncIterator[Http]:
    async with service.http() as opened:
        yield opened


async def test_words_and_folder_of_a_definition_are_those_of_the_job(
    service: Service, http: Http
) -> None:
    job = await http.get("/jobs/K/Words")
    assert (job["name"], job["tags"]) == ("A plain name", ["one", "two"])
    assert job["description"] == "Takes {{Size}}"
    assert job["variables"]["Size"]["description"] == "how much of it"

    ended = await http.ended(await http.start("K/Words"))

    assert (ended["status"], ended["exitCode"]) == ("Succeeded", 3)
    assert service.apps.lines("where") == [str(service.apps.folder("K/Words") / "sub")]


@pytest.mark.parametrize("key", ROLES)
async def test_role_of_each_list_may_that_and_nothing_else(http: Http, key: str) -> None:
    roles = [*ROLES["view"], *ROLES[key]]
    body = {"userId": f"who-may-{key}", "roles": roles}
    token = (await http.call("POST", "/tokens", body)).json["token"]
    answer = await http.call("GET", "/jobs/K/Roles", Authorization=f"Bearer {token}")
    may = {action for action, grant in answer.json["may"].items() if grant["allowed"]}
    assert may == {"view", key}


async def test_checks_begin_after_their_time_and_so_many_good_ones_make_it_healthy(
    service: Service, http: Http
) -> None:
    execution_id = await http.start("K/Checked")
    checks = await eventually(lambda: service.apps.lines("checks"), "the first check")
    (begun,) = service.apps.lines("begun")
    assert float(checks[0]) - float(begun) >= 0.6

    async def is_now(status: str) -> dict[str, str]:
        while True:
            health = (await http.execution(execution_id))["health"]
            if health is not None and health["status"] == status:
                found: dict[str, str] = health
                return found

    await is_now("unhealthy")
    service.apps.put("well")
    await is_now("healthy")
    assert len(service.apps.lines("good")) >= 4
    service.apps.put("end")
    await http.ended(execution_id)
