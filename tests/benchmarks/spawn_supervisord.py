"""Child: supervisord starting one short program in so many slots, asked over its socket.

FOLDER SECONDS LIVE PROGRAM
"""

import subprocess
import sys
import threading
import time
from pathlib import Path
from xmlrpc.client import Fault, ServerProxy

from tests.benchmarks.closed_loop import print_figures, warm_up_s

# A program that ends at once counts as started; its exit is asked for, as there is no other way.
SETTINGS = """[supervisord]
nodaemon=true
logfile={folder}/supervisord.log
pidfile={folder}/supervisord.pid
loglevel=error
[unix_http_server]
file={folder}/socket
[rpcinterface:supervisor]
supervisor.rpcinterface_factory = supervisor.rpcinterface:make_main_rpcinterface
[program:job]
command={program}
process_name=%(process_num)d
numprocs={live}
autostart=false
autorestart=false
startsecs=0
"""
READY_S = 20.0


def main(folder: Path, seconds: float, live: int, program: str) -> None:
    settings = folder / "supervisord.conf"
    settings.write_text(SETTINGS.format(folder=folder, program=program, live=live))
    code = "from supervisor.supervisord import main; main()"
    daemon = subprocess.Popen(
        [sys.executable, "-c", code, "-c", str(settings)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_until_ready(folder)
        print_figures(_measure(folder, seconds, live))
    finally:
        daemon.terminate()
        daemon.wait()


def _measure(folder: Path, seconds: float, live: int) -> dict[str, float]:
    ended, failed = [0] * live, [0] * live
    from_s = time.monotonic() + warm_up_s(seconds)
    until_s = from_s + seconds

    def keep_busy(slot: int) -> None:
        server = _server(folder)
        name = f"job:{slot}"
        while time.monotonic() < until_s:
            try:
                server.supervisor.startProcess(name, False)
                while not _has_ended(server, name):
                    pass
            except (Fault, OSError):
                failed[slot] += 1
                continue
            if from_s <= time.monotonic() < until_s:
                ended[slot] += 1

    threads = [threading.Thread(target=keep_busy, args=(slot,)) for slot in range(live)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    count = float(sum(ended))
    return {"rate": count / seconds, "count": count, "failed": float(sum(failed))}


def _has_ended(server: ServerProxy, name: str) -> bool:
    info = server.supervisor.getProcessInfo(name)
    assert isinstance(info, dict)
    if info["statename"] in ("FATAL", "BACKOFF", "UNKNOWN"):
        raise Fault(0, f"{name} is {info['statename']}")
    return bool(info["statename"] == "EXITED")


def _wait_until_ready(folder: Path) -> None:
    give_up_s = time.monotonic() + READY_S
    while True:
        try:
            _server(folder).supervisor.getState()
        except (OSError, Fault):
            if time.monotonic() > give_up_s:
                raise
            time.sleep(0.05)
        else:
            return


def _server(folder: Path) -> ServerProxy:
    from supervisor.xmlrpc import SupervisorTransport  # only this peer pays for it

    transport = SupervisorTransport(None, None, f"unix://{folder}/socket")
    return ServerProxy("http://127.0.0.1", transport=transport)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
