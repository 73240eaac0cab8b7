"""The charts of the overview, a queue and a pool in Debian's Chromium, over the real service with a day of history."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from runyard.clock import SystemClock
from runyard.ledger.opening import create_ledger
from runyard.model.history import ALL, HistoryRow, Subject
from tests.journeys.conftest import RunningService
from tests.web.chromium import signed_in
from tests.web.test_browser import browser  # noqa: F401

pytestmark = pytest.mark.service
SPAN_S = 26 * 3600
EVERY_S = 15


def a_day(now: int) -> Iterator[HistoryRow]:
    """Waves of work until a minute ago, some of it failing."""
    for number, bucket in enumerate(range((now - SPAN_S) // 15 * 15, now - EVERY_S, EVERY_S)):
        wave = 1 + math.sin(number / 240)
        for figure, amount in (("queued", 40 * wave), ("starting", 2 * wave), ("running", 8)):
            for subject, name in ((Subject.QUEUE, ALL), (Subject.QUEUE, "default"), (Subject.POOL, "local")):
                yield HistoryRow(subject=subject, name=name, bucket=bucket, figure=figure, amount=int(amount))
        ended = 10 + number % 7
        for figure, amount, seconds in (
            ("outcome:succeeded", ended, 0.0),
            ("outcome:failed", number % 3, 0.0),
            ("phase:claimed", ended, ended * 0.002),
            ("phase:preparing", ended, ended * 0.01),
            ("phase:image", ended, ended * 0.03 * wave),
            ("phase:workspace", ended, ended * 0.02),
        ):
            for subject, name in ((Subject.POOL, ALL), (Subject.QUEUE, "default"), (Subject.POOL, "local")):
                yield HistoryRow(
                    subject=subject,
                    name=name,
                    bucket=bucket,
                    figure=figure,
                    amount=amount,
                    seconds=seconds,
                    writer="before",
                )


async def write_history(data: Path) -> None:
    ledger = create_ledger(f"sqlite://{data}/ledger.sqlite", clock=SystemClock())
    await ledger.open()
    await ledger.add_history(list(a_day(int(time.time()))))
    await ledger.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    data = tmp_path_factory.mktemp("charts") / "data"
    data.mkdir(mode=0o700)
    asyncio.run(write_history(data))
    running = RunningService(data)
    running.start()
    try:
        yield running
    finally:
        running.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_last_hours_are_drawn_and_told(
    service: RunningService,
    browser: Browser,  # noqa: F811
    scheme: str,
    tmp_path: Path,
):
    with signed_in(service, browser, scheme) as page:
        wrong: list[str] = []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        for name, words in (("1h", "The last hour"), ("24h", "The last 24 hours")):
            page.goto(f"/?range={name}")
            expect(page.get_by_role("heading", name=words)).to_be_visible()
            expect(page.locator("#flow canvas")).to_have_count(3)
            assert all(drawn(page, chart) >= 3 for chart in ("jobs", "starts", "ends"))
            page.locator("#flow").scroll_into_view_if_needed()
            page.screenshot(path=str(tmp_path / f"charts-{scheme}-{name}.png"), full_page=True)
        page.get_by_text("The same as a table").click()
        rows = page.locator("#flow-table tbody tr")
        expect(rows).to_have_count(12)
        expect(rows.first).to_contain_text("ms")
        expect(page.locator("[data-series=succeeded] .value")).not_to_have_text("")
        serious = [
            one["id"]
            for one in Axe().run(page).response["violations"]
            if one["impact"] in ("serious", "critical")
        ]
        assert not serious
        assert not wrong


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_queue_and_a_pool_draw_their_own_hours(
    service: RunningService,
    browser: Browser,  # noqa: F811
    scheme: str,
    tmp_path: Path,
):
    with signed_in(service, browser, scheme) as page:
        for path, charts in (
            ("/queues/default", ("jobs", "ends")),
            ("/pools/local", ("jobs", "starts", "ends")),
        ):
            page.goto(f"{path}?range=24h")
            expect(page.locator("#flow canvas")).to_have_count(len(charts))
            assert all(drawn(page, chart) >= 3 for chart in charts), path
            page.get_by_role("link", name="6 h", exact=True).click()
            expect(page.get_by_role("heading", name="The last 6 hours")).to_be_visible()
            expect(page.locator("#flow canvas")).to_have_count(len(charts))
            page.screenshot(
                path=str(tmp_path / f"charts{path.replace('/', '-')}-{scheme}.png"), full_page=True
            )


def test_the_charts_stay_where_they_are_while_the_page_around_them_moves(
    service: RunningService,
    browser: Browser,  # noqa: F811
):
    """What comes above them (a notice) and below (a job) neither draws them anew nor hides them."""
    with signed_in(service, browser, "light") as page:
        expect(page.locator("#flow canvas")).to_have_count(3)
        page.evaluate(
            "document.querySelectorAll('#flow, #flow canvas').forEach((one) => { one.marked = true; })"
        )
        service.cli("queue", "pause", "default")
        service.cli("run", "--id", "moves", "--detach", "--", "true")
        expect(page.get_by_role("link", name="Queue default is paused")).to_be_visible()
        expect(page.get_by_role("link", name="moves")).to_be_visible()
        service.cli("queue", "resume", "default")
        expect(page.get_by_role("link", name="Queue default is paused")).to_be_hidden()
        kept = "[...document.querySelectorAll('#flow, #flow canvas')].filter((one) => one.marked).length"
        assert page.evaluate(kept) == 4
        assert drawn(page, "jobs") >= 3
        above = page.locator("#flow").bounding_box()
        below = page.get_by_role("heading", name="Latest jobs").bounding_box()
        assert above is not None
        assert below is not None
        assert above["y"] < below["y"]


def drawn(page: Page, chart: str) -> int:
    """How many different colours a chart's canvas shows."""
    return int(
        page.evaluate(
            """(chart) => {
                const canvas = document.querySelector(`[data-chart=${chart}] canvas`);
                const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
                return new Set(new Uint32Array(pixels.buffer).filter((pixel) => pixel >>> 24 === 255)).size;
            }""",
            chart,
        )
    )


def test_a_new_bucket_is_appended_to_what_is_drawn(service: RunningService, browser: Browser):  # noqa: F811
    with signed_in(service, browser, "light") as page:
        page.clock.install()
        page.goto("/")
        expect(page.locator("#flow canvas")).to_have_count(3)
        page.evaluate(
            "document.querySelectorAll('#flow canvas').forEach((one) => { one.dataset.old = 'yes'; })"
        )
        with page.expect_response(lambda answer: "/flow?" in answer.url and "after=" in answer.url) as asked:
            page.clock.fast_forward(16_000)
        assert len(asked.value.json()["at"]) <= 2, "what is new, and the point that may have grown"
        expect(page.locator("#flow canvas[data-old=yes]")).to_have_count(3)
