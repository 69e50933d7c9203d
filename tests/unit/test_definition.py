"""From the text of a `job.toml` to a spec, or to the fault and its line."""

import tomllib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.job_definition import (
    AfterSpec,
    DefinitionFault,
    JobSpec,
    KeepSpec,
    Leftover,
    LimitsSpec,
    OutputSpec,
    Overlap,
    RestartPolicy,
    RestartSpec,
    RetrySpec,
    RolesSpec,
    StopTarget,
    VariableSpec,
    VariableType,
)
from bus.model import ExecutionStatus, SecretRef
from bus.schedules import Fold, Gap, MissedPolicy, ScheduleSpec
from handlers.catalog.definition_decoding import decode_definition, revision_of
from handlers.catalog.layers import SIZE_MAX
from handlers.catalog.record_decoding import RecordDecoder, decoded_at_once
from handlers.catalog.toml_lines import Path, key_lines, line_of

COMMAND = 'command = ["./run.sh"]\n'
PORT = "[variables.Port]\ntype = 'integer'\ndefault = 8080\n"
HOST = "[variables.Host]\ntype = 'choice'\nchoices = ['a', 'b.local']\nrequired = true\n"

EVERYTHING = """
name = "Everything"
description = "Uses {{Text}}"
tags = ["a", "b"]
command = ["./run.sh", "--n={{Count}}", "{{Text}}"]
cwd = "work"
max_running = 3
overlap = "queue"
timeout_s = 60
start_timeout_s = 5.5
ready = "output:^listening on [0-9]+$"
watchdog_s = 30
stop_signal = "INT"
stop_to = "group"
stop_grace_s = 2.5
leftover = "wait"
success_codes = [0, 3]
disabled = true
user = "nobody"

[env]
MODE = "{{Mode}}"

[variables.Text]
required = true
max_length = 100
pattern = "[a-z -]+"
allow_dash = true
description = "some words"

[variables.Count]
type = "integer"
default = 3
min = 1
max = 9

[variables.Ratio]
type = "number"
default = 0.5

[variables.Loud]
type = "boolean"
default = false

[variables.Mode]
type = "choice"
choices = ["fast", "slow"]
default = "fast"

[variables.Password]
type = "secret"

[roles]
view = ["viewer"]
start = ["operator", "admin"]

[retry]
attempts = 3
delay_s = 2
backoff = 1.5
delay_s_max = 30
jitter = 0
on = ["Failed", "Lost"]

[restart]
policy = "on-failure"
limit = 5
limit_window_s = 60

[[schedule]]
cron = "*/5 * * * *"
variables = { Text = "day" }

[[schedule]]
cron = "0 3 * * *"
zone = "Europe/Berlin"
variables = { Text = "night", Password = { secret = "DB" } }
missed = "all"
jitter_s = 10
dst_gap = "skip"
dst_fold = "twice"

[output]
max_bytes = 1000000

[keep]
executions = 10
days = 3.5

[[after]]
start = "Other/Job"
on = ["Failed"]

[limits]
memory_bytes = 1000000
cpu_s = 60
nice = 5
"""


def decode(text: str | bytes) -> JobSpec | DefinitionFault:
    content = text if isinstance(text, bytes) else text.encode()
    return decode_definition(content, file="apps/A/jobs/J/job.toml", directory="/apps/A/jobs/J")


def spec_of(text: str | bytes) -> JobSpec:
    decoded = decode(text)
    assert isinstance(decoded, JobSpec), decoded
    return decoded


def fault_of(text: str | bytes) -> DefinitionFault:
    decoded = decode(text)
    assert isinstance(decoded, DefinitionFault), decoded
    assert decoded.file == "apps/A/jobs/J/job.toml"
    return decoded


def test_the_least_definition_has_the_defaults_of_the_contract() -> None:
    assert spec_of(COMMAND) == JobSpec(command=("./run.sh",), directory="/apps/A/jobs/J")


def test_every_key_of_the_contract_is_decoded() -> None:
    assert spec_of(EVERYTHING) == JobSpec(
        name="Everything",
        description="Uses {{Text}}",
        tags=("a", "b"),
        command=("./run.sh", "--n={{Count}}", "{{Text}}"),
        cwd="work",
        env={"MODE": "{{Mode}}"},
        max_running=3,
        overlap=Overlap.QUEUE,
        timeout_s=60,
        start_timeout_s=5.5,
        ready="output:^listening on [0-9]+$",
        watchdog_s=30,
        stop_signal="INT",
        stop_to=StopTarget.GROUP,
        stop_grace_s=2.5,
        leftover=Leftover.WAIT,
        success_codes=(0, 3),
        disabled=True,
        user="nobody",
        variables={
            "Text": VariableSpec(
                required=True,
                max_length=100,
                pattern="[a-z -]+",
                allow_dash=True,
                description="some words",
            ),
            "Count": VariableSpec(type=VariableType.INTEGER, default=3, min=1, max=9),
            "Ratio": VariableSpec(type=VariableType.NUMBER, default=0.5),
            "Loud": VariableSpec(type=VariableType.BOOLEAN, default=False),
            "Mode": VariableSpec(
                type=VariableType.CHOICE, choices=("fast", "slow"), default="fast"
            ),
            "Password": VariableSpec(type=VariableType.SECRET),
        },
        roles=RolesSpec(view=("viewer",), start=("operator", "admin")),
        retry=RetrySpec(
            attempts=3,
            delay_s=2,
            backoff=1.5,
            delay_s_max=30,
            jitter=0,
            on=(ExecutionStatus.FAILED, ExecutionStatus.LOST),
        ),
        restart=RestartSpec(policy=RestartPolicy.ON_FAILURE, limit=5, limit_window_s=60),
        schedule=(
            ScheduleSpec(
                name="cron */5 * * * *", cron="*/5 * * * *", zone="UTC", variables={"Text": "day"}
            ),
            ScheduleSpec(
                name="cron 0 3 * * *",
                cron="0 3 * * *",
                zone="Europe/Berlin",
                variables={"Text": "night", "Password": SecretRef(secret="DB")},
                missed=MissedPolicy.ALL,
                jitter_s=10,
                dst_gap=Gap.SKIP,
                dst_fold=Fold.TWICE,
            ),
        ),
        output=OutputSpec(max_bytes=1_000_000),
        keep=KeepSpec(executions=10, days=3.5),
        after=(AfterSpec(start="Other/Job", on=(ExecutionStatus.FAILED,)),),
        limits=LimitsSpec(memory_bytes=1_000_000, cpu_s=60, nice=5),
        directory="/apps/A/jobs/J",
    )


def test_windows_line_ends_and_a_mark_at_the_beginning_are_fine() -> None:
    assert spec_of(b"\xef\xbb\xbf" + COMMAND.replace("\n", "\r\n").encode()).command == (
        "./run.sh",
    )


# What is wrong, and on which line

FAULTS: list[tuple[str, int, str]] = [
    # the text itself
    ("command = [\n", 1, "the list that begins in line 1 is not closed"),
    (COMMAND + "x == 1\n", 2, "no valid TOML"),
    (COMMAND + COMMAND, 2, "no valid TOML"),
    # unknown keys, with the nearest known one
    ("\n" + COMMAND + "timout_s = 3\n", 3, 'unknown key "timout_s"; did you mean "timeout_s"?'),
    (COMMAND + "[variables.X]\ntyp = 'string'\n", 3, 'unknown key "typ" in variables.X'),
    (COMMAND + "[roles]\n\nstrat = ['a']\n", 4, 'did you mean "start"?'),
    (COMMAND + "[[schedule]]\ncron='0 3 * * *'\n[[schedule]]\ncrn='x'\n", 5, "in schedule[1]"),
    (COMMAND + "output = { max_byte = 3 }\n", 2, 'did you mean "max_bytes"?'),
    (COMMAND + "directory = '/etc'\n", 2, 'unknown key "directory"'),
    (COMMAND + "[variable.X]\n", 2, 'did you mean "variables"?'),
    # types
    ("", 1, "command is missing"),
    ("command = './run.sh --fast'\n", 1, 'must be a list such as ["./run.sh", "--fast"], not text'),
    ("command = [\n  'a',\n  3,\n]\n", 3, "command[1] must be text"),
    ("command = []\n", 1, "command is empty"),
    ("command = ['']\n", 1, "the program of command is empty"),
    (COMMAND + "timeout_s = '3'\n", 2, "timeout_s must be a number, not text"),
    (COMMAND + "timeout_s = true\n", 2, "timeout_s must be a number, not true"),
    (COMMAND + "max_running = 1.5\n", 2, "max_running must be an integer, not a number"),
    (COMMAND + "disabled = 1\n", 2, "disabled must be true or false, not an integer"),
    (COMMAND + "variables = 3\n", 2, "variables must be a table"),
    (COMMAND + "variables.X = 3\n", 2, "variables.X must be a table"),
    (COMMAND + "schedule = {}\n", 2, "schedule must be a list"),
    (COMMAND + "[env]\nA = 3\n", 3, "env.A must be text"),
    (COMMAND + "overlap = 'rejct'\n", 2, 'overlap knows no "rejct"; did you mean "reject"?'),
    (COMMAND + "stop_to = 3\n", 2, 'stop_to must be one of "main", "group", not an integer'),
    (COMMAND + "[variables.X]\ndefault = 2020-01-01\n", 3, "not a date or time"),
    (COMMAND + "[retry]\non = ['Faild']\n", 3, 'did you mean "Failed"?'),
    (COMMAND + "[[schedule]]\nname='x'\ncron='0 0 31 2 *'\n", 4, "no day 31 in February"),
    (COMMAND + "[[schedule]]\ncron='0 3 * * *'\nzone='Berlin'\n", 4, '"Europe/Berlin"?'),
    (COMMAND + "[[schedule]]\ncron='@daily'\nevery_s=5\n", 4, "keep one of them"),
    (COMMAND + "[[schedule]]\ncron='0 0 ? * *'\n", 3, "write '*'"),
    (COMMAND + "[[schedule]]\nat=['soon']\n", 3, "no date and time"),
    (COMMAND + "[[schedule]]\nat=2026-12-24\n", 3, "must be"),
    (COMMAND + "[[schedule]]\nat=['2026-12-24', 5]\n", 3, "a date and time such as"),
    (COMMAND + "[[schedule]]\nevery_s=0\n", 3, "must be from 1"),
    (COMMAND + "[[schedule]]\nevery_s=5\ndst_gap='run'\n", 4, "for cron and calendar alone"),
    (COMMAND + "[[schedule]]\ncron='@daily'\njitter_s=90000\n", 4, "to 86400"),
    (COMMAND + "[[schedule]]\ncron='@daily'\ndst='auto'\ndst_gap='skip'\n", 5, "keep one"),
    (COMMAND + "[[schedule]]\ncron='@daily'\nmissed='twice'\n", 4, "missed"),
    (COMMAND + "[[schedule]]\nevery_s=5\n[[schedule]]\nevery_s=5\n", 4, "name of its own"),
    (
        COMMAND + "[[schedule]]\nzone = 'UTC'\n",
        2,
        "a schedule needs one of cron, every_s, at, calendar",
    ),
    # references
    ("command = ['a',\n'{{Nme}}']\n[variables.Name]\n", 2, 'did you mean "Name"?'),
    ("command = ['a', '{{ Name }}']\n", 1, "add [variables.Name]"),
    (COMMAND + "[env]\nA = '{{B}}'\n", 3, "env.A refers to {{B}}"),
    (COMMAND + "description = '{{B}}'\n", 2, "description refers to {{B}}"),
    (COMMAND + "name = '{{X}}'\n[variables.X]\n", 2, "name takes no {{X}}"),
    (COMMAND + "cwd = '{{X}}'\n[variables.X]\n", 2, "cwd takes no {{X}}"),
    ("command = ['{{X}}']\n[variables.X]\n", 1, "let a text choose the program"),
    ("command = ['sh', '-ec', 'echo {{X}}']\n[variables.X]\n", 1, "would become code"),
    ("command = ['/usr/bin/python3.11', '-c', '{{X}}']\n[variables.X]\n", 1, "would become code"),
    # meaning
    (COMMAND + "cwd = ''\n", 2, "cwd is empty"),
    ('command = ["a", "b\\u0000"]\n', 1, "NUL"),
    (COMMAND + "[env]\n'A=B' = ''\n", 3, "cannot be the name of an environment variable"),
    (COMMAND + "env.JOBBUS_JOB_ID = 'x'\n", 2, "set by jobbus itself"),
    (COMMAND + "env.NOTIFY_SOCKET = 'x'\n", 2, "set by jobbus itself"),
    (COMMAND + "timeout_s = -1\n", 2, "timeout_s must be from 0 to 315360000, not -1"),
    (COMMAND + "stop_grace_s = inf\n", 2, "stop_grace_s must be from 0"),
    (COMMAND + "watchdog_s = nan\n", 2, "watchdog_s must be from 0"),
    (COMMAND + "max_running = 0\n", 2, "max_running must be from 1"),
    (COMMAND + "success_codes = []\n", 2, "no end would be a success"),
    (COMMAND + "success_codes = [0,\n256]\n", 3, "success_codes[1] must be from 0 to 255"),
    (COMMAND + "[output]\nmax_bytes = 0\n", 3, "output.max_bytes must be from 1"),
    (COMMAND + "stop_signal = 'SIGTERM'\n", 2, 'did you mean "TERM"?'),
    (COMMAND + "stop_signal = 'STOP'\n", 2, "stop_signal knows no"),
    (COMMAND + "ready = 'notfy'\n", 2, "ready must be"),
    (COMMAND + "ready = 'spawn:1'\n", 2, "ready must be"),
    (COMMAND + "ready = 'after_s:soon'\n", 2, "needs seconds"),
    (COMMAND + "ready = 'tcp:65536'\n", 2, "1 to 65535"),
    (COMMAND + "ready = 'tcp:0'\n", 2, "1 to 65535"),
    (COMMAND + "ready = 'tcp:a b:80'\n", 2, "1 to 65535, or HOST:PORT"),
    (COMMAND + "ready = 'http:8080'\n", 2, "needs a URL such as"),
    (COMMAND + "ready = 'http:ftp://a/'\n", 2, "needs a URL such as"),
    (COMMAND + "ready = 'http:http://u:p@a/'\n", 2, "no user, password"),
    (COMMAND + "ready = 'http://a/\u00e9'\n", 2, "needs a URL such as"),
    (COMMAND + "ready = 'http://a:99999/'\n", 2, "needs a URL such as"),
    (COMMAND + "ready = 'after_s:90'\n", 2, "comes too late"),
    (COMMAND + "ready = 'tcp:{{Prot}}'\n", 2, "{{Prot}}, which is not declared"),
    (
        COMMAND + "ready = 'tcp:{{X}}:80'\n[variables.X]\ndefault = 'a'\n",
        2,
        "may not stand in the host of ready",
    ),
    (
        COMMAND + "ready = 'http://a/{{X}}'\n[variables.X]\ntype = 'secret'\n",
        2,
        "is of type secret",
    ),
    (
        COMMAND + "ready = 'tcp:{{X}}'\n[variables.X]\ntype = 'integer'\n",
        2,
        "give it a default, or required = true",
    ),
    (
        COMMAND
        + "ready = 'tcp:{{X}}'\n[variables.X]\ntype = 'integer'\nmax = 70000\nrequired = true\n",
        2,
        "1 to 65535",
    ),
    (
        COMMAND + "ready = 'tcp:{{N}}:80'\n[variables.N]\ntype = 'integer'\ndefault = 1\n",
        2,
        "may not stand in the host of ready",
    ),
    (
        COMMAND + "ready = 'http://{{N}}:80/{{N}}'\n[variables.N]\ntype = 'integer'\ndefault = 1\n",
        2,
        "use type choice",
    ),
    (COMMAND + f"ready = 'tcp:{'a' * 64}:80'\n", 2, "or HOST:PORT"),
    (COMMAND + "ready = 'http://a..b/'\n", 2, "needs a URL such as"),
    (COMMAND + "ready = 'tcp:[::1:80'\n", 2, "or HOST:PORT"),
    (COMMAND + "[health]\n", 2, "needs a command or a url, and has neither"),
    (COMMAND + "[health]\nurl = 'http://a/'\ncommand = ['a']\n", 2, "has both"),
    (COMMAND + "[health]\nurl = 'localhost:80'\n", 3, "health.url needs a URL such as"),
    (COMMAND + "[health]\ncommand = ['a']\nevery_s = 0\n", 4, "health.every_s must be from 0.1"),
    (COMMAND + "[health]\ncommand = ['a']\nfailures = 0\n", 4, "health.failures must be from 1"),
    (COMMAND + "[health]\ncommand = ['a']\naction = 'kill'\n", 4, "mark"),
    (
        COMMAND + "[health]\ncommand = ['sh', '-c', 'test {{X}}']\n[variables.X]\n",
        3,
        "{{X}} would become code",
    ),
    (
        COMMAND + "[health]\ncommand = ['a', '{{X}}']\n[variables.X]\ntype = 'secret'\n",
        3,
        "may not stand in health.command[1]",
    ),
    (COMMAND + "ready = 'output:('\n", 2, "no regular expression"),
    (COMMAND + "ready = 'output:(?=a)'\n", 2, "ready is no regular expression: (?= looks"),
    (COMMAND + "ready = 'output:'\n", 2, "empty regular expression"),
    # variables
    (COMMAND + "[variables.9X]\n", 2, "cannot be the name of a variable"),
    (COMMAND + "[variables.'a b']\n", 2, "cannot be the name of a variable"),
    (COMMAND + "[variables.X]\npattern = '('\n", 3, "no regular expression"),
    (COMMAND + "[variables.X]\npattern = '(?!-).+'\n", 3, "(?! looks ahead or behind, which"),
    (COMMAND + "[variables.X]\npattern = '(?<=a)b'\n", 3, "(?<= looks ahead or behind, which"),
    (COMMAND + "[variables.X]\npattern = '(a)\\1'\n", 3, "refers back to a group"),
    (COMMAND + "[variables.X]\npattern = '(?P<n>a)(?P=n)'\n", 3, "refers back to a group"),
    (COMMAND + "[variables.X]\npattern = 'a\\Z'\n", 3, "it always means the whole text"),
    (COMMAND + "[variables.X]\npattern = '\\u20ac'\n", 3, r"or \x{20ac}"),
    (COMMAND + "[variables.X]\npattern = 'a++'\n", 3, "++ repeats a repetition"),
    (COMMAND + "[variables.X]\npattern = 'a{,5}'\n", 3, "write {0,5}"),
    (COMMAND + "[variables.X]\npattern = 'a{2000}'\n", 3, "{2000} is no repetition: counts go up"),
    (COMMAND + "[variables.X]\npattern = '(?x)a'\n", 3, "(?x is not known here: groups are"),
    (COMMAND + "[variables.X]\npattern = '[a'\n", 3, "a [ is never closed"),
    (COMMAND + "[variables.X]\npattern = '[\\p{L} ]{1,900}'\n", 3, "it is too large: write [a-z]+"),
    (COMMAND + "[variables.X]\npattern = '[\\p{L}]{1,9}'\n", 3, "set max_length to at most"),
    (
        COMMAND + "".join(f"[variables.{n}]\npattern = '[\\p{{L}} ]+'\n" for n in "ABCDEF"),
        9,
        "the patterns of all variables together take too long",
    ),
    (COMMAND + "[variables.X]\nmin = 1\n", 3, "min is for type integer or number, not string"),
    (COMMAND + "[variables.X]\nchoices = ['a']\n", 3, "choices is for type choice"),
    (COMMAND + "[variables.X]\ntype='integer'\npattern='a'\n", 4, "pattern is for type string"),
    (COMMAND + "[variables.X]\ntype='integer'\nmin=3\nmax=2\n", 4, "min 3 is above max 2"),
    (COMMAND + "[variables.X]\ntype='number'\nmax=nan\n", 4, "finite"),
    (COMMAND + "[variables.X]\nmax_length = 0\n", 3, "max_length must be from 1 to 32000"),
    (COMMAND + "[variables.X]\ntype='choice'\n", 2, "variables.X needs choices"),
    (COMMAND + "[variables.X]\ntype='choice'\nchoices=['a','a']\n", 4, "comes twice"),
    (COMMAND + "[variables.X]\ntype='choice'\nchoices=['']\n", 4, "is empty"),
    (COMMAND + "[variables.X]\ntype='integer'\ndefault='3'\n", 4, "the default does not fit"),
    (COMMAND + "[variables.X]\ntype='integer'\nmax=1\ndefault=3\n", 5, "must be at most 1"),
    (COMMAND + "[variables.X]\ndefault='-x'\n", 3, "allow_dash"),
    (COMMAND + "[roles]\nview=['']\n", 3, "a role is empty"),
]


@pytest.mark.parametrize(("text", "line", "reason"), FAULTS)
def test_a_fault_names_its_line_and_what_would_be_right(text: str, line: int, reason: str) -> None:
    fault = fault_of(text)
    assert reason in fault.reason
    assert fault.line == line


SECRET = "[variables.X]\ntype='secret'\n"

LATER_FAULTS: list[tuple[str, int, str]] = [
    ("command=['a', '{{X}}']\n" + SECRET, 1, "is a secret and may not stand in command"),
    (COMMAND + "description='{{X}}'\n" + SECRET, 2, "may not stand in description"),
    (COMMAND + SECRET + "default='hunter2'\n", 4, "a secret has no default"),
    (COMMAND + "[retry]\nattempts = 0\n", 3, "retry.attempts must be from 1"),
    (COMMAND + "[retry]\njitter = 2\n", 3, "retry.jitter must be from 0 to 1"),
    (COMMAND + "[retry]\non = ['Failed',\n 'Running']\n", 4, "Running is no final state"),
    (COMMAND + "[restart]\nlimit_window_s = 0\n", 3, "restart.limit_window_s"),
    (COMMAND + "[keep]\ndays = -1\n", 3, "keep.days"),
    (COMMAND + "[[after]]\nstart = 'Job'\n", 3, 'must be a job id such as "App/Job"'),
    (COMMAND + "[[schedule]]\ncron = ' '\n", 3, "cron is empty"),
    (COMMAND + "[[schedule]]\ncron='0 3 * * *'\ndst_gap='no'\n", 4, 'knows no "no"'),
    (COMMAND + "[[schedule]]\ncron='0 3 * * *'\n[schedule.variables]\nX=1\n", 4, "no variable"),
    (COMMAND + "[[schedule]]\ncron='0 3 * * *'\n[variables.X]\nrequired=true\n", 2, "is required"),
    (
        COMMAND + "[[schedule]]\ncron='0 3 * * *'\n[variables.X]\npattern='('\n",
        5,
        "regular expression",
    ),
    (COMMAND + "user = ''\n", 2, "user is empty"),
    (COMMAND + "[limits]\nnice = 20\n", 3, "limits.nice must be from -20 to 19"),
]


@pytest.mark.parametrize(("text", "line", "reason"), LATER_FAULTS)
def test_sections_are_checked(text: str, line: int, reason: str) -> None:
    fault = fault_of(text)
    assert reason in fault.reason
    assert fault.line == line
    assert "hunter2" not in fault.reason


@pytest.mark.parametrize(
    "text",
    [
        "ready = 'notify'\n",
        "ready = 'tcp:80'\n",
        "ready = 'tcp:db.local:80'\n",
        "ready = 'tcp:[::1]:80'\n",
        "ready = 'http:http://[::1]:8080/health?of=all'\n",
        "ready = 'https://localhost/'\n",
        "ready = 'output:up'\n",
        "ready = 'tcp:{{Port}}'\n" + PORT,
        "ready = 'http:http://127.0.0.1:{{Port}}/'\n" + PORT,
        "ready = 'tcp:{{Host}}:80'\n" + HOST,
        HOST + "[health]\nurl = 'http://{{Host}}/'\n",
        "[health]\ncommand = ['./check.sh', '--quick']\n",
        "[keep]\ndays = 3\n",
        "[restart]\npolicy = 'no'\n",
        "overlap = 'replace'\n",
    ],
)
def test_what_is_built_is_not_refused(text: str) -> None:
    spec_of(COMMAND + text)


def test_values_beside_a_shell_line_and_choices_in_it_are_fine() -> None:
    spec_of("command = ['sh', '-c', 'echo \"$1\"', 'sh', '{{X}}']\n[variables.X]\n")
    choice = "[variables.X]\ntype = 'choice'\nchoices = ['a']\n"
    spec_of("command = ['sh', '-c', 'run-{{X}}']\n" + choice)
    spec_of("command = ['docker', 'ps', '--format', '{{.Names}}']\n")


def test_all_mistakes_of_a_file_are_reported_by_line() -> None:
    fault = fault_of(
        COMMAND
        + "timout_s = 1\n"
        + "max_running = 0\n"
        + "stop_signal = 'SIGTERM'\n"
        + "disabled = 'no'\n"
        + "env = { A = 1, JOBBUS_X = 'x', B = '{{Nowhere}}' }\n"
        + "[retry]\nattempts = 'many'\njitter = 7\n"
        + "[variables.X]\npattern = '('\n"
        + "[variables.Y]\ntype = 'intger'\nmin = 1\ndefault = 'x'\n"
        + "[rolls]\n"
    )
    assert [(each.line, each.key) for each in fault.all] == [
        (2, "timout_s"),
        (3, "max_running"),
        (4, "stop_signal"),
        (5, "disabled"),
        (6, "env.A"),
        (6, "env.JOBBUS_X"),
        (6, "env.B"),
        (8, "retry.attempts"),
        (9, "retry.jitter"),
        (11, "variables.X.pattern"),
        (13, "variables.Y.type"),
        (16, "rolls"),
    ]


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("command = ['{{X}}x']\n[variabels.X]\ntype = 'choice'\n", ["variabels"]),
        ("command = ['a', '{{X}}']\nvariables = 3\n", ["variables"]),
        ("command = ['a', '{{X}}']\nvariables.X = 3\n", ["variables.X"]),
        (COMMAND + "[variables.X]\ntyp = 'integer'\nmin = 1\ndefault = 3\n", ["variables.X.typ"]),
        (
            COMMAND + "[variables.X]\ntype = 'choice'\nchoises = ['a']\ndefault = 'a'\n",
            ["variables.X.choises"],
        ),
        ("comand = ['a']\n", ["comand"]),
        ("colour = 'red'\n", ["colour", "command"]),
        ("command = 'a b'\ntags = [1]\n", ["command", "tags[0]"]),
        (COMMAND + "[[after]]\nstrat = 'A/B'\n", ["after[0].strat"]),
        (COMMAND + "after = [3]\n", ["after[0]"]),
        (COMMAND + "roles.view = [3, '']\n", ["roles.view[0]", "roles.view[1]"]),
    ],
)
def test_what_only_follows_from_another_mistake_is_not_reported(text: str, keys: list[str]) -> None:
    assert [each.key for each in fault_of(text).all] == keys


def test_two_mistakes_in_two_places_are_both_reported() -> None:
    """Any two of the texts above, of which each has one mistake in a section of its own."""
    alone = [
        (text.removeprefix(COMMAND), reason)
        for text, _, reason in (*FAULTS, *LATER_FAULTS)
        if text.startswith(COMMAND + "[")
        # what refers to the former is no mistake then; the latter is judged by all variables
        and not ("[variable." in text or "[schedule.variables]" in text)
        and len(fault_of(text).all) == 1
    ]
    assert len(alone) > 30
    tried = 0
    for text, reason in alone:
        for other, other_reason in alone[:: len(alone) // 12]:
            section, other_section = (tomllib.loads(each).keys() for each in (text, other))
            if section & other_section:
                continue
            reasons = [each.reason for each in fault_of(COMMAND + text + other).all]
            assert len(reasons) == 2, (text, other, reasons)
            assert any(reason in each for each in reasons), (text, other, reasons)
            assert any(other_reason in each for each in reasons), (text, other, reasons)
            tried += 1
    assert tried > 200


def test_decoding_at_once_gives_the_same_and_never_what_is_wrong() -> None:
    for text in (COMMAND, EVERYTHING, *(text for text, *_ in (*FAULTS, *LATER_FAULTS))):
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        decoder = RecordDecoder()
        values = decoder.fields(JobSpec, document, ())
        at_once = decoded_at_once(document, JobSpec, {})
        assert at_once == (None if decoder.problems else JobSpec(**values)), text


@pytest.mark.parametrize(
    "text",
    [
        "[variables.X]\ntype = 'integer'\nmax = 9223372036854775808\n",
        "[[schedule]]\ncron = '* * * * *'\nvariables = { X = 9223372036854775808 }\n",
    ],
)
def test_numbers_that_no_journal_can_hold_are_not_decoded_at_once(text: str) -> None:
    assert decoded_at_once(tomllib.loads(COMMAND + text), JobSpec, {}) is None


# Hostile texts


NUMBER = COMMAND.encode() + b"\n[variables.N]\ntype = 'number'\n"


@pytest.mark.parametrize(
    ("content", "line", "reason"),
    [
        (b"a" * (SIZE_MAX + 1), 0, "larger than 256 KiB"),
        (COMMAND.encode("utf-16"), 1, "UTF-16"),
        (COMMAND.encode() + b"\nname = 'caf\xe9'", 3, "not UTF-8"),
        (b"a = " + b"[" * 100_000, 0, "nested too deeply"),
        (b"a = " + b"9" * 10_000, 1, "no valid TOML"),
        (b"a." * 100_000 + b"b = 1", 1, "dots on one line"),
        (b"x = {" + b"a." * 100_000 + b"b = 1}", 1, "dots on one line"),
        (COMMAND.encode() + b"\nmax_running = 0x" + b"f" * 5000, 3, "more than 64 bits"),
        (NUMBER + b"min = 0xffffffffffffffffffff", 5, "variables.N.min is a number of more than"),
    ],
    ids=["large", "utf-16", "latin-1", "deep", "digits", "dots", "dots inline", "hex", "80 bits"],
)
def test_hostile_texts_are_faults(content: bytes, line: int, reason: str) -> None:
    fault = fault_of(content)
    assert reason in fault.reason
    assert fault.line == line


@given(st.text(max_size=80) | st.binary(max_size=80))
def test_no_text_raises(text: str | bytes) -> None:
    decode(text if isinstance(text, bytes) else text.encode("utf-8", "replace"))


toml_values = st.recursive(
    st.integers(-9, 9) | st.booleans() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abc"), inner, max_size=2)
    ),
    max_leaves=5,
)


@given(
    st.dictionaries(st.sampled_from(JobSpec.__struct_fields__), toml_values, max_size=5),
    st.dictionaries(st.sampled_from(VariableSpec.__struct_fields__), toml_values, max_size=3),
)
def test_no_document_raises_and_its_faults_have_lines(
    document: dict[str, Any], variable: dict[str, Any]
) -> None:
    lines = [f"{key} = {inline(value)}" for key, value in document.items() if key != "variables"]
    lines += [f"variables.X.{key} = {inline(value)}" for key, value in variable.items()]
    decoded = decode("\n".join(lines))
    if isinstance(decoded, DefinitionFault):
        assert 1 <= decoded.line <= max(len(lines), 1)
    else:
        assert msgspec.json.decode(msgspec.json.encode(decoded), type=JobSpec) == decoded


def inline(value: Any) -> str:
    """`value` as TOML on one line."""
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case str():
            return '"' + "".join(f"\\U{ord(c):08x}" for c in value) + '"'
        case list():
            return "[" + ", ".join(map(inline, value)) + "]"
        case dict():
            return "{" + ", ".join(f"{k} = {inline(v)}" for k, v in value.items()) + "}"
        case _:
            raise AssertionError(value)


def test_the_revision_follows_content_and_place() -> None:
    revision = revision_of(b"a", "/apps/A/jobs/J")
    assert len(revision) == 12
    assert revision == revision_of(b"a", "/apps/A/jobs/J")
    assert len({revision, revision_of(b"b", "/apps/A/jobs/J"), revision_of(b"a", "/other")}) == 3
    with_schedule = {
        revision_of(b"[[schedule]]", "/x", (), zone) for zone in ("UTC", "Asia/Tokyo", "Asia/Seoul")
    }
    assert len(with_schedule) == 3
    assert revision_of(b"a", "/x", (), "Asia/Tokyo") == revision_of(b"a", "/x")


# Lines of keys

LAYOUT = """\
# = [comment]
top = 1 # "
"quoted key" . 'and' = "a # b ] }"
multi = \"\"\"
[not.a.table]
x = 1 \\\"\"\"
quote \"\"\"\"
literal = '''
y = 2'''
list = [ # one
  1, [2, 3],
  { a = 1, b.c = "}" },
]
date = 1979-05-27 07:32:00
[ table . sub ]
key = {}
[[rows]]
a = 1
[[rows]]
a = 2
[rows.sub]
b = 3
[[rows.inner]]
[[rows.inner]]
c = 1
"""


def test_lines_of_keys_in_every_form_of_toml() -> None:
    lines = key_lines(LAYOUT)
    assert_covers(LAYOUT, lines)
    expected: dict[Path, int] = {
        ("top",): 2,
        ("quoted key", "and"): 3,
        ("multi",): 4,
        ("literal",): 8,
        ("list",): 10,
        ("list", 0): 11,
        ("list", 1, 1): 11,
        ("list", 2, "b", "c"): 12,
        ("date",): 14,
        ("table", "sub"): 15,
        ("table", "sub", "key"): 16,
        ("rows",): 17,
        ("rows", 1): 19,
        ("rows", 1, "a"): 20,
        ("rows", 1, "sub", "b"): 22,
        ("rows", 1, "inner", 1, "c"): 25,
    }
    assert {path: lines[path] for path in expected} == expected
    assert line_of(("rows", 1, "a", "unknown"), lines) == 20
    assert line_of(("unknown",), lines) == 1


def assert_covers(text: str, lines: dict[Path, int]) -> None:
    """Every key and element of the document has a line."""

    def walk(value: Any, path: Path) -> None:
        if path:
            assert path in lines
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, (*path, key))
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                walk(inner, (*path, index))

    walk(tomllib.loads(text), ())


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["{k} = {v}", "[{k}]\nv = {v}", "[[{k}]]\nv = {v}", "# {k} = {v}", "{k}.x = {v}"]
            ),
            toml_values,
        ),
        max_size=8,
    ),
    st.sampled_from(["\n", "\r\n", "\n\n"]),
)
def test_every_key_of_any_document_has_its_line(parts: list[tuple[str, Any]], end: str) -> None:
    chunks = [form.format(k=f"k{i}", v=inline(v)) for i, (form, v) in enumerate(parts)]
    text = "\n".join(chunks).replace("\n", end)
    lines = key_lines(text)
    assert_covers(text, lines)
    for index, (form, _) in enumerate(parts):
        if not form.startswith("#"):
            (before, *_) = text.split(f"k{index}")
            found = [line for path, line in lines.items() if f"k{index}" in path]
            assert min(found) == before.count("\n") + 1


@pytest.mark.parametrize("value", ["'2026-12-24T18:00:00'", "2026-12-24T18:00:00"])
def test_one_instant_may_stand_alone_as_a_text_or_a_date_of_toml(value: str) -> None:
    alone = spec_of(COMMAND + f"[[schedule]]\nat = {value}\n")
    assert alone.schedule[0].at == ("2026-12-24T18:00:00",)
    assert alone == spec_of(COMMAND + f"[[schedule]]\nat = [{value}]\n")


def test_each_mistake_of_a_schedule_is_said_and_none_hides_another() -> None:
    text = (
        COMMAND
        + """[[schedule]]
zone = "Nowhere"
cron = "0 0 31 2 *"
calendar = "Mon 25:00"
at = ["soon", "2026-12-24T18:00:00", "later"]
every_s = 0
anchor = "then"
[[schedule]]
zone = 3
cron = "0 3 ? * *"
missed = "twice"
[[schedule]]
every_s = 5
zone = "Berlin"
anchor = "when"
dst_gap = "run"
dst_fold = "once"
name = "x"
[[schedule]]
name = "x"
at = "2026-02-30T00:00:00"
anchor = "2026-01-01T00:00:00"
dst_gap = "skip"
only = ["Gone"]
[[schedule]]
evry_s = 5
zone = "Nowhere"
"""
    )
    found = decode_definition(text.encode(), file="job.toml", directory="/x", calendars=())
    assert isinstance(found, DefinitionFault)
    assert [(each.line, each.key.removeprefix("schedule")) for each in found.all] == [
        (3, "[0].zone"),
        (4, "[0].cron"),
        (5, "[0].calendar"),
        (6, "[0].at[0]"),
        (6, "[0].at[2]"),
        (7, "[0].every_s"),
        (7, "[0].every_s"),
        (8, "[0].anchor"),
        (10, "[1].zone"),
        (11, "[1].cron"),
        (12, "[1].missed"),
        (15, "[2].zone"),
        (16, "[2].anchor"),
        (17, "[2].dst_gap"),
        (18, "[2].dst_fold"),
        (21, "[3].name"),
        (22, "[3].at"),
        (23, "[3].anchor"),
        (24, "[3].dst_gap"),
        (25, "[3].only[0]"),
        (27, "[4].evry_s"),
        (28, "[4].zone"),
    ]
