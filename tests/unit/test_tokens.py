"""Tokens: what is kept of them, whom they speak for, and that nothing else opens a door."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bus.errors import DataDirectoryError, NoSpace
from bus.layout import DataLayout
from tests.fakes import ManualClock
from transports.http.access.admin_token import admin_token
from transports.http.access.state_file import read_private
from transports.http.access.token_files import load_book, save_book
from transports.http.access.token_records import (
    ADMIN_ID,
    DAY_MS,
    TokenBook,
    checked_expiry,
    checked_name,
    checked_roles,
    checked_user,
    lifetime_ms,
    split_token,
    token_view,
)
from transports.http.access.token_store import TokenStore, make_token

NOW_MS = 1_769_450_400_000


def made(book: TokenBook, user: str = "alice", expires_ms: int | None = None) -> tuple[str, str]:
    """Id and text of a token that is in the book."""
    record, token = make_token(
        book, user, ("operator",), now_ms=NOW_MS, expires_ms=expires_ms, created_by="root"
    )
    book.put(record)
    return record.id, token


def test_a_token_speaks_for_its_user_until_it_expires_or_is_revoked() -> None:
    book = TokenBook()
    token_id, token = made(book, expires_ms=NOW_MS + 1000)
    grant = book.check(token, NOW_MS)
    assert grant is not None
    assert grant.principal.user_id == "alice"
    assert grant.principal.roles == ("operator",)
    assert book.check(token, NOW_MS + 999) is grant
    assert book.check(token, NOW_MS + 1000) is None
    assert book.grant(token_id, NOW_MS + 1000) is None
    book.remove(token_id)
    assert book.check(token, NOW_MS) is None


@given(place=st.integers(0, 200), letter=st.sampled_from("aZ09_-. "))
def test_no_changed_token_is_taken(place: int, letter: str) -> None:
    book = TokenBook()
    _, token = made(book)
    place %= len(token)
    if token[place] == letter:
        return
    assert book.check(token[:place] + letter + token[place + 1 :], NOW_MS) is None


@given(text=st.text(max_size=80))
def test_no_other_text_is_taken(text: str) -> None:
    book = TokenBook()
    made(book)
    assert book.check(text, NOW_MS) is None


def test_secrets_of_one_token_do_not_open_another() -> None:
    book = TokenBook()
    first_id, first = made(book, "alice")
    second_id, second = made(book, "bob")
    mixed = f"jb_{first_id}_{split_token(second)[1]}"
    assert book.check(mixed, NOW_MS) is None
    assert first_id != second_id
    assert split_token(first)[1] != split_token(second)[1]
    assert book.check(f"jb_{first_id}_", NOW_MS) is None


def test_neither_file_nor_view_holds_what_would_open(tmp_path: Path) -> None:
    book = TokenBook()
    _, token = made(book)
    path = tmp_path / "tokens.json"
    save_book(path, book)
    assert split_token(token)[1] not in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    view = token_view(book.records()[0], NOW_MS)
    assert "hash" not in view.__struct_fields__
    assert load_book(path).check(token, NOW_MS) is not None


@pytest.mark.parametrize(
    ("content", "mode", "word"),
    [
        (b'{"version":1,"tokens":[', 0o600, "damaged"),
        (b'{"version":1,"tokens":[{"id":"x"}]}', 0o600, "damaged"),
        (b'{"version":2}', 0o600, "version 2"),
        (b"\xff\xfe", 0o600, "damaged"),
        (b'{"version":1}', 0o644, "chmod 600"),
        (b'{"version":1}', 0o620, "chmod 600"),
    ],
)
def test_a_file_that_is_damaged_or_open_to_others_is_refused(
    tmp_path: Path, content: bytes, mode: int, word: str
) -> None:
    path = tmp_path / "tokens.json"
    path.write_bytes(content)
    path.chmod(mode)
    with pytest.raises(DataDirectoryError, match=word):
        load_book(path)


def test_links_fifos_and_folders_are_no_credential_files(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"{}")
    elsewhere.chmod(0o600)
    (tmp_path / "link").symlink_to(elsewhere)
    os.mkfifo(tmp_path / "fifo", 0o600)
    (tmp_path / "folder").mkdir(mode=0o700)
    (tmp_path / "huge").write_bytes(b" " * 11)
    (tmp_path / "huge").chmod(0o600)
    for name in ("link", "fifo", "folder", "huge"):
        with pytest.raises(DataDirectoryError):
            read_private(tmp_path / name, 10)
    assert read_private(tmp_path / "none", 10) is None


async def test_what_the_store_makes_and_revokes_holds_after_a_restart(tmp_path: Path) -> None:
    clock, layout = ManualClock(NOW_MS), DataLayout(tmp_path)
    admin = admin_token(layout)
    store = TokenStore.load(layout, admin, clock)
    _, kept = await store.create("alice", ("viewer",), expires_ms=None, created_by="root")
    gone_record, gone = await store.create("bob", ("viewer",), expires_ms=None, created_by="root")
    assert await store.revoke(gone_record.id) == gone_record
    assert await store.revoke(gone_record.id) is None
    assert store.check(gone) is None
    again = TokenStore.load(layout, admin, clock)
    assert again.check(kept) is not None
    assert again.check(gone) is None
    assert again.check(admin) is not None


async def test_the_account_s_own_token_can_be_replaced(tmp_path: Path) -> None:
    layout = DataLayout(tmp_path)
    old = admin_token(layout)
    store = TokenStore.load(layout, old, ManualClock(NOW_MS))
    before = store.check(old)
    await store.rotate_admin()
    after = store.grant(ADMIN_ID)
    assert before is not None
    assert after is not None
    assert before.seal != after.seal
    assert store.check(old) is None
    assert store.check(admin_token(layout)) is after
    assert layout.admin_token.stat().st_mode & 0o777 == 0o600


async def test_uses_are_kept_by_the_hour_and_reach_the_disk_at_the_end(tmp_path: Path) -> None:
    clock, layout = ManualClock(NOW_MS), DataLayout(tmp_path)
    store = TokenStore.load(layout, admin_token(layout), clock)
    record, token = await store.create("alice", ("viewer",), expires_ms=None, created_by="root")
    grant = store.check(token)
    clock.advance_s(1800)
    assert store.check(token) is grant
    assert load_book(layout.tokens).records()[0].used_ms is None
    await store.aclose()
    used_ms = load_book(layout.tokens).records()[0].used_ms
    assert used_ms is not None
    assert used_ms % 3_600_000 == 0
    assert 0 <= clock.now_ms() - used_ms <= 3_600_000
    assert record.used_ms is None


async def test_a_full_disk_makes_no_token_but_revokes_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = DataLayout(tmp_path)
    store = TokenStore.load(layout, admin_token(layout), ManualClock(NOW_MS))
    record, token = await store.create("alice", ("viewer",), expires_ms=None, created_by="root")
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", _no_space)
        with pytest.raises(NoSpace):
            await store.create("bob", ("viewer",), expires_ms=None, created_by="root")
        with pytest.raises(NoSpace):
            await store.revoke(record.id)
    assert store.check(token) is None
    assert [kept.user_id for kept in load_book(layout.tokens).records()] == ["alice"]
    # The repeat reaches the disk although memory has long forgotten it.
    assert await store.revoke(record.id) is None
    assert not load_book(layout.tokens).records()
    assert not list(tmp_path.glob(".tokens.json.*"))


@pytest.mark.parametrize(
    "user",
    ["", " alice", "a\nb", "x" * 129, "uid:0", "UID:0", "system:bus", "schedule:x", "policy:retry"],
)
def test_users_that_are_none_or_jobbus_s_own_are_refused(user: str) -> None:
    with pytest.raises(ValueError, match=r"visible characters|jobbus's own"):
        checked_user(user)


def test_users_roles_and_names_that_are_fine_stay_as_they_are() -> None:
    assert checked_user("alice@example.org") == "alice@example.org"
    assert checked_roles(["viewer", "operator", "viewer"]) == ("viewer", "operator")
    assert checked_name("nightly build") == "nightly build"


@pytest.mark.parametrize("roles", [[], ["a b"], ["system:x"], [""], [f"r{n}" for n in range(33)]])
def test_what_is_no_role_is_refused(roles: list[str]) -> None:
    with pytest.raises(ValueError, match="role"):
        checked_roles(roles)


def test_lifetimes_are_read_as_written() -> None:
    assert lifetime_ms("30m") == 1_800_000
    assert lifetime_ms("12h") == DAY_MS // 2
    assert lifetime_ms("90d") == 90 * DAY_MS
    assert lifetime_ms("never") is None


@pytest.mark.parametrize(
    "text", ["", "0d", "90", "-1d", "1y", "3651d", "9999999d", "1d ", "\u0661d"]
)
def test_what_is_no_lifetime_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="lifetime"):
        lifetime_ms(text)


def test_an_expiry_lies_ahead_and_not_beyond_ten_years() -> None:
    assert checked_expiry(NOW_MS + 1, NOW_MS) == NOW_MS + 1
    for wrong in (NOW_MS, NOW_MS - 1, NOW_MS + 3651 * DAY_MS):
        with pytest.raises(ValueError, match="days"):
            checked_expiry(wrong, NOW_MS)


def _no_space(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")
