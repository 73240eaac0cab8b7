"""The alarm of a queue in which nothing starts, in Chromium over the real service."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from runyard.policy.progress import STALLED_AFTER_S
from tests.journeys.conftest import RunningService
from tests.web.chromium import a_browser, signed_in

pytestmark = pytest.mark.service


@pytest.fixture
def service(tmp_path: Path) -> Iterator[RunningService]:
    running = RunningService(tmp_path / "data")
    running.start()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture
def page(service: RunningService) -> Iterator[Page]:
    with a_browser() as browser, signed_in(service, browser) as made:
        yield made


def let_it_have_waited(service: RunningService, job: str, seconds: float) -> None:
    """As if it had been queued that much earlier."""
    with contextlib.closing(sqlite3.connect(service.data / "ledger.sqlite", timeout=30)) as ledger, ledger:
        changed = ledger.execute("UPDATE jobs SET queued_at = queued_at - ? WHERE id = ?", (seconds, job))
        assert changed.rowcount == 1


def test_an_open_overview_says_that_nothing_starts_and_why_until_something_does(
    service: RunningService, page: Page, tmp_path: Path
):
    service.cli("pool", "pause", "local")
    service.cli("run", "--id", "stands", "--detach", "--", "true")
    page.goto("/")
    expect(page.get_by_role("link", name="stands")).to_be_visible()
    alarm = page.get_by_role("alert")
    expect(alarm).to_be_hidden()

    let_it_have_waited(service, "stands", STALLED_AFTER_S + 30)
    expect(alarm).to_contain_text("Nothing starts in queue default")
    expect(alarm).to_contain_text("nothing was started for 1 min")
    expect(alarm.locator(".reasons")).to_contain_text("paused")
    page.screenshot(path=str(tmp_path / "alarm.png"), full_page=True)
    page.get_by_role("link", name="The job that waits longest").click()
    expect(page.get_by_role("heading", name="stands")).to_contain_text("queued")
    page.go_back()
    expect(alarm).to_be_visible()

    service.cli("pool", "resume", "local")
    expect(alarm).to_be_hidden()
    expect(page.get_by_role("row").filter(has_text="stands")).to_contain_text("succeeded")
