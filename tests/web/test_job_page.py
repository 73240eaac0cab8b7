import json
import re
import shlex

import httpx2

from runyard.model.attempt import Progress
from tests.api.world import Service, a_document, failed
from tests.web.browsing import send, signed_in


async def test_a_waiting_job_says_what_to_do_next(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    await api.put("/api/v1/jobs/mine", json=a_document())
    await send(pages, "/queues/default/pause")
    text = (await pages.get("/jobs/mine")).text
    assert "An operator resumes the queue on its page." in text
    assert "An operator starts" in text


async def test_its_events_are_told_in_order(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/mine", json=a_document())
    await service.settle((await service.claim()).attempt.key, failed(3))
    text = (await pages.get("/jobs/mine")).text
    events = text[text.index('id="event-list"') :]
    assert re.findall(r'class="state (\w+)"', events[: events.index("</table>")]) == [
        "queued",
        "starting",
        "running",
        "failed",
    ]


async def test_an_attempt_says_what_it_is_busy_with_and_where_it_is(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/mine", json=a_document())
    claimed = await service.claim(is_running=False)
    progress = Progress(text="pulling the image", at=0.0, fraction=0.25, done_bytes=1024, total_bytes=4096)
    await service.tell(claimed.attempt.key, progress, zone="north")
    text = (await pages.get("/jobs/mine")).text
    assert "pulling the image: 1.0 KiB of 4.0 KiB" in text
    assert 'value="0.25"' in text
    assert "<dt>Zone</dt><dd>north</dd>" in text


async def test_medians_of_its_class_stand_beside_the_waterfall(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    for number in range(4):
        await api.put(f"/api/v1/jobs/job-{number}", json=a_document())
        claimed = await service.claim()
        service.clock.shift_s += 61
        await service.settle(claimed.attempt.key)
    text = (await pages.get("/jobs/job-3")).text
    assert re.search(r'class="usual dim">1 min 0[12] s<', text)
    await api.put("/api/v1/jobs/other", json=a_document(requirements={"cpu": 0.5}))
    await service.claim()
    assert "usual" not in (await pages.get("/jobs/other")).text


async def test_a_double_click_on_retry_makes_one_job(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    await api.put("/api/v1/jobs/mine", json=a_document())
    await api.post("/api/v1/jobs/mine:cancel")
    offered = re.search(r'name="id" value="([^"]+)"', (await pages.get("/jobs/mine")).text)
    assert offered is not None
    answers = [await send(pages, "/jobs/mine/retry", id=offered[1]) for _ in range(2)]
    assert [one.headers["location"] for one in answers] == [f"/jobs/{offered[1]}"] * 2
    assert len((await api.get("/api/v1/jobs")).json()["jobs"]) == 2
    again = re.search(r'name="id" value="([^"]+)"', (await pages.get("/jobs/mine")).text)
    assert again is not None
    assert again[1] != offered[1]  # a further retry is a further job


async def test_a_final_job_is_deleted_and_an_unfinished_one_is_not(
    pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/mine", json=a_document())
    assert "Delete" not in (await pages.get("/jobs/mine")).text
    assert (await send(pages, "/jobs/mine/delete")).status_code == 409
    await api.post("/api/v1/jobs/mine:cancel")
    assert (await send(pages, "/jobs/mine/delete")).headers["location"] == "/jobs"
    assert (await pages.get("/jobs/mine")).status_code == 404


async def test_a_reader_is_offered_no_change(service: Service, api: httpx2.AsyncClient):
    await api.put("/api/v1/jobs/mine", json=a_document())
    await api.post("/api/v1/jobs/mine:cancel")
    async with service.client(None) as client:
        await signed_in(client, await service.token("read"))
        text = (await client.get("/jobs/mine")).text
        assert "Retry" not in text
        assert "Delete" not in text
        assert (await send(client, "/jobs/mine/delete")).status_code == 403


async def test_what_is_copied_submits_the_same_again(pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    from html import unescape

    script = "echo 'it is' \"quoted\" <&2"
    await api.put("/api/v1/jobs/mine", json=a_document(steps=[{"run": script}], labels={"a": "b"}))
    text = (await pages.get("/jobs/mine")).text
    command, call = (
        unescape(found) for found in re.findall(r'id="copy-text-\d"[^>]*><code>(.*?)</code>', text, re.S)
    )
    words = shlex.split(call.replace("\\\n", " "))
    body = json.loads(words[words.index("--data") + 1])
    assert json.loads(command.partition("\n")[2].rpartition("\n")[0]) == body
    again = (await api.post("/api/v1/jobs", json=body)).json()
    assert again["effective"] == (await api.get("/api/v1/jobs/mine")).json()["effective"] | {
        "id": again["id"]
    }


async def test_a_log_that_was_deleted_says_so(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await api.put("/api/v1/jobs/mine", json=a_document())
    key = (await service.claim()).attempt.key
    await service.settle(key)
    await service.ledger.mark_logs_deleted([key])
    answer = await pages.get("/jobs/mine/log/streams")
    assert answer.status_code == 410
    assert "was deleted when its time of keeping was over" in answer.json()["error"]["message"]
