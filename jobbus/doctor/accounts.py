"""Accounts that definitions name: whether they are there, and can pass the data directory."""

import os

from bus.layout import DataLayout
from handlers.catalog.accounts import NoAccount, account_of
from handlers.decisions.table import JobTable
from jobbus.doctor.findings import Look, error

_OTHERS_PASS = 0o001


def look_at_accounts(layout: DataLayout, table: JobTable) -> Look:
    """By the definitions that were in force last."""
    names_one = False
    for job in table.jobs():
        if job.spec is None or not job.spec.names_account:
            continue
        names_one = True
        try:
            account_of(job.spec)
        except NoAccount as fault:
            yield error("accounts", f"{job.id} cannot be started: {fault}")
    if not names_one:
        return
    for folder in layout.root.resolve().parents:
        if not os.stat(folder).st_mode & _OTHERS_PASS:  # noqa: PTH116 - as it is, not as a link
            yield error(
                "accounts",
                f"jobs run as accounts that cannot pass {folder} on the way to their files; "
                f"run: chmod o+x {folder}",
            )
