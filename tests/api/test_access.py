from __future__ import annotations

import pytest
from fastapi.routing import APIRoute

from runyard.api.access import GUARDS
from runyard.api.routes import ROUTERS
from runyard.model.token import Scope

OPEN = {"/healthz", "/readyz"}
ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


GUARDED = [
    pytest.param(route, method, id=f"{method} {route.path}")
    for route in ROUTES
    for method in sorted(route.methods)
    if route.path not in OPEN
]


def scope_of(route: APIRoute) -> Scope | None:
    scopes = [GUARDS[part.call] for part in route.dependant.dependencies if part.call in GUARDS]
    return scopes[0] if scopes else None


def address(route: APIRoute) -> str:
    path = route.path
    for part in ("{id:name}", "{name:name}", "{operation:name}", "{path:path}"):
        path = path.replace(part, "some-name")
    return path


async def test_the_application_serves_exactly_the_routes_that_are_walked_here(service):
    described = service.app.openapi()["paths"]

    assert {(p, m.upper()) for p, item in described.items() for m in item} == {
        (route.path_format, method) for route in ROUTES for method in route.methods
    }


def test_every_route_but_the_two_probes_has_a_guard():
    assert {route.path for route in ROUTES if scope_of(route) is None} == OPEN


@pytest.mark.parametrize(("route", "method"), GUARDED)
async def test_every_route_refuses_a_request_without_a_token(service, route, method):
    async with service.client(None) as nobody:
        answer = await nobody.request(method, address(route))

    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "unauthenticated"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(("route", "method"), GUARDED)
async def test_every_route_refuses_a_token_of_a_smaller_scope(service, route, method):
    needed = scope_of(route)
    smaller = [scope for scope in Scope if needed is not None and not scope.includes(needed)]
    for scope in smaller:
        async with service.client(await service.token(scope.value)) as client:
            answer = await client.request(method, address(route))

        assert answer.status_code == 403
        assert answer.json()["error"]["code"] == "denied"


@pytest.mark.parametrize(
    "header", ["Bearer nonsense", "Basic abc", "Bearer ", "bearer \xff", "Bearer " + "x" * 9000]
)
async def test_a_wrong_token_is_refused_whatever_it_looks_like(service, header):
    async with service.client(None) as nobody:
        answer = await nobody.get("/api/v1/jobs", headers={"Authorization": header.encode("latin-1")})

    assert answer.status_code == 401


async def test_the_probes_need_no_token_and_readiness_says_why_not(service):
    async with service.client(None) as nobody:
        assert (await nobody.get("/healthz")).json() == {"status": "ok"}
        assert (await nobody.get("/readyz")).json() == {"status": "ready"}
        service.unready.append("the ledger is being migrated")
        answer = await nobody.get("/readyz")

    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "the ledger is being migrated"


async def test_a_revoked_token_is_refused_at_once_here_and_within_two_seconds_elsewhere(service, admin):
    made = (await admin.post("/api/v1/tokens", json={"name": "ci", "scope": "read"})).json()
    other = await service.token("read", id="other")
    async with service.client(made["token"]) as client, service.client(other) as elsewhere:
        assert (await client.get("/api/v1/jobs")).status_code == 200
        await admin.delete(f"/api/v1/tokens/{made['id']}")
        assert (await client.get("/api/v1/jobs")).status_code == 401

        assert (await elsewhere.get("/api/v1/jobs")).status_code == 200
        await service.ledger.delete_token("other")
        service.clock.shift_s += 2.1
        assert (await elsewhere.get("/api/v1/jobs")).status_code == 401


async def test_an_expired_token_is_refused(service):
    secret = await service.token("read", expires_at=service.clock.now() + 60)
    async with service.client(secret) as client:
        assert (await client.get("/api/v1/jobs")).status_code == 200
        service.clock.shift_s += 61
        assert (await client.get("/api/v1/jobs")).status_code == 401


async def test_a_token_shows_its_secret_once_and_only_its_hash_is_kept(service, admin):
    made = await admin.post("/api/v1/tokens", json={"name": "ci", "scope": "submit", "expires_in": "1h"})
    listed = await admin.get("/api/v1/tokens")

    secret = made.json()["token"]
    assert made.status_code == 201
    assert secret.startswith("ry_")
    assert secret not in listed.text
    assert secret not in repr(await service.ledger.list_tokens())


async def test_an_admin_of_one_tenant_neither_sees_nor_gives_what_is_beyond_it(service):
    await service.token("admin", id="root")
    async with service.client(await service.token("admin", ("search",))) as bound:
        for tenants in (None, ["search", "ads"]):
            answer = await bound.post(
                "/api/v1/tokens", json={"name": "x", "scope": "read", "tenants": tenants}
            )
            assert answer.status_code == 403
        given = await bound.post("/api/v1/tokens", json={"name": "x", "scope": "read", "tenants": ["search"]})
        names = {token["id"] for token in (await bound.get("/api/v1/tokens")).json()["tokens"]}
        gone = await bound.delete("/api/v1/tokens/root")

    assert given.status_code == 201
    assert "root" not in names
    assert gone.status_code == 404


async def test_what_all_tenants_share_is_not_changed_by_a_token_of_some(service):
    async with service.client(await service.token("operate", ("search",))) as bound:
        for method, path in [
            ("PUT", "/api/v1/queues/fast"),
            ("POST", "/api/v1/queues/default:pause"),
            ("PUT", "/api/v1/tenants/search"),
            ("POST", "/api/v1/pools/local:pause"),
            ("GET", "/metrics"),
        ]:
            answer = await bound.request(method, path, json={} if method == "PUT" else None)
            assert answer.status_code == 403, path
