"""Progress on its way to the owner: the latest of each execution, at most four a second.

The first report passes at once; of those that follow within a quarter of a second only the last
does. The table and the feed never see more, however often a job speaks.
"""

import asyncio

from bus.commands import Report, ReportEnded, ReportLost, ReportProgress
from bus.ports import ReportSink

INTERVAL_S = 0.25


class ProgressCoalescer:
    """A `ReportSink` in front of another; all reports but progress pass at once and in order.

    `_held` has each execution of the last quarter of a second, with the latest report that waits.
    """

    def __init__(self, sink: ReportSink) -> None:
        self._sink = sink
        self._held: dict[str, ReportProgress | None] = {}

    def __call__(self, report: Report) -> None:
        match report:
            case ReportProgress(execution_id=execution_id):
                if execution_id in self._held:
                    self._held[execution_id] = report
                    return
                self._held[execution_id] = None
                asyncio.get_running_loop().call_later(INTERVAL_S, self._release, execution_id)
            case ReportEnded() | ReportLost():
                # The end carries the last progress itself; a late word would be refused anyway.
                self._held.pop(report.execution_id, None)
            case _:
                pass
        self._sink(report)

    def _release(self, execution_id: str) -> None:
        held = self._held.pop(execution_id, None)
        if held is not None:
            self(held)
