"""What a principal may see and do: `bus.access.may` asked of the published table. No IO."""

from bus.access import ADMIN, Action, RoleDefaults, may
from bus.feed import Frame
from bus.model import CommandRecord, Execution, Job, Principal, RolesSpec
from bus.ports import TableReader


class Visibility:
    """The grants as they are now; nothing is remembered between two questions."""

    def __init__(self, table: TableReader, defaults: RoleDefaults) -> None:
        self._table = table
        self._defaults = defaults

    def of_job(self, principal: Principal, job: Job, action: Action = Action.VIEW) -> bool:
        return may(principal, action, _roles(job), self._defaults)

    def of_execution(
        self, principal: Principal, execution: Execution, action: Action = Action.VIEW
    ) -> bool:
        roles = self._roles_of(execution.job_id)
        return may(principal, action, roles, self._defaults, owner=execution.user_id)

    def of_command(self, principal: Principal, command: CommandRecord) -> bool:
        """One's own, and those on jobs one may view; one without a job is for admins."""
        return self._may_view(principal, command.job_id, command.user_id)

    def of_frame(self, principal: Principal, frame: Frame) -> bool:
        return self._may_view(principal, frame.job_id, frame.user_id)

    def needed(self, job: Job, action: Action) -> tuple[str, ...]:
        """The roles of which one is needed for `action`."""
        roles = _roles(job)
        listed = getattr(roles, action.value) if roles is not None else None
        words: tuple[str, ...] = (
            listed if listed is not None else getattr(self._defaults, action.value)
        )
        return words

    def _may_view(self, principal: Principal, job_id: str | None, owner: str | None) -> bool:
        if job_id is None:
            return owner == principal.user_id or ADMIN in principal.roles
        return may(principal, Action.VIEW, self._roles_of(job_id), self._defaults, owner=owner)

    def _roles_of(self, job_id: str) -> RolesSpec | None:
        job = self._table.job(job_id)
        return _roles(job) if job is not None else None


def _roles(job: Job) -> RolesSpec | None:
    return job.spec.roles if job.spec is not None else None
