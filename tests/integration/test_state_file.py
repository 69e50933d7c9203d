"""Files that the service keeps and people edit: an edit counts, whatever is saved next."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from bus.errors import DataDirectoryError, StorageFailed
from bus.layout import DataLayout
from tests.fakes import ManualClock
from transports.http.access.admin_token import admin_token
from transports.http.access.session_store import SavedSessions, Sessions
from transports.http.access.state_file import StateFile, read_private
from transports.http.access.token_files import load_book
from transports.http.access.token_store import TokenStore
from transports.http.settings import SessionLimits

NOW_MS = 1_769_450_400_000


class Edited:
    """A token store whose file is edited; `calls` counts how often its listener was called."""

    def __init__(self, root: Path) -> None:
        self.layout = DataLayout(root)
        self.clock = ManualClock(NOW_MS)
        self.store = TokenStore.load(self.layout, admin_token(self.layout), self.clock)
        self.calls = 0
        self.store.listen(self._count)

    async def create(self, user: str) -> tuple[str, str]:
        """Id and text of a new token."""
        record, token = await self.store.create(
            user, ("viewer",), expires_ms=None, created_by="root"
        )
        return record.id, token

    def read(self) -> dict[str, Any]:
        content: dict[str, Any] = json.loads(self.layout.tokens.read_bytes())
        return content

    def remove_by_hand(self, token_id: str, *, in_place: bool = True) -> None:
        content = self.read()
        content["tokens"] = [each for each in content["tokens"] if each["id"] != token_id]
        self.write(json.dumps(content), in_place=in_place)

    def write(self, text: str, *, in_place: bool = True) -> None:
        """As editors do: into the file, or into another one that takes its place."""
        if in_place:
            self.layout.tokens.write_text(text)
            return
        other = self.layout.root / "tokens.json.swp"
        other.write_text(text)
        other.chmod(0o600)
        other.replace(self.layout.tokens)

    def users(self) -> list[str]:
        """Of the tokens on the disk."""
        return sorted(each.user_id for each in load_book(self.layout.tokens).records())

    def _count(self) -> None:
        self.calls += 1


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    return Edited(tmp_path)


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("way", ["last use", "new token", "revocation", "end", "look"])
async def test_token_removed_by_hand_stays_removed_whatever_is_saved_next(
    edited: Edited, way: str, in_place: bool
) -> None:
    gone_id, gone = await edited.create("gina")
    kept_id, kept = await edited.create("kim")
    other_id, _ = await edited.create("otto")
    edited.remove_by_hand(gone_id, in_place=in_place)
    edited.clock.advance_s(7200)
    edited.store.check(kept)
    match way:
        case "last use" | "end":
            edited.store.check(gone)
            await edited.store.aclose()
        case "new token":
            await edited.create("nora")
        case "revocation":
            await edited.store.revoke(other_id)
        case _:
            await edited.store.look()
    assert edited.store.check(gone) is None
    assert edited.store.grant(gone_id) is None
    assert edited.store.grant(kept_id) is not None
    assert edited.calls
    await edited.store.aclose()
    assert "gina" not in edited.users()
    assert "kim" in edited.users()
    assert ("nora" in edited.users()) == (way == "new token")
    assert ("otto" in edited.users()) == (way != "revocation")
    used = {each.user_id: each.used_ms for each in load_book(edited.layout.tokens).records()}
    assert used["kim"], "when it was last used is kept beside the edit"


async def test_token_added_or_changed_by_hand_counts_and_is_not_written_over(
    edited: Edited,
) -> None:
    added_id, added = await edited.create("added")
    before = edited.read()
    await edited.store.revoke(added_id)
    changed_id, _ = await edited.create("changed")
    now = edited.read()
    now["tokens"][0]["roles"] = ["operator"]
    now["tokens"] += before["tokens"]
    edited.write(json.dumps(now))
    await edited.create("later")
    assert edited.store.check(added) is not None
    grant = edited.store.grant(changed_id)
    assert grant is not None
    assert grant.principal.roles == ("operator",)
    assert edited.users() == ["added", "changed", "later"]


async def test_token_revoked_here_does_not_come_back_by_an_edit_of_an_older_file(
    edited: Edited, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone_id, gone = await edited.create("gina")
    with monkeypatch.context() as disk:
        disk.setattr(os, "fsync", _no_space)
        with pytest.raises(Exception, match="no room"):
            await edited.store.revoke(gone_id)
    edited.write(json.dumps(edited.read()) + "\n")  # edited, and the token is still in it
    await edited.store.look()
    assert edited.store.check(gone) is None
    await edited.create("later")
    assert edited.users() == ["later"]


async def test_file_taken_away_ends_all_its_tokens(edited: Edited) -> None:
    _, token = await edited.create("gina")
    edited.layout.tokens.unlink()
    await edited.store.look()
    assert edited.store.check(token) is None
    await edited.create("later")
    assert edited.users() == ["later"]


@pytest.mark.parametrize(("text", "mode"), [("{", 0o600), ('{"version":1}', 0o644)])
async def test_damaged_edit_is_refused_and_never_written_over(
    edited: Edited, text: str, mode: int
) -> None:
    token_id, token = await edited.create("gina")
    edited.write(text)
    edited.layout.tokens.chmod(mode)
    with pytest.raises(DataDirectoryError):
        await edited.store.look()
    with pytest.raises(StorageFailed, match=r"tokens\.json"):
        await edited.create("later")
    assert edited.store.check(token) is not None
    with pytest.raises(StorageFailed, match=r"tokens\.json"):
        await edited.store.revoke(token_id)
    assert edited.store.check(token) is None
    await edited.store.aclose()
    assert edited.layout.tokens.read_text() == text


async def test_tokens_made_while_the_files_are_read_again_are_kept(edited: Edited) -> None:
    """A look and a creation overlap in each order in which their steps can."""
    made: list[str] = []

    async def make(count: int) -> None:
        for _ in range(count):
            made.append((await edited.create(f"user{len(made)}"))[1])

    async def look(count: int) -> None:
        for _ in range(count):
            await edited.store.look()

    async with asyncio.TaskGroup() as group:
        for run in (make, look, make, look):
            group.create_task(run(15), name="trial")
    assert len(made) == 30
    assert all(edited.store.check(each) is not None for each in made)
    assert len(edited.users()) == 30


async def test_admin_token_rotated_while_the_files_are_read_again_is_the_one_that_counts(
    edited: Edited,
) -> None:
    async with asyncio.TaskGroup() as group:
        for _ in range(10):
            group.create_task(edited.store.look(), name="look")
            group.create_task(edited.store.rotate_admin(), name="rotation")
    assert edited.store.check(admin_token(edited.layout)) is not None


async def test_session_removed_by_hand_is_over_and_stays_so(edited: Edited) -> None:
    _, token = await edited.create("gina")
    grant = edited.store.check(token)
    assert grant is not None
    path = edited.layout.sessions
    calls: list[int] = []
    sessions = Sessions(
        SavedSessions.read(path),
        edited.store,
        edited.clock,
        SessionLimits(),
        lambda: calls.append(1),
    )
    gone, _ = await sessions.open(grant)
    kept, _ = await sessions.open(grant)
    content = json.loads(path.read_bytes())
    del content["sessions"][0]
    path.write_text(json.dumps(content))
    later, _ = await sessions.open(grant)
    assert sessions.find(gone) is None
    assert sessions.find(kept) is not None
    assert sessions.find(later) is not None
    assert calls
    again = Sessions(SavedSessions.read(path), edited.store, edited.clock, SessionLimits())
    assert [again.find(each) is not None for each in (gone, kept, later)] == [False, True, True]


@pytest.mark.parametrize("damage", ["", "{", None])
async def test_damaged_file_of_sessions_signs_out_and_lets_sign_in(
    edited: Edited, damage: str | None
) -> None:
    _, token = await edited.create("gina")
    grant = edited.store.check(token)
    assert grant is not None
    path = edited.layout.sessions
    sessions = Sessions(SavedSessions.read(path), edited.store, edited.clock, SessionLimits())
    cookie, _ = await sessions.open(grant)
    if damage is None:
        path.chmod(0o666)
    else:
        path.write_text(damage)
    later, _ = await sessions.open(grant)
    assert sessions.find(cookie) is None
    assert sessions.find(later) is not None
    assert path.stat().st_mode & 0o777 == 0o600


async def test_edit_is_noticed_while_nothing_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "state"
    found = asyncio.Queue[bytes | None]()
    file = StateFile(
        path,
        None,
        render=lambda: b"ours",
        absorb=lambda _before, content: found.put_nowait(content),
        read=lambda place: read_private(place, 100),
        look_s=0.01,
    )
    await file.save()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        running = group.create_task(file.run(), name="file")
        for content in (b"them", b"next", b"last"):
            path.write_bytes(content)  # of the same length, and at about the same time
            assert await found.get() == content
        path.unlink()
        assert await found.get() is None
        running.cancel()


async def test_cancelled_save_holds_its_turn_until_the_disk_is_done(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = [0]
    file = StateFile(
        path,
        None,
        render=lambda: b"%d" % state[0],
        absorb=lambda _before, content: pytest.fail(f"no edit: {content!r}"),
        read=lambda place: read_private(place, 100),
    )
    async with asyncio.timeout(20):
        for number in range(20):
            state[0] = number
            saving = asyncio.create_task(file.save(), name="saving")
            await asyncio.sleep(0)
            saving.cancel()
            await asyncio.wait([saving])
        await file.save()
    assert path.read_bytes() == b"19"


def _no_space(_descriptor: int) -> None:
    raise OSError(28, "No space left on device")
