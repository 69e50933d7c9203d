"""Words for roles in settings and definitions that have no effect or look like a slip. No IO."""

from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches

from bus.access import ADMIN, METRICS, Action, RoleDefaults, notes_on_roles, role_words
from bus.job_definition import RolesSpec
from bus.wording import SHOWN_MAX, quoted
from jobbus.service.settings import SIGNED_IN, Settings

NEARNESS = 0.8
"""How alike a word of a list must be to a known one; `operations` is not meant as `operator`."""


def notes_on_words(
    settings: Settings, jobs: Mapping[str, RolesSpec | None], came: Iterable[str] = ()
) -> Iterator[str]:
    """A sentence for each word that was given to somebody and gives no right, and for each word of
    a list that is given to no user and that nearly spells a known role.

    `came` are words that users are known to have: of tokens, of a host.
    """
    shipped = role_words(RoleDefaults(), ()) | {ADMIN, METRICS}
    giving = role_words(settings.roles, jobs.values()) | {ADMIN, METRICS}
    given: set[str] = set()
    for place, words in _given(settings):
        given.update(words)
        for sentence in notes_on_roles(words, giving):
            yield f"{place}: {sentence}"
    slips = list(_all_slips(settings, jobs, shipped, given))
    had = frozenset(came) if slips else frozenset()  # these may be many
    yield from (sentence for word, sentence in slips if word not in had)


def _all_slips(
    settings: Settings,
    jobs: Mapping[str, RolesSpec | None],
    shipped: set[str],
    given: set[str],
) -> Iterator[tuple[str, str]]:
    yield from _slips("[roles] of jobbus.toml", settings.roles, shipped | given, shipped)
    meant = shipped | role_words(settings.roles, ())
    for job_id, roles in jobs.items():
        if roles is not None:
            yield from _slips(f"[roles] of {job_id}", roles, meant | given, meant)


def _given(settings: Settings) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Where settings give roles to somebody, and which."""
    directory = settings.directory
    yield "[directory] default_roles", directory.default_roles
    yield "[proxy] default_roles", settings.proxy.default_roles
    for uid, words in directory.uid_roles.items():
        yield f"[directory.uid_roles] {uid}", words
    for word, words in directory.role_map.items():
        yield f"[directory.role_map] {quoted(word)}", words


def _slips(
    place: str, roles: RolesSpec | RoleDefaults, known: set[str], meant: set[str]
) -> Iterator[tuple[str, str]]:
    """Words of the lists that are not `known`, with a sentence that says what was `meant`."""
    for action in Action:
        for word in getattr(roles, action.value) or ():
            near = _nearest(word, meant) if word not in known and word != SIGNED_IN else None
            if near is not None:
                yield (
                    word,
                    f"{place}: no user is given the role {quoted(word)} of {action.value}; "
                    f"did you mean {quoted(near)}?",
                )


def _nearest(word: str, meant: Iterable[str]) -> str | None:
    folded = {each.casefold(): each for each in meant}
    near = get_close_matches(word[:SHOWN_MAX].casefold(), folded, n=1, cutoff=NEARNESS)
    return folded[near[0]] if near else None
