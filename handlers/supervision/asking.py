"""Asks for shims: from an execution to a request, with its secrets read at the last moment."""

from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from typing import Any

import msgspec

from bus.model import SecretRef
from bus.threads import DISK
from handlers.supervision.request import Requests
from handlers.supervision.secrets import SecretUnavailable, SecretValues, references_in
from handlers.supervision.spawner_link import SpawnerLink
from handlers.supervision.watched import Watched

Start = Callable[[Callable[[], Coroutine[Any, Any, None]], str], None]
"""Runs it as a task of that name, again until it returns: whatever it dies of is logged there."""


class Asking:
    """The requests of one service. `fail` is told why there can be none for an execution."""

    def __init__(
        self,
        requests: Requests,
        link: SpawnerLink,
        secrets: SecretValues,
        *,
        is_watched: Callable[[Watched], bool],
        fail: Callable[[Watched, str], None],
        start: Start,
    ) -> None:
        self._requests = requests
        self._link = link
        self._secrets = secrets
        self._is_watched = is_watched
        self._fail = fail
        self._start = start

    def ask(self, watched: Watched) -> None:
        """A shim will be asked for, at once if no secret is needed."""
        if watched.spec is None:
            self._fail(watched, "its definition is not known any more")
            return
        references = references_in(watched.execution.variables)
        if references:
            asking = partial(self._ask_with_secrets, watched, references)
            self._start(asking, f"secrets {watched.execution.id}")
        else:
            self._request(watched, {})

    async def _ask_with_secrets(
        self, watched: Watched, references: Mapping[str, SecretRef]
    ) -> None:
        """Nothing here keeps the values."""
        try:
            values = await DISK.run(self._secrets.read, watched.execution.job_id, references)
        except SecretUnavailable as error:
            if self._is_watched(watched):
                self._fail(watched, str(error))
            return
        if self._is_watched(watched):
            self._request(watched, values)

    def _request(self, watched: Watched, secrets: Mapping[str, str]) -> None:
        assert watched.spec is not None
        try:
            work = self._requests.assignment(
                watched.execution, watched.spec, watched.generation, secrets
            )
            self._link.request(work)
        except (ValueError, msgspec.MsgspecError) as error:
            self._fail(watched, f"the program call cannot be made: {error}")
