"""The pages in Debian's Chromium over the real service running real jobs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from tests.journeys.conftest import RunningService
from tests.web.chromium import a_browser, signed_in

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningService]:
    running = RunningService(tmp_path_factory.mktemp("pages") / "data")
    running.start()
    try:
        yield running
    finally:
        running.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as made:
        yield made


@pytest.fixture
def page(service: RunningService, browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """Signed in as an administrator. What went wrong in a page's scripts fails the test; a screenshot is kept."""
    with signed_in(service, browser, "light") as made:
        wrong: list[str] = []
        made.on("pageerror", lambda error: wrong.append(str(error)))
        yield made
        made.screenshot(path=str(tmp_path / "page.png"), full_page=True)
        assert not wrong


def test_a_submitted_job_appears_and_ends_without_a_reload(service: RunningService, page: Page):
    page.goto("/jobs")
    service.cli("run", "--id", "appears", "--", "true")
    row = page.get_by_role("row").filter(has=page.get_by_role("link", name="appears"))
    expect(row).to_contain_text("succeeded")


def test_a_running_jobs_log_grows_under_the_eyes(service: RunningService, page: Page):
    script = "echo before; sleep 2; echo after; exec sleep 100"
    service.cli("run", "--id", "grows", "--detach", "--", "sh", "-c", script)
    page.goto("/jobs/grows")
    log = page.get_by_role("log")
    expect(log).to_contain_text("before")
    expect(log).to_contain_text("after")
    page.get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("heading", name="grows")).to_contain_text("canceled")
    expect(page.get_by_role("button", name="Retry")).to_be_visible()


def test_a_long_log_is_read_by_windows_and_searched_whole(service: RunningService, page: Page):
    script = "i=0; while [ $i -lt 40000 ]; do echo line $i of forty thousand; i=$((i+1)); done; echo the end"
    service.cli("run", "--id", "long-log", "--", "sh", "-c", script)
    page.goto("/jobs/long-log")
    log = page.get_by_role("log")
    expect(log).to_contain_text("the end")
    assert page.locator(".lines > div").count() <= 6000
    page.get_by_role("searchbox").fill("line 17 of")
    page.get_by_role("searchbox").press("Enter")
    page.get_by_role("link", name="line 17 of forty thousand").click()
    expect(page.locator(".lines .marked")).to_have_text("line 17 of forty thousand")
    address = page.url
    page.goto("/")
    page.goto(address)
    expect(page.locator(".lines .marked")).to_have_text("line 17 of forty thousand")


def test_colours_are_shown_and_control_sequences_are_not_obeyed(service: RunningService, page: Page):
    printed = r"\033[1;31mred\033[0m plain\033[2J\033]0;title\007 <b>bold</b>\n"
    service.cli("run", "--id", "colours", "--", "printf", printed)
    page.goto("/jobs/colours")
    log = page.get_by_role("log")
    expect(log).to_contain_text("red plain <b>bold</b>")
    expect(log.locator(".sgr-f1.sgr-bold")).to_have_text("red")


def test_a_waiting_job_says_why_and_what_goes_first(service: RunningService, page: Page):
    for number in range(os.cpu_count() or 1):
        service.cli("run", "--id", f"holds-{number}", "--detach", "--", "sleep", "100")
    service.cli("run", "--id", "waits", "--detach", "--", "true")
    page.goto("/jobs/waits")
    expect(page.get_by_role("heading", name="Why it waits")).to_be_visible()
    expect(page.locator(".reasons")).to_contain_text("slots of pool 'local' are in use")
    for number in range(os.cpu_count() or 1):
        service.cli("cancel", f"holds-{number}")
    expect(page.get_by_role("heading", name="waits")).to_contain_text("succeeded")


def test_what_was_opened_written_and_focused_stays_while_the_page_moves(service: RunningService, page: Page):
    service.cli("queue", "set", "moving", "--weight", "2")
    service.cli("queue", "pause", "moving")
    page.goto("/queues/moving")
    weight = page.get_by_label("Weight")
    weight.fill("7")
    service.cli("run", "--id", "moves-1", "--queue", "moving", "--detach", "--", "true")
    expect(page.get_by_role("link", name="moves-1")).to_be_visible()
    expect(weight).to_have_value("7")
    expect(weight).to_be_focused()

    page.goto("/jobs/moves-1")
    page.get_by_text("As a command").click()
    page.get_by_text("Events", exact=True).click()
    expect(page.locator("#event-list tbody tr")).to_have_count(1)
    service.cli("cancel", "moves-1")
    expect(page.locator("#event-list tbody tr")).to_have_count(2)
    expect(page.get_by_role("table")).to_be_visible()
    expect(page.get_by_role("button", name="Copy")).to_be_visible()


def test_a_job_is_copied_as_a_command(service: RunningService, page: Page):
    service.cli("run", "--id", "copied", "--", "true")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.goto("/jobs/copied")
    page.get_by_text("As a command").click()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()").startswith("runyard submit -")


def test_a_page_of_what_is_deleted_says_so_by_itself(service: RunningService, page: Page):
    service.cli("run", "--id", "deleted", "--", "true")
    page.goto("/jobs/deleted")
    expect(page.get_by_role("heading", name="deleted")).to_contain_text("succeeded")
    with service.client() as client:
        client.delete("deleted")
    expect(page.get_by_role("alert")).to_contain_text("there is no job 'deleted'")


def test_a_session_that_was_ended_leads_back_to_the_form(service: RunningService, browser: Browser):
    with signed_in(service, browser, "light") as page:
        page.goto("/jobs")
        with service.client() as client:
            sessions = [one for one in client.tokens.list() if one.kind == "session"]
            client.tokens.revoke(max(sessions, key=lambda one: one.created_at).id)
        expect(page.get_by_label("Token")).to_be_visible()


def test_the_slash_key_goes_to_the_search(service: RunningService, page: Page):
    page.goto("/queues")
    page.keyboard.press("/")
    expect(page.get_by_label("Id or name")).to_be_focused()
    page.keyboard.type("a/b")
    expect(page.get_by_label("Id or name")).to_have_value("a/b")


def test_a_double_click_on_retry_makes_one_job(service: RunningService, page: Page):
    service.cli("run", "--id", "doubled", "--", "true")
    page.goto("/jobs/doubled")
    page.get_by_role("button", name="Retry").dblclick()
    expect(page.get_by_role("heading", name="doubled-r1")).to_be_visible()
    page.goto("/jobs?text=doubled")
    expect(page.locator("tbody tr")).to_have_count(2)


def test_a_log_of_a_gigabyte_opens_at_its_end_and_is_searched(service: RunningService, page: Page):
    """Written by hand where the attempt left its log: a line each mebibyte, and holes of the file between."""
    service.cli("run", "--id", "huge", "--", "echo", "begin")
    [log] = [
        path
        for path in (service.data / "logs").rglob("*.stdout")
        if path.read_bytes() == b"begin\n" and path.stat().st_mtime > 0
    ]
    with log.open("r+b") as file:
        for number in range(1, 1025):
            file.seek(number << 20)
            file.write(b"\nmebibyte %d of many\n" % number)
        file.write(b"the very end\n")
    before = service.memory_bytes()
    page.goto("/jobs/huge")
    lines = page.get_by_role("log")
    expect(lines).to_contain_text("the very end")
    page.get_by_role("button", name="Earlier lines").click()
    page.get_by_role("searchbox").fill("mebibyte 512 of")
    page.get_by_role("searchbox").press("Enter")
    page.get_by_role("link", name="mebibyte 512 of many").click()
    expect(page.locator(".lines .marked")).to_have_text("mebibyte 512 of many")
    assert service.memory_bytes() - before < 100 << 20


def test_a_queue_is_paused_from_its_page(service: RunningService, page: Page):
    page.goto("/queues/default")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Resume")).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("button", name="Pause")).to_be_visible()


def test_a_tenants_page_is_reached_from_its_job_moves_and_sets_its_limits(
    service: RunningService, page: Page
):
    service.cli("run", "--id", "ads-first", "--tenant", "ads", "--", "sleep", "0.2")
    page.goto("/jobs/ads-first?tenant=ads")
    page.get_by_role("link", name="ads", exact=True).click()
    expect(page.get_by_role("heading", name="Tenant ads")).to_be_visible()
    row = page.locator("#in-default")
    expect(row).to_contain_text("%")
    service.cli("queue", "pause", "default")
    service.cli("run", "--id", "ads-waits", "--tenant", "ads", "--detach", "--", "true")
    waiting = page.get_by_role("region", name="Jobs").filter(has=page.locator("[id^=queued-]"))
    expect(waiting).to_contain_text("ads-waits")
    expect(row.locator("td").nth(1)).to_have_text("1")
    page.get_by_label("Running at most").fill("3")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_label("Running at most")).to_have_value("3")
    with service.client() as client:
        assert client.tenants.get("ads").running_max == 3
    service.cli("queue", "resume", "default")
    expect(page.locator("[id^=queued-]")).to_have_count(0)


def test_a_pool_is_checked_from_its_page(service: RunningService, page: Page):
    page.goto("/pools/local")
    page.get_by_role("button", name="Check").click()
    expect(page.get_by_role("heading", name="Check: pool local")).to_be_visible()
    expect(page.locator(".findings li").first).to_contain_text("ok")


def test_the_page_says_that_the_service_is_away_and_goes_on_when_it_is_back(
    service: RunningService, page: Page
):
    page.goto("/jobs")
    address = service.url
    service.kill()
    expect(page.get_by_text("The service does not answer")).to_be_visible()
    service.port = int(address.rpartition(":")[2])
    service.start()
    expect(page.get_by_text("The service does not answer")).to_be_hidden()
    service.cli("run", "--id", "after-all", "--", "true")
    expect(page.get_by_role("link", name="after-all")).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(service: RunningService, browser: Browser, scheme: str):
    script = "echo hi; echo no >&2; touch a"
    service.cli("run", "--id", f"axe-{scheme}", "--artifact", "*", "--", "sh", "-c", script)
    with signed_in(service, browser, scheme) as page:
        for path in (
            "/",
            "/jobs",
            f"/jobs/axe-{scheme}",
            "/queues",
            "/queues/default",
            "/tenants/default",
            "/pools/local",
            "/access",
            "/audit",
        ):
            page.goto(path)
            serious = [
                (one["id"], [node["html"] for node in one["nodes"]][:3])
                for one in Axe().run(page).response["violations"]
                if one["impact"] in ("serious", "critical")
            ]
            assert not serious, path


def test_a_narrow_screen_needs_no_sideways_scrolling(service: RunningService, browser: Browser):
    with signed_in(service, browser, "light") as page:
        service.cli("run", "--id", "narrow", "--", "true")
        page.set_viewport_size({"width": 360, "height": 700})
        for path in (
            "/",
            "/jobs",
            "/jobs/narrow",
            "/queues",
            "/queues/default",
            "/tenants/default",
            "/pools/local",
            "/access",
            "/audit",
        ):
            page.goto(path)
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), path
