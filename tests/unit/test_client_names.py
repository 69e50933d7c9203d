"""What `jobbus` offers to import: every name is there, typed, and says what it is for."""

import ast
import inspect
import subprocess
import sys
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

import jobbus
from jobbus.client.audit import AuditCalls
from jobbus.client.client import Client
from jobbus.client.token_records import TokenCalls

PUBLIC = [name for name in jobbus.__all__ if name != "__version__"]
FOLDER = Path(jobbus.__file__).parent


def test_every_name_is_there_and_unknown_ones_are_an_attribute_error() -> None:
    assert jobbus.__version__ == version("jobbus")
    assert {name for name in PUBLIC if getattr(jobbus, name).__module__ == "typing"} == set()
    assert sorted(set(PUBLIC)) == PUBLIC
    assert set(jobbus.__all__) <= set(dir(jobbus))
    with pytest.raises(AttributeError, match="no name 'Nothing'"):
        _ = jobbus.Nothing
    assert (FOLDER / "py.typed").is_file()


def test_what_type_checkers_see_is_what_can_be_imported() -> None:
    tree = ast.parse((FOLDER / "__init__.py").read_text())
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.name
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == set(PUBLIC)


@pytest.mark.parametrize("name", PUBLIC)
def test_every_public_name_has_a_docstring(name: str) -> None:
    thing = getattr(jobbus, name)
    if not inspect.isclass(thing):
        assert name in documented_aliases()
        return
    assert own_docstring(thing)
    assert [word for word, part in public_parts(thing) if not own_docstring(part)] == []


@pytest.mark.parametrize("calls", [AuditCalls, Client, TokenCalls])
def test_every_call_has_a_docstring(calls: type) -> None:
    assert [word for word, part in public_parts(calls) if not own_docstring(part)] == []


def own_docstring(thing: object) -> str:
    """Not what a class inherits, nor what msgspec and dataclasses make up."""
    text = getattr(thing, "__doc__", None) or ""
    return "" if text.startswith(f"{getattr(thing, '__name__', '?')}(") else text


def public_parts(kind: type) -> list[tuple[str, object]]:
    fields = set(getattr(kind, "__struct_fields__", ())) | set(
        getattr(kind, "__dataclass_fields__", ())
    )
    return [
        (name, part)
        for name, part in inspect.getmembers(kind)
        if not name.startswith("_")
        and name not in fields
        and (inspect.isfunction(part) or isinstance(part, property))
    ]


def documented_aliases() -> set[str]:
    """Names that are assigned in a module of the client with a string right behind them."""
    found = set()
    for path in (FOLDER / "client").glob("*.py"):
        body = ast.parse(path.read_text()).body
        for node, after in pairwise(body):
            if isinstance(node, ast.Assign) and is_text(after):
                found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def test_records_can_be_made_by_those_who_test_their_own_programs() -> None:
    execution = jobbus.Execution(execution_id="1", job_id="A/B", status="Failed")
    assert execution.has_ended
    assert msgspec.structs.replace(execution, status="Running").has_ended is False


def test_the_names_of_the_client_load_nothing_else_of_the_house() -> None:
    program = (
        "import sys; from jobbus import *; from jobbus import Client; "
        "houses = {'bus', 'handlers', 'transports'}; "
        "own = {'jobbus.cli', 'jobbus.service', 'jobbus.doctor'}; "
        "print(sorted(m for m in sys.modules if m.partition('.')[0] in houses or m in own))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout == "[]\n"
