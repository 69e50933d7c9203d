"""What has to happen by when in one execution, by name. Pure: time is handed in. Stdlib only."""

from collections.abc import Iterable


class Limits:
    """Instants on the monotonic clock. `next_s` is the nearest one, None if there is none."""

    def __init__(self) -> None:
        self._at_s: dict[str, float] = {}

    @property
    def next_s(self) -> float | None:
        return min(self._at_s.values()) if self._at_s else None

    def set(self, name: str, at_s: float) -> None:
        """`name` strikes at `at_s`, and not when it was to strike before."""
        self._at_s[name] = at_s

    def lift(self, names: Iterable[str]) -> None:
        """These strike no more."""
        for name in names:
            self._at_s.pop(name, None)

    def lift_all(self) -> None:
        self._at_s.clear()

    def extend(self, names: Iterable[str], until_s: float) -> None:
        """Those of `names` that are set strike at `until_s` at the earliest."""
        for name in names:
            if name in self._at_s:
                self._at_s[name] = max(self._at_s[name], until_s)

    def take_struck(self, now_s: float) -> list[str]:
        """Those that have struck, once."""
        struck = [name for name, at_s in self._at_s.items() if now_s >= at_s]
        self.lift(struck)
        return struck
