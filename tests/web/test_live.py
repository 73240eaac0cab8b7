from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import httpx2
import pytest

from runyard.model.errors import NotFound
from runyard.model.token import Scope
from runyard.web.live import LiveSights, Rendered, Sight, page_frame
from runyard.web.views import VIEWS
from tests.api.world import Service, a_document

SIGHT = Sight("/", None, Scope.READ)
PATIENCE_S = 10


class Counting:
    """A page whose every rendering is another one, and counted."""

    def __init__(self) -> None:
        self.renderings = 0

    async def __call__(self) -> Rendered:
        self.renderings += 1
        return Rendered(page_frame(f"rendering {self.renderings}"), ("events",))


@pytest.fixture
def sights(service: Service) -> LiveSights:
    return LiveSights(service.app.state.context)


@contextlib.asynccontextmanager
async def _viewers(sights: LiveSights, render: Counting, count: int) -> AsyncIterator[list[object]]:
    async with contextlib.AsyncExitStack() as stack:
        made = [
            await stack.enter_async_context(contextlib.aclosing(sights.follow(SIGHT, render)))
            for _ in range(count)
        ]
        yield list(made)


async def test_a_hundred_viewers_of_a_page_cost_one_rendering(
    service: Service, sights: LiveSights, api: httpx2.AsyncClient
):
    render = Counting()
    async with _viewers(sights, render, 100) as viewers:
        first = await asyncio.gather(*(anext(one) for one in viewers))  # type: ignore[call-overload]
        assert len(set(first)) == 1
        assert render.renderings == 1
        await api.put("/api/v1/jobs/mine", json=a_document())
        second = await asyncio.wait_for(asyncio.gather(*(anext(one) for one in viewers)), PATIENCE_S)  # type: ignore[call-overload]
        assert len(set(second)) == 1
        assert render.renderings == 2


async def test_other_rights_are_another_rendering(sights: LiveSights):
    render = Counting()
    bound = Sight("/", ("mine",), Scope.READ)
    async with (
        contextlib.aclosing(sights.follow(SIGHT, render)) as all_,
        contextlib.aclosing(sights.follow(bound, render)) as mine,
    ):
        assert await anext(all_) != await anext(mine)


async def test_a_slow_viewer_gets_the_newest_state_and_no_queue_of_old_ones(
    service: Service, sights: LiveSights, api: httpx2.AsyncClient
):
    render = Counting()
    async with _viewers(sights, render, 2) as (slow, quick):
        await anext(slow)  # type: ignore[call-overload]
        await anext(quick)  # type: ignore[call-overload]
        for number in range(3):
            await api.put(f"/api/v1/jobs/job-{number}", json=a_document())
            newest = await asyncio.wait_for(anext(quick), PATIENCE_S)  # type: ignore[call-overload]
        assert await asyncio.wait_for(anext(slow), PATIENCE_S) == newest  # type: ignore[call-overload]


async def test_nothing_is_rendered_once_the_last_viewer_has_gone(
    service: Service, sights: LiveSights, api: httpx2.AsyncClient
):
    render = Counting()
    async with _viewers(sights, render, 3) as viewers:
        for one in viewers:
            await anext(one)  # type: ignore[call-overload]
    await api.put("/api/v1/jobs/mine", json=a_document())
    assert not sights.looked_at
    assert render.renderings == 1


async def test_what_was_looked_at_and_went_is_said_to_all_of_its_viewers(sights: LiveSights):
    async def gone() -> Rendered:
        raise NotFound("it is gone")

    for _ in range(2):
        with pytest.raises(NotFound):
            async with contextlib.aclosing(sights.follow(SIGHT, gone)) as viewer:
                await anext(viewer)


async def _is_looked_at(service: Service) -> None:
    while not service.app.state.sights.looked_at:  # noqa: ASYNC110
        await asyncio.sleep(0)


async def _until_it_ends(pages: httpx2.AsyncClient) -> bytes:
    async with pages.stream("GET", "/live?at=/jobs") as stream:
        return await stream.aread()


async def test_every_page_moves_as_it_stands(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    """What moves is rendered without the frame around it: it must need nothing of that."""
    await api.put("/api/v1/jobs/mine", json=a_document())
    machine = await service.machine()
    service.app.state.context.close()  # a stream says how things stand, and ends

    async def look(path: str) -> str:
        return (await pages.get("/live", params={"at": path})).text

    moving = [path for path, _ in VIEWS if path != "/access"]
    paths = [
        path.replace("/jobs/{id}", "/jobs/mine")
        .replace("/queues/{name}", "/queues/default")
        .replace("/tenants/{name}", "/tenants/default")
        .replace("/machines/{name}", f"/machines/{machine}")
        .replace("{name}", "local")
        for path in moving
    ]
    for path, text in zip(paths, await asyncio.gather(*map(look, paths)), strict=True):
        assert "event: page" in text, path


async def test_viewers_of_a_page_whose_reading_fails_are_told(sights: LiveSights):
    async def broken() -> Rendered:
        raise ZeroDivisionError

    async with contextlib.aclosing(sights.follow(SIGHT, broken)) as viewer:
        with pytest.raises(ZeroDivisionError):
            await asyncio.wait_for(anext(viewer), PATIENCE_S)


async def test_a_closing_service_ends_its_streams(service: Service, pages: httpx2.AsyncClient):
    watching = asyncio.create_task(_until_it_ends(pages))
    await asyncio.wait_for(_is_looked_at(service), PATIENCE_S)
    service.app.state.context.close()
    assert b"event: page" in await asyncio.wait_for(watching, PATIENCE_S)


async def test_a_revoked_session_ends_its_stream(
    service: Service, pages: httpx2.AsyncClient, api: httpx2.AsyncClient
):
    watching = asyncio.create_task(_until_it_ends(pages))
    await asyncio.wait_for(_is_looked_at(service), PATIENCE_S)
    tokens = (await api.get("/api/v1/tokens")).json()["tokens"]
    [session] = [one["id"] for one in tokens if one["kind"] == "session"]
    await api.delete(f"/api/v1/tokens/{session}")
    assert b"event: page" in await asyncio.wait_for(watching, PATIENCE_S)
    assert not service.app.state.sights.looked_at
