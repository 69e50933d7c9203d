"""Words for roles without effect: a host's own that came in files, slips in settings."""

from contextlib import suppress

from bus.access import ADMIN, role_words
from bus.envelope import RESERVED_USERS
from bus.errors import DataDirectoryError
from bus.layout import DataLayout
from handlers.decisions.table import JobTable
from jobbus.doctor.findings import Look, note
from jobbus.service.role_words import notes_on_words
from jobbus.service.settings import Settings
from transports.http.access.token_files import load_book

WORDS_MAX = 20
"""Words that the sentence lists."""
WORD_MAX = 60


def look_at_roles(layout: DataLayout, table: JobTable, settings: Settings) -> Look:
    """By the commands that are kept. Files of other accounts have the roles that their uid has, so
    nothing of what they say is among these."""
    words = {word for command in table.commands() for word in command.roles}
    with suppress(DataDirectoryError):  # what is wrong with the file is said by the next start
        words.update(word for token in load_book(layout.tokens).records() for word in token.roles)
    jobs = {job.id: table.roles(job.id) for job in table.jobs()}
    for sentence in notes_on_words(settings, jobs, words):
        yield note("roles", sentence)
    known = role_words(settings.roles, jobs.values())
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
