"""Where the values of secrets are read from, and what is said when they cannot be had."""

import os
from pathlib import Path

import pytest

from bus.errors import ConfigError
from bus.model import SecretRef
from bus.secret_sources import SecretSource
from handlers.supervision.secrets import VALUE_BYTES_MAX, SecretUnavailable, SecretValues
from jobbus.service.settings_reading import load_settings

VALUE = "s3cr3t-value-of-a-file"


def values(path: Path, content: bytes = b"", mode: int = 0o600) -> SecretValues:
    """The secret S, which is in the file."""
    if not path.exists():
        path.write_bytes(content)
        path.chmod(mode)
    return SecretValues({"S": SecretSource(file=path)}, {})


@pytest.mark.parametrize(
    ("content", "value"),
    [("a b\n", "a b"), ("a", "a"), ("a\n\n", "a\n"), ("a\r\n", "a"), ("é\n", "é")],
)
def test_a_file_is_read_without_its_last_newline(tmp_path: Path, content: str, value: str) -> None:
    found = values(tmp_path / "s", content.encode())
    assert found.read("App/Job", {"Token": SecretRef(secret="S")}) == {"Token": value}
    assert found.complaints() == []


def test_a_variable_of_the_services_environment_is_read_when_asked() -> None:
    environ = {"DB": "one"}
    found = SecretValues({"S": SecretSource(env="DB")}, environ)
    assert found.value("S") == "one"
    environ["DB"] = "two"
    assert found.value("S") == "two"


@pytest.mark.parametrize(
    ("content", "mode", "sentence"),
    [
        (VALUE.encode(), 0o640, "chmod 600"),
        (VALUE.encode(), 0o604, "chmod 600"),
        (b"", 0o600, "is empty"),
        (b"\n", 0o600, "is empty"),
        (b"x\0" + VALUE.encode(), 0o600, "NUL"),
        (VALUE.encode() + b"\xff", 0o600, "no UTF-8"),
        (VALUE.encode() * VALUE_BYTES_MAX, 0o600, "longer than"),
    ],
)
def test_a_file_that_will_not_do_is_refused_with_what_to_do(
    tmp_path: Path, content: bytes, mode: int, sentence: str
) -> None:
    found = values(tmp_path / "s", content, mode)
    with pytest.raises(SecretUnavailable, match=sentence) as caught:
        found.value("S")
    assert VALUE not in str(caught.value)
    assert found.complaints() == [str(caught.value)]


def test_a_missing_file_a_folder_and_a_pipe_are_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    for name, sentence in (("none", "No such file"), ("pipe", "regular"), ("folder", "regular")):
        found = SecretValues({"S": SecretSource(file=tmp_path / name)}, {})
        with pytest.raises(SecretUnavailable, match=sentence):
            found.value("S")


def test_a_name_that_is_not_configured_is_not_repeated() -> None:
    with pytest.raises(SecretUnavailable) as caught:
        SecretValues({}).value(VALUE)
    assert VALUE not in str(caught.value)


def test_the_section_names_where_values_are(tmp_path: Path) -> None:
    config = tmp_path / "jobbus.toml"
    config.write_text(
        '[secrets]\nA = { env = "VAR" }\n"b.c-1" = { file = "keys/b" }\n'
        'C = { env = "VAR", jobs = ["App/Job"] }\n'
    )
    assert load_settings(config).secrets == {
        "A": SecretSource(env="VAR"),
        "b.c-1": SecretSource(file=tmp_path / "keys" / "b"),
        "C": SecretSource(env="VAR", jobs=("App/Job",)),
    }


def test_a_secret_is_read_for_its_jobs_alone() -> None:
    """Also for what was ordered before the settings said so: a job that waits, a retry."""
    found = SecretValues({"S": SecretSource(env="VAR", jobs=("App/Job",))}, {"VAR": VALUE})
    references = {"Token": SecretRef(secret="S")}
    assert found.read("App/Job", references) == {"Token": VALUE}
    with pytest.raises(SecretUnavailable, match="is not for App/Other") as caught:
        found.read("App/Other", references)
    assert VALUE not in str(caught.value)


@pytest.mark.parametrize(
    "line",
    [
        f'A = "{VALUE}"',
        f'A = {{ value = "{VALUE}" }}',
        f'A = {{ env = "X", file = "{VALUE}" }}',
        "A = { }",
        'A = { env = "" }',
        'A = { file = "" }',
        '"a b" = { env = "X" }',
    ],
)
def test_a_value_in_the_settings_is_refused_and_not_repeated(tmp_path: Path, line: str) -> None:
    config = tmp_path / "jobbus.toml"
    config.write_text(f"[secrets]\n{line}\n")
    with pytest.raises(ConfigError, match=r"\[secrets\]") as caught:
        load_settings(config)
    assert VALUE not in str(caught.value)


def test_the_environment_names_no_secrets() -> None:
    with pytest.raises(ConfigError, match="in the file only"):
        load_settings(environ={"JOBBUS_SECRETS_A": VALUE})
