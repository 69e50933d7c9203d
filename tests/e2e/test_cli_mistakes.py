"""What people get wrong in their first weeks: a sentence with what would be right, an exit code."""

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.command_line import PATIENCE_S, Cli, in_this_process, made, service, spawned

UNKNOWN = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"

RAW = re.compile(
    r"\[?Errno|Traceback|[A-Z]\w+(Error|Exception)\b|<class|NoneType|codec|object at 0x|\w+\.py\b"
    r"|ssl:|_ssl|SSL:|aiohttp|msgspec|cyclopts|tomllib"
)
"""What belongs to the system, to Python or to a library, and to no person."""

JOBS = {
    "NoMode": ('command = ["./run.sh"]\n', "echo hi\n", 0o644),
    "NoInterpreter": ('command = ["./run.sh"]\n', "#!/no/such/python\n", 0o755),
    "NoFirstLine": ('command = ["./run.sh"]\n', "echo hi\n", 0o755),
    "NoProgram": ('command = ["pwsh-of-another"]\n', None, 0),
    "NoFolder": ('command = ["true"]\ncwd = "nowhere"\n', None, 0),
    "OpenToml": ('command = ["true"\n', None, 0),
    "Text": ('command = "echo hi"\n', None, 0),
    "Overlap": ('command = ["true"]\noverlap = "qeue"\n', None, 0),
    "Seconds": ('command = ["true"]\ntimeout_s = "5"\n', None, 0),
    "Disabled": ('command = ["true"]\ndisabled = true\n', None, 0),
    "Undeclared": ('command = ["echo", "{{Day}}"]\n', None, 0),
    "Needs": (
        'command = ["true"]\n[variables.Day]\ntype = "string"\nrequired = true\n'
        '[variables.N]\ntype = "integer"\ndefault = 1\nmax = 16\n'
        '[variables.C]\ntype = "choice"\nchoices = ["a", "b"]\ndefault = "a"\n'
        "[variables.Note]\n",
        None,
        0,
    ),
}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    place = made(tmp_path_factory.mktemp("mistakes"))
    for name, (definition, script, mode) in JOBS.items():
        folder = place / "apps" / "M" / "jobs" / name
        folder.mkdir(parents=True)
        (folder / "job.toml").write_text(definition, encoding="utf-8")
        if script is not None:
            (folder / "run.sh").write_text(script, encoding="utf-8")
            (folder / "run.sh").chmod(mode)
    (place / "a-file").write_text("x\n", encoding="utf-8")
    (place / "a-folder").mkdir(mode=0o700)
    (place / "two words").write_text("jb_one two\n", encoding="utf-8")
    (place / "empty").touch()
    (place / "bytes").write_bytes(bytes(range(128, 160)))
    (place / "broken.toml").write_text("[serve\n", encoding="utf-8")
    (place / "typo.toml").write_text('[serve]\nlisten_on = "x"\n', encoding="utf-8")
    (place / "section.toml").write_text('[sevre]\nlisten = "x"\n', encoding="utf-8")
    (place / "type.toml").write_text("[serve]\nlisten = 5\n", encoding="utf-8")
    with service(place):
        yield place


@pytest.fixture
def jobbus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_this_process(monkeypatch, capsys)


def test_status_says_what_each_variable_comes_to_when_it_is_not_given(
    shared: Path, jobbus: Cli
) -> None:
    shown = " ".join(jobbus(shared, "status", "M/Needs").out.split())
    for words in ("Day string; required", "N integer; default 1", "Note string; may be left out"):
        assert words in shown


def check(code: int, err: str, expected: int, words: str) -> None:
    assert code == expected, err
    assert words in err
    assert RAW.search(err) is None, err


@pytest.mark.parametrize(
    ("call", "code", "words"),
    [
        # the words of a call
        ("strat T/Talk", 2, 'there is no command "strat"; did you mean "start"?'),
        (
            "--data data jobs",
            2,
            "options come after the command: jobbus COMMAND --data. See: jobbus --h",
        ),
        ("start", 2, "JOB is missing. See: jobbus start --help"),
        ("stop", 2, "WHAT is missing"),
        ("ps --jsn", 2, "--json"),
        ("ps --bogus", 2, "Unknown option: --bogus. See: jobbus ps --help"),
        ("ps --token-file", 2, "--token-file needs a value"),
        ("run T/Talk --vars Code=1", 2, "mean --var? See: jobbus run --help"),
        ("token create --user x", 2, "--role needs a value"),
        ("ps --limit many", 2, '--limit must be a whole number, not "many"'),
        ("ps --limit 0", 2, "--limit must be from 1 to 10000, not 0"),
        ("audit --limit 0", 2, "--limit must be from 1 to 10000, not 0"),
        ("commands --limit 99999", 2, "--limit must be from 1 to 10000, not 99999"),
        ("stop T/Deaf --grace long", 2, '--grace must be a number, not "long"'),
        ("stop T/Deaf --grace -1", 2, "--grace must be from 0 to 86400 seconds"),
        ("jobs T/Talk", 2, 'too many words: "T/Talk". See: jobbus jobs --help'),
        ("start T/Talk Code=1", 2, "a variable is given as --var Code=1"),
        ("start Code=1", 2, '"Code=1" is no job; a variable is given as --var Code=1'),
        ("start T/Talk --timeout 3", 2, "--timeout counts only together with --wait"),
        ("start T/Talk --wait --timeout soon", 2, '--timeout must be a number, not "soon"'),
        ("start T/Talk --wait --timeout -3", 2, "--timeout must be a number of seconds"),
        ("wait T/Talk --timeout nan", 2, "--timeout must be a number of seconds"),
        ("logs T/Talk -n -1", 2, "--tail must be from 0 to 10000, not -1"),
        ("logs T/Talk -n few", 2, '-n must be a whole number, not "few"'),
        ("logs T/Talk --since yesterday", 2, "write how long ago, such as 30s, 10m"),
        ("logs T/Talk --stream stdout", 2, '--stream must be out or err, not "stdout"'),
        ("ps --status runing", 2, 'there is no state "runing"; did you mean "running"?'),
        ("ps --watch", 2, "--watch draws on a terminal; for programs: jobbus events"),
        ("audit --since foo", 2, '--since "foo": write how long ago'),
        ("events --type exec.ended", 2, "did you mean 'execution.ended'?"),
        ("maintenance onn", 2, 'maintenance is on or off, not "onn"; did you mean "on"?'),
        ("maintenance off --reason x", 2, "--reason counts only with: jobbus maintenance on"),
        ("completion tcsh", 2, "known are bash, zsh, fish"),
        ("demo --folder nowhere", 2, "--folder nowhere: there is no such folder"),
        ("demo --once --listen here", 2, "must be ADDRESS:PORT such as 127.0.0.1:8765"),
        ("token create --user x --role viewer --expires soon", 2, "no lifetime such as 30m"),
        ("token revoke nope", 3, "there is no such token"),
        # names
        ("start T/None", 3, 'there is no job "T/None"'),
        ("start Talk", 3, 'there is no job "Talk"; did you mean "T/Talk"?'),
        ("ps --job T/Tlak", 3, 'there is no job "T/Tlak"; did you mean "T/Talk"?'),
        ("audit --job T/Tlak", 3, 'there is no job "T/Tlak"; did you mean "T/Talk"?'),
        ("logs T/../Talk", 3, 'there is no job "T/../Talk"'),
        (f"status {UNKNOWN}", 3, f"there is no execution or command {UNKNOWN}"),
        (f"stop {UNKNOWN}", 3, UNKNOWN),
        (f"command {UNKNOWN}", 3, UNKNOWN),
        (f"cancel {UNKNOWN}", 3, UNKNOWN),
        (f"delete {UNKNOWN}", 3, UNKNOWN),
        ("status 0123abcd", 3, "there is no execution or command 0123abcd; jobbus ps -a lists"),
        ("status no-id", 2, "nor the first 4 or more characters of one"),
        ("stop no-id", 2, '"no-id" is no job (App/Job), and no id of an execution or a command'),
        ("retry no-id", 2, "no id of an execution or a command"),
        ("logs T/Deaf", 3, "T/Deaf has not been started yet"),
        ("delete T/Deaf", 2, "name the executions that are to be deleted"),
        ("cancel T/Deaf", 6, "no execution of T/Deaf waits for its turn"),
        ("command T/Deaf", 3, "T/Deaf has not been started yet"),
        # variables
        ("start T/Talk -V Code", 2, "the variable 'Code': write NAME=VALUE"),
        ("start T/Talk -V Code=x", 2, "'x' is no whole number"),
        ("start T/Talk -V Code=99", 2, "at most 9, not 99"),
        ("start T/Talk -V Kode=1", 2, 'no variable "Kode"; did you mean "Code"?'),
        ("start T/Talk -V Code=1 -V Code=2", 2, "-V Code is given twice"),
        ("start T/Talk -V Code:={", 2, "a quote, brace or bracket is not closed"),
        ("start M/Needs", 2, 'variable "Day" is required'),
        ("start M/Needs -V Day=x -V C=c", 2, 'no choice "c"; known are a, b'),
        # where the service is
        ("ps --url localhost:8765", 2, "write http://localhost:8765"),
        ("ps --url :8766", 2, "write http://127.0.0.1:8766"),
        ("ps --url ftp://x", 2, "write one such as http://127.0.0.1:8765"),
        ("ps --url http://", 2, "names no host"),
        ("ps --url http://127.0.0.1:99999", 2, "is no address; write e.g. http://127.0.0.1:8765"),
        ("ps --token-file none --url http://h", 2, "none cannot be read: No such file"),
        ("ps --token-file a-folder --url http://h", 2, "a-folder cannot be read: Is a directory"),
        ("ps --token-file bytes --url http://h", 2, "bytes holds something else than a token"),
        ("ps --token-file empty --url http://h", 2, "empty is empty; it must hold the token"),
        ("ps --data a-file", 2, "a-file is a file; a data directory is needed"),
        ("ps --data a-file/below", 2, "leads through a file"),
        ("ps --data nowhere", 5, "there is no data directory nowhere; say --url or --data"),
        ("ps --data a-folder", 5, "start one with: jobbus serve --data"),
        ("doctor --data nowhere", 1, "there is no data directory"),
        ("doctor --data a-file", 1, "a-file is no directory"),
        ("doctor --config nowhere", 2, "nowhere cannot be read: No such file"),
        # the service itself
        ("serve extra", 2, 'too many words: "extra"'),
        ("serve --data a-file --listen 127.0.0.1:0", 1, "a-file cannot be the data directory"),
        ("serve --data a-file/x --listen 127.0.0.1:0", 1, "or what leads to it, is a file"),
        (
            "serve --data /proc/x --listen 127.0.0.1:0",
            1,
            "the data directory /proc/x cannot be made",
        ),
        (
            "serve --data new --apps a-file --listen 127.0.0.1:0",
            2,
            "a-file is a file; --apps names",
        ),
        ("serve --listen 8766", 2, "must be ADDRESS:PORT such as 127.0.0.1:8765"),
        ("serve --listen 127.0.0.1:99999", 2, "must be ADDRESS:PORT such as 127.0.0.1:8765"),
        ("serve --listen 0.0.0.0:0", 2, "--behind-proxy"),
        ("serve --config broken.toml", 2, "broken.toml"),
        ("serve --config typo.toml", 2, "'listen'"),
        ("serve --config section.toml", 2, "serve"),
        ("serve --config type.toml", 2, "type.toml: [serve] listen"),
        ("serve --config nowhere.toml", 2, "nowhere.toml cannot be read: No such file"),
        ("serve --tls-cert nowhere --listen 127.0.0.1:0", 2, "set both or none"),
        ("serve --data data --listen 127.0.0.1:0", 1, "in use by"),
    ],
)
def test_mistake_is_answered_with_what_would_be_right(
    shared: Path, jobbus: Cli, call: str, code: int, words: str
) -> None:
    ended = jobbus(shared, *call.split(" "), token="x" if "http:" in call else "")
    check(ended.code, ended.err, code, words)
    assert ended.out == ""
    assert ended.err.count("\n") == 1, ended.err


@pytest.mark.parametrize(
    ("job", "code", "words"),
    [
        ("NoMode", 1, "the program './run.sh' is not executable: chmod +x it"),
        ("NoInterpreter", 1, "names an interpreter that was not found"),
        ("NoFirstLine", 1, "it begins with no #! line"),
        ("NoProgram", 1, "the program 'pwsh-of-another' was not found in PATH"),
        ("NoFolder", 1, "jobs/NoFolder/nowhere' cannot be entered: No such file"),
        ("OpenToml", 6, "jobs/OpenToml/job.toml:"),
        ("Text", 6, 'jobs/Text/job.toml:1: command must be a list such as ["./run.sh", "--fast"]'),
        ("Overlap", 6, 'overlap knows no "qeue"; did you mean "queue"?'),
        ("Seconds", 6, "timeout_s must be a number, not text"),
        ("Disabled", 6, "M/Disabled is disabled by its definition"),
        ("Undeclared", 6, "{{Day}}, which is not declared; add [variables.Day]"),
    ],
)
def test_mistake_in_a_job_is_said_where_it_was_started(
    shared: Path, jobbus: Cli, job: str, code: int, words: str
) -> None:
    for call in (("run",), ("start", "--wait")):
        ended = jobbus(shared, *call, f"M/{job}")
        check(ended.code, ended.err, code, words)
        assert ended.out == ""


def url_of(place: Path) -> str:
    url: str = json.loads((place / "data" / "instance.json").read_bytes())["url"]
    return url


def test_mistakes_about_the_address_and_the_token_are_kept_apart(
    shared: Path, jobbus: Cli, unused_tcp_port: int
) -> None:
    url = url_of(shared)
    for address, token, code, words in (
        (url, "jb_x_wrongwrong", 4, "the bearer token is unknown, expired or revoked"),
        (url, "", 4, "--token-file FILE, or JOBBUS_TOKEN"),
        (url, "two words", 2, "one word of visible ASCII characters, as jobbus token create"),
        (f"http://127.0.0.1:{unused_tcp_port}", "x", 5, "nothing listens there; is the service"),
        (
            url.replace("http:", "https:"),
            "x",
            5,
            "does not speak https; is it an address with http",
        ),
        ("http://no-such-host.invalid", "x", 5, "no machine of the name no-such-host.invalid"),
    ):
        ended = jobbus(shared, "ps", "--url", address, token=token)
        check(ended.code, ended.err, code, words)
        assert ended.err.count("\n") == 1
    answered_by_other = jobbus(shared, "events", "--url", f"{url}/elsewhere", token="x")
    assert answered_by_other.code in (3, 4, 5)
    assert RAW.search(answered_by_other.err) is None, answered_by_other.err


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("192.0.2.1:8765", "this machine has no such address"),
        ("no-such-name.invalid:8765", "no address of that name is known"),
    ],
)
def test_address_that_cannot_be_listened_on_is_answered_with_why(
    shared: Path, address: str, why: str
) -> None:
    flags = ("--listen", address, "--data", "elsewhere", "--behind-proxy")
    with spawned(shared, "serve", *flags, stderr=subprocess.PIPE) as service:
        _, err = service.communicate(timeout=PATIENCE_S)
    sentence = f"cannot listen on {address}: {why}; --listen names another address"
    check(service.returncode, err.decode().splitlines()[-1], 1, sentence)


def test_port_that_is_taken_is_named_with_what_helps(shared: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        flags = ("--listen", address, "--data", "other")
        with spawned(shared, "serve", *flags, stderr=subprocess.PIPE) as second:
            _, err = second.communicate(timeout=PATIENCE_S)
    sentence = f"cannot listen on {address}: another program listens there; --listen names another"
    check(second.returncode, err.decode().splitlines()[-1], 1, sentence)
