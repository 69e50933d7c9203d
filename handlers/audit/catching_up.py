"""What the audit lacks after an unclean stop, found while the journal is replayed. No IO."""

from bus.audit import AuditEntry
from bus.events import Published
from handlers.audit.entries.fold import AuditFold
from handlers.audit.past import Past
from handlers.decisions.table import JobTable


class CatchUp:
    """Watches a recovery; implements `handlers.journal.recovery.Witness`."""

    def __init__(self, past: Past) -> None:
        self._told_behind = past.told_behind
        self.fold = AuditFold(told_until=past.told_until)
        self.missing: list[AuditEntry] = []

    def begin(self, table: JobTable) -> None:
        self.fold.begin(table)

    def see(self, published: Published) -> None:
        entry = self.fold.take(published)
        if entry is not None and published.seq not in self._told_behind:
            self.missing.append(entry)
