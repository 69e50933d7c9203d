"""Which rules of time zones count, as a service with that environment finds them."""

import os
import subprocess
import sys
from pathlib import Path

from tzdata import IANA_VERSION

ASK = "from handlers.schedule.service_zone import zone_data; print(*zone_data(), sep='|')"


def zones_with(search_path: str) -> list[str]:
    answer = subprocess.run(
        [sys.executable, "-c", ASK],
        env=os.environ | {"PYTHONTZPATH": search_path},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    return answer.stdout.strip().split("|")


def test_rules_of_the_package_count_where_the_machine_has_none(tmp_path: Path) -> None:
    assert zones_with("") == [IANA_VERSION, "package"]
    assert zones_with(str(tmp_path)) == [IANA_VERSION, "package"]


def test_rules_of_the_machine_count_with_the_release_that_its_tables_name(tmp_path: Path) -> None:
    (tmp_path / "Etc").mkdir()
    (tmp_path / "Etc" / "UTC").write_bytes(b"")
    assert zones_with(str(tmp_path)) == ["unknown", str(tmp_path)]
    (tmp_path / "tzdata.zi").write_text("# version 2031c\n# more\n")
    assert zones_with(str(tmp_path)) == ["2031c", str(tmp_path)]
