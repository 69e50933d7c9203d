"""A follower outlives its service: killed and started again in the middle, nothing comes twice."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PATIENCE_S = 50.0
LINES = 25

JOB = f"""
command = ["/bin/sh", "-c", '''
i=0
while [ $i -lt {LINES} ]; do i=$((i+1)); echo "line $i"; sleep 0.1
  echo $((i*100/{LINES})) >> "$JOBBUS_PROGRESS"
done
exit 4
''']
"""


@contextmanager
def jobbus(place: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    environ = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with (
        (place / "stderr").open("ab") as log,
        subprocess.Popen(
            [sys.executable, "-m", "jobbus", *arguments],
            cwd=place,
            env=environ | {"JOBBUS_DATA": str(place / "data")},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
        ) as child,
    ):
        alarm = threading.Timer(PATIENCE_S, child.kill)
        alarm.start()
        try:
            yield child
        finally:
            alarm.cancel()
            child.kill()


@contextmanager
def service(place: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    listen = f"127.0.0.1:{port}"
    with jobbus(place, "serve", "--apps", str(place / "apps"), "--listen", listen) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == f"jobbus ready http://{listen}\n".encode()
        yield child


def lines_of(child: subprocess.Popen[bytes], count: int) -> list[str]:
    assert child.stdout is not None
    return [child.stdout.readline().decode().rstrip("\n") for _ in range(count)]


def frames_until(child: subprocess.Popen[bytes], op: str, kind: str = "") -> list[dict[str, Any]]:
    """The frames that `jobbus events --json` prints, up to the named one."""
    assert child.stdout is not None
    frames = []
    for line in child.stdout:
        frames.append(json.loads(line))
        if frames[-1]["op"] == op and frames[-1]["data"].get("type", "") == kind:
            break
    return frames


def test_run_logs_and_events_go_on_over_a_killed_service(
    tmp_path: Path, unused_tcp_port: int
) -> None:
    folder = tmp_path / "apps" / "T" / "jobs" / "Count"
    folder.mkdir(parents=True)
    (folder / "job.toml").write_text(JOB)
    with (
        service(tmp_path, unused_tcp_port) as first,
        jobbus(tmp_path, "events", "--json", "--snapshot", "--type", "execution.*") as events,
    ):
        frames_until(events, "snapshot_end")
        with jobbus(tmp_path, "run", "T/Count", "--exit-code") as run:
            shown = {run: lines_of(run, 1)}
            with jobbus(tmp_path, "logs", "-f", "T/Count") as logs:
                shown[logs] = lines_of(logs, 5)
                first.send_signal(signal.SIGKILL)
                first.wait(PATIENCE_S)
                with service(tmp_path, unused_tcp_port):
                    for each, lines in shown.items():
                        assert each.stdout is not None
                        lines += each.stdout.read().decode().splitlines()
                    assert (run.wait(PATIENCE_S), logs.wait(PATIENCE_S)) == (4, 0)
                    printed = frames_until(events, "change", "execution.ended")
    assert list(shown.values()) == [[f"line {number}" for number in range(1, LINES + 1)]] * 2
    assert [frame["op"] for frame in printed] == ["change"] * len(printed)
    seqs = [int(frame["id"].rpartition("-")[2]) for frame in printed]
    assert seqs == sorted(set(seqs))
    types = [frame["data"]["type"] for frame in printed]
    assert types.count("execution.ended") == types.count("execution.queued") == 1
