"""`calendars.toml` and its `.ics` files on disk: changed, broken, gone, or no files at all."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from handlers.calendars.calendar_files import CalendarFiles
from handlers.catalog.definition_files import CALENDARS_ID, DefinitionFiles

NOON = datetime(2026, 12, 24, 12, tzinfo=UTC)


def ics(day: str) -> str:
    event = f"BEGIN:VEVENT\nSUMMARY:Feast\nDTSTART;VALUE=DATE:{day}\nEND:VEVENT"
    return f"BEGIN:VCALENDAR\n{event}\nEND:VCALENDAR\n"


@pytest.fixture
def apps(tmp_path: Path) -> Path:
    (tmp_path / "calendars.toml").write_text('[calendar.C]\nics = "own/feasts.ics"\n')
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "feasts.ics").write_text(ics("20261224"))
    return tmp_path


class Read:
    """One folder, read again at each look."""

    def __init__(self, apps: Path) -> None:
        self.apps = apps
        self.files = CalendarFiles("UTC")

    def look(self) -> tuple[bool, list[str]]:
        """Whether the day is in the calendar, and what is wrong."""
        self.files.read(str(self.apps), lambda name: f"apps/{name}")
        calendar = self.files.calendars.calendars.get("C")
        covers = calendar is not None and calendar.cover(NOON) is not None
        return covers, [str(each) for each in self.files.mistakes]


def test_changed_ics_file_is_in_force_and_a_broken_one_leaves_the_last_good_one(
    apps: Path,
) -> None:
    read, file = Read(apps), apps / "own" / "feasts.ics"
    assert read.look() == (True, [])
    assert read.files.folders == {str(apps / "own")}
    file.write_text(ics("20261225"))  # of the same length, within the same tick
    assert read.look() == (False, [])
    file.write_text(ics("20261224")[:-10])
    covers, [mistake] = read.look()
    assert not covers
    assert mistake.startswith("apps/own/feasts.ics: it is no whole iCalendar file: it ends before")
    file.unlink()
    assert "there is no such file; it is the file of [calendar.C]" in read.look()[1][0]
    file.write_text(ics("20261224"))
    assert read.look() == (True, [])


def test_broken_settings_leave_the_last_good_ones_and_missing_ones_are_none(apps: Path) -> None:
    read = Read(apps)
    assert read.look() == (True, [])
    (apps / "calendars.toml").write_text("[calendar.C]\n")
    assert read.look() == (True, ["apps/calendars.toml:1: " + EMPTY])
    (apps / "calendars.toml").unlink()
    assert read.look() == (False, [])


ALL_WRONG = """
[calendar.C]
weekdays = ["Sa", "Monn..Fri"]
dates = ["2026-13-01", "12-24", "2026-02-30"]
holidays = { country = "XX" }
ics = "nowhere.ics"

[blackout.B]
daily = ["25:00..06:00", "26:00..06:00"]
on = ["Nope", "C"]
zone = "Europe/Berln"
"""


@pytest.mark.parametrize("more", ["", "do = 'hold'"])
def test_all_mistakes_of_the_settings_and_of_the_files_are_named_at_once(
    apps: Path, more: str
) -> None:
    (apps / "calendars.toml").write_text(ALL_WRONG + more)
    read = Read(apps)
    read.look()
    keys = [each.key for each in read.files.mistakes if each.key]
    wrong = ["weekdays[0]", "weekdays[1]", "dates[0]", "dates[2]", "holidays.country"]
    assert sorted(keys) == sorted(
        [f"calendar.C.{each}" for each in wrong]
        + [f"blackout.B.{each}" for each in ("daily[0]", "daily[1]", "on[0]", "zone")]
        + (["blackout.B.do"] if more else [])
    )
    missing = any("there is no such file" in each.reason for each in read.files.mistakes)
    assert missing is not bool(more)  # files are read when the rest could be


EMPTY = "it is empty; give holidays, ics, dates or weekdays"


@pytest.mark.parametrize("name", ["calendars.toml", "own/feasts.ics"])
@pytest.mark.timeout(20)
def test_pipe_in_the_place_of_a_file_is_refused_and_never_waited_for(apps: Path, name: str) -> None:
    read = Read(apps)
    assert read.look() == (True, [])
    (apps / name).unlink()
    os.mkfifo(apps / name)
    covers, [mistake] = read.look()
    assert covers
    assert "is no regular file" in mistake


def test_mistakes_stand_among_the_jobs_and_files_in_other_folders_are_watched(apps: Path) -> None:
    files = DefinitionFiles(apps)
    assert files.scan() == ()
    assert str(apps / "own") in {path for path, _, _ in files.folders}
    (apps / "calendars.toml").write_text("[calendar.C]\nweekdays = 3\n")
    [faulty] = files.scan()
    assert faulty.job_id == CALENDARS_ID
    assert faulty.fault is not None
    assert faulty.fault.line == 2
