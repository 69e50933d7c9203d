"""The audit over the API, for admins."""

from jobbus.client.http import Http, decode, query_of
from jobbus.client.records import AuditPage

_PATH = "/api/v1/audit"


class AuditCalls:
    """`client.audit`. All methods raise as those of the client do."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def page(
        self,
        *,
        actor: str | None = None,
        job: str | None = None,
        action: str | None = None,
        since: str | None = None,
        until: str | None = None,
        limit: int = 100,
        cursor: str | None = None,
    ) -> AuditPage:
        """Up to `limit` (at most 500) entries; `since` and `until` are RFC 3339 times."""
        query = query_of(
            actor=actor,
            job=job,
            action=action,
            since=since,
            until=until,
            limit=str(limit),
            cursor=cursor,
        )
        return decode(await self._http.repeated("GET", _PATH, query=query), AuditPage)
