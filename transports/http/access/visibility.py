"""What a principal may see and do: `bus.access.may` asked of the published table. No IO."""

from aiohttp import web

from bus.access import ADMIN, METRICS, Action, RoleDefaults, may, needed, role_words
from bus.envelope import canonical_uuid
from bus.feed import Frame
from bus.job_definition import Job
from bus.model import CommandRecord, Execution, Principal
from bus.ports import TableReader
from transports.http.access.caller import principal_of
from transports.http.web.problems import Problem, not_found


def visible_execution(request: web.Request, visibility: "Visibility") -> Execution:
    """The execution of the path, if it exists and may be seen; raises 404 in the same words."""
    return visibility.execution(principal_of(request), request.match_info["id"])


class Visibility:
    """The grants as they are now; nothing is remembered between two questions."""

    def __init__(self, table: TableReader, defaults: RoleDefaults) -> None:
        self._table = table
        self._defaults = defaults

    def go_by(self, defaults: RoleDefaults) -> None:
        """From now on these roles count where a job names none."""
        self._defaults = defaults

    def of_job(self, principal: Principal, job: Job, action: Action = Action.VIEW) -> bool:
        return may(principal, action, self._table.roles(job.id), self._defaults)

    def of_execution(
        self, principal: Principal, execution: Execution, action: Action = Action.VIEW
    ) -> bool:
        roles = self._table.roles(execution.job_id)
        return may(principal, action, roles, self._defaults, owner=execution.user_id)

    def of_command(self, principal: Principal, command: CommandRecord) -> bool:
        """One's own, and those on jobs one may view; one without a job is for admins."""
        return self._may_view(principal, command.job_id, command.user_id)

    def of_frame(self, principal: Principal, frame: Frame) -> bool:
        return self._may_view(principal, frame.job_id, frame.user_id)

    def execution(self, principal: Principal, text: str) -> Execution:
        """The execution with the id `text`, if it exists and may be seen.

        Raises:
            Problem: 404, in the same words for both.
        """
        try:
            execution_id = canonical_uuid(text)
        except ValueError:
            raise not_found("such execution; ids are UUIDs") from None
        execution = self._table.execution(execution_id)
        if execution is None or not self.of_execution(principal, execution):
            raise not_found(f"execution {execution_id}")
        return execution

    def check_output(self, principal: Principal, execution: Execution) -> None:
        """Raises 403 if the principal may see the execution but not what it prints."""
        if not self.of_execution(principal, execution, Action.OUTPUT):
            raise Problem(
                403,
                "not-permitted",
                f"you may not read output of {execution.job_id}: none of your roles allows it",
            )

    def needed(self, job: Job, action: Action) -> tuple[str, ...]:
        """The roles of which one is needed for `action`."""
        return needed(action, self._table.roles(job.id), self._defaults)

    def role_words(self) -> set[str]:
        """Every word that gives somebody a right now."""
        lists = (self._table.roles(job.id) for job in self._table.jobs())
        return role_words(self._defaults, lists) | {ADMIN, METRICS}

    def _may_view(self, principal: Principal, job_id: str | None, owner: str | None) -> bool:
        if job_id is None:
            return owner == principal.user_id or ADMIN in principal.roles
        return may(principal, Action.VIEW, self._table.roles(job_id), self._defaults, owner=owner)
