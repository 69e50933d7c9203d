"""Rules of the house that the code itself can show: who may wait where, and who makes tasks."""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("jobbus", "bus", "handlers", "transports")
PURE = ("handlers/decisions", "handlers/audit/entries", "handlers/journal/repair")


@cache
def modules() -> list[tuple[str, ast.Module]]:
    paths = [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]
    return [
        (str(path.relative_to(ROOT)), ast.parse(path.read_text(encoding="utf-8"))) for path in paths
    ]


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        match node:
            case ast.Call(func=ast.Attribute(attr=name)) if name in names:
                yield node
            case _:
                continue


def test_what_decides_and_what_changes_the_table_cannot_wait() -> None:
    changing = set()
    for name, tree in modules():
        for node in ast.walk(tree):
            if isinstance(node, ast.AsyncFunctionDef):
                assert not list(calls(node, "apply")), f"{name}: {node.name} waits"
                assert not name.startswith(PURE), f"{name}: {node.name} waits"
            elif isinstance(node, ast.FunctionDef) and list(calls(node, "apply")):
                changing.add(f"{name}:{node.name}")
    assert {"handlers/owner.py:_number", "handlers/owner.py:_publish"} <= changing


def test_tasks_have_names_and_those_without_a_group_are_made_where_their_end_is_waited_for() -> (
    None
):
    alone = set()
    for name, tree in modules():
        for call in calls(tree, "create_task", "ensure_future"):
            assert isinstance(call.func, ast.Attribute)
            if call.func.attr == "create_task":
                assert "name" in {keyword.arg for keyword in call.keywords}, f"{name}:{call.lineno}"
            if ast.unparse(call.func.value) == "asyncio":
                alone.add(name)
    # Each of these waits for what it made, or cancels it and then waits. A new one has to.
    assert alone == {
        "jobbus/cli/demo.py",
        "jobbus/service/draining.py",
        "jobbus/service/service_manager.py",
        "bus/tasks.py",
        "handlers/owner.py",
        "transports/http/app.py",
        "transports/http/api/longpoll.py",
        "transports/http/api/publishing.py",
        "transports/http/output/shared.py",
    }


ENDINGS = {
    "BaseException",
    "BaseExceptionGroup",
    "CancelledError",
    "KeyboardInterrupt",
    "SystemExit",
}


def kept_back(node: ast.AST) -> list[ast.expr]:
    """The exceptions that go no further than this node."""
    match node:
        case ast.ExceptHandler(body=[*_, ast.Raise(exc=None)]) if not returns(node):
            return []
        case ast.ExceptHandler(type=None):
            return [ast.Name("BaseException")]
        case ast.ExceptHandler(type=ast.Tuple(elts=kinds)):
            return kinds
        case ast.ExceptHandler(type=ast.expr() as kind):
            return [kind]
        case ast.Call(func=ast.Name(id="suppress") | ast.Attribute(attr="suppress"), args=kinds):
            return kinds
        case _:
            return []


def returns(node: ast.AST) -> bool:
    return any(isinstance(each, ast.Return) for each in ast.walk(node))


def test_cancellations_and_exits_pass_through() -> None:
    keeping = set()
    for name, tree in modules():
        for node in ast.walk(tree):
            if ENDINGS & {ast.unparse(each).rpartition(".")[2] for each in kept_back(node)}:
                keeping.add(name)
    # Here the whole command ends, with a code for the shell; and a thread's exception is raised
    # where its call is waited for.
    assert keeping == {"jobbus/cli/main.py", "bus/threads.py"}


def test_nothing_makes_a_thread_at_the_moment_of_need() -> None:
    makers = {
        name
        for name, tree in modules()
        if list(calls(tree, "to_thread", "Thread", "ThreadPoolExecutor"))
        or any(
            "ThreadPool" in ast.unparse(each)
            for each in ast.walk(tree)
            if isinstance(each, ast.ImportFrom)
        )
    }
    # Commands of the command line are not the service.
    assert makers == {"bus/threads.py", "jobbus/cli/demo.py", "jobbus/cli/answers.py"}


def test_each_module_that_logs_has_one_logger_of_one_kind() -> None:
    loggers, others = set(), set()
    for name, tree in modules():
        if name.startswith("handlers/shim/"):
            continue
        for node in ast.walk(tree):
            match node:
                case ast.Assign(targets=[ast.Name(id=own)], value=ast.Call() as call) if list(
                    calls(call, "get_logger")
                ):
                    loggers.add(f"{name}: {own}")
                case _:
                    continue
        others |= {name for _ in calls(tree, "getLogger")}
    assert loggers
    assert [each for each in loggers if not each.endswith(": log")] == []
    # These set the logs up, write their lines, or ask for a level.
    assert others == {
        "jobbus/service/stdio.py",
        "jobbus/service/logs.py",
        "transports/http/access/accesslog.py",
    }
