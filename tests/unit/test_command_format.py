"""The queue file: what goes in comes out, what is forged is not believed, no bytes do harm."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bus.clock import TIME_MS_MAX, TIME_MS_MIN, from_rfc3339, rfc3339
from bus.commands import (
    BackfillSchedule,
    CancelCommand,
    Command,
    DeleteExecution,
    GetStatus,
    PauseSchedule,
    RestartJob,
    ResumeSchedule,
    RetryExecution,
    RunSchedule,
    StartJob,
    StopJob,
    is_urgent,
    is_urgent_kind,
    kind_of,
)
from bus.envelope import Envelope, seal
from bus.errors import ErrorCode, Refused
from bus.model import Principal, SecretRef
from bus.retention_settings import RetentionSettings
from jobbus.service.settings import DirectorySection
from jobbus.service.transport_settings import directory_settings
from transports.directory import command_format, foreign, foreign_commands
from transports.directory.command_files import plain_json
from transports.directory.command_format import NotACommand
from transports.directory.foreign import Writer
from transports.directory.results import encode_result
from transports.directory.settings import DirectorySettings

SECRET = b"k" * 32
SETTINGS = DirectorySettings()
SERVICE = Writer(1000, True, 1_769_450_400_000)
OTHER_ACCOUNT = Writer(1001, False, 1_769_450_400_000)
COMMAND_ID = "f1d02c3e-9a4b-4c5d-8e6f-7a8b9c0d1e2f"
ORIGINS = {
    "CommandID": COMMAND_ID,
    "Command": "start",
    "JobID": "WebHostMetrics/CollectMetrics",
    "UserID": "alice",
    "SessionID": "s-1",
    "Variables": {"Interval": 30},
    "Roles": ["operator"],
    "SubmittedAt": "2026-01-26T10:00:00.0000000-08:00",
    "Status": "Pending",
}

texts = st.text(max_size=40)
uuids = st.uuids().map(str)
values = st.one_of(
    texts,
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.booleans(),
    st.none(),
    st.builds(SecretRef, secret=texts),
)
variables = st.dictionaries(texts, values, max_size=6)
moments = st.integers(TIME_MS_MIN, TIME_MS_MAX).map(rfc3339)
graces = st.none() | st.floats(min_value=0, max_value=1e9)
commands: st.SearchStrategy[Command] = st.one_of(
    st.builds(StartJob, job_id=texts, variables=variables, not_before=st.none() | moments),
    st.builds(
        StopJob,
        job_id=st.none() | texts,
        execution_id=st.none() | uuids,
        grace_s=graces,
        kill=st.booleans(),
    ),
    st.builds(
        RestartJob,
        job_id=st.none() | texts,
        execution_id=st.none() | uuids,
        variables=st.none() | variables,
        grace_s=graces,
        kill=st.booleans(),
    ),
    st.builds(GetStatus, job_id=texts),
    st.builds(CancelCommand, target_id=uuids),
    st.builds(RetryExecution, execution_id=uuids, not_before=st.none() | moments),
    st.builds(DeleteExecution, execution_id=uuids),
    st.builds(
        PauseSchedule,
        job_id=texts,
        schedule=st.none() | texts,
        reason=texts,
        until=st.none() | moments,
    ),
    st.builds(ResumeSchedule, job_id=texts, schedule=st.none() | texts),
    st.builds(RunSchedule, job_id=texts, schedule=st.none() | texts),
    st.builds(
        BackfillSchedule,
        job_id=texts,
        schedule=st.none() | texts,
        begin=moments,
        end=moments,
        preview=st.booleans(),
    ),
)
principals = st.builds(
    Principal,
    user_id=texts,
    roles=st.lists(texts, max_size=4).map(tuple),
    via=st.sampled_from(["http", "cli", "directory", "system"]),
)
times_ms = st.integers(min_value=0, max_value=4_102_444_800_000)
envelopes = st.builds(
    seal,
    commands,
    principals,
    now_ms=times_ms,
    command_id=uuids,
    expires_ms=st.none() | times_ms,
    session_hash=st.none() | texts,
    traceparent=st.none() | texts,
)


def written(**fields: Any) -> foreign_commands.ForeignFile:
    return foreign_commands.decode(json.dumps({**ORIGINS, **fields}).encode())


def without(*names: str) -> foreign_commands.ForeignFile:
    return foreign_commands.decode(
        json.dumps({k: v for k, v in ORIGINS.items() if k not in names}).encode()
    )


def envelope_of(file: foreign_commands.ForeignFile, writer: Writer = SERVICE) -> Envelope:
    return foreign.envelope_of(file, writer, SETTINGS, SECRET)


# -- our own files ---------------------------------------------------------------------------------


@given(envelopes, st.integers(min_value=1, max_value=2**62))
def test_an_envelope_comes_back_as_it_was_sealed(sent: Envelope, accepted_ns: int) -> None:
    sealed = command_format.open_seal(command_format.encode(sent, accepted_ns, SECRET), SECRET)
    assert sealed is not None
    assert command_format.unsealed(sealed) == msgspec.structs.replace(sent, accepted_ns=accepted_ns)


@pytest.mark.parametrize(
    "at_ms", [-62_135_596_800_000, 0, 1, 33_554_429, 1_769_450_400_123, TIME_MS_MAX]
)
def test_no_millisecond_of_a_time_is_lost(at_ms: int) -> None:
    sent = seal(
        StartJob(job_id="A/B"),
        Principal(user_id="a"),
        now_ms=at_ms,
        command_id=COMMAND_ID,
        expires_ms=at_ms,
    )
    sealed = command_format.open_seal(command_format.encode(sent, 1, SECRET), SECRET)
    assert sealed is not None
    got = command_format.unsealed(sealed)
    assert (got.submitted_ms, got.expires_ms) == (at_ms, at_ms)


@pytest.mark.parametrize(
    "text", ["0001-01-01T00:00:00.0000000+01:00", "9999-12-31T23:59:59.9999999-01:00"]
)
def test_a_time_that_its_zone_puts_beyond_utc_is_no_time(text: str) -> None:
    """The first is what PowerShell makes of `[datetime]::MinValue` east of Greenwich."""
    with pytest.raises(ValueError, match="outside of the years"):
        from_rfc3339(text)
    file = foreign_commands.decode(json.dumps({**ORIGINS, "SubmittedAt": text}).encode())
    assert envelope_of(file).submitted_ms == SERVICE.mtime_ms
    late = foreign_commands.decode(json.dumps({**ORIGINS, "ExpiresAt": text}).encode())
    with pytest.raises(Refused, match="ExpiresAt must be a time"):
        envelope_of(late)


def test_a_record_with_such_a_time_can_still_be_shown() -> None:
    assert rfc3339(TIME_MS_MIN - 1) == "0001-01-01T00:00:00.000Z"
    assert rfc3339(TIME_MS_MAX + 1) == "9999-12-31T23:59:59.999Z"


@given(envelopes, st.data())
def test_no_byte_of_a_sealed_file_can_be_changed(sent: Envelope, data: st.DataObject) -> None:
    file = bytearray(command_format.encode(sent, 7, SECRET))
    at = data.draw(st.integers(min_value=0, max_value=len(file) - 2))  # the last is the line end
    file[at] ^= data.draw(st.integers(min_value=1, max_value=255))
    assert command_format.open_seal(bytes(file), SECRET) is None


def test_a_seal_of_another_instance_is_none() -> None:
    sent = seal(StartJob(job_id="A/B"), Principal(user_id="a"), now_ms=0)
    assert command_format.open_seal(command_format.encode(sent, 1, b"other" * 8), SECRET) is None


def test_a_sealed_file_reads_as_the_origin_writes_it() -> None:
    sent = seal(
        StartJob(job_id="WebHostMetrics/CollectMetrics", variables={"Interval": 30}),
        Principal(user_id="alice", roles=("operator",), via="http"),
        now_ms=1_769_450_400_000,
        command_id=COMMAND_ID,
    )
    fields = json.loads(command_format.encode(sent, 5, SECRET))
    expected = {k: v for k, v in ORIGINS.items() if k != "SessionID"}
    assert {k: fields.get(k) for k in expected} == {
        **expected,
        "SubmittedAt": "2026-01-26T18:00:00.000Z",
    }
    assert fields["AcceptedAt"] == 5


@given(commands, st.booleans())
def test_the_word_of_a_command_is_as_urgent_as_the_command(command: Command, loud: bool) -> None:
    word = kind_of(command)
    assert is_urgent_kind(word.upper() if loud else word) == is_urgent(command)


@given(envelopes)
def test_no_proper_prefix_of_a_command_is_taken_for_one(sent: Envelope) -> None:
    file = command_format.encode(sent, 1, SECRET).rstrip()
    for end in range(len(file)):
        with pytest.raises(NotACommand):
            command_format.outline(plain_json(file[:end]))


# -- files of others -------------------------------------------------------------------------------


def test_the_origins_file_is_a_start_by_its_user() -> None:
    got = envelope_of(written())
    assert got.id == COMMAND_ID
    assert got.command == StartJob(
        job_id="WebHostMetrics/CollectMetrics", variables={"Interval": 30}
    )
    assert got.principal == Principal(user_id="alice", roles=("operator",), via="directory")
    assert got.submitted_ms == 1_769_450_400_000
    assert got.submitted_text == "2026-01-26T10:00:00.0000000-08:00"


@pytest.mark.parametrize(
    ("roles", "granted"),
    [
        (None, ("operator",)),
        ("viewer", ("viewer",)),
        (["a", 1, None, "b"], ("a", "b")),
        ([], ("operator",)),
        ("", ("operator",)),
        ([None, ""], ("operator",)),
        (" ", ("operator",)),
        ({}, ("operator",)),
        ([[]], ("operator",)),
        ({"value": ["viewer", "a"], "Count": 2}, ("viewer", "a")),
        ({"value": [], "Count": 0}, ("operator",)),
        ({"value": ["admin"], "Count": 1}, ()),
        ({"role": "operator"}, ()),
        ([1], ()),
        (["admin", "viewer"], ("viewer",)),
        ("admin", ()),
    ],
)
def test_roles_of_the_services_own_account_are_believed_but_admin(
    roles: object, granted: tuple[str, ...]
) -> None:
    assert foreign.principal_of(written(Roles=roles), SERVICE, SETTINGS).roles == granted


@pytest.mark.parametrize("roles", [["a", 1], {"role": "operator"}, 3, [["operator"]], True])
def test_roles_that_are_no_words_are_refused_if_they_would_be_believed(roles: object) -> None:
    with pytest.raises(Refused, match='Roles must be words such as \\["operator"\\]'):
        envelope_of(written(Roles=roles))
    assert envelope_of(written(Roles=roles), OTHER_ACCOUNT).principal.roles == ()


SPELLED = {name: [name.lower(), name.upper(), name[0].lower() + name[1:]] for name in ORIGINS}


@pytest.mark.parametrize("number", range(3))
def test_names_of_fields_are_known_in_any_case(number: int) -> None:
    spelled = {SPELLED[name][number]: value for name, value in ORIGINS.items()}
    text = json.dumps(spelled).encode()
    assert foreign_commands.decode(text) == foreign_commands.decode(json.dumps(ORIGINS).encode())
    assert command_format.outline(text) == command_format.outline(json.dumps(ORIGINS).encode())


@pytest.mark.parametrize("order", [1, -1])
def test_our_spelling_wins_and_two_others_must_say_the_same(order: int) -> None:
    def judged(**fields: object) -> Envelope:
        more = list(({k: v for k, v in ORIGINS.items() if k != "JobID"} | fields).items())
        return foreign.envelope_of(
            foreign_commands.decode(json.dumps(dict(more[::order])).encode()),
            SERVICE,
            SETTINGS,
            SECRET,
        )

    assert judged(JobID="A/B", jobid="C/D", JOBID="E/F").command == StartJob(
        job_id="A/B", variables={"Interval": 30}
    )
    assert isinstance(judged(jobid="A/B", JOBID="A/B").command, StartJob)
    with pytest.raises(Refused, match="JobID stands there in two spellings"):
        judged(jobid="A/B", JOBID="C/D")
    with pytest.raises(Refused, match="Kill stands there in two spellings"):
        judged(JobID="A/B", kill=True, KILL=1)


def test_names_of_variables_are_taken_as_they_are() -> None:
    command = envelope_of(written(Variables={"interval": 1, "INTERVAL": 2})).command
    assert isinstance(command, StartJob)
    assert command.variables == {"interval": 1, "INTERVAL": 2}


def mapped(roles: object, **settings: object) -> tuple[str, ...]:
    section = msgspec.convert(settings, DirectorySection)
    return foreign.principal_of(
        written(Roles=roles), SERVICE, directory_settings(section, RetentionSettings())
    ).roles


@pytest.mark.parametrize(
    ("roles", "settings", "granted"),
    [
        (["authenticated"], {}, ("authenticated", "operator")),
        ("authenticated", {"default_roles": ["viewer"]}, ("authenticated", "viewer")),
        (["authenticated"], {"role_map": {"authenticated": []}}, ("authenticated",)),
        (
            ["site_admin", "authenticated", "viewer"],
            {"role_map": {"site_admin": ["viewer", "operator"], "debug": ["tester"]}},
            ("site_admin", "authenticated", "viewer", "operator"),
        ),
        (["admin"], {"role_map": {"admin": ["operator"]}}, ("operator",)),
        ([], {"default_roles": []}, ()),
    ],
)
def test_a_word_of_the_host_counts_as_the_map_says_and_stays_itself(
    roles: object, settings: dict[str, object], granted: tuple[str, ...]
) -> None:
    assert mapped(roles, **settings) == granted


def test_admin_is_believed_where_the_setting_says_so() -> None:
    settings = DirectorySettings(admin=True)
    principal = foreign.principal_of(written(Roles=["admin"]), SERVICE, settings)
    assert principal.roles == ("admin",)


@pytest.mark.parametrize(
    "name",
    [
        *("uid:0", "UID:0", "schedule:x", "policy:x", "system:bus", "", None, 7),
        *("a\x1b]0;owned\x07", "a\nb", " a", "\u202eecila", "a" * 129),
    ],
)
def test_names_that_only_jobbus_gives_and_what_is_no_name_are_not_believed(name: object) -> None:
    assert envelope_of(written(UserID=name)).principal.user_id == "uid:1000"


def test_another_account_acts_as_its_uid_with_configured_roles() -> None:
    settings = DirectorySettings(uid_roles={1001: ("viewer",)})
    file = written(UserID="alice", Roles=["operator", "admin"])
    principal = foreign.principal_of(file, OTHER_ACCOUNT, settings)
    assert principal == Principal(user_id="uid:1001", roles=("viewer",), via="directory")
    assert foreign.principal_of(file, Writer(1002, False, 0), settings).roles == ()
    assert foreign.principal_of(file, Writer(0, False, 0), settings).roles == ("admin",)


@pytest.mark.parametrize("word", ["start", "Start", "START"])
def test_the_word_may_be_written_in_any_case(word: str) -> None:
    assert isinstance(envelope_of(written(Command=word)).command, StartJob)


def test_a_restart_without_variables_keeps_the_old_ones() -> None:
    for nothing in ("null", "{}"):
        fields = {"Command": "restart", "Variables": json.loads(nothing)}
        got = envelope_of(written(**fields)).command
        assert got == RestartJob(job_id=str(ORIGINS["JobID"]), variables=None)


@pytest.mark.parametrize("nothing", [None, {}, [], "", " ", [[]]])
def test_what_was_not_given_is_none_however_it_is_written(nothing: object) -> None:
    job_id = str(ORIGINS["JobID"])
    start = envelope_of(written(Variables=nothing, ExpiresAt=nothing))
    assert (start.command, start.expires_ms) == (StartJob(job_id=job_id), None)
    stop = envelope_of(written(Command="stop", GraceS=nothing, Kill=nothing)).command
    assert stop == StopJob(job_id=job_id)
    restart = envelope_of(written(Command="restart", Variables=nothing)).command
    assert restart == RestartJob(job_id=job_id, variables=None)


@pytest.mark.parametrize(
    ("said", "kills"),
    [(True, True), (False, False), ({"IsPresent": True}, True), ({"IsPresent": False}, False)],
)
def test_kill_is_a_truth_value_or_a_switch(said: object, kills: bool) -> None:
    stop = envelope_of(written(Command="stop", Kill=said)).command
    assert isinstance(stop, StopJob)
    assert stop.kill is kills


@pytest.mark.parametrize("said", ["true", 1, 0, "no", ["x"], {"a": True}, {"IsPresent": "x"}])
@pytest.mark.parametrize("word", ["stop", "restart"])
def test_kill_that_is_not_understood_is_refused_and_no_other_stop_done(
    said: object, word: str
) -> None:
    with pytest.raises(Refused, match="Kill must be true or false, not "):
        envelope_of(written(Command=word, Kill=said))


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"Command": "explode"}, ErrorCode.UNKNOWN_COMMAND),
        ({"Command": None}, ErrorCode.UNKNOWN_COMMAND),
        ({"JobID": None}, ErrorCode.UNKNOWN_JOB),
        ({"JobID": ["A/B"]}, ErrorCode.UNKNOWN_JOB),
        ({"Variables": {"a": [1]}}, ErrorCode.BAD_VARIABLES),
        ({"Variables": "x"}, ErrorCode.BAD_VARIABLES),
        ({"Variables": [{"Key": "a", "Value": 1}]}, ErrorCode.BAD_VARIABLES),
        ({"Command": "stop", "ExecutionID": ""}, ErrorCode.UNKNOWN_EXECUTION),
        ({"Command": "stop", "GraceS": "soon"}, ErrorCode.BAD_VARIABLES),
        ({"Command": "stop", "GraceS": -1}, ErrorCode.BAD_VARIABLES),
        ({"Command": "stop", "GraceS": 86_401}, ErrorCode.BAD_VARIABLES),
        ({"Command": "stop", "GraceS": 1e300}, ErrorCode.BAD_VARIABLES),
        ({"Command": "stop", "GraceS": 10**400}, ErrorCode.BAD_VARIABLES),
        ({"Command": "stop", "ExecutionID": "../x"}, ErrorCode.UNKNOWN_EXECUTION),
        ({"Command": "retry"}, ErrorCode.UNKNOWN_EXECUTION),
        ({"Command": "cancel"}, ErrorCode.UNKNOWN_COMMAND),
        ({"ExpiresAt": "tomorrow"}, ErrorCode.EXPIRED),
        ({"JobID": "A" * 1000}, ErrorCode.UNKNOWN_JOB),
    ],
)
def test_what_cannot_be_carried_out_is_refused_with_a_code(
    fields: dict[str, Any], code: ErrorCode
) -> None:
    with pytest.raises(Refused) as caught:
        envelope_of(written(**fields))
    assert caught.value.code is code


@pytest.mark.parametrize("written_id", [None, 7, "x", "../../etc/passwd", COMMAND_ID + "0"])
def test_without_a_uuid_it_is_no_command(written_id: object) -> None:
    with pytest.raises(NotACommand):
        envelope_of(written(CommandID=written_id))


def test_an_upper_case_id_is_kept_as_written_beside_the_canonical_one() -> None:
    got = envelope_of(written(CommandID=COMMAND_ID.upper()))
    assert (got.id, got.id_text) == (COMMAND_ID, COMMAND_ID.upper())


@pytest.mark.parametrize("submitted", [None, "yesterday", {"value": "/Date(1)/"}, "9" * 400])
def test_without_a_time_of_its_own_the_files_time_counts(submitted: object) -> None:
    assert envelope_of(written(SubmittedAt=submitted)).submitted_ms == SERVICE.mtime_ms


@pytest.mark.parametrize("text", ["", "x", "00-zz", "a\r\nb" * 50, {"a": 1}, 7])
def test_a_trace_context_that_is_none_is_left_out(text: object) -> None:
    assert envelope_of(written(Traceparent=text)).traceparent is None


def test_a_session_leaves_only_a_keyed_hash() -> None:
    got = envelope_of(written(SessionID="secret-cookie"))
    assert got.session_hash is not None
    assert b"secret-cookie" not in msgspec.json.encode(got)
    other = foreign.envelope_of(written(SessionID="secret-cookie"), SERVICE, SETTINGS, b"o" * 32)
    assert other.session_hash != got.session_hash


def test_equal_requests_of_different_users_have_equal_hashes() -> None:
    one = envelope_of(written())
    other = envelope_of(without("SessionID", "Roles", "SubmittedAt", "Status"), OTHER_ACCOUNT)
    assert one.body_hash == other.body_hash
    assert envelope_of(written(Variables={"Interval": 31})).body_hash != one.body_hash


TEXT = json.dumps(ORIGINS, ensure_ascii=False, indent=1)


@pytest.mark.parametrize(
    "raw",
    [
        TEXT.encode(),
        b"\xef\xbb\xbf" + TEXT.encode(),
        b"\xff\xfe" + TEXT.encode("utf-16-le"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.replace("\n", "\r\n").encode() + b"\r\n",
        b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode() + b"\r\n",
        TEXT.encode() + b"\0" * 500,
        b"\xff\xfe" + (TEXT + "\r\n" + "\0" * 9).encode("utf-16-le"),
        b"  \n" + TEXT.encode() + b" \t",
    ],
    ids=["plain", "bom", "le", "be", "crlf", "bom-crlf", "nuls", "le-nuls", "blanks"],
)
def test_what_powershell_writes_is_understood(raw: bytes) -> None:
    assert foreign_commands.decode(plain_json(raw)) == foreign_commands.decode(TEXT.encode())
    assert command_format.outline(plain_json(raw)).command_id == COMMAND_ID


# -- anything --------------------------------------------------------------------------------------

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(10**400)  # valid JSON, and no float holds it
    | st.floats()
    | texts
    | uuids,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
field_names = st.sampled_from([*command_format.FIELD_NAMES.values(), "SessionID", "Seal", "Other"])


def verdict(raw: bytes) -> str:
    """Which of the allowed ends a file comes to; anything else would raise."""
    try:
        text = plain_json(raw)
    except ValueError:
        return "encoding"
    try:
        command_format.outline(text)
        file = foreign_commands.decode(text)
    except NotACommand:
        return "no command"
    try:
        foreign.envelope_of(file, SERVICE, SETTINGS, SECRET)
    except NotACommand:
        return "no command"
    except Refused as why:
        foreign.rejected(file, SERVICE, SETTINGS, why, 0)
        return "refused"
    return "command"


@given(st.binary(max_size=300))
@example(b"[" * 200_000)
@example(b'{"Variables":' * 5_000)
@example(b'{"CommandID":"\\ud800"}')
@example(b'{"CommandID":' + b"9" * 5_000 + b"}")
@example(b"\xff\xfe\x00")
@example(b"")
def test_no_bytes_raise_anything_else(raw: bytes) -> None:
    assert verdict(raw) in ("encoding", "no command", "refused", "command")


@given(st.dictionaries(field_names, json_values, max_size=12), st.booleans())
def test_no_fields_raise_anything_else(fields: dict[str, Any], with_id: bool) -> None:
    if with_id:
        fields["CommandID"] = COMMAND_ID
    raw = msgspec.json.encode(fields)
    assert verdict(raw) in ("no command", "refused", "command")


def test_a_long_text_that_says_nothing_is_not_kept() -> None:
    """Records stay in memory for as long as commands are kept: 100 000 of them by default."""
    long = "x" * 200_000
    file = written(JobID=long, Command=long, SubmittedAt=long)
    record = foreign.rejected(file, SERVICE, SETTINGS, Refused(ErrorCode.POISON, "x"), 0)
    assert len(msgspec.json.encode(record)) < 2_000
    assert (
        len(envelope_of(written(SubmittedAt=long)).submitted_text or "")
        <= foreign_commands.TEXT_MAX
    )


@given(st.dictionaries(field_names, json_values, max_size=12))
def test_a_refused_command_still_has_a_result_that_can_be_written(fields: dict[str, Any]) -> None:
    file = foreign_commands.decode(msgspec.json.encode({**fields, "CommandID": COMMAND_ID}))
    record = foreign.rejected(file, SERVICE, SETTINGS, Refused(ErrorCode.POISON, "x"), 0)
    assert json.loads(encode_result(record))["Status"] == "Rejected"
