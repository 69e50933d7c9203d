"""Programs that run as another account: all that it takes, no way back, and nothing of others."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from handlers.catalog.definition_files import DefinitionFiles
from handlers.shim.assignment import ShimAccount
from handlers.shim.files import Folder, OwnFolder
from jobbus.doctor.examination import examine
from tests.jobs import WAITING, Apps, Setting
from tests.service import (
    Http,
    Service,
    eventually,
    eventually_answered,
    is_alive,
    jobs_of,
    read_json,
    running_service,
)

NOBODY = 65534
OTHERS = {name: {"required": True} for name in ("Other", "Root")}
GROUP = 54_321
UNUSED = 2_000_000_017
"""A number that no account has."""

PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or PYTHON is None, reason="takes root, and a Python that all may run"
)

WHO = """
import json, os
from pathlib import Path
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
try:
    os.setuid(0)
except PermissionError:
    back = False
else:
    back = True
with open(os.environ["JOBBUS_PROGRESS"], "a") as file:
    file.write("42% counted\\n")
with open("/dev/stderr", "w") as file:
    file.write("on stderr\\n")
names = ("HOME", "USER", "LOGNAME", "SHELL")
print(json.dumps({
    "uids": os.getresuid(), "gids": os.getresgid(), "groups": os.getgroups(), "back": back,
    "rights": int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapInh"], 16),
    "environment": {name: os.environ[name] for name in names},
}))
"""

PRIES = """
import json, os, socket, sys
from pathlib import Path
data = Path(os.environ["JOBBUS_PROGRESS"]).parents[3]
own = Path(os.environ["JOBBUS_PROGRESS"]).parent
taken = []

def tried(what, call):
    try:
        call()
    except OSError:
        return
    taken.append(what)

for folder in (data, data / "Journal", data / "JobOutput", data / "Sockets", own.parent,
               data / "JobCommandQueue", data / "JobCommandResults", data / "JobStatus"):
    tried(f"list {folder}", lambda: os.listdir(folder))
    tried(f"write into {folder}", lambda: (folder / "mine").write_text("x"))
files = [data / name for name in ("admin.token", "secret.key", "tokens.json", "sessions.json",
         "instance.json", "lock", "Journal/00000000000000000001.log")]
names = ("claim", "process.json", "output.log", "output.idx", "exit.json", "control", "lock")
files += [own.parent / name for name in names]
for other in sys.argv[1:]:
    files += [data / "JobOutput" / other / name for name in (*names, "own", "own/progress")]
for file in files:
    tried(f"read {file}", lambda: file.read_bytes())
    tried(f"write {file}", lambda: file.open("ab"))
    tried(f"remove {file}", lambda: file.unlink())
link = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
for name in ("bell", *sys.argv[1:]):
    tried(f"send to {name}", lambda: link.sendto(b"READY=1", str(data / "Sockets" / name)))
link.sendto(b"READY=1\\nX_PROGRESS=77", os.environ["NOTIFY_SOCKET"])
(own / "draft").write_text("78% by rename\\n")
(own / "draft").rename(own / "progress")
Path(os.environ["JOBBUS_RESULT"]).write_text('{"rows": 3}')
(Path(os.environ["JOBBUS_ARTIFACTS"]) / "report.txt").write_text("left")
print(json.dumps(taken))
"""


@contextmanager
def open_place() -> Iterator[Path]:
    """A folder that other accounts can pass, unlike those of pytest."""
    place = Path(tempfile.mkdtemp(prefix="jobbus-accounts-"))
    place.chmod(0o755)
    try:
        yield place
    finally:
        shutil.rmtree(place)


def python(apps: Apps, job_id: str, program: str, *arguments: str, **settings: Setting) -> None:
    """As `Apps.python`, with a Python that all accounts may run."""
    apps.python(job_id, program)
    apps.write(job_id, (PYTHON or "", "-I", "-S", "program.py", *arguments), **settings)


def define(apps: Apps) -> None:
    python(apps, "A/Who", WHO, user="nobody")
    python(apps, "A/Number", WHO, user=UNUSED, group="daemon")
    python(apps, "A/Group", WHO, group="daemon")
    others = ("{{Other}}", "{{Root}}")
    python(apps, "A/Pries", PRIES, *others, user="nobody", ready="notify", variables=OTHERS)
    apps.shell("A/Other", "echo kept; " + WAITING.format(name="go"), user="daemon")
    apps.shell("A/Root", "echo kept; " + WAITING.format(name="go"))
    deaf = "trap '' TERM; (trap '' TERM; while :; do sleep 0.1; done) & "
    apps.shell("A/Deaf", deaf + "echo up; while :; do sleep 0.1; done", user="nobody")
    health = {"command": ["sh", "-c", "echo checked by $(id -u)"], "every_s": 0.2}
    apps.shell("A/Checked", WAITING.format(name="never"), user="nobody", health=health)
    hangs = {"command": ["sleep", "600"], "every_s": 0.2, "timeout_s": 600}
    apps.shell("A/Hangs", WAITING.format(name="never"), user="nobody", health=hangs)
    apps.shell("A/Mistaken", "echo one")
    home = apps.root.parent / "home"
    for name in ("linked", "folder"):
        (home / name).mkdir(parents=True)
        apps.shell(f"A/{name}", "echo $ONLY_ROOT", user="nobody", env_file=f"{home / name}/env")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with open_place() as place, running_service(place, define) as running:
        yield running


async def said(http: Http, job_id: str) -> dict[str, object]:
    execution_id = await http.start(job_id)
    ended = await http.ended(execution_id)
    assert ended["status"] == "Succeeded", await http.output(execution_id)
    assert (ended["progress"]["percent"], ended["progress"]["message"]) == (42, "counted")
    lines = (await http.output(execution_id)).splitlines()
    assert b"on stderr" in lines
    found: dict[str, object] = json.loads(next(line for line in lines if line != b"on stderr"))
    return found


async def test_program_has_the_account_its_groups_and_environment_and_no_way_back(
    service: Service,
) -> None:
    async with service.http() as http:
        found = await said(http, "A/Who")
    nobody = [NOBODY] * 3
    assert (found["uids"], found["gids"], found["groups"]) == (nobody, nobody, [NOBODY])
    assert (found["back"], found["rights"]) == (False, 0)
    environment = found["environment"]
    assert isinstance(environment, dict)
    assert (environment["USER"], environment["LOGNAME"]) == ("nobody", "nobody")
    assert environment["HOME"] == str(Path("~nobody").expanduser())
    assert environment["SHELL"].endswith("/nologin")


async def test_numbers_count_as_names_do_and_a_group_may_stand_alone(service: Service) -> None:
    async with service.http() as http:
        number, group = await said(http, "A/Number"), await said(http, "A/Group")
    assert (number["uids"], number["gids"], number["groups"]) == ([UNUSED] * 3, [1] * 3, [1])
    assert (group["uids"], group["gids"]) == ([0] * 3, [1] * 3)


async def test_program_reaches_its_own_files_and_socket_and_nothing_else(service: Service) -> None:
    async with service.http() as http:
        other, root = await http.start("A/Other"), await http.start("A/Root")
        await eventually_answered(lambda: printed(http, other, root), "both have printed")
        execution_id = await http.start("A/Pries", Other=other, Root=root)
        ended = await http.ended(execution_id)
        taken = json.loads(await http.output(execution_id))
        assert (ended["status"], taken) == ("Succeeded", [])
        assert (ended["progress"]["percent"], ended["progress"]["message"]) == (78, "by rename")
        assert ended["result"] == {"rows": 3}
        left = await http.call("GET", f"/executions/{execution_id}/artifacts/report.txt")
        assert (left.status, left.body) == (200, b"left")
        service.apps.put("go")
        for each in (other, root):
            assert (await http.ended(each))["status"] == "Succeeded"


@pytest.mark.parametrize("by", ["linked", "folder"])
async def test_env_file_is_not_read_where_an_account_leads_to_what_is_not_its_own(
    service: Service, by: str
) -> None:
    """The service may read more than the account, which would be given what stands there."""
    place = service.apps.root.parent / "home" / by
    only_root = service.apps.root.parent / f"{by}.env"
    only_root.write_text("ONLY_ROOT=hunter2\n")
    only_root.chmod(0o600)
    (place / "env").symlink_to(only_root)
    async with service.http() as http:
        if by == "linked":
            os.lchown(place / "env", NOBODY, NOBODY)
        else:
            os.chown(place, NOBODY, NOBODY)
        refused = await http.publish(20, command="start", jobId=f"A/{by}")
        assert refused["status"] == "Failed"
        assert "through a folder or link of nobody to a file of root" in refused["error"]
        os.chown(only_root, NOBODY, NOBODY)
        given = await http.start(f"A/{by}")
        assert (await http.ended(given))["status"] == "Succeeded"
        assert await http.output(given) == b"hunter2\n"
        # A link of root leads where root wants it to.
        os.chown(only_root, 0, 0)
        os.lchown(place / "env", 0, 0)
        os.chown(place, 0, 0)
        given = await http.start(f"A/{by}")
        await http.ended(given)
        assert await http.output(given) == b"hunter2\n"


async def test_health_check_runs_as_the_account_too(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("A/Checked")

        async def is_checked() -> bool:
            health = (await http.execution(execution_id))["health"]
            return health is not None and health["message"] == f"checked by {NOBODY}"

        await eventually_answered(is_checked, "a check")
        await http.publish(20, command="stop", executionId=execution_id)


async def test_health_check_of_an_account_ends_with_its_shim_too(service: Service) -> None:
    async with service.http() as http:
        execution_id = await http.start("A/Hangs")
        [check] = await eventually(lambda: checks_of(service))
        state = read_json(service.data / "JobOutput" / execution_id / "process.json")
        assert state is not None
        os.kill(state["shim"], signal.SIGKILL)
        await eventually(lambda: not is_alive(check))
        await http.publish(20, command="stop", executionId=execution_id)


def checks_of(service: Service) -> list[int]:
    """Health checks that run now and have become their program."""
    return [pid for pid in jobs_of(service.data) if is_check(Path(f"/proc/{pid}"))]


def is_check(process: Path) -> bool:
    try:
        is_sleep = (process / "cmdline").read_bytes() == b"sleep\x00600\x00"
        return is_sleep and b"JOBBUS_HEALTH_CHECK=" in (process / "environ").read_bytes()
    except OSError:  # it ended meanwhile
        return False


async def printed(http: Http, *ids: str) -> bool:
    return all([await http.output(each) == b"kept\n" for each in ids])


async def test_stop_reaches_the_whole_tree_of_another_account_after_a_kill_of_the_service(
    service: Service,
) -> None:
    async with service.http() as http:
        execution_id = await http.start("A/Deaf")
        await eventually_answered(lambda: is_up(http, execution_id), "it is up")
        pids = jobs_of(service.data)
    service.kill9()
    service.start()
    async with service.http() as http:
        await http.publish(20, command="stop", executionId=execution_id, graceS=0.1)
        ended = await http.ended(execution_id)
        assert (ended["status"], ended["contained"]) == ("Stopped", True)
        assert ended["signal"] == signal.SIGKILL
    assert len(pids) >= 2
    await eventually(lambda: not jobs_of(service.data), "nothing is left")


async def is_up(http: Http, execution_id: str) -> bool:
    return await http.output(execution_id) == b"up\n"


@pytest.mark.parametrize(
    ("settings", "key", "words"),
    [
        ({"user": "nobdy"}, "user", 'there is no account "nobdy"; did you mean "nobody"?'),
        ({"group": "deamon"}, "group", 'there is no group "deamon"; did you mean "daemon"?'),
        ({"user": UNUSED}, "user", f"the account {UNUSED} has no entry, so it takes a group"),
        ({"user": " "}, "user", "user is empty"),
        ({"user": -1}, "user", "user must be from 0 to 4294967294"),
        ({"user": True}, "user", 'user must be text such as "abc" or an integer, not true'),
    ],
)
async def test_account_that_is_not_to_be_had_is_shown_at_its_line_and_the_last_version_goes_on(
    service: Service, settings: dict[str, str | int], key: str, words: str
) -> None:
    service.apps.shell("A/Mistaken", "echo two", **settings)
    lines = service.apps.definition("A/Mistaken").read_text().splitlines()

    async def fault() -> dict[str, object] | None:
        found: dict[str, object] | None = (await http.get("/jobs/A/Mistaken"))["fault"]
        return found if found and words in str(found["reason"]) else None

    async with service.http() as http:
        shown = await eventually_answered(fault, words)
        assert str(shown["line"]) == str(1 + [line.split(" ")[0] for line in lines].index(key))
        execution_id = await http.start("A/Mistaken")
        await http.ended(execution_id)
        assert await http.output(execution_id) == b"one\n"


async def test_program_reaches_its_files_after_a_start_that_closes_the_directory_again() -> None:
    """With `[directory] group` each start sets the modes of the data directory anew."""
    script = WAITING.format(name="later") + '; echo 90 >> "$JOBBUS_PROGRESS"'
    with open_place() as place:
        (place / "jobbus.toml").write_text(f'[directory]\ngroup = "{GROUP}"\n')
        with running_service(
            place, lambda apps: apps.shell("A/Late", script, user="nobody")
        ) as run:
            async with run.http() as http:
                execution_id = await http.start("A/Late")
            run.restart()
            run.apps.put("later")
            async with run.http() as http:
                ended = await http.ended(execution_id)
            assert (ended["status"], ended["progress"]["percent"]) == ("Succeeded", 90)
            assert run.data.stat().st_mode & 0o777 == 0o711


async def test_data_directory_that_the_account_cannot_pass_fails_the_start_and_doctor_names_it(
    tmp_path: Path,
) -> None:
    tmp_path.chmod(0o700)
    with running_service(tmp_path, lambda apps: apps.shell("A/Shut", "echo", user="nobody")) as run:
        async with run.http() as http:
            command = await http.publish(20, command="start", jobId="A/Shut")
            ended = await http.execution(command["executionId"])
        assert ended["reason"] == "spawn_error"
        assert (
            f"the data directory '{run.data}' cannot be passed by the account nobody"
            in (ended["error"])
        )
        findings = examine(run.data).findings
        texts = [each.text for each in findings if each.check == "accounts"]
        assert any(f"chmod o+x {tmp_path}" in text for text in texts)


@contextmanager
def without_rights() -> Iterator[None]:
    """This process is of another account inside the block."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def test_service_that_is_not_root_refuses_another_account_and_takes_its_own() -> None:
    with open_place() as place:
        apps = Apps(place)
        apps.shell("A/Other", "echo", user="daemon")
        apps.shell("A/Own", "echo", user="nobody", group=os.getegid())
        DefinitionFiles(apps.root).scan()  # what Python still has to load may be out of reach
        with without_rights():
            other, own = DefinitionFiles(apps.root).scan()
    assert own.fault is None
    assert other.fault is not None
    assert other.fault.reason == (
        'user = "daemon": only a service that runs as root can start programs as another account; '
        "this one runs as nobody"
    )


def test_file_of_another_account_in_the_program_s_folder_is_not_read(tmp_path: Path) -> None:
    """As a hard link to it would be, where the system allows one."""
    outer = Folder(str(tmp_path / "execution"))
    own = OwnFolder(outer, ShimAccount("nobody", NOBODY, NOBODY, []))
    place = tmp_path / "execution" / "own"
    (place / "progress").write_text("42")
    with pytest.raises(PermissionError):
        own.open("progress", os.O_RDONLY)
    os.chown(place / "progress", NOBODY, NOBODY)
    assert os.read(own.open("progress", os.O_RDONLY), 9) == b"42"
    assert (place.stat().st_uid, place.stat().st_mode & 0o777) == (NOBODY, 0o700)
