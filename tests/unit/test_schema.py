"""The JSON schemas of the files that people write agree with what is read."""

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bus.job_definition import DefinitionFault, JobSpec
from handlers.catalog.definition_decoding import decode_definition
from handlers.catalog.record_decoding import RecordDecoder, fields_of
from handlers.catalog.toml_lines import key_lines
from jobbus.service.schemas import FILES, schema_of
from tests.unit.test_definition import COMMAND, EVERYTHING, FAULTS, LATER_FAULTS

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module", params=FILES)
def schema(request: pytest.FixtureRequest) -> Any:
    return schema_of(request.param)


@pytest.fixture(scope="module")
def of_job() -> jsonschema.Draft7Validator:
    return jsonschema.Draft7Validator(schema_of("job.toml"))


def test_schemas_are_schemas_with_words_for_every_key(schema: Any) -> None:
    jsonschema.Draft7Validator.check_schema(schema)
    bare = [path for path, key in _keys(schema, "") if "description" not in key]
    assert bare == []


def _keys(schema: Any, path: str) -> list[tuple[str, Any]]:
    """All keys of a schema, however deep, but for the sections themselves."""
    found = []
    for name, key in schema.get("properties", {}).items():
        here = f"{path}.{name}"
        found += [(here, key), *_keys(key, here)]
        for inner in (key.get("items", {}), key.get("additionalProperties", {})):
            found += _keys(inner, here) if isinstance(inner, dict) else []
    return found


def test_every_definition_of_the_examples_and_of_the_tests_is_valid(
    of_job: jsonschema.Draft7Validator,
) -> None:
    files = [*ROOT.glob("examples/**/job.toml"), *ROOT.glob("docs/**/job.toml")]
    assert files
    for file in files:
        _assert_valid(of_job, file.read_text(encoding="utf-8"), str(file))
    _assert_valid(of_job, EVERYTHING, "everything")
    _assert_valid(of_job, COMMAND, "the least")


def _assert_valid(validator: jsonschema.Draft7Validator, text: str, name: str) -> None:
    errors = [error.message for error in validator.iter_errors(tomllib.loads(text))]
    assert errors == [], name


def test_known_mistakes_are_refused_as_far_as_a_schema_can(
    of_job: jsonschema.Draft7Validator,
) -> None:
    """Keys that are unknown, missing or of another type, and numbers out of their range; the rest
    is between keys, or in what a text means."""
    refused = 0
    for text, _, reason in (*FAULTS, *LATER_FAULTS):
        try:
            document = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            continue
        decoder = RecordDecoder()
        decoder.fields(JobSpec, document, ())
        is_refused = not of_job.is_valid(document)
        refused += is_refused
        of_number = "must be from" in reason and not ("inf" in text or "nan" in text)
        assert is_refused or not (decoder.problems or of_number), (text, reason)
    assert refused > 40


@pytest.mark.parametrize(
    "text",
    [
        'command = [""]',
        COMMAND + "user = -1",
        COMMAND + 'user = ""',
        COMMAND + "group = 4294967295",
        COMMAND + 'formerly = ["Old"]',
        COMMAND + 'stdin = "settings.txt"',
        COMMAND + 'ready = "http"',
        COMMAND + 'env_file = "?"',
        COMMAND + "[health]",
        COMMAND + '[[schedule]]\nname = "x"',
        COMMAND + '[[schedule]]\ncron = "@daily"\nevery_s = 3',
        COMMAND + "[output]\nmax_bytes = 1125899906842625",
    ],
)
def test_what_is_between_keys_or_in_a_short_text_is_refused_too(
    of_job: jsonschema.Draft7Validator, text: str
) -> None:
    assert not of_job.is_valid(tomllib.loads(text))
    found = decode_definition(text.encode(), file="job.toml", directory="/x")
    assert isinstance(found, DefinitionFault)


def test_number_at_its_limit_is_valid_however_large(of_job: jsonschema.Draft7Validator) -> None:
    text = COMMAND + "[output]\nmax_bytes = 1125899906842624"
    assert of_job.is_valid(tomllib.loads(text))
    found = decode_definition(text.encode(), file="job.toml", directory="/x")
    assert isinstance(found, JobSpec)


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("max_running", (1, 10_000)),
        ("retry.attempts", (1, 1000)),
        ("limits.nice", (-20, 19)),
        ("variables.NAME.max_length", (1, 32_000)),
    ],
)
def test_limits_of_numbers_are_those_of_the_checks(text: str, limits: tuple[int, int]) -> None:
    schema = schema_of("job.toml")
    for part in text.split("."):
        inner = schema["additionalProperties"] if part == "NAME" else schema["properties"][part]
        schema = inner
    low, high = limits
    assert (schema["minimum"], schema["maximum"]) == limits
    section, _, key = text.replace("NAME", "X").rpartition(".")
    for value, is_right in ((low, True), (high, True), (low - 1, False), (high + 1, False)):
        head = f"[{section}]\n" if section else ""
        found = decode_definition(
            f"{COMMAND}{head}{key} = {value}\n".encode(), file="job.toml", directory="/x"
        )
        assert isinstance(found, JobSpec) is is_right, (text, value, found)


def test_defaults_require_nothing_and_take_the_same_keys() -> None:
    whole, defaults = schema_of("job.toml"), schema_of("defaults.toml")
    assert whole["properties"].keys() == defaults["properties"].keys() == fields_of(JobSpec).keys()
    validator = jsonschema.Draft7Validator(defaults)
    assert validator.is_valid({"retry": {"attempts": 3}, "variables": {"X": {"min": 3}}})
    assert not validator.is_valid({"retry": {"attempts": 0}})
    assert not validator.is_valid({"rety": {}})


def test_calendars_are_taken_and_refused_by_the_schema_as_by_the_service() -> None:
    validator = jsonschema.Draft7Validator(schema_of("calendars.toml"))
    (example,) = ROOT.glob("examples/**/calendars.toml")
    assert validator.is_valid(tomllib.loads(example.read_text(encoding="utf-8")))
    for text in ("[calender.X]\n", "[calendar.X]\nweekday = []\n", "[blackout.X]\ndo = 'x'\n"):
        assert not validator.is_valid(tomllib.loads(text)), text


def test_settings_are_refused_by_the_schema_as_by_the_service() -> None:
    validator = jsonschema.Draft7Validator(schema_of("jobbus.toml"))
    right = '[serve]\nlisten = "127.0.0.1:0"\n[secrets]\nA = { env = "X" }\n[keep]\ndays = 3\n'
    assert validator.is_valid(tomllib.loads(right))
    for text in ("[serv]\n", "[serve]\nlistn = ''\n", "[keep]\ndays = 0\n", "[secrets]\nA = 'x'\n"):
        assert not validator.is_valid(tomllib.loads(text)), text
    for text in ("[group.A]\nmax_running = 0\n", "[group.A]\n", "[group.A]\nmax = 1\n"):
        assert not validator.is_valid(tomllib.loads(text)), text


def test_line_that_names_the_schema_is_a_comment_for_us() -> None:
    text = "#:schema http://127.0.0.1:8765/schemas/job.toml.json\n" + COMMAND
    assert isinstance(decode_definition(text.encode(), file="job.toml", directory="/x"), JobSpec)
    assert key_lines(text)[("command",)] == 2
