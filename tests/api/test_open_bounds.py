"""What lasts is bounded, by token and by service, and what ends makes room."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx2
import pytest

from runyard.api.open_bounds import Bound, OpenBounds, OpenKind
from runyard.app import bounds_of
from runyard.config import load
from runyard.metrics import render_metrics
from runyard.model.errors import TooMany
from runyard.model.token import Scope, Token
from tests.api.world import Service, a_document, a_service
from tests.journeys.holdings import metric
from tests.web.browsing import signed_in

PATIENCE_S = 20
PER_TOKEN, IN_ALL = 3, 5
EVENTS = "/api/v1/events"


@pytest.fixture
def bounds() -> OpenBounds:
    return OpenBounds(
        streams=Bound(name="streams", in_all=IN_ALL, per_token=PER_TOKEN),
        searches=Bound(name="searches", in_all=2, per_token=1),
    )


@pytest.fixture
async def service(tmp_path: Path, bounds: OpenBounds) -> AsyncIterator[Service]:
    async with a_service(tmp_path, bounds=bounds) as made:
        yield made


@contextlib.asynccontextmanager
async def streams(client: httpx2.AsyncClient, count: int, path: str = EVENTS) -> AsyncIterator[None]:
    """That many, all open at once."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(count):
            opened = await stack.enter_async_context(client.stream("GET", path))
            assert opened.status_code == 200
        yield


async def status(client: httpx2.AsyncClient, path: str = EVENTS) -> int:
    async with client.stream("GET", path) as answer:
        return answer.status_code


async def becomes_open(client: httpx2.AsyncClient) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while await status(client) != 200:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_a_token_with_as_many_streams_as_it_may_is_told_the_cure(
    service: Service, listening: Callable[..., httpx2.AsyncClient]
):
    async with listening(await service.token()) as greedy, listening(await service.token()) as other:
        async with streams(greedy, PER_TOKEN):
            refused = await greedy.get(EVENTS)
            assert refused.status_code == 429
            assert refused.headers["Retry-After"] == "5"
            assert "server.streams_per_token_max" in refused.json()["error"]["cure"]
            assert await status(other) == 200
        await becomes_open(greedy)


async def test_a_service_with_as_many_streams_as_it_keeps_refuses_everybody(
    service: Service, listening: Callable[..., httpx2.AsyncClient]
):
    async with contextlib.AsyncExitStack() as stack:
        one, two, third = [
            await stack.enter_async_context(listening(await service.token())) for _ in range(3)
        ]
        async with streams(one, PER_TOKEN):
            async with streams(two, IN_ALL - PER_TOKEN):
                refused = await third.get(EVENTS)
                assert refused.status_code == 429
                assert "`server.streams_max`" in refused.json()["error"]["cure"]
            await becomes_open(third)


async def test_a_session_counts_with_the_token_it_was_made_from(
    service: Service, listening: Callable[..., httpx2.AsyncClient]
):
    secret = await service.token()
    async with listening(secret) as api, listening("none") as browser, listening("none") as another:
        await signed_in(browser, secret)
        await signed_in(another, secret)
        async with streams(api, 1), streams(browser, 1, "/live?at=/"), streams(another, 1, "/live?at=/jobs"):
            refused = await browser.get("/live?at=/queues")
            assert refused.status_code == 429
            assert "as many as one token may" in refused.text


async def test_streams_are_counted_by_kind_and_so_is_what_was_refused(
    service: Service, listening: Callable[..., httpx2.AsyncClient], bounds: OpenBounds
):
    async def told(series: str) -> float:
        return metric((await render_metrics(service.ledger, bounds=bounds)).decode(), series)

    secret = await service.token()
    headers = {"Accept": "text/event-stream"}
    async with listening(secret) as api, listening("none") as browser:
        await signed_in(browser, secret)
        await api.put("/api/v1/jobs/mine", json=a_document())
        async with (
            streams(api, 1),
            streams(browser, 1, "/live?at=/"),
            api.stream("GET", "/api/v1/jobs/mine/log", headers=headers),
        ):
            assert await status(browser, "/jobs/mine/log/events") == 429
            for kind in ("page", "log", "events"):
                assert await told(f'runyard_open{{kind="{kind}"}}') == 1
            assert await told('runyard_open_refused_total{bound="token",kind="log"}') == 1
        await becomes_open(api)
        assert await told('runyard_open{kind="page"}') == 0


async def test_a_stream_that_was_never_begun_holds_no_place(
    service: Service, listening: Callable[..., httpx2.AsyncClient], bounds: OpenBounds
):
    async with listening(await service.token()) as api:
        for _ in range(2 * IN_ALL):
            assert await status(api, "/api/v1/jobs/nowhere/log") == 404
            assert await status(api, f"{EVENTS}?after=999") == 410
    assert not +bounds.open


async def test_more_searches_than_a_token_may_are_refused_until_one_ends(
    service: Service, bounds: OpenBounds
):
    secret = await service.token()
    [token] = await service.ledger.list_tokens()
    async with service.client(secret) as api, service.client(None) as browser:
        await api.put("/api/v1/jobs/mine", json=a_document())
        claimed = await service.claim()
        service.write_log(claimed.attempt.key, b"a line\n")
        await signed_in(browser, secret)
        with bounds.take(token, OpenKind.SEARCH):
            refused = await browser.get("/jobs/mine/log/search?q=line")
            assert refused.status_code == 429
            assert "server.searches_per_token_max" in refused.json()["error"]["cure"]
        found = await browser.get("/jobs/mine/log/search?q=line")
        assert [one["line"] for one in found.json()["found"]] == ["a line"]
    assert not +bounds.open


def test_the_settings_say_the_bounds(tmp_path: Path):
    file = tmp_path / "runyard.toml"
    file.write_text("[server]\nstreams_per_token_max = 1\n")
    bounds = bounds_of(load(file))
    token = Token(id="t", name="t", secret_hash="", scope=Scope.READ, tenants=None, created_at=0.0)
    bounds.take(token, OpenKind.PAGE)
    with pytest.raises(TooMany, match="have 1 streams open"):
        bounds.take(token, OpenKind.EVENTS)
    bounds.take(token, OpenKind.SEARCH)
