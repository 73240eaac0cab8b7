"""The alert rules speak of metrics that Runyard has; metrics, alarms and the log are told in docs/operations.md."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.test_service_metrics import the_busy_text

ROOT = Path(__file__).parent.parent
RULES = ROOT / "deploy" / "prometheus" / "alerts.yaml"
OPERATIONS = (ROOT / "docs" / "operations.md").read_text()


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load(RULES.read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_a_rule_has_what_a_pager_needs(rule: dict[str, Any]) -> None:
    assert rule["expr"].strip()
    assert rule["labels"]["severity"] in ("warning", "critical")
    assert {"summary", "description"} <= rule["annotations"].keys()
    assert f"`{rule['alert']}`" in OPERATIONS, "docs/operations.md says what to do"


async def test_every_metric_of_the_rules_is_one_that_the_service_has() -> None:
    text = await the_busy_text()
    had = {re.split(r"[{ ]", line)[0] for line in text.splitlines() if not line.startswith("#")}
    used = {name for rule in rules() for name in re.findall(r"\brunyard_\w+", rule["expr"])}
    assert used
    assert used <= had


async def test_every_metric_of_the_service_is_in_the_documentation() -> None:
    families = set(re.findall(r"^# TYPE (runyard_\w+)", await the_busy_text(), re.MULTILINE))
    documented = set(re.findall(r"`(runyard_\w+)", OPERATIONS))
    assert families == documented


def test_every_line_that_dispatch_logs_is_in_the_documentation() -> None:
    sources = [path.read_text() for path in (ROOT / "src" / "runyard" / "dispatch").glob("*.py")]
    call = r"(?:log|bound)\.(?:info|warning|error|exception)\(\s*\"(\w+)\"|_warn_once\(\"(\w+)\""
    logged = {one or other for source in sources for one, other in re.findall(call, source)}
    assert len(logged) > 20
    assert logged <= set(re.findall(r"`(\w+)`", OPERATIONS))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_takes_the_rules() -> None:
    command = ["promtool", "check", "rules", str(RULES)]
    found = await asyncio.to_thread(subprocess.run, command, text=True, capture_output=True)
    assert found.returncode == 0, found.stdout + found.stderr
