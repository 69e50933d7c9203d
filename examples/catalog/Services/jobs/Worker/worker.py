"""Works off what lies in a folder, and says how it is: by sd_notify's words on NOTIFY_SOCKET."""

import os
import signal
import socket
import threading
from pathlib import Path

LOOK_S = 0.2
inbox = Path(os.environ["JOBBUS_VAR_Inbox"])
over = threading.Event()


def notify(words: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(words.encode(), os.environ["NOTIFY_SOCKET"])


def end(number: int, frame: object) -> None:
    over.set()


def work(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    path.with_suffix(".done").write_text(text.upper(), encoding="utf-8")
    path.unlink()
    print(f"done: {path.name}")


signal.signal(signal.SIGTERM, end)
inbox.mkdir(parents=True, exist_ok=True)
notify("READY=1\nSTATUS=waiting for work")
done = 0
while not over.wait(LOOK_S):
    notify("WATCHDOG=1")
    for each in sorted(inbox.glob("*.txt")):
        work(each)
        done += 1
        notify(f"WATCHDOG=1\nSTATUS={done} files")
        if over.is_set():
            break
notify("STOPPING=1")
