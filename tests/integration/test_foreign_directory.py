"""`serve --data` on a directory of something else, as people give one by mistake."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.service import ROOT, Service


def tree_of(root: Path) -> dict[str, tuple[int, int]]:
    """Names, modes and times: what a service must not have touched."""
    found = ((path, path.lstat()) for path in (root, *root.rglob("*")))
    return {str(path): (status.st_mode, status.st_mtime_ns) for path, status in found}


def like_etc(root: Path) -> None:
    (root / "passwd").write_text("root:x:0:0::/root:/bin/sh\n", encoding="utf-8")
    (root / "ssl").mkdir()


def like_var(root: Path) -> None:
    (root / "lock").mkdir()
    (root / "lib").mkdir()


def like_a_project(root: Path) -> None:
    (root / ".git").mkdir()


@pytest.mark.parametrize("fill", [like_etc, like_var, like_a_project])
def test_a_directory_of_another_program_is_refused_and_left_as_it_is(
    tmp_path: Path, fill: Callable[[Path], None]
) -> None:
    other = tmp_path / "other"
    other.mkdir(mode=0o755)
    fill(other)
    before = tree_of(other)
    done = subprocess.run(
        [sys.executable, "-m", "jobbus", "serve", "--data", str(other), "--listen", "127.0.0.1:0"],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    assert "is no data directory of jobbus and not empty" in done.stderr
    logged, *sentences = done.stderr.splitlines()
    assert ("no jobbus.toml was found" in logged, len(sentences)) == (True, 1)
    assert tree_of(other) == before


def test_a_directory_with_what_belongs_to_a_service_becomes_its_own(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.data.mkdir(mode=0o700)
    for name in ("lost+found", "JobCommandResults", "JobStatus", ".reserve", ".trial-12"):
        (service.data / name).mkdir(mode=0o700)
    for name in ("jobbus.toml", "tokens.json", f".instance.json.{os.getpid():x}"):
        (service.data / name).touch(mode=0o600)
    (service.data / "tokens.json").write_text('{"version":1,"tokens":[]}', encoding="utf-8")
    secret = service.data / "tls" / "cert.pem"
    secret.parent.mkdir()
    try:
        config = tmp_path / "jobbus.toml"
        config.write_text(f'[secrets]\nkey = {{ file = "{secret}" }}\n', encoding="utf-8")
        service.start("--config", str(config))
        assert (service.data / "Journal").is_dir()
    finally:
        service.clear_away()
