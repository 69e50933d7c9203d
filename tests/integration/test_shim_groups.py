"""A program and its control group: in it from the first instruction, by whichever way works."""

import os
from pathlib import Path

import pytest

from handlers.shim import cgroup
from handlers.shim.cgroup import ControlGroup, own_group
from handlers.shim.kernel import fork_into
from handlers.shim.tree import Tree
from tests.processes import bench, sh, starting

PARENT = own_group()
pytestmark = pytest.mark.skipif(PARENT is None, reason="no control group may be made here")


async def test_program_is_in_its_group_at_its_first_instruction(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("cat /proc/self/cgroup"))
        await b.exit_of(execution)
        assert f"jobbus-{execution.id}" in b.output(execution)


def test_child_is_moved_into_the_group_where_the_kernel_cannot_fork_into_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unknown(group: int) -> int:
        raise OSError("no such call")

    monkeypatch.setattr(cgroup, "fork_into", unknown)
    tree = Tree("00000000-0000-7000-8000-000000000001", "", PARENT)
    read, write = os.pipe()
    pid = tree.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    try:
        tree.take(pid)
        assert tree.group_folder is not None
        assert ControlGroup(tree.group_folder).pids() == {pid}
    finally:
        os.close(write)
        os.close(read)
        os.waitpid(pid, 0)
        tree.dissolve()


def test_fork_into_no_group_says_so() -> None:
    with Path(os.devnull).open() as no_group, pytest.raises(OSError, match="descriptor"):
        fork_into(no_group.fileno())
