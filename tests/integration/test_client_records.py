"""The client's records against the API's document: each field of one is in the other, and fits."""

import types
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec
import pytest

from bus.commands import command_decoder
from jobbus.client.command_records import (
    BackfillSchedule,
    CancelCommand,
    CommandRequest,
    DeleteExecution,
    GetStatus,
    PauseQueue,
    PauseSchedule,
    RestartJob,
    ResumeQueue,
    ResumeSchedule,
    RetryExecution,
    RunSchedule,
    SecretRef,
    StartJob,
    StopJob,
    word_of,
)
from jobbus.client.errors import ProblemBody
from jobbus.client.records import (
    Agenda,
    AppPage,
    AuditPage,
    Command,
    CommandPage,
    Execution,
    ExecutionPage,
    GroupPage,
    Job,
    JobPage,
    NewToken,
    SignInCode,
)
from jobbus.client.token_records import TokenPage
from transports.http.document import document

Schema = dict[str, Any]
ID = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"
DOCUMENT = document("test")
ANSWERS: dict[str, tuple[str, type]] = {
    "/api/v1/commands/{id}": ("get", Command),
    "/api/v1/commands": ("get", CommandPage),
    "/api/v1/jobs/{app}/{job}": ("get", Job),
    "/api/v1/apps": ("get", AppPage),
    "/api/v1/jobs": ("get", JobPage),
    "/api/v1/schedule": ("get", Agenda),
    "/api/v1/groups": ("get", GroupPage),
    "/api/v1/executions/{id}": ("get", Execution),
    "/api/v1/executions": ("get", ExecutionPage),
    "/api/v1/tokens": ("get", TokenPage),
    "/api/v1/audit": ("get", AuditPage),
    "/api/v1/session/code": ("post", SignInCode),
}
NOT_NESTED = (
    "lastExecutions[].links: not in the document",
    "JobPage.items[].schedules: not in the document",
)
"""An execution has its links, and a job its schedules, where it stands for itself; the same record
is used for both."""


@pytest.mark.parametrize("path", ANSWERS)
def test_answers_are_what_the_document_says(path: str) -> None:
    method, record = ANSWERS[path]
    found = differences(record, answer_of(path, method), record.__name__)
    assert [each for each in found if not each.endswith(NOT_NESTED)] == []


def test_a_new_token_is_what_the_document_says() -> None:
    assert differences(NewToken, answer_of("/api/v1/tokens", "post"), "NewToken") == []


def test_problems_are_what_the_document_says() -> None:
    problem = DOCUMENT["components"]["schemas"]["Problem"]
    left_out = {"Problem.instance: not in the record"}
    assert set(differences(ProblemBody, problem, "Problem")) == left_out


MOMENT = "2026-11-30T18:00:00+01:00"
REQUESTS: tuple[CommandRequest, ...] = (
    StartJob(
        job_id="A/B",
        variables={"N": 1, "S": SecretRef(secret="s"), "D": None},
        not_before=MOMENT,
    ),
    StopJob(job_id="A/B", execution_id=ID, grace_s=1.5, kill=True),
    RestartJob(job_id="A/B", execution_id=ID, variables={"T": "t"}, grace_s=1.5, kill=True),
    GetStatus(job_id="A/B"),
    CancelCommand(target_id=ID),
    RetryExecution(execution_id=ID, not_before=MOMENT),
    DeleteExecution(execution_id=ID),
    PauseSchedule(job_id="A/B", schedule="s", reason="r", until=MOMENT),
    ResumeSchedule(job_id="A/B", schedule="s"),
    RunSchedule(job_id="A/B", schedule="s"),
    BackfillSchedule(job_id="A/B", schedule="s", begin=MOMENT, end=MOMENT, preview=True),
    PauseQueue(job_id="A/B", group="g", reason="why", until=MOMENT),
    ResumeQueue(job_id="A/B", group="g"),
)


@pytest.mark.parametrize("request_", REQUESTS, ids=word_of)
def test_commands_are_what_the_document_says_and_the_service_takes(
    request_: CommandRequest,
) -> None:
    word = word_of(request_)
    schema = next(s for s in bodies_of_commands() if word in words_of(s["properties"]["command"]))
    fields = set(msgspec.to_builtins(request_)) | {"commandId", "expiresAt"}
    assert fields == schema["properties"].keys()
    taken = command_decoder.decode(msgspec.json.encode(request_))
    assert msgspec.to_builtins(taken) == msgspec.to_builtins(request_)


def test_every_command_is_tried() -> None:
    assert {type(request) for request in REQUESTS} == set(get_args(CommandRequest))


def test_a_field_that_one_side_lacks_or_types_otherwise_is_found() -> None:
    class Wrong(msgspec.Struct):
        here: int
        both: int
        deep: tuple[str, ...] = ()

    schema = {
        "properties": {
            "both": {"type": "string"},
            "there": {"type": "string"},
            "deep": {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
        }
    }
    assert sorted(differences(Wrong, schema, "Wrong")) == [
        "Wrong.both: cannot be string",
        "Wrong.deep[]: cannot be null",
        "Wrong.here: not in the document",
        "Wrong.there: not in the record",
    ]


def answer_of(path: str, method: str) -> Schema:
    answers = DOCUMENT["paths"][path][method]["responses"]
    good = next(answers[code] for code in ("200", "201") if code in answers)
    schema: Schema = good["content"]["application/json"]["schema"]
    return resolved(schema)


def bodies_of_commands() -> list[Schema]:
    body = DOCUMENT["paths"]["/api/v1/commands"]["post"]["requestBody"]
    schema = resolved(body["content"]["application/json"]["schema"])
    choices: list[Schema] = schema["oneOf" if "oneOf" in schema else "anyOf"]
    return [resolved(each) for each in choices]


def words_of(schema: Schema) -> list[str]:
    schema = resolved(schema)
    return [schema["const"]] if "const" in schema else list(schema["enum"])


def resolved(schema: Schema) -> Schema:
    while "$ref" in schema:
        *_, kind, name = schema["$ref"].split("/")
        schema = DOCUMENT["components"][kind][name]
    return schema


def differences(record: Any, schema: Schema, place: str) -> list[str]:
    """Where a record of the client and a schema of an object do not say the same."""
    hints = get_type_hints(record, include_extras=False)
    own = {field.encode_name: hints[field.name] for field in msgspec.structs.fields(record)}
    documented: Schema = schema["properties"]
    found = [f"{place}.{name}: not in the document" for name in own.keys() - documented.keys()]
    found += [f"{place}.{name}: not in the record" for name in documented.keys() - own.keys()]
    for name in own.keys() & documented.keys():
        found += misfits(own[name], documented[name], f"{place}.{name}")
    return found


def misfits(hint: Any, schema: Schema, place: str) -> list[str]:
    """What the schema permits and the type cannot hold."""
    options = options_of(hint)
    if Any in options or msgspec.Raw in options:
        return []
    found = []
    for each in alternatives(schema):
        found += misfit(options, each, place)
    return found


def misfit(options: list[Any], schema: Schema, place: str) -> list[str]:
    kind = schema.get("type") or ("string" if {"const", "enum"} & schema.keys() else None)
    match kind:
        case "array":
            inner = next((get_args(o)[0] for o in options if get_origin(o) is tuple), None)
            return misfits(inner, schema["items"], f"{place}[]") if inner else [f"{place}: no list"]
        case "object" if "properties" in schema:
            records = [o for o in options if hasattr(o, "__struct_fields__")]
            return differences(records[0], schema, place) if records else [f"{place}: no record"]
        case "object":
            inner = next((get_args(o)[1] for o in options if get_origin(o) is dict), None)
            values = schema.get("additionalProperties")
            if inner is None:
                return [f"{place}: no mapping"]
            return misfits(inner, values, f"{place}{{}}") if isinstance(values, dict) else []
        case None:
            return []
        case _:
            fits = {"string": str, "integer": int, "number": float, "boolean": bool}
            wanted = fits.get(kind, types.NoneType)
            good = wanted in options or (wanted is int and float in options)
            return [] if good else [f"{place}: cannot be {kind}"]


def alternatives(schema: Schema) -> list[Schema]:
    schema = resolved(schema)
    for word in ("anyOf", "oneOf"):
        if word in schema:
            return [a for each in schema[word] for a in alternatives(each)]
    kinds = schema.get("type")
    return [schema | {"type": kind} for kind in kinds] if isinstance(kinds, list) else [schema]


def options_of(hint: Any) -> list[Any]:
    if get_origin(hint) in (Union, types.UnionType):
        return [option for each in get_args(hint) for option in options_of(each)]
    return [hint]


def test_a_secret_is_named_as_the_document_says() -> None:
    schema = DOCUMENT["components"]["schemas"]["SecretRef"]
    assert differences(SecretRef, schema, "SecretRef") == []
