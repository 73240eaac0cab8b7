"""Both clients against the real API: what they send is what it takes, what it answers is what they read."""

from datetime import datetime

import pytest

from runyard.model.outcome import OutcomeKind, Reason, ReasonCode
from runyard.sdk import AsyncClient, Conflict, LogChunk, LogEnd, NotFound, Refused, Unauthorized
from runyard.sdk.client import Client
from runyard.wire.job_document import JobDocument
from tests.sdk.served import TOKEN

DOCUMENT = {"steps": [{"name": "run", "run": "true"}]}


def test_a_job_from_submit_to_its_end(served, client):
    job = client.submit(DOCUMENT)
    assert job.state == "queued"
    run = served.claim()
    assert client.get(job.id).state == "running"
    run.fails(3)
    done = client.wait(job.id)
    assert (done.state, done.exit_code, done.reason.code) == ("failed", 3, "exit")


def test_submitting_twice_under_one_id_makes_one_job(client):
    first, again = client.submit(DOCUMENT, "one"), client.submit(DOCUMENT, "one")
    assert first.uid == again.uid
    with pytest.raises(Conflict, match="submit job 'one'"):
        client.submit({"steps": [{"run": "false"}]}, "one")


def test_a_typed_document_says_only_what_was_written(client):
    document = JobDocument.model_validate({**DOCUMENT, "requirements": {"cpu": "500m"}})
    job = client.submit(document)
    assert job.effective["requirements"]["cpu"] == 0.5


def test_a_refusal_names_the_field_and_the_cure(client):
    with pytest.raises(Refused) as caught:
        client.submit({"steps": [{"run": "true", "shel": "bash"}]})
    assert "shel" in caught.value.field
    assert caught.value.cure


def test_a_batch_answers_in_order(client):
    items = client.submit_batch([DOCUMENT, {"steps": []}, {**DOCUMENT, "id": "third"}])
    assert [item.error is None for item in items] == [True, False, True]
    assert items[2].id == "third"


def test_listing_filters_and_goes_over_all_pages(client):
    client.submit_batch([{**DOCUMENT, "labels": {"team": "a"}}] * 120 + [DOCUMENT])
    assert len(list(client.list(label="team=a"))) == 120
    assert len(list(client.list(limit=7, state=["queued", "running"]))) == 7
    assert list(client.list(queue="other")) == []


def test_listing_by_the_time_of_submission(client):
    first, second = client.submit(DOCUMENT, "first"), client.submit(DOCUMENT, "second")
    assert [job.id for job in client.list(since=second.submitted_at)] == ["second"]
    assert [job.id for job in client.list(since=first.submitted_at, until=second.submitted_at)] == ["first"]
    assert list(client.list(until="2001-01-01T00:00:00Z")) == []
    with pytest.raises(ValueError, match="has no time zone"):
        next(client.list(since=datetime(2026, 11, 24)))  # noqa: DTZ001 - the mistake itself
    with pytest.raises(Refused) as caught:
        next(client.list(until="soon"))
    assert caught.value.field == "until"


def test_cancel_retry_why_and_delete(client):
    job = client.submit(DOCUMENT, "one")
    why = client.why("one")
    assert why.state == "queued"
    assert client.cancel(job.id).state == "canceled"
    again = client.retry(job.id)
    assert again.retry_of == "one"
    client.delete("one")
    with pytest.raises(NotFound, match="read job 'one'"):
        client.get("one")


def test_a_log_is_followed_while_it_grows(served, client):
    client.submit(DOCUMENT, "one")
    items = client.follow_log("one")
    run = served.claim().prints(b"\x00\xff first").prints(b"oops", "stderr")
    seen = [next(items), next(items)]
    run.prints(b" second")
    seen.append(next(items))
    run.fails(3)
    assert list(items) == [LogEnd("failed", 3, None)]
    assert b"".join(one.data for one in seen if one.stream == "stdout") == b"\x00\xff first second"
    assert [one.data for one in seen if one.stream == "stderr"] == [b"oops"]


def test_a_restart_of_the_service_loses_and_doubles_nothing(served, client):
    client.submit(DOCUMENT, "one")
    run = served.claim()
    items = client.follow_log("one")
    parts = []
    for number in range(3):
        part = f"{number}".encode() * 10_000
        run.prints(part)
        got = b""
        while len(got) < len(part):
            got += next(items).data
        parts.append(got)
        served.restart()
    run.prints(b"last").ends()
    *rest, end = items
    assert b"".join(parts) == b"0" * 10_000 + b"1" * 10_000 + b"2" * 10_000
    assert [one.data for one in rest] == [b"last"]
    assert end == LogEnd("succeeded", 0, None)


def test_following_goes_on_into_the_next_attempt(served, client):
    client.submit(DOCUMENT | {"retry": {"failure": 1}}, "one")
    items = client.follow_log("one")
    served.claim().prints(b"first").fails(1)
    assert next(items) == LogChunk(1, "run", "stdout", 0, b"first")
    served.clock.jump_s = 3600.0
    served.claim().prints(b"second").ends()
    assert list(items) == [LogChunk(2, "run", "stdout", 0, b"second"), LogEnd("succeeded", 0, None)]


def test_reading_a_log_in_pieces_and_as_a_whole(served, client):
    client.submit(DOCUMENT, "one")
    run = served.claim().prints(b"0123456789")
    assert client.read_log("one", step="run", offset=2, bytes_max=3) == b"234"
    assert client.read_log("one") == b"0123456789"
    assert b"".join(client.stream_log("one", step="run", offset=8)) == b"89"
    run.ends()


def test_artifacts_are_downloaded_whole_beneath_the_folder(served, client, tmp_path):
    client.submit(DOCUMENT, "one")
    big = bytes(range(256)) * 5000
    served.claim().leaves("out/big.bin", big).leaves("ä b#.txt", b"x").ends()
    assert {one.path: one.size for one in client.artifacts("one")} == {"out/big.bin": len(big), "ä b#.txt": 1}
    client.download_artifacts("one", tmp_path / "got")
    assert (tmp_path / "got" / "out" / "big.bin").read_bytes() == big
    assert (tmp_path / "got" / "ä b#.txt").read_bytes() == b"x"


def test_events_go_on_behind_the_cursor(client):
    client.submit(DOCUMENT, "one")
    feed = client.events(after="0")
    first = next(feed)
    feed.close()
    assert (first.job, first.state) == ("one", "queued")
    client.cancel("one")
    second = next(client.events(after=first.cursor))
    assert (second.job, second.state, second.is_final) == ("one", "canceled", True)


def test_a_wrong_token_is_said_to_be_wrong(served):
    with Client(served.url, "wrong") as client, pytest.raises(Unauthorized) as caught:
        client.get("one")
    assert caught.value.cure


def test_queues_tenants_pools_machines_and_tokens(client):
    assert client.queues.put("night", weight=2.0, running_max=3).running_max == 3
    assert client.queues.pause("night").paused
    assert not client.queues.resume("night").paused
    assert "night" in [queue.name for queue in client.queues.list()]
    client.queues.delete("night")
    assert client.tenants.put("acme", weight=3.0).weight == 3.0
    assert client.tenants.get("acme").name in [tenant.name for tenant in client.tenants.list()]
    assert client.pools.pause("local").paused
    assert not client.pools.resume("local").paused
    assert [pool.name for pool in client.pools.list()] == [client.pools.get("local").name]
    assert client.machines.list() == []
    with pytest.raises(NotFound):
        client.machines.drain("m1")
    token = client.tokens.create("ci", scope="submit", tenants=["acme"], expires_in="1d")
    assert token.token
    client.tokens.revoke(token.id)
    assert token.id not in [one.id for one in client.tokens.list()]


def test_a_pools_owner_is_asked_and_its_answer_comes_back(served, client):
    owner = served.begin(served.fulfil({"ok": True, "findings": []}))
    assert client.pools.check("local").result == {"ok": True, "findings": []}
    owner.result(10)


async def test_the_async_client_does_the_whole_way(served, tmp_path):
    async with AsyncClient(served.url, TOKEN) as client:
        await client.submit(DOCUMENT, "one")
        run = served.claim().prints(b"hello").leaves("a.txt", b"a")
        run.ends(
            OutcomeKind.TIMED_OUT, reason=Reason(code=ReasonCode.RUN_TIMEOUT, message="ran longer than 1h")
        )
        items = [item async for item in client.follow_log("one")]
        assert items == [LogChunk(1, "run", "stdout", 0, b"hello"), LogEnd("timed_out", None, None)]
        assert (await client.wait("one")).reason.code == "run_timeout"
        assert [job.id async for job in client.list()] == ["one"]
        assert await client.download_artifacts("one", tmp_path) == [tmp_path / "a.txt"]
        assert b"".join([piece async for piece in client.stream_log("one")]) == b"hello"
        assert [queue.name for queue in await client.queues.list()] == ["default"]
