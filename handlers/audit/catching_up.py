"""What the audit lacks after an unclean stop, found while the journal is replayed. No IO."""

from bus.audit import AuditEntry
from bus.events import Published
from handlers.decisions.audit_entries import AuditFold
from handlers.decisions.table import JobTable


class CatchUp:
    """Watches a recovery; implements `handlers.journal.recovery.Witness`."""

    def __init__(self, last_seq: int) -> None:
        self.fold = AuditFold(told_until=last_seq)
        self.missing: list[AuditEntry] = []

    def begin(self, table: JobTable) -> None:
        self.fold.begin(table)

    def see(self, published: Published) -> None:
        entry = self.fold.take(published)
        if entry is not None:
            self.missing.append(entry)
