"""The data directory before it is used: whose it is, and who else may write there."""

import os
import stat
from pathlib import Path

import pytest

from bus.errors import ConfigError, DataDirectoryError
from bus.layout import DataLayout
from handlers.supervision.doorbell import Doorbell
from jobbus.service.instance import prepare, secret_key
from jobbus.service.sharing import group_id, share


@pytest.fixture
def layout(tmp_path: Path) -> DataLayout:
    made = DataLayout(tmp_path / "data")
    prepare(made)
    return made


@pytest.mark.parametrize(
    ("folder", "mode", "fix"),
    [
        ("JobCommandQueue", 0o770, "chmod +t"),
        ("JobCommandQueue", 0o777, "chmod +t"),
        ("JobStatus", 0o2770, "chmod go-w"),
        ("Journal", 0o1702, "chmod go-w"),
        (".", 0o720, "chmod go-w"),
    ],
)
def test_a_folder_that_others_may_write_is_refused_with_the_fix(
    layout: DataLayout, folder: str, mode: int, fix: str
) -> None:
    (layout.root / folder).chmod(mode)
    with pytest.raises(DataDirectoryError, match=f"run: {fix.replace('+', '.')}"):
        prepare(layout)


def test_a_queue_where_no_account_can_remove_files_of_others_is_fine(layout: DataLayout) -> None:
    layout.queue.chmod(0o1733)
    prepare(layout)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives folders away")
@pytest.mark.parametrize("folder", [".", "JobCommandQueue", "Journal"])
def test_a_folder_of_another_account_is_refused(layout: DataLayout, folder: str) -> None:
    os.chown(layout.root / folder, 54_321, -1)
    with pytest.raises(DataDirectoryError, match="another account"):
        prepare(layout)


def test_sharing_opens_three_folders_and_no_more_and_is_taken_back(layout: DataLayout) -> None:
    share(layout, str(os.getegid()))
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in layout.root.iterdir() if p.is_dir()}
    assert stat.S_IMODE(layout.root.stat().st_mode) == 0o710
    assert modes.pop("JobCommandQueue") == 0o3730
    assert modes.pop("JobCommandResults") == modes.pop("JobStatus") == 0o2750
    assert not [name for name, mode in modes.items() if mode & 0o077]
    prepare(layout)
    share(layout, None)
    assert not [p for p in (layout.root, *layout.root.iterdir()) if p.stat().st_mode & 0o077]


def test_a_group_that_does_not_exist_is_reported() -> None:
    with pytest.raises(ConfigError, match="there is no group 'no-such-group'"):
        group_id("no-such-group")


def test_a_key_that_is_not_whole_is_reported_and_never_used(layout: DataLayout) -> None:
    made = secret_key(layout)
    assert secret_key(layout) == made
    (layout.root / "secret.key").write_bytes(made[:-1])
    with pytest.raises(DataDirectoryError, match=r"secret\.key is damaged; remove it"):
        secret_key(layout)


async def test_moved_directory_leaves_nothing_in_its_old_place_so_that_it_can_be_put_back(
    layout: DataLayout,
) -> None:
    doorbell = Doorbell(layout.root / "Sockets")
    layout.root.rename(layout.root.with_name("moved"))
    with doorbell.listening(lambda pid, state: None):
        assert not layout.root.exists(), "what is moved back would lie in that folder"
