"""What a program would inherit of the service and should not. Stdlib only.

Looked at once, in the spawner, and set right in the child that becomes the program: the shim may
keep what protects it. What an operator limits for all (`LimitCORE=`, `CPUAffinity=`) stays.
"""

import contextlib
import os
import signal

_OOM = "/proc/self/oom_score_adj"


def forget_ignored() -> None:
    """No signal is ignored in a program because the starter of the service ignored it."""
    for number in signal.valid_signals():
        if signal.getsignal(number) is signal.SIG_IGN:
            with contextlib.suppress(OSError, ValueError):  # two are the C library's own
                signal.signal(number, signal.SIG_DFL)


def favours() -> tuple[bool, bool]:
    """Whether the service goes before others for the processor, and is spared when memory ends."""
    try:
        with open(_OOM) as file:  # noqa: PTH123 - lean start
            is_spared = int(file.read()) < 0
    except (OSError, ValueError):
        is_spared = False
    return os.getpriority(os.PRIO_PROCESS, 0) < 0, is_spared


def adjust_oom(score: int) -> None:
    """How readily this process is killed when memory ends (proc(5)).

    Raises:
        OSError: it takes a right to be spared more than before.
    """
    with open(_OOM, "w") as file:  # noqa: PTH123
        file.write(str(score))


def give_up(of_processor: bool, of_memory: bool) -> None:
    """This process has no such favour any more; giving one up is always allowed."""
    if of_processor:
        os.setpriority(os.PRIO_PROCESS, 0, 0)
    if of_memory:
        with contextlib.suppress(OSError):
            adjust_oom(0)
