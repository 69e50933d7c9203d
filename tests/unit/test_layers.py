"""A definition over its defaults: what is merged, where from, and where faults are reported."""

import pytest

from bus.job_definition import DefinitionFault, JobSpec
from handlers.catalog.definition_decoding import (
    decode_definition,
    mistakes_in_defaults,
    revision_of,
)
from handlers.catalog.layers import SIZE_MAX, Layer

COMMAND = 'command = ["./run.sh"]\n'
JOB, APP, SITE = "apps/A/jobs/J/job.toml", "apps/A/defaults.toml", "apps/defaults.toml"


def decode(job: str, app: str = "", site: str = "") -> JobSpec | DefinitionFault:
    defaults = (Layer(APP, app.encode()), Layer(SITE, site.encode()))
    return decode_definition(job.encode(), file=JOB, directory="/x", defaults=defaults)


def spec_of(job: str, app: str = "", site: str = "") -> JobSpec:
    found = decode(job, app, site)
    assert isinstance(found, JobSpec), found
    return found


def faults_of(job: str, app: str = "", site: str = "") -> list[tuple[str, int, str]]:
    found = decode(job, app, site)
    assert isinstance(found, DefinitionFault), found
    return [(each.file, each.line, each.key) for each in found.all]


def test_the_nearest_file_decides_each_key_and_the_others_stay() -> None:
    spec = spec_of(
        COMMAND + "timeout_s = 1\n[retry]\ndelay_s = 1\n",
        "timeout_s = 2\nmax_running = 2\n[retry]\ndelay_s = 2\nbackoff = 2\n",
        "timeout_s = 3\nmax_running = 3\nstop_grace_s = 3\n[retry]\nbackoff = 3\nattempts = 3\n",
    )
    assert (spec.timeout_s, spec.max_running, spec.stop_grace_s) == (1, 2, 3)
    assert (spec.retry.delay_s, spec.retry.backoff, spec.retry.attempts) == (1, 2, 3)
    assert spec.origins == {
        "max_running": f"{APP}:2",
        "retry.backoff": f"{APP}:5",
        "stop_grace_s": f"{SITE}:3",
        "retry.attempts": f"{SITE}:6",
    }


def test_lists_are_replaced_and_tables_are_merged_at_any_depth() -> None:
    spec = spec_of(
        COMMAND + "tags = ['own']\n[env]\nA = '1'\n[variables.X]\ndefault = 2\n",
        "tags = ['a', 'b']\n[env]\nA = '2'\nB = '2'\n",
        "[variables.X]\ntype = 'integer'\nmax = 5\ndefault = 1\n[env]\nC = '3'\n",
    )
    assert spec.tags == ("own",)
    assert spec.env == {"A": "1", "B": "2", "C": "3"}
    assert (spec.variables["X"].default, spec.variables["X"].max) == (2, 5)
    assert set(spec.origins) == {"env.B", "env.C", "variables.X.type", "variables.X.max"}


def test_defaults_may_give_the_command() -> None:
    assert spec_of("", COMMAND).command == ("./run.sh",)


def test_without_defaults_nothing_has_another_origin() -> None:
    assert spec_of(COMMAND).origins == {}
    assert spec_of(COMMAND, "# nothing\n").origins == {}


@pytest.mark.parametrize(
    ("job", "app", "site", "faults"),
    [
        (COMMAND, "\ntimout_s = 1\n", "", [(APP, 2, "timout_s")]),
        (COMMAND, "", "\n\nmax_running = 0\n", [(SITE, 3, "max_running")]),
        (COMMAND, "max_running = 'x'\n", "max_running = 1\n", [(APP, 1, "max_running")]),
        (COMMAND + "nose = 1\n", "mouth = 1\n", "ear = 1\n", [
            (JOB, 2, "nose"), (APP, 1, "mouth"), (SITE, 1, "ear")
        ]),
        # a value of the job that does not fit what the defaults say of it
        (
            COMMAND + "[variables.X]\ndefault = 9\n",
            "",
            "[variables.X]\ntype = 'integer'\nmax = 5\n",
            [(JOB, 3, "variables.X.default")],
        ),
        # no TOML: the other files are looked at as far as they stand for themselves
        (COMMAND + "nose = 1\n", "x = [\n", "", [(APP, 1, ""), (JOB, 2, "nose")]),
        ("x = [\n", "y = [\n", "", [(JOB, 1, ""), (APP, 1, "")]),
        ("", "x = [\n", "", [(APP, 1, "")]),
        (COMMAND, "", "name = 'all the same'\n", [(SITE, 1, "name")]),
        ("", "", "timeout_s = 1\n", [(JOB, 1, "command")]),
        (COMMAND, "[env]\nA = '{{Nowhere}}'\n", "", [(APP, 2, "env.A")]),
        (COMMAND + "env = 3\n", "[env]\nA = 'x'\n", "", [(JOB, 2, "env")]),
    ],
)  # fmt: skip
def test_a_fault_is_reported_in_the_file_that_has_it(
    job: str, app: str, site: str, faults: list[tuple[str, int, str]]
) -> None:
    assert faults_of(job, app, site) == faults


def test_what_a_job_overrides_cannot_be_wrong_for_it() -> None:
    assert spec_of(COMMAND + "max_running = 2\n", "max_running = 0\n").max_running == 2


def test_defaults_alone_are_judged_by_what_is_right_for_any_job() -> None:
    text = (
        "timout_s = 1\nmax_running = 0\n"
        "command = ['a', '{{OfEachJob}}']\n"
        "[env]\nA = '{{OfEachJob}}'\n[variables.X]\nmin = 3\n"
    )
    found = mistakes_in_defaults(Layer(SITE, text.encode()))
    assert [(each.line, each.key) for each in found] == [(1, "timout_s"), (2, "max_running")]
    assert mistakes_in_defaults(Layer(SITE, b"tags = ['all']\n")) == []


def test_files_are_bounded_together() -> None:
    comment = "#" * (SIZE_MAX // 2)
    fault = decode(COMMAND + comment, comment)
    assert isinstance(fault, DefinitionFault)
    assert "together with its defaults" in fault.reason


def test_revision_changes_with_each_default_and_with_none_is_what_it_was() -> None:
    own = revision_of(b"a", "/x")
    assert own == revision_of(b"a", "/x", ())
    texts = [(), (b"a",), (b"b",), (b"a", b"b"), (b"b", b"a"), (b"ab",), (b"", b"ab")]
    assert len({revision_of(b"a", "/x", each) for each in texts}) == len(texts)
