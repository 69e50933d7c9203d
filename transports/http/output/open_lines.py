"""When lines of output that have not ended are sent. Pure: time is handed in."""

from bus.ports import OutputLine, OutputPage


class OpenLines:
    """When the lines that are still open are sent: a moment after they changed, each state once.

    A prompt is seen, a progress bar is redrawn a few times a second, and a line that is whole
    right after is sent only once.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._sent: tuple[OutputLine, ...] = ()
        self.due_s: float | None = None
        """When lines that changed are to be sent; None if none has."""

    def settled(self) -> None:
        """Whole lines came: what is open now has just begun."""
        self._sent, self.due_s = (), None

    def due(self, page: OutputPage, now_s: float) -> bool:
        """Whether the open lines of `page` are to be sent now."""
        lines = tuple(line for line in page.lines if line.partial)
        if not lines or lines == self._sent or not any(line.text for line in lines):
            self.due_s = None
            return False
        if self.due_s is None:
            self.due_s = now_s + self._patience_s
        if now_s < self.due_s:
            return False
        self._sent, self.due_s = lines, None
        return True
