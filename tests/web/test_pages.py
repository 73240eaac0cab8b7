import re

import httpx2
import pytest

from runyard.web.rendering import words_html
from runyard.web.views import VIEWS
from tests.api.world import Service, a_document, failed
from tests.web.browsing import send


async def test_every_page_answers_and_runs_no_inline_script(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    machine = await service.machine()
    await api.put("/api/v1/jobs/mine", json=a_document())
    for path, _ in VIEWS:
        answer = await pages.get(
            path.replace("{id}", "mine")
            .replace("queues/{name}", "queues/default")
            .replace("tenants/{name}", "tenants/default")
            .replace("machines/{name}", f"machines/{machine}")
            .replace("{name}", "local")
        )
        assert answer.status_code == 200, path
        policy = answer.headers["content-security-policy"]
        assert "script-src 'self'" in policy
        assert "unsafe" not in policy
        assert not re.search(r"<script(?![^>]*\bsrc=)|\son\w+=|\sstyle=", answer.text), path


async def test_scripts_do_not_block_the_first_paint(pages: httpx2.AsyncClient):
    scripts = re.findall(r"<script[^>]*>", (await pages.get("/")).text)
    assert scripts
    assert all("defer" in script for script in scripts)


async def test_a_page_is_light_on_the_wire(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    """All that the heaviest page loads, files compressed once and for all."""
    await api.put("/api/v1/jobs/mine", json=a_document())
    page = (await pages.get("/jobs/mine")).text
    files = re.findall(r'(?:src|href)="(/static/[^"]+)"', page)
    total = len(page.encode())
    for file in files:
        total += int((await pages.get(file)).headers["content-length"])
    assert total < 60_000


async def test_what_a_job_is_named_cannot_become_markup(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    hostile = "<img src=x onerror=alert(1)>\"'"
    await api.put("/api/v1/jobs/mine", json=a_document(name=hostile, labels={"team": hostile}))
    for path in ("/", "/jobs", "/jobs/mine"):
        text = (await pages.get(path)).text
        assert "<img src=x" not in text, path
        assert "&lt;img" in text, path


async def test_the_filter_stands_in_the_address_and_in_the_form(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/one", json=a_document(labels={"team": "search"}))
    await api.put("/api/v1/jobs/two", json=a_document())
    text = (await pages.get("/jobs?label=team%3Dsearch&state=queued")).text
    assert "/jobs/one" in text
    assert "/jobs/two" not in text
    assert 'value="team=search"' in text
    assert (await pages.get("/jobs?state=lazy")).status_code == 422


async def test_older_jobs_are_on_the_next_page(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    jobs = [a_document(id=f"job-{number:03d}") for number in range(60)]
    await api.post("/api/v1/jobs:batch", json={"jobs": jobs})
    seen: list[str] = []
    path: str | None = "/jobs"
    while path is not None:
        text = (await pages.get(path)).text
        seen += re.findall(r'href="/jobs/(job-\d+)\?', text)
        following = re.search(r'href="([^"]+)" rel="next"', text)
        path = following[1].replace("&amp;", "&") if following else None
    assert sorted(seen) == [f"job-{number:03d}" for number in range(60)]


async def test_a_waiting_job_says_why(service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    await api.put("/api/v1/jobs/mine", json=a_document())
    text = (await pages.get("/jobs/mine")).text
    assert "Why it waits" in text
    assert "no running service acts for pool" in text


async def test_a_failed_job_says_how_and_where_its_time_went(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/mine", json=a_document())
    claimed = await service.claim()
    await service.settle(claimed.attempt.key, failed(3))
    text = (await pages.get("/jobs/mine")).text
    assert "exit code 3" in text
    assert "exit 3" in text
    assert ">queued<" in text
    assert "<rect" in text


async def test_cancel_and_retry_do_what_they_say(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/mine", json=a_document())
    assert (await send(pages, "/jobs/mine/cancel")).status_code == 303
    assert (await api.get("/api/v1/jobs/mine")).json()["state"] == "canceled"
    again = await send(pages, "/jobs/mine/retry")
    new = again.headers["location"].removeprefix("/jobs/")
    assert (await api.get(f"/api/v1/jobs/{new}")).json()["retry_of"] == "mine"


async def test_a_queue_is_made_set_paused_and_resumed(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    assert (await send(pages, "/queues/new", name="ci")).headers["location"] == "/queues/ci"
    await send(pages, "/queues/ci", weight="2.5", running_max="4", queued_max="", tenant_running_max="")
    await send(pages, "/queues/ci/pause")
    queue = (await api.get("/api/v1/queues/ci")).json()
    assert (queue["weight"], queue["running_max"], queue["queued_max"], queue["paused"]) == (
        2.5,
        4,
        None,
        True,
    )
    await send(pages, "/queues/ci/resume")
    assert not (await api.get("/api/v1/queues/ci")).json()["paused"]


async def test_saving_a_queue_keeps_the_defaults_that_the_form_does_not_show(
    pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/queues/ci", json={"defaults": {"env": {"A": "b"}}})
    await send(pages, "/queues/ci", weight="3")
    assert (await api.get("/api/v1/queues/ci")).json()["defaults"] == {"env": {"A": "b"}}


async def test_a_wrong_number_names_the_field_and_changes_nothing(
    pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    answer = await send(pages, "/queues/default", weight="much")
    assert answer.status_code == 422
    assert "weight" in answer.text
    assert (await api.get("/api/v1/queues/default")).json()["weight"] == 1.0


async def test_a_tenants_bounds_are_set(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    await send(pages, "/tenants/search", weight="2", running_max="5")
    tenant = (await api.get("/api/v1/tenants/search")).json()
    assert (tenant["weight"], tenant["running_max"]) == (2.0, 5)


async def test_each_change_leaves_a_line_in_the_audit(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    await send(pages, "/queues/default/pause")
    await api.post("/api/v1/pools/local:pause")
    lines = (await api.get("/api/v1/audit")).json()["lines"]
    assert [(line["action"], line["subject"]) for line in lines] == [
        ("pause", "pool local"),
        ("pause", "queue default"),
    ]
    assert all(line["actor"] and line["actor_id"] and line["origin"] for line in lines)
    assert "pause queue default" in (await pages.get("/audit")).text


@pytest.mark.parametrize("path", ["/nothing", "/jobs/none", "/queues/none", "/pools/none", "/static/none.js"])
async def test_what_is_not_there_is_a_404(pages: httpx2.AsyncClient, path: str):
    assert (await pages.get(path)).status_code == 404


async def test_the_api_still_says_by_itself_what_it_does_not_have(pages: httpx2.AsyncClient):
    answer = await pages.get("/api/v1/nothing")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "not_found"


async def test_a_changed_file_has_a_new_address(pages: httpx2.AsyncClient):
    [address] = re.findall(r'href="(/static/runyard.css[^"]+)"', (await pages.get("/")).text)
    answer = await pages.get(address)
    assert "immutable" in answer.headers["cache-control"]
    assert answer.headers["content-type"].startswith("text/css")
    assert "?v=" in address


@pytest.mark.parametrize("at", ["http://[/", "//other.example/jobs", "nonsense"])
async def test_what_is_no_page_of_ours_cannot_be_followed(pages: httpx2.AsyncClient, at: str):
    assert (await pages.get("/live", params={"at": at})).status_code == 404


async def test_an_error_is_no_dead_end_for_who_is_signed_in(service: Service, pages: httpx2.AsyncClient):
    answer = await pages.get("/jobs/nowhere")
    assert answer.status_code == 404
    assert 'href="/queues"' in answer.text
    assert "sse-connect" not in answer.text
    assert "<code>runyard jobs</code> lists those" in answer.text
    async with service.client(None) as stranger:
        assert "Sign out" not in (await stranger.get("/live?at=/nowhere")).text


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("start `runyard serve` there", "start <code>runyard serve</code> there"),
        ("`<b>` is <b>", "<code>&lt;b&gt;</code> is &lt;b&gt;"),
        ("a ` alone <b>", "a ` alone &lt;b&gt;"),
    ],
)
def test_what_is_to_be_typed_is_marked_and_nothing_becomes_markup(text: str, html: str):
    assert words_html(text) == html
