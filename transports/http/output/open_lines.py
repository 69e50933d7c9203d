"""When lines of output that have not ended are told. Pure: time is handed in."""

from bus.ports import OutputLine, OutputPage


class OpenLines:
    """When the lines that are still open are told: a moment after they changed, each state once.

    A prompt is seen, a progress bar is redrawn a few times a second, and a line that is whole
    right after is told only once.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._told: tuple[OutputLine, ...] = ()
        self.due_s: float | None = None
        """When lines that changed are to be told; None if none has."""

    def settled(self) -> None:
        """Whole lines came: what is open now has just begun."""
        self._told, self.due_s = (), None

    def due(self, page: OutputPage, now_s: float) -> bool:
        """Whether the open lines of `page` are to be told now."""
        lines = tuple(line for line in page.lines if line.partial)
        if not lines or lines == self._told or not any(line.text for line in lines):
            self.due_s = None
            return False
        if self.due_s is None:
            self.due_s = now_s + self._patience_s
        if now_s < self.due_s:
            return False
        self._told, self.due_s = lines, None
        return True
