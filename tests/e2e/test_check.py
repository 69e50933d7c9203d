"""`jobbus check`: all mistakes of definitions, defaults and settings at once, without a service;
and the schemas with which editors find many of them."""

import json
import os
import urllib.request
from pathlib import Path

import pytest

from tests.command_line import Cli, Ended, in_this_process
from tests.jobs import Apps
from tests.service import running_service

COMMAND = 'command = ["./run.sh"]\n'


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_this_process(monkeypatch, capsys)


def put(place: Path, **texts: str) -> None:
    """Files below `place`; `__` in a name stands for a slash."""
    for name, text in texts.items():
        file = place / f"{name.replace('__', '/')}.toml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8")


def problems(ended: Ended) -> list[tuple[str, int, str]]:
    assert ended.err == ""
    return [(each["file"], each["line"], each["key"]) for each in ended.json["problems"]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    put(
        tmp_path,
        apps__defaults="stop_grace_s = 5\nmax_runing = 1\n",
        apps__A__defaults="timeout_s = -1\n",
        apps__A__app='nme = "An app"\nversion = 3\n',
        apps__A__jobs__One__job=COMMAND + "tags = 3\nretry = { attempts = 0 }\n",
        apps__A__jobs__Two__job=COMMAND + "timeout_s = 1\n",
        apps__B__jobs__Three__job="command = [\n",
        jobbus='[serve]\nlisten = "nowhere"\nlistn = 1\n[limits]\nstreams = 0\n[nose]\n',
    )
    return tmp_path


SITE = ("apps/defaults.toml", 2, "max_runing")
IN_APP = ("apps/A/defaults.toml", 1, "timeout_s")
OF_APP = [("apps/A/app.toml", 1, "nme"), ("apps/A/app.toml", 2, "version")]
ONE = [
    ("apps/A/jobs/One/job.toml", 2, "tags"),
    ("apps/A/jobs/One/job.toml", 3, "retry.attempts"),
]
THREE = ("apps/B/jobs/Three/job.toml", 1, "")
SETTINGS = [
    ("jobbus.toml", 2, "serve.listen"),
    ("jobbus.toml", 3, "serve.listn"),
    ("jobbus.toml", 5, "limits.streams"),
    ("jobbus.toml", 6, "nose"),
]


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("apps", [*OF_APP, IN_APP, *ONE, THREE, SITE]),
        (".", [*OF_APP, IN_APP, *ONE, THREE, SITE, *SETTINGS]),
        ("apps/A", [*OF_APP, IN_APP, *ONE, SITE]),
        ("apps/A/jobs/One", [IN_APP, *ONE, SITE]),
        ("apps/A/jobs/One/job.toml", [IN_APP, *ONE, SITE]),
        ("apps/A/jobs/Two/job.toml", [SITE]),
        ("apps/A/defaults.toml", [IN_APP]),
        ("apps/defaults.toml", [SITE]),
        ("apps/A/app.toml", OF_APP),
        ("jobbus.toml", SETTINGS),
    ],
)
def test_all_mistakes_of_what_is_named_are_listed_with_file_line_and_key(
    cli: Cli, place: Path, path: str, expected: list[tuple[str, int, str]]
) -> None:
    ended = cli(place, "check", path, "--json")
    assert problems(ended) == expected
    assert ended.code == 1


CALENDARS = """[calendar."A.B"]
weekdays = ["Mn", "Xy"]
holidays = { country = "DE", subdivision = "XX" }
[calendar.File]
ics = "gone.ics"
[blackout.B]
on = ["Days"]
zone = "Nowhere"
"""


def test_calendars_of_the_settings_are_checked_with_those_of_the_apps(
    cli: Cli, tmp_path: Path
) -> None:
    put(
        tmp_path,
        jobbus=CALENDARS,
        apps__calendars='[calendar.Days]\ndates = ["13-01"]\n[blackout.C]\non = ["File"]\n',
        apps__A__jobs__One__job=COMMAND + '[[schedule]]\nevery_s = 9\nonly = ["A.B", "Gone"]\n',
    )
    ended = cli(tmp_path, "check", ".", "--json")
    job = ("apps/A/jobs/One/job.toml", 4, "schedule[0].only[1]")
    of_apps = ("apps/calendars.toml", 2, "calendar.Days.dates[0]")
    ics = (str(tmp_path / "gone.ics").removeprefix(f"{tmp_path}/"), 0, "")
    assert problems(ended) == [
        job,
        of_apps,
        ics,
        ("jobbus.toml", 2, "calendar.A.B.weekdays[0]"),
        ("jobbus.toml", 2, "calendar.A.B.weekdays[1]"),
        ("jobbus.toml", 3, "calendar.A.B.holidays.subdivision"),
        ("jobbus.toml", 8, "blackout.B.zone"),
    ]
    # What stands in settings that were not asked about is none of its mistakes.
    assert problems(cli(tmp_path, "check", "apps", "--json")) == [job, of_apps, ics]
    assert problems(cli(tmp_path, "check", "apps/A", "--json")) == [job]


def test_calendar_without_a_name_in_the_settings_is_one_mistake(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path, jobbus='[calendar]\nweekdays = ["Mon"]\n', apps__A__jobs__One__job=COMMAND)
    found = problems(cli(tmp_path, "check", ".", "--json"))
    assert found == [("jobbus.toml", 2, "calendar.weekdays")]


def test_without_a_path_it_checks_what_serve_would_take(cli: Cli, place: Path) -> None:
    (place / "apps").rename(place / "jobs-of-all")
    (place / "jobbus.toml").write_text('[serve]\napps = "jobs-of-all"\nlistn = 1\n')
    found = problems(cli(place, "check", "--json"))
    assert ("jobbus.toml", 3, "serve.listn") in found
    assert ("jobs-of-all/B/jobs/Three/job.toml", 1, "") in found


def test_people_get_one_line_each_that_says_what_would_be_right(cli: Cli, place: Path) -> None:
    ended = cli(place, "check", "apps/A", "--config", "jobbus.toml")
    assert ended.code == 1
    lines = ended.out.splitlines()
    assert len(lines) == 10
    (site,) = (line for line in lines if line.startswith("apps/defaults.toml:2: "))
    assert 'did you mean "max_running"?' in site
    assert "A/One, A/Two" in site
    assert "apps/A/jobs/One/job.toml:2: tags must be a list, not an integer" in lines
    assert "10 mistakes; 2 jobs looked at" in ended.err


def test_what_is_right_ends_with_0_and_shows_what_defaults_give(cli: Cli, tmp_path: Path) -> None:
    put(
        tmp_path,
        apps__defaults="stop_grace_s = 5\n[retry]\nattempts = 3\n",
        apps__A__jobs__One__job=COMMAND + "[retry]\ndelay_s = 3\n",
    )
    ended = cli(tmp_path, "check", "apps/A/jobs/One")
    assert (ended.code, ended.out) == (0, "")
    assert "retry.attempts is from apps/defaults.toml:3" in ended.err
    assert "nothing is wrong; 1 job looked at" in ended.err
    ended = cli(tmp_path, "check", str(tmp_path), "--json")
    assert ended.code == 0
    origins = {"stop_grace_s": "apps/defaults.toml:1", "retry.attempts": "apps/defaults.toml:3"}
    assert ended.json == {
        "problems": [],
        "jobs": [{"jobId": "A/One", "ok": True, "origins": origins}],
    }


def test_a_definition_that_lies_alone_is_checked_by_itself(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path, alone__job=COMMAND + "nose = 1\nmouth = 1\n", defaults="ear = 1\n")
    found = problems(cli(tmp_path, "check", "alone", "--json"))
    assert found == [("alone/job.toml", 2, "nose"), ("alone/job.toml", 3, "mouth")]


def test_folder_of_jobs_is_checked_as_its_app(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path, apps__A__jobs__One__job=COMMAND, apps__A__jobs__Two__job="nose = 1\n")
    ended = cli(tmp_path, "check", "apps/A/jobs", "--json")
    assert {each["file"] for each in ended.json["problems"]} == {"apps/A/jobs/Two/job.toml"}
    assert [each["jobId"] for each in ended.json["jobs"]] == ["A/One", "A/Two"]


@pytest.mark.parametrize("name", ["job", "app", "defaults", "calendars", "jobbus"])
@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_stands_in_the_place_of_a_file_is_a_mistake(
    cli: Cli, tmp_path: Path, name: str, kind: str
) -> None:
    put(tmp_path, apps__A__jobs__One__job=COMMAND)
    folder = {"job": "apps/A/jobs/Two", "app": "apps/A", "defaults": "apps/A", "calendars": "apps"}
    place = tmp_path / folder.get(name, "")
    place.mkdir(exist_ok=True)
    file = place / f"{name}.toml"
    match kind:
        case "folder":
            file.mkdir()
        case "pipe":
            os.mkfifo(file)
        case _:
            file.symlink_to(file.name)
    words = {"folder": "Is a directory", "pipe": "it is no regular file"}
    for path in (str(file), "."):
        ended = cli(tmp_path, "check", path)
        assert ended.code == 1
        assert words.get(kind, "Too many levels of symbolic links") in ended.out + ended.err


def test_link_that_leads_to_nothing_is_a_mistake_in_the_place_of_a_job(
    cli: Cli, tmp_path: Path
) -> None:
    put(tmp_path, apps__A__jobs__One__job=COMMAND)
    jobs = tmp_path / "apps/A/jobs"
    (jobs / "Two").mkdir()
    (jobs / "Two/job.toml").symlink_to("../gone.toml")
    (jobs / "Three").symlink_to("gone")
    ended = cli(tmp_path, "check", "--json")
    assert [(each["file"], each["reason"]) for each in ended.json["problems"]] == [
        ("apps/A/jobs/Three", "is a link that leads to nothing: there is no gone"),
        ("apps/A/jobs/Two/job.toml", "is a link that leads to nothing: there is no ../gone.toml"),
    ]


def test_files_outside_of_the_working_directory_are_named_whole(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path, far__apps__A__jobs__One__job="nose = 1\n")
    here = tmp_path / "here"
    here.mkdir()
    ended = cli(here, "check", "../far/apps", "--json")
    file = str(tmp_path / "far/apps/A/jobs/One/job.toml")
    assert {each["file"] for each in ended.json["problems"]} == {file}


def test_more_mistakes_than_a_service_keeps_are_all_listed(cli: Cli, tmp_path: Path) -> None:
    put(tmp_path, apps__A__jobs__One__job="".join(f"nose{n} = 1\n" for n in range(120)))
    assert len(problems(cli(tmp_path, "check", "apps", "--json"))) == 121


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("nowhere", 3, "there is no "),
        ("notes.txt", 2, "app.toml, calendars.toml and jobbus.toml"),
    ],
)
def test_what_cannot_be_checked_is_said_in_a_sentence(
    cli: Cli, tmp_path: Path, path: str, code: int, words: str
) -> None:
    (tmp_path / "notes.txt").touch()
    ended = cli(tmp_path, "check", path)
    assert (ended.code, ended.out) == (code, "")
    assert words in ended.err


def test_every_mistake_of_settings_is_found_and_what_is_right_still_counts(
    cli: Cli, tmp_path: Path
) -> None:
    put(
        tmp_path,
        jobbus="""
[serve]
apps = "elsewhere"
behind_proxy = "yes"
tls_cert = "a"

[log]
level = "loud"

[roles]
view = "viewer"

[keep]
executions = 0
days = 0

[secrets]
A = { value = "hunter2" }

[nats]
url = "x"

[group."bad name"]
max_running = 1

[group.good]
max_running = 0
max_runing = 1
""",
        elsewhere__A__jobs__One__job="nose = 1\n",
    )
    ended = cli(tmp_path, "check", "--json")
    found = problems(ended)
    assert [line for file, line, _ in found if file == "jobbus.toml"] == [
        4, 5, 8, 11, 14, 15, 18, 20, 23, 27, 28
    ]  # fmt: skip
    assert ("elsewhere/A/jobs/One/job.toml", 1, "nose") in found
    assert "hunter2" not in json.dumps(ended.json)


@pytest.mark.parametrize(
    ("flags", "file"),
    [
        ((), "job.toml"),
        (("--defaults",), "defaults.toml"),
        (("--app",), "app.toml"),
        (("--calendars",), "calendars.toml"),
        (("--service",), "jobbus.toml"),
    ],
)
def test_schema_of_each_file_is_printed(
    cli: Cli, tmp_path: Path, flags: tuple[str, ...], file: str
) -> None:
    ended = cli(tmp_path, "schema", *flags)
    assert (ended.code, ended.err) == (0, "")
    assert ended.json["title"] == f"{file} of jobbus"


def test_schema_is_served_to_editors_which_have_no_token(cli: Cli, tmp_path: Path) -> None:
    def define(apps: Apps) -> None:
        apps.shell("T/Any", "true")

    with (
        running_service(tmp_path, define) as service,
        urllib.request.urlopen(f"{service.url}/schemas/job.toml.json") as answer,
    ):
        assert json.load(answer) == cli(tmp_path, "schema").json
