import httpx2

from runyard.model.attempt import AttemptKey
from tests.api.world import Service, a_document


async def _ended_with(service: Service, api: httpx2.AsyncClient, data: bytes) -> AttemptKey:
    await api.put("/api/v1/jobs/mine", json=a_document())
    claimed = await service.claim()
    service.write_log(claimed.attempt.key, data)
    await service.settle(claimed.attempt.key)
    return claimed.attempt.key


async def test_the_page_learns_where_each_stream_stands(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    key = await _ended_with(service, api, b"one\ntwo\n")
    service.write_log(key, b"oops\n", stream="stderr")
    told = (await pages.get("/jobs/mine/log/streams")).json()
    assert told["attempt"] == 1
    assert [(one["step"], one["stream"], one["size"]) for one in told["streams"]] == [
        ("step-1", "stdout", 8),
        ("step-1", "stderr", 5),
    ]


async def test_a_window_is_read_by_its_range(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await _ended_with(service, api, b"one\ntwo\nthree\n")
    answer = await pages.get("/jobs/mine/log?step=step-1", headers={"Range": "bytes=4-7"})
    assert (answer.status_code, answer.content) == (206, b"two\n")


async def test_a_search_finds_lines_with_the_offset_of_their_beginning(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    filler = b"".join(b"line %d of many\n" % number for number in range(200_000))  # over several reads
    data = b"a needle\n" + filler + b"needle again, and needle"
    await _ended_with(service, api, data)
    told = (await pages.get("/jobs/mine/log/search?q=needle")).json()
    assert told["is_whole"]
    assert [(one["offset"], one["line"]) for one in told["found"]] == [
        (0, "a needle"),
        (9 + len(filler), "needle again, and needle"),
    ]


async def test_a_match_across_two_reads_is_found(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    data = b"x" * ((1 << 20) - 3) + b"needle" + b"y" * 100 + b"\n"
    await _ended_with(service, api, data)
    [found] = (await pages.get("/jobs/mine/log/search?q=needle")).json()["found"]
    assert found["offset"] == 0
    assert "needle" in found["line"]
    assert len(found["line"]) <= 400


async def test_a_search_that_finds_everything_stops_early_and_says_so(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    await _ended_with(service, api, b"same\n" * 5000)
    told = (await pages.get("/jobs/mine/log/search?q=same")).json()
    assert len(told["found"]) == 200
    assert not told["is_whole"]


async def test_a_download_has_a_name(service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient):
    await _ended_with(service, api, b"one\n")
    answer = await pages.get("/jobs/mine/log?step=step-1&stream=stdout&download=1")
    assert answer.content == b"one\n"
    assert 'filename="mine.stdout.log"' in answer.headers["content-disposition"]


async def test_another_tenants_log_is_not_there(service: Service, api: httpx2.AsyncClient):
    from tests.web.browsing import signed_in

    await _ended_with(service, api, b"one\n")
    async with service.client(None) as client:
        await signed_in(client, await service.token("read", tenants=("other",)))
        for path in ("", "/streams", "/search?q=one", "/events"):
            assert (await client.get(f"/jobs/mine/log{path}")).status_code == 404
