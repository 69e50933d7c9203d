"""Words for roles that have no effect are named where a person looks: the log, and doctor."""

import json
import signal
import subprocess
import sys
from pathlib import Path

from tests.service import ROOT, Service, eventually, kill

CONFIG = """
[directory]
default_roles = ["operatr"]
[directory.uid_roles]
54321 = ["viewr"]
[directory.role_map]
site = ["opertor"]
own = ["auditor"]
[serve]
behind_proxy = true
[proxy]
trusted = ["127.0.0.1"]
user_header = "X-User"
default_roles = ["Viewer"]
"""
NAMED = (
    '[directory] default_roles: no job and no default gives the role "operatr" a right; '
    'did you mean "operator"?',
    '[directory.uid_roles] 54321: no job and no default gives the role "viewr" a right; '
    'did you mean "viewer"?',
    '[directory.role_map] "site": no job and no default gives the role "opertor" a right; '
    'did you mean "operator"?',
    '[proxy] default_roles: no job and no default gives the role "Viewer" a right; '
    'did you mean "viewer"?',
    '[roles] of R/Slip: no user is given the role "operater" of start; did you mean "operator"?',
)


def named(service: Service) -> list[str]:
    lines = map(json.loads, service.log.read_text(encoding="utf-8").splitlines())
    return [line["reason"] for line in lines if line["event"] == "a role without effect"]


def doctor(service: Service, config: Path) -> str:
    return subprocess.run(
        [sys.executable, "-m", "jobbus", "doctor", "--data", str(service.data),
         "--config", str(config), "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


async def test_words_for_roles_without_effect_are_named_at_start_reload_and_by_doctor(
    tmp_path: Path,
) -> None:
    service = Service(tmp_path)
    service.apps.shell("R/Slip", "true", roles={"start": ["operater"]})
    service.apps.shell("R/Own", "true", roles={"start": ["auditor", "operations", "operator"]})
    config = tmp_path / "jobbus.toml"
    config.write_text(CONFIG, encoding="utf-8")
    try:
        service.start("--config", str(config))
        assert sorted(named(service)) == sorted(NAMED)
        report = doctor(service, config)
        findings = [each["text"] for each in json.loads(report)["findings"]]
        assert set(NAMED) <= set(findings)
        assert not [text for text in findings if "auditor" in text or "operations" in text]
        right = CONFIG.replace("operatr", "operator").replace("viewr", "viewer")
        config.write_text(right, encoding="utf-8")
        kill(service.pid, signal.SIGHUP)
        again = len(NAMED) + len(NAMED) - 2
        await eventually(lambda: len(named(service)) == again or None, "the reload's words")
        assert not [text for text in named(service)[len(NAMED) :] if "operatr" in text]
    finally:
        service.clear_away()
