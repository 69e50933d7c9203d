"""Sessions, tickets and codes: good for what they are for, for as long, for their user alone."""

import pytest
from msgspec.structs import replace

from bus.model import Principal
from transports.http.access.identity import Identity, Way
from transports.http.access.sessions import SessionBook
from transports.http.access.tickets import (
    CODE_S,
    CODES_MAX,
    TICKET_S,
    TICKETS_PER_USER,
    CodeBook,
    TicketBook,
    TooMany,
    checked_target,
    place_of,
)
from transports.http.access.token_records import Grant, secret_hash
from transports.http.operations import STREAMS
from transports.http.settings import SessionLimits

NOW_MS = 1_769_450_400_000
LIMITS = SessionLimits(idle_ms=10_000, age_ms=60_000, most=3)
EXECUTION = "0190a1b2-c3d4-7e5f-8a9b-0c1d2e3f4a5b"


def grant(user: str = "alice") -> Grant:
    principal = Principal(user_id=user, roles=("viewer",), via="http")
    return Grant(principal=principal, token_id="t1", seal="s")


def identity(user: str = "alice") -> Identity:
    return Identity(grant(user), Way.BEARER)


def test_a_session_ends_when_it_is_not_used() -> None:
    book = SessionBook(LIMITS)
    cookie, record = book.open(grant(), NOW_MS)
    assert record.key == secret_hash(cookie)
    assert book.find(record.key, NOW_MS + 9_999) == record
    assert book.find(record.key, NOW_MS + 10_000) is None


def test_a_used_session_ends_at_its_greatest_age() -> None:
    book = SessionBook(LIMITS)
    _, record = book.open(grant(), NOW_MS)
    for second in range(5, 60, 5):
        now_ms = NOW_MS + second * 1000
        found = book.find(record.key, now_ms)
        assert found is not None
        assert book.seen(found, now_ms)
    assert book.find(record.key, NOW_MS + 60_000) is None


def test_a_session_that_a_clock_made_that_was_ahead_lives_no_longer_than_others() -> None:
    book = SessionBook(LIMITS)
    _, record = book.open(grant(), NOW_MS + 10**9)
    found = book.find(record.key, NOW_MS)
    assert found is not None
    assert book.ends_ms(found) == NOW_MS + LIMITS.idle_ms
    assert book.find(record.key, NOW_MS + LIMITS.idle_ms) is None


def test_an_ended_session_is_gone() -> None:
    book = SessionBook(LIMITS)
    _, record = book.open(grant(), NOW_MS)
    assert book.end(record.key)
    assert book.find(record.key, NOW_MS) is None
    assert not book.end(record.key)


def test_of_too_many_sessions_the_one_unused_for_longest_ends() -> None:
    book = SessionBook(LIMITS)
    keys = [book.open(grant(), NOW_MS + n)[1].key for n in range(3)]
    first = book.find(keys[0], NOW_MS + 5_000)
    assert first is not None
    book.seen(first, NOW_MS + 5_000)
    keys.append(book.open(grant(), NOW_MS + 5_001)[1].key)
    assert len(book) == 3
    held = [book.find(key, NOW_MS + 5_001) is not None for key in keys]
    assert held == [True, False, True, True]


def test_signing_in_again_and_again_signs_no_other_user_out() -> None:
    book = SessionBook(LIMITS)
    mine = book.open(replace(grant(), token_id="mine"), NOW_MS)[1].key
    for n in range(20):
        book.open(grant("eve"), NOW_MS + n)
    assert len(book) == LIMITS.most
    assert book.find(mine, NOW_MS + 20) is not None


def test_a_ticket_opens_its_place_again_and_again_until_its_time_is_over() -> None:
    book = TicketBook()
    place = checked_target("/api/v1/events?job=App/Job&type=execution.*", STREAMS)
    ticket = book.issue(identity(), place, 100.0)
    asked = place_of(f"/api/v1/events?job=App%2FJob&type=execution.*&ticket={ticket}")
    for _ in range(3):
        assert book.find(ticket, asked, 100.0 + TICKET_S - 0.001) == identity()
    assert book.find(ticket, asked, 100.0 + TICKET_S) is None


@pytest.mark.parametrize(
    "other",
    [
        "/api/v1/events",
        "/api/v1/events?job=App/Other",
        "/api/v1/events?job=App/Job&job=App/Other",
        "/api/v1/events?job=App/Job&user=bob",
        "/api/v1/ws?job=App/Job",
        "/api/v1/events/?job=App/Job",
    ],
)
def test_a_ticket_opens_no_other_place(other: str) -> None:
    book = TicketBook()
    ticket = book.issue(identity(), checked_target("/api/v1/events?job=App/Job", STREAMS), 100.0)
    assert book.find(ticket, place_of(other), 100.0) is None


@pytest.mark.parametrize(
    "target",
    [
        "",
        "/",
        "/api/v1/tokens",
        "/api/v1/session",
        "/api/v1/executions",
        f"/api/v1/executions/{EXECUTION}/output",
        "/api/v1/executions/../tokens/stream",
        "/api/v1/executions/%2e%2e/stream",
        "https://example.org/api/v1/events",
        "//example.org/api/v1/events",
        "/api/v1/events#x",
        "/api/v1/events?ticket=x",
        "/api/v1/events?a=1&ticket=x",
        "/api/v1/events?\r\nx",
        "/api/v1/events?q=" + "x" * 5000,
        "/api/v1/events?" + "&".join(f"a{n}=1" for n in range(101)),
    ],
)
def test_tickets_are_for_streams_only(target: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - urllib's own words are among them
        checked_target(target, STREAMS)


def test_streams_are_what_tickets_are_for() -> None:
    for target in ("/api/v1/ws", f"/api/v1/executions/{EXECUTION}/stream?tail=5"):
        assert checked_target(target, STREAMS) == place_of(target)


def test_one_user_s_tickets_do_not_take_the_place_of_another_s() -> None:
    book = TicketBook()
    place = checked_target("/api/v1/events", STREAMS)
    for _ in range(TICKETS_PER_USER):
        book.issue(identity("alice"), place, 100.0)
    with pytest.raises(TooMany):
        book.issue(identity("alice"), place, 100.0)
    book.issue(identity("bob"), place, 100.0)
    book.issue(identity("alice"), place, 100.0 + TICKET_S)


def test_a_code_signs_in_once_and_not_for_long() -> None:
    book = CodeBook()
    code = book.issue(grant(), 100.0)
    assert book.redeem("another", 100.0) is None
    assert book.redeem(code, 100.0) == grant()
    assert book.redeem(code, 100.0) is None
    late = book.issue(grant(), 100.0)
    assert book.redeem(late, 100.0 + CODE_S) is None


def test_asking_for_many_codes_revokes_none_of_others() -> None:
    book = CodeBook()
    mine = book.issue(grant("alice"), 100.0)
    for _ in range(2 * CODES_MAX):
        book.issue(grant("eve"), 100.0)
    assert book.redeem(mine, 100.0) == grant("alice")


def test_of_too_many_codes_the_oldest_is_refused() -> None:
    book = CodeBook()
    codes = [book.issue(grant(), 100.0) for _ in range(CODES_MAX + 1)]
    assert book.redeem(codes[0], 100.0) is None
    assert book.redeem(codes[1], 100.0) == grant()
