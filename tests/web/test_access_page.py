import re

import httpx2

from tests.api.world import Service
from tests.web.browsing import send, signed_in


async def test_a_user_sees_and_ends_its_own_sessions_alone(service: Service, pages: httpx2.AsyncClient):
    secret = await service.token("read", id="mine", name="mine")
    async with service.client(None) as one, service.client(None) as two:
        await signed_in(one, secret)
        await signed_in(two, secret)
        text = (await one.get("/access")).text
        ids = re.findall(r"/access/([^/]+)/revoke", text)
        assert len(ids) == 2
        assert "page session of test-admin" not in text
        assert "New token" not in text
        for session in ids:
            await send(one, f"/access/{session}/revoke")
        assert (await one.get("/")).status_code == 303
        assert (await two.get("/")).status_code == 303
    assert (await pages.get("/")).status_code == 200


async def test_nobody_ends_what_is_not_its_own(service: Service, pages: httpx2.AsyncClient):
    [session] = re.findall(
        r"/access/([^/]+)/revoke\"><button class=\"quiet\" aria-label=\"End",
        (await pages.get("/access")).text,
    )
    async with service.client(None) as client:
        await signed_in(client, await service.token("operate"))
        assert (await send(client, f"/access/{session}/revoke")).status_code == 403
        assert (await send(client, "/access/tokens", name="x", scope="admin")).status_code == 403
    assert (await pages.get("/")).status_code == 200


async def test_a_token_is_made_shown_once_and_revoked(service: Service, pages: httpx2.AsyncClient):
    made = await send(pages, "/access/tokens", name="ci", scope="submit", tenants="a, b", expires_in="30d")
    secret = re.search(r"ry_[\w-]+", made.text)
    assert secret is not None
    async with service.client(secret[0]) as client:
        assert (await client.get("/api/v1/jobs")).status_code == 200
        text = (await pages.get("/access")).text
        assert secret[0] not in text
        assert "submit, a, b" in re.sub(r"<a [^>]*>|</a>", "", text)
        [token] = re.findall(
            r"/access/([^/]+)/revoke\"><button class=\"quiet\" aria-label=\"Revoke the token ci", text
        )
        await send(pages, f"/access/{token}/revoke")
        assert (await client.get("/api/v1/jobs")).status_code == 401


async def test_what_is_personal_is_never_shared_as_a_moving_page(pages: httpx2.AsyncClient):
    assert "sse-connect" not in (await pages.get("/access")).text
    async with pages.stream("GET", "/live?at=/access") as stream:
        text = (await stream.aread()).decode()
    assert "event: gone" in text
    assert "session" not in text


async def test_a_secret_is_set_and_deleted_and_its_value_is_on_no_page(
    service: Service, pages: httpx2.AsyncClient
):
    fields = {"name": "DEPLOY_KEY", "value": "hunter2-hunter2", "tenant": "acme", "queues": "ci, nightly"}
    assert (await send(pages, "/access/secrets", **fields)).status_code == 303
    text = (await pages.get("/access")).text + (await pages.get("/audit")).text
    assert "DEPLOY_KEY" in text
    assert "ci, nightly" in text
    assert "hunter2" not in text
    await send(pages, "/access/secrets/DEPLOY_KEY/delete", tenant="acme")
    assert "DEPLOY_KEY" not in (await pages.get("/access")).text


async def test_a_secret_that_cannot_be_taken_is_refused_without_showing_it(pages: httpx2.AsyncClient):
    wrong = await send(pages, "/access/secrets", name="NPM_TOKEN", value="s3c")
    unnamed = await send(pages, "/access/secrets", name="npm token", value="hunter2-hunter2")
    assert (wrong.status_code, unnamed.status_code) == (422, 422)
    assert "s3c" not in wrong.text
    assert "hunter2" not in unnamed.text


async def test_secrets_are_set_neither_by_readers_nor_from_another_site(
    service: Service, pages: httpx2.AsyncClient
):
    fields = {"name": "NPM_TOKEN", "value": "hunter2-hunter2"}
    foreign = await pages.post("/access/secrets", data=fields, headers={"Sec-Fetch-Site": "cross-site"})
    assert foreign.status_code == 403
    async with service.client(None) as client:
        await signed_in(client, await service.token("submit"))
        assert (await send(client, "/access/secrets", **fields)).status_code == 403
        assert "Set a secret" not in (await client.get("/access")).text
    assert await service.ledger.list_secrets(None, limit=10) == []
