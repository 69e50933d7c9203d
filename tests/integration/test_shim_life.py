"""One execution from spawn to its exit record, with real programs."""

from pathlib import Path

from bus.commands import ReportEnded, ReportRunning, ReportSpawnFailed
from bus.job_definition import JobSpec
from bus.model import Reason
from tests.processes import bench, ordered_to_stop, sh, starting


async def test_program_runs_and_its_exit_code_and_output_are_kept(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("echo out; echo err >&2; exit 7"))
        exit_ = await b.exit_of(execution)
        running = b.of(ReportRunning, execution)
        assert exit_.exit_code == 7
        assert exit_.cause is None
        assert [r.pid for r in running] == [exit_.pid]
        assert sorted(b.output(execution).split()) == ["err", "out"]
        assert exit_.output_end == 8


async def test_program_that_does_not_exist_is_reported_with_its_name(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, JobSpec(command=("no-such-program",), directory="/"))
        failed = await b.until(ReportSpawnFailed, execution)
        assert "'no-such-program' was not found in PATH" in failed.error


async def test_stop_ends_a_running_program_with_its_signal(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        execution = starting()
        b.supervisor.spawn(execution, sh("exec sleep 60"))
        await b.until(ReportRunning, execution)
        b.supervisor.stop(ordered_to_stop(execution))
        exit_ = await b.exit_of(execution)
        assert exit_.signal == 15
        assert exit_.cause is Reason.USER
        assert exit_.contained
        assert len(b.of(ReportEnded, execution)) == 1
