"""What breaks on the way is sent again where that is safe, and only there."""

import json

import httpx2
import pytest

from runyard.sdk import AsyncClient, Client
from runyard.sdk.errors import Conflict, Refused, ServerFault, TooMany, Unreachable
from runyard.sdk.retrying import RetryPolicy
from tests.sdk.network import Broken, Script, job

LOST = httpx2.ReadError("connection reset")
NOT_THERE = httpx2.ConnectError("connection refused")
DOCUMENT = {"steps": [{"run": "true"}]}


def answer(status=200, document=None, **headers):
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx2.Response(status, json=document, headers=headers)


def refusal(status, code, **more):
    return answer(status, {"error": {"code": code, "message": "no", **more}})


def test_a_submit_whose_reply_was_lost_is_put_again_under_the_same_id():
    script = Script([LOST, answer(200, job())])
    Client(transport=script.transport()).submit(DOCUMENT)
    first, second = script.requests
    assert first.method == "PUT"
    assert first.url == second.url
    assert first.content == second.content
    assert json.loads(first.content)["id"] == first.url.path.rpartition("/")[2]


async def test_the_async_client_does_the_same():
    script = Script([LOST, answer(503), answer(201, job())])
    await AsyncClient(transport=script.async_transport()).submit(DOCUMENT)
    assert len({request.content for request in script.requests}) == 1
    assert len(script.pauses) == 2


@pytest.mark.parametrize("status", [502, 503, 504])
def test_a_passing_fault_in_between_is_waited_out(status):
    script = Script([answer(status), answer(200, job())])
    assert Client(transport=script.transport()).get("a").id == "a"


def test_retry_after_is_obeyed():
    script = Script([answer(429, {"error": {"code": "too_many", "message": "full"}}, Retry_After="7"),
                     answer(201, job())])  # fmt: skip
    Client(transport=script.transport()).submit(DOCUMENT)
    assert script.pauses == [7.0]


def test_patience_is_bounded_and_the_error_says_what_was_tried_and_the_cure():
    script = Script([NOT_THERE] * 3)
    client = Client(transport=script.transport(), policy=RetryPolicy(tries_max=3))
    with pytest.raises(Unreachable, match=r"cannot read job 'a'.*connection refused.*runyard serve"):
        client.get("a")


def test_a_wait_longer_than_the_bound_is_not_begun():
    script = Script([answer(429, None, Retry_After="3600")])
    with pytest.raises(TooMany) as caught:
        Client(transport=script.transport()).submit(DOCUMENT)
    assert caught.value.retry_after_s == 3600
    assert script.pauses == []


def test_a_retry_of_a_job_is_repeated_under_the_same_new_id():
    script = Script([LOST, answer(201, job("b", retry_of="a"))])
    assert Client(transport=script.transport()).retry("a").id == "b"
    assert script.requests[0].content == script.requests[1].content
    assert json.loads(script.requests[0].content)["id"]


def test_a_token_is_not_made_twice_when_the_reply_was_lost():
    script = Script([LOST])
    with pytest.raises(Unreachable):
        Client(transport=script.transport()).tokens.create("ci")


def test_a_token_is_asked_for_again_when_nothing_was_sent_or_nothing_was_done():
    made = {"id": "t", "name": "ci", "scope": "submit", "created_at": "2026-11-24T11:00:00Z", "token": "s"}
    script = Script([NOT_THERE, answer(503), answer(201, made)])
    assert Client(transport=script.transport()).tokens.create("ci").token == "s"


@pytest.mark.parametrize(("status", "kind"), [(422, Refused), (409, Conflict), (500, ServerFault)])
def test_what_will_not_pass_is_not_repeated(status, kind):
    script = Script([refusal(status, "x", field="steps.0.run", cure="write it")])
    with pytest.raises(kind) as caught:
        Client(transport=script.transport()).submit(DOCUMENT, id="a")
    assert (caught.value.field, caught.value.cure, caught.value.status) == ("steps.0.run", "write it", status)
    assert "submit job 'a'" in str(caught.value)


def test_an_answer_of_something_else_than_runyard_is_told_as_it_is():
    script = Script([httpx2.Response(404, text="<h1>nginx</h1>")])
    with pytest.raises(Exception, match="nginx"):
        Client(transport=script.transport()).get("a")


def test_an_answer_that_cannot_be_read_names_the_version_as_the_cure():
    script = Script([httpx2.Response(200, text="hello")])
    with pytest.raises(ServerFault, match="version"):
        Client(transport=script.transport()).get("a")


def test_a_batch_gives_each_job_an_id_before_it_is_sent_so_that_it_can_be_repeated():
    script = Script(
        [LOST, answer(200, {"jobs": [{"id": "x"}, {"error": {"code": "invalid", "message": "no"}}]})]
    )
    items = Client(transport=script.transport()).submit_batch([DOCUMENT, DOCUMENT])
    assert script.requests[0].content == script.requests[1].content
    ids = [one["id"] for one in json.loads(script.requests[0].content)["jobs"]]
    assert len(set(ids)) == 2
    assert (items[0].id, items[1].error.code) == ("x", "invalid")


def test_listing_goes_through_all_pages_and_no_further_than_the_limit():
    pages = [
        answer(200, {"jobs": [job("a"), job("b")], "next": "c1"}),
        answer(200, {"jobs": [job("c")], "next": "c2"}),
    ]
    script = Script(pages)
    assert [one.id for one in Client(transport=script.transport()).list(limit=3, queue="q")] == [
        "a",
        "b",
        "c",
    ]
    assert dict(script.requests[1].url.params) == {"queue": "q", "limit": "1", "cursor": "c1"}


def test_waiting_asks_again_until_the_job_is_final():
    script = Script([answer(200, job()), answer(200, job(state="running")), answer(200, job(state="failed"))])
    assert Client(transport=script.transport()).wait("a").state == "failed"


def test_a_broken_stream_goes_on_behind_the_last_event_and_says_so():
    chunks = [
        f'id: {n}\ndata: {{"step":"s","stream":"stdout","offset":{n},"data":"eA=="}}\n\n' for n in range(3)
    ]
    end = 'event: end\nid: 9\ndata: {"state": "succeeded", "exit_code": 0}\n\n'
    script = Script(
        [
            httpx2.Response(200, stream=Broken(chunks[0].encode(), chunks[1][:20].encode())),
            NOT_THERE,
            answer(503),
            httpx2.Response(200, text=chunks[1]),
            httpx2.Response(200, text=chunks[2] + end),
        ]
    )
    breaks = []
    items = list(Client(transport=script.transport()).follow_log("a", watch=breaks.append))
    assert [getattr(item, "offset", None) for item in items] == [0, 1, 2, None]
    assert [r.headers.get("Last-Event-ID") for r in script.requests] == [None, "0", "0", "0", "1"]
    assert len(breaks) == 4


async def test_the_async_stream_does_the_same():
    end = 'event: end\nid: 9\ndata: {"state": "canceled"}\n\n'
    script = Script(
        [httpx2.Response(200, stream=Broken(b"id: 4\ndata: {}\n\n")), httpx2.Response(200, text=end)]
    )
    items = [item async for item in AsyncClient(transport=script.async_transport()).follow_log("a")]
    assert [item.state for item in items] == ["canceled"]
    assert script.requests[1].headers["Last-Event-ID"] == "4"


def test_a_stream_that_is_refused_is_not_tried_again():
    script = Script([refusal(404, "not_found")])
    with pytest.raises(Exception, match="follow the log of job 'a'"):
        list(Client(transport=script.transport()).follow_log("a"))


def test_the_token_is_sent_but_never_shown():
    script = Script([answer(200, job())])
    transport = script.transport()
    Client(transport=transport).get("a")
    assert script.requests[0].headers["Authorization"] == "Bearer secret-token"
    from tests.sdk.network import SERVICE

    assert "secret-token" not in repr(SERVICE)
