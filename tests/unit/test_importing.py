"""Definitions of other tools become jobs: nothing is dropped in silence, nothing is made up."""

import json
import tomllib
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus.job_definition import JobSpec
from handlers.catalog.definition_decoding import decode_definition
from jobbus.importing.crontab import name_of, with_accounts
from jobbus.importing.imported import Import, ImportedJob, JobNames, Kind, Source, id_part, lines_of
from jobbus.importing.job_text import job_text, toml_text
from jobbus.importing.loose_json import Unreadable, plain, read_json
from jobbus.importing.pm2 import import_pm2
from jobbus.importing.pswebhost import import_pswebhost
from jobbus.importing.supervisord import include_patterns
from tests.importing import (
    SOURCES,
    crontab,
    golden_of,
    host_job,
    shown,
    source,
    supervisord,
)


def text_of(*lines: str) -> Source:
    return Source(file="old", text="\n".join(lines) + "\n", folder="/srv/old")


@pytest.mark.parametrize("name", SOURCES)
def test_an_import_is_the_golden_one(name: str) -> None:
    """`python -m tests.importing` writes the golden files; look at the difference."""
    assert shown(SOURCES[name](source(name))) == golden_of(name).read_text(encoding="utf-8")


def check(found: Import, text: str, *, without: frozenset[str] = frozenset()) -> None:
    """Every line is in a job or a note, and every job.toml says what the definition says."""
    lines = {n for n, line in enumerate(lines_of(text), 1) if line.strip()}
    lines -= {n for n, line in enumerate(lines_of(text), 1) if line.strip() in without}
    seen = {n for job in found.jobs for n in job.lines} | {note.line for note in found.notes}
    assert lines <= seen or (0 in seen and not found.jobs)
    ids = [job.job_id.casefold() for job in found.jobs]
    assert len(ids) == len(set(ids))
    for job in found.jobs:
        written = job_text(job)
        decoded = decode_definition(written.text.encode(), file="job.toml", directory="/")
        if not isinstance(decoded, JobSpec):
            assert any("is refused by the service" in note.reason for note in written.notes)
        try:
            document = tomllib.loads(toml_text(job.definition))
        except tomllib.TOMLDecodeError:
            assert not isinstance(decoded, JobSpec)  # lone surrogates; and a note says so
        else:
            assert document == json.loads(json.dumps(job.definition))


SIGNS = [
    *("*", "*/5", "1-5", "mon", "0", "@daily", "@reboot", "%", "\\%", "#", "A=1", "PATH=/bin"),
    *("root", "www-data", "'", '"', "{{X}}", "é", "MAILTO=a", ";", "[", "{", "}", "]", ","),
    *("apps", ":", "name", "script", "true", "//", "/*", "$", "`", "=", "echo"),
    *("\udc80", "\x00", "\x0c", "\u2028", "\t", "\r"),
]
WHOLE = [
    "[program:x]",
    "[group:g]",
    "programs=x",
    "command=a b 'c",
    "command=%(program_name)s %(process_num)02d {{X}}",
    "numprocs=3",
    "environment=A=1,B='2',",
    "user=%(ENV_A)s",
    "  more",
    "[supervisord]",
    "umask=9",
    "0 3 * * * one",
    "@daily root two%three",
    "# about",
]
LINES = st.lists(
    st.one_of(
        st.lists(st.sampled_from(SIGNS), max_size=9).map(" ".join),
        st.sampled_from(WHOLE),
        st.text(max_size=20),
    ),
    max_size=14,
).map("\n".join)


@given(LINES, st.booleans())
def test_no_line_of_a_crontab_is_dropped(text: str, with_user: bool) -> None:
    check(crontab(Source(file="old", text=text), with_user=with_user), text)


@given(LINES)
def test_no_line_of_a_supervisord_conf_is_dropped(text: str) -> None:
    check(supervisord(Source(file="old", text=text)), text)


KEYS = st.sampled_from(
    ["name", "script", "args", "env", "cwd", "instances", "max_restarts", "autorestart", "strange",
     "cron_restart", "kill_timeout", "user", "stop_exit_codes", "max_memory_restart", "watch"]
)  # fmt: skip
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
BRACKETS = frozenset(("{", "}", "[", "]", "},", "],", '"apps": [', "{}", "[]", '"apps": []'))


@given(st.lists(st.dictionaries(KEYS, VALUES, max_size=6), max_size=3), st.booleans())
def test_no_key_of_an_ecosystem_is_dropped(apps: list[dict[str, Any]], bare: bool) -> None:
    text = json.dumps(apps if bare else {"apps": apps, "deploy": {"a": 1}}, indent=1)
    found = import_pm2(Source(file="e.json", text=text), JobNames())
    check(found, text, without=BRACKETS)
    strange = [n for n, line in enumerate(lines_of(text), 1) if '"strange"' in line]
    assert set(strange) <= {note.line for note in found.notes}


@given(LINES)
def test_text_that_is_no_json_is_no_crash(text: str) -> None:
    found = import_pm2(Source(file="e.json", text=text), JobNames())
    assert found.jobs or found.notes or not read_json(text).value
    host_job(Source(file="job.json", text=text))


HOST_KEYS = st.sampled_from(
    ["Name", "Description", "ScriptRelativePath", "argumentlist", "roles_start", "default_schedule",
     "template_variables", "Owner"]
)  # fmt: skip


@given(st.dictionaries(HOST_KEYS, VALUES | st.just("{{A}} {{ B }}"), max_size=8), st.booleans())
def test_no_key_of_a_job_json_is_dropped(fields: dict[str, Any], has_init: bool) -> None:
    text = json.dumps({"ScriptRelativePath": "Run.ps1", **fields}, indent=1)
    found = host_job(Source(file="job.json", text=text), has_init=has_init)
    check(found, text, without=BRACKETS if not found.jobs else frozenset())


@given(VALUES)
@example(10**25 + 1)
def test_json_is_read_as_json(value: object) -> None:
    assert plain(read_json(json.dumps(value, indent=1))) == value


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("{a: process.env.HOME}", 1),
        ("module.exports = {\n apps: require('x')\n}", 2),
        ("const a = 1;\nmodule.exports = {}", 1),
        ("{a: `b${c}`}", 1),
        ("{a: 1, a: 2}", 1),
        ("{a: 1 + 2}", 1),
        ("[" * 60, 1),
        ("", 1),
    ],
)
def test_what_would_have_to_be_run_is_refused_with_its_line(text: str, line: int) -> None:
    with pytest.raises(Unreadable) as fault:
        read_json(text)
    assert fault.value.line == line
    found = import_pm2(Source(file="ecosystem.config.js", text=text), JobNames())
    assert [(note.kind, note.line) for note in found.notes] == [(Kind.LEFT_OUT, line)]


def job(**definition: Any) -> ImportedJob:
    return ImportedJob(job_id="A/B", definition=definition, file="old", lines=(7,), source=("x y",))


def test_a_definition_that_the_service_refuses_has_a_note_with_its_line() -> None:
    written = job_text(job(command=["echo", "{{Nobody}}"]))
    assert len(written.notes) == 1
    assert "line 4 of its job.toml is refused by the service" in written.notes[0].reason


def test_bytes_and_signs_that_no_file_of_text_has_leave_their_line_out() -> None:
    found = crontab(text_of("0 3 * * * echo caf\udce9", "0 4 * * * echo \x07", "0 5 * * * echo ok"))
    assert [job.definition["command"] for job in found.jobs] == [("/bin/sh", "-c", "echo ok")]
    reasons = {note.line: note.reason for note in found.notes if note.kind is Kind.LEFT_OUT}
    assert "not UTF-8" in reasons[1]
    assert "U+0007" in reasons[2]


def test_settings_count_for_the_lines_below_them_only() -> None:
    found = crontab(text_of("A=1", "0 1 * * * one", "A=2", "B=3", "0 2 * * * two"))
    assert [job.definition["env"] for job in found.jobs] == [{"A": "1"}, {"A": "2", "B": "3"}]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("/usr/local/bin/backup.sh --all", "backup"),
        ("cd /srv/app && ./run-parts.py", "run-parts"),
        ("A=1 B=2 sudo -u www php -d x=1 /srv/clean.php", "clean"),
        ("flock -n /run/lock timeout 5m rsync -a / /mnt", "rsync"),
        ("test -x /x && perl -e 'sleep 1' && certbot renew", "certbot"),
        ("[ -f x ] || true", ""),
    ],
)
def test_a_job_is_named_after_what_its_line_does(command: str, name: str) -> None:
    assert name_of(command) in (name, id_part(name, ""))


def test_ids_of_jobs_are_unique_whatever_their_case() -> None:
    names = JobNames()
    made = [
        names.unique("App", each) for each in ("Copy", "copy", "COPY", "ä" * 90, "x" * 90, "x" * 80)
    ]
    assert made[:4] == ["App/Copy", "App/copy-2", "App/COPY-3", "App/Job"]
    assert all(len(each.partition("/")[2]) <= 64 for each in made)
    assert len(set(made)) == len(made)


def test_accounts_in_every_line_are_known_as_a_column() -> None:
    accounts = {"root": "/root"}
    assert with_accounts("A=1\n0 1 * * * root x\n@daily root y\n", accounts)
    assert not with_accounts("0 1 * * * root x\n0 1 * * * y z\n", accounts)
    assert not with_accounts("A=1\n", accounts)
    assert not with_accounts("0 1 * * * backup --all\n", {"backup": "/", "root": "/"})


def test_every_line_of_an_option_that_comes_again_has_a_note() -> None:
    text = text_of("[program:x]", "command=a", "environment=A=1", "  B=2", "environment=C=3")
    found = supervisord(text)
    assert [n.line for n in found.notes if n.kind is Kind.LEFT_OUT] == [3, 4]
    assert found.jobs[0].definition["env"] == {"C": "3"}


def test_included_files_are_named_from_where_the_main_one_lies() -> None:
    text = text_of(
        "[include]", "files = a/*.ini %(here)s/b.conf ; two", "  x-%(host_node_name)s.ini"
    )
    expected = (("a/*.ini", 2), ("/srv/old/b.conf", 2), ("x-m1.ini", 3))
    assert include_patterns(text, "m1") == expected
    assert include_patterns(text_of("[include]", "files =", "  x.ini"), "m1") == (("x.ini", 3),)


def test_a_name_that_is_no_id_is_kept_for_people_or_noted() -> None:
    found = supervisord(text_of("[program:shop worker]", "command=true"))
    assert found.jobs[0].job_id == "Supervisor/shop-worker"
    assert found.jobs[0].definition["name"] == "shop worker"
    text = Source(file="job.json", text='{"ScriptRelativePath": "a.ps1"}')
    hosted = import_pswebhost(
        text, JobNames(), app="My App", job="Job", has_init=False, in_place=False
    )
    assert "its id was My App/Job" in hosted.notes[0].reason


def test_variables_are_one_whatever_the_case_of_their_letters() -> None:
    found = host_job(
        text_of(
            '{"ScriptRelativePath": "a.ps1", "Description": "each {{interval}}",',
            '"template_variables": {"Interval": "seconds"}}',
        )
    )
    [made] = found.jobs
    assert made.definition["description"] == "each {{Interval}}"
    assert made.definition["variables"] == {
        "Interval": {"required": True, "allow_dash": True, "description": "seconds"}
    }
    assert job_text(made).notes == ()


def test_values_of_an_environment_are_spelled_as_javascript_does() -> None:
    text = '{"script": "a.js", "env": {"A": 1.0, "B": true, "C": 1e3, "D": 0.5, "E": [1, "x"]}}'
    [made] = import_pm2(Source(file="e.json", text=text), JobNames()).jobs
    expected = {"A": "1", "B": "true", "C": "1000", "D": "0.5", "E": '[1, "x"]'}
    assert made.definition["env"] == expected


def test_keys_that_differ_in_case_alone_are_refused_as_powershell_does() -> None:
    found = host_job(text_of('{"ScriptRelativePath": "a.ps1",', '"scriptrelativepath": "b.ps1"}'))
    assert [(note.kind, note.line) for note in found.notes] == [(Kind.LEFT_OUT, 2)]
