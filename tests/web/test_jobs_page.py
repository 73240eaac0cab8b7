import re

import httpx2
import pytest

from tests.api.world import Service, a_document


async def _shown(pages: httpx2.AsyncClient, query: str) -> set[str]:
    answer = await pages.get(f"/jobs?{query}")
    assert answer.status_code == 200, answer.text
    return set(re.findall(r'href="/jobs/([a-z]+)\?', answer.text))


async def test_several_states_and_several_labels_narrow_the_list(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/ran", json=a_document(labels={"team": "a", "kind": "ci"}))
    await service.settle((await service.claim()).attempt.key)
    await api.put("/api/v1/jobs/waits", json=a_document(labels={"team": "a"}))
    await api.put("/api/v1/jobs/stopped", json=a_document())
    await api.post("/api/v1/jobs/stopped:cancel")
    assert await _shown(pages, "state=queued&state=succeeded") == {"ran", "waits"}
    assert await _shown(pages, "label=team%3Da&label=kind%3Dci") == {"ran"}
    text = (await pages.get("/jobs?state=queued&state=canceled&label=team%3Da&label=")).text
    assert re.findall(r'name="state" value="(\w+)" checked', text) == ["queued", "canceled"]
    assert re.findall(r'name="label" value="([^"]*)"', text) == ["team=a", ""]


async def test_the_time_of_submission_narrows_the_list(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/early", json=a_document())
    service.clock.shift_s += 7200
    await api.put("/api/v1/jobs/late", json=a_document())
    assert await _shown(pages, "since=1h") == {"late"}
    assert await _shown(pages, "until=1h") == {"early"}
    assert await _shown(pages, "since=3h&until=1h") == {"early"}
    assert await _shown(pages, "since=2001-01-01") == {"early", "late"}
    assert await _shown(pages, "until=2001-01-01T10:00%2B02:00") == set()
    assert 'value="3h"' in (await pages.get("/jobs?since=3h")).text


@pytest.mark.parametrize("query", ["since=soon", "until=2026-99-99", "since=-1h"])
async def test_what_is_no_moment_is_named_with_its_field(pages: httpx2.AsyncClient, query: str):
    answer = await pages.get(f"/jobs?{query}")
    assert answer.status_code == 422
    assert query.partition("=")[0] in answer.text
    assert "30m or 2d" in answer.text


async def test_the_next_page_keeps_all_that_was_chosen(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    jobs = [a_document(id=f"job-{number:03d}", labels={"a": "b"}) for number in range(60)]
    await api.post("/api/v1/jobs:batch", json={"jobs": jobs})
    text = (await pages.get("/jobs?state=queued&state=running&label=a%3Db&since=1h")).text
    following = re.search(r'href="([^"]+)" rel="next"', text)
    assert following is not None
    for part in ("state=queued", "state=running", "label=a%3Db", "since=1h"):
        assert part in following[1]
