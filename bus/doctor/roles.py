"""Words for roles that came in files and give nobody a right: a host's own, not mapped. No IO."""

from bus.access import ADMIN, role_words
from bus.doctor.findings import Look, note
from bus.envelope import RESERVED_USERS
from bus.settings import Settings
from handlers.decisions.table import JobTable

WORDS_MAX = 20
"""Words that the sentence lists."""
WORD_MAX = 60


def look_at_roles(table: JobTable, settings: Settings) -> Look:
    """By the commands that are kept. Files of other accounts have the roles that their uid has, so
    nothing of what they say is among these."""
    known = role_words(settings.roles, (table.roles(job.id) for job in table.jobs()))
    known |= {ADMIN, *settings.directory.mapped_roles()}
    came: dict[str, int] = {}
    for command in table.commands():
        if command.via == "directory" and not command.user_id.startswith(RESERVED_USERS):
            for word in set(command.roles) - known:
                came[word] = came.get(word, 0) + 1
    if not came:
        return
    often = sorted(came, key=lambda word: (-came[word], word))
    shown = ", ".join(f'"{word[:WORD_MAX]}" ({came[word]})' for word in often[:WORDS_MAX])
    more = f" and {len(often) - WORDS_MAX} more" if len(often) > WORDS_MAX else ""
    yield note(
        "roles",
        f"commands came with roles that nothing here knows: {shown}{more}; say in "
        "[directory.role_map] of jobbus.toml what they count as, or list them in [roles] of a job "
        "(doctor knows the map by --config)",
    )
