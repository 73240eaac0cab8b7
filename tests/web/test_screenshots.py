"""A screenshot of each page, in both themes and on a narrow screen, kept as test artifacts for people to look at.

Nothing of their looks is judged here: only that each page is there, whole, and fits the screen.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from runyard.bench.busy_ledger import POOL, SEEDS, fill_busy_ledger
from runyard.clock import SystemClock
from runyard.ledger.opening import create_ledger
from runyard.model.machine import MachineState, machine_name
from tests.journeys.conftest import RunningService
from tests.web.chromium import a_browser, signed_in

pytestmark = pytest.mark.service

WIDE, NARROW = {"width": 1280, "height": 800}, {"width": 360, "height": 740}
LOOKS = (("light", WIDE), ("dark", WIDE), ("light", NARROW))
MACHINES = [machine_name("shown", POOL, number) for number in (1, 2)]
FAILS = "echo building; printf '\\033[32mok\\033[0m\\n'; echo careful >&2; touch report.txt; exit 3"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as made:
        yield made


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    """With jobs of every state, and machines of a pool that nobody owns."""
    data = tmp_path_factory.mktemp("shown") / "data"
    data.mkdir(mode=0o711)
    with ThreadPoolExecutor(1) as beside:  # the browser has a loop in this thread
        beside.submit(asyncio.run, _fill(data / "ledger.sqlite")).result()
    running = RunningService(data)
    running.start()
    try:
        yield running
    finally:
        running.stop()


async def _fill(path: Path) -> None:
    await fill_busy_ledger(path, jobs=SEEDS)
    ledger = create_ledger(f"sqlite://{path}", clock=SystemClock())
    await ledger.open()
    fence = await ledger.acquire_pool(POOL, owner="shown", lease_s=600.0)
    assert fence is not None
    for name in MACHINES:
        await ledger.intend_machine(
            fence, name, slots=2, facts={"zone": "eu-central-1b", "kind": "g5.xlarge"}
        )
    await ledger.change_machine(
        fence, MACHINES[0], seen=MachineState.INTENDED, to=MachineState.STARTING, facts={}
    )
    await ledger.contact_machine(MACHINES[0])
    await ledger.release_pool(fence)
    await ledger.close()


def test_the_first_page_before_anything_was_submitted(tmp_path: Path, browser: Browser):
    service = RunningService(tmp_path / "data").start()
    try:
        keep(service, browser, tmp_path, {"first-run": "/", "no-jobs": "/jobs"})
        expected = "runyard run -- echo hello"
        with signed_in(service, browser) as page:
            expect(page.get_by_text(expected)).to_be_visible()
    finally:
        service.close()


def test_each_page_of_an_installation_at_work(tmp_path: Path, service: RunningService, browser: Browser):
    holds = [f"shown-{number}" for number in range(os.cpu_count() or 1)]
    script = "echo compiling; echo 'warning: old' >&2; exec sleep 100"
    for name in holds:
        service.cli("run", "--id", name, "--detach", "--label", "team=search", "--", "sh", "-c", script)
    service.cli("run", "--id", "shown-waits", "--detach", "--", "true")
    pages = {
        "overview": "/",
        "jobs": "/jobs",
        "jobs-filtered": "/jobs?queue=builds&state=failed&state=running&label=team%3Dsearch",
        "jobs-none": "/jobs?text=nowhere",
        "job-running": "/jobs/shown-0",
        "job-waits": "/jobs/shown-waits",
        "queues": "/queues",
        "queue": "/queues/builds",
        "tenant": "/tenants/default",
        "pool": "/pools/local",
        "pool-unowned": f"/pools/{POOL}",
        "machine": f"/machines/{MACHINES[0]}",
        "access": "/access",
        "error": "/jobs/nowhere",
    }
    try:
        keep(service, browser, tmp_path, pages)
    finally:
        for name in (*holds, "shown-waits"):
            service.cli("cancel", name)
            service.cli("wait", name, check=None)


def test_what_went_wrong_and_who_did_what(tmp_path: Path, service: RunningService, browser: Browser):
    with service.client() as client:
        step = {"command": ["sh", "-c", FAILS]}
        client.submit({"steps": [step], "artifacts": ["*"], "retry": {"failure": 1}}, id="shown-failed")
        assert client.wait("shown-failed", timeout_s=60).state == "failed"
    service.cli("pool", "pause", "local")
    service.cli("pool", "resume", "local")
    keep(service, browser, tmp_path, {"job-failed": "/jobs/shown-failed", "audit": "/audit"})
    with signed_in(service, browser) as page:
        page.goto("/pools/local")
        page.get_by_role("button", name="Check").click()
        expect(page.get_by_role("heading", name="Check: pool local")).to_be_visible()
        page.screenshot(path=str(tmp_path / "check-light-1280.png"), full_page=True)
        page.get_by_role("button", name="Sign out").click()
        expect(page.get_by_label("Token")).to_be_visible()
        page.screenshot(path=str(tmp_path / "sign-in-light-1280.png"), full_page=True)


def keep(service: RunningService, browser: Browser, folder: Path, pages: dict[str, str]) -> None:
    kept: list[Path] = []
    for scheme, size in LOOKS:
        with signed_in(service, browser, scheme) as page:
            page.set_viewport_size({"width": size["width"], "height": size["height"]})
            for name, path in pages.items():
                kept.append(folder / f"{name}-{scheme}-{size['width']}.png")
                _shoot(page, path, kept[-1])
    assert all(path.stat().st_size for path in kept)


def _shoot(page: Page, path: str, file: Path) -> None:
    page.goto(path)
    expect(page.locator("main h1")).to_be_visible()
    if page.locator("#log").count():
        expect(page.locator("#log .empty, #log .lines").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
    page.screenshot(path=str(file), full_page=True)
