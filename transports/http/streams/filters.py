"""Which changes a reader asked for: filters on what never changes about a subject. No IO."""

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from functools import lru_cache

import msgspec

from bus.envelope import canonical_uuid
from bus.events import EVENT_TYPES
from bus.feed import Frame
from transports.http.web.problems import bad_parameter
from transports.http.web.query import Query

NAMES = ("job", "execution", "user", "type")
_FAMILIES = frozenset(f"{type_.partition('.')[0]}.*" for type_ in EVENT_TYPES)


def _members(words: Iterable[str]) -> dict[str, str]:
    return {word.replace(".*", ".any").replace(".", "_").upper(): word for word in words}


EventType = StrEnum("EventType", _members(EVENT_TYPES))  # type: ignore[misc]  # of the union
EventTypeFilter = StrEnum(  # type: ignore[misc]
    "EventTypeFilter", _members((*EVENT_TYPES, *sorted(_FAMILIES)))
)


class Filters(msgspec.Struct, frozen=True):
    """Within one name any value will do; all names given must fit. Empty sets fit everything."""

    jobs: frozenset[str] = frozenset()
    executions: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    types: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()

    @classmethod
    def of(cls, query: Query) -> "Filters":
        """The filters of a query.

        Raises:
            Problem: 400; a value cannot fit anything.
        """
        return cls.matching({name: query.texts(name) for name in NAMES})

    @classmethod
    def matching(cls, values: Mapping[str, frozenset[str]]) -> "Filters":
        """The filters that let these values pass, by name; raises as `of` does."""
        types = values.get("type", frozenset())
        for text in types.difference(EVENT_TYPES, _FAMILIES):
            raise bad_parameter("type", f"there is no {text[:80]!r}; {_nearest(text)}")
        try:
            executions = frozenset(canonical_uuid(text) for text in values.get("execution", ()))
        except ValueError as exc:
            raise bad_parameter("execution", str(exc)) from exc
        return _shared(
            cls(
                jobs=values.get("job", frozenset()),
                executions=executions,
                users=values.get("user", frozenset()),
                types=frozenset(text for text in types if not text.endswith("*")),
                prefixes=tuple(sorted(text[:-1] for text in types if text.endswith("*"))),
            )
        )

    def fit(self, frame: Frame) -> bool:
        return self.fit_subject(frame.job_id, frame.execution_id, frame.user_id) and self._fit_type(
            frame.type
        )

    def fit_subject(
        self, job_id: str | None, execution_id: str | None, user_id: str | None
    ) -> bool:
        return (
            (not self.jobs or job_id in self.jobs)
            and (not self.executions or execution_id in self.executions)
            and (not self.users or user_id in self.users)
        )

    def want_any_of(self, family: str) -> bool:
        """Whether some type that begins with `family`, e.g. `job.`, may fit."""
        if not self.types and not self.prefixes:
            return True
        return family in self.prefixes or any(text.startswith(family) for text in self.types)

    def _fit_type(self, type_: str) -> bool:
        if not self.types and not self.prefixes:
            return True
        return type_ in self.types or type_.startswith(self.prefixes or ("\0",))


EVERYTHING = Filters()


def _nearest(text: str) -> str:
    known = (*EVENT_TYPES, *sorted(_FAMILIES))
    near = get_close_matches(text, known, n=1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return f"{hint}known: {', '.join(known)}"


@lru_cache(maxsize=256)
def _shared(filters: Filters) -> Filters:
    """One object for equal filters: thousands of readers ask for the same."""
    return filters
