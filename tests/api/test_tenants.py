from __future__ import annotations

from tests.api.world import a_document


async def test_a_job_belongs_to_the_tenant_of_its_token(service):
    async with service.client(await service.token("submit", ("search",))) as client:
        job = (await client.put("/api/v1/jobs/build", json=a_document())).json()

    assert job["tenant"] == "search"


async def test_a_job_of_another_tenant_does_not_exist_for_a_token(service, admin):
    await admin.put("/api/v1/jobs/build", json=a_document(), params={"tenant": "ads"})
    async with service.client(await service.token("submit", ("search",))) as client:
        for method, path in [
            ("GET", ""), ("GET", "/why"), ("GET", "/log"), ("GET", "/artifacts"), ("GET", "/artifacts/x"),
            ("DELETE", ""), ("POST", ":cancel"), ("POST", ":retry"),
        ]:  # fmt: skip
            for tenant in ({}, {"tenant": "ads"}):
                answer = await client.request(method, f"/api/v1/jobs/build{path}", params=tenant)
                assert answer.status_code == 404, (method, path)
        listed = (await client.get("/api/v1/jobs")).json()["jobs"]

    assert listed == []


async def test_naming_a_tenant_that_the_token_is_not_for_is_denied(service):
    async with service.client(await service.token("submit", ("search",))) as client:
        by_query = await client.put("/api/v1/jobs/build", json=a_document(), params={"tenant": "ads"})
        by_document = await client.put("/api/v1/jobs/build", json=a_document(tenant="ads"))
        by_list = await client.get("/api/v1/jobs", params={"tenant": "ads"})

    assert [by_query.status_code, by_document.status_code, by_list.status_code] == [403, 403, 403]


async def test_an_id_that_several_tenants_have_is_ambiguous_and_only_visible_ones_are_named(service, admin):
    for tenant in ("ads", "search", "secret"):
        await admin.put("/api/v1/jobs/build", json=a_document(), params={"tenant": tenant})
    async with service.client(await service.token("read", ("ads", "search"))) as client:
        answer = await client.get("/api/v1/jobs/build")
        one = await client.get("/api/v1/jobs/build", params={"tenant": "search"})

    error = answer.json()["error"]
    assert answer.status_code == 409
    assert error["code"] == "ambiguous"
    assert "ads, search" in error["message"]
    assert "secret" not in answer.text
    assert one.json()["tenant"] == "search"


async def test_a_token_of_all_tenants_finds_a_job_wherever_it_is(service, admin):
    await admin.put("/api/v1/jobs/first", json=a_document())
    await admin.put("/api/v1/jobs/build", json=a_document(), params={"tenant": "search"})

    assert (await admin.get("/api/v1/jobs/build")).json()["tenant"] == "search"


async def test_a_token_of_several_tenants_says_which_unless_default_is_one_of_them(service):
    async with service.client(await service.token("submit", ("ads", "search"))) as client:
        unsaid = await client.put("/api/v1/jobs/build", json=a_document())
        said = await client.put("/api/v1/jobs/build", json=a_document(tenant="ads"))
        twice = await client.put("/api/v1/jobs/b", json=a_document(tenant="ads"), params={"tenant": "search"})
    async with service.client(await service.token("submit", ("ads", "default"))) as client:
        default = await client.put("/api/v1/jobs/build", json=a_document())

    assert unsaid.status_code == 422
    assert "ads, search" in unsaid.json()["error"]["cure"]
    assert said.json()["tenant"] == "ads"
    assert twice.json()["error"]["field"] == "tenant"
    assert default.json()["tenant"] == "default"


async def test_tenants_are_listed_as_far_as_the_token_goes(service, admin):
    await admin.put("/api/v1/tenants/ads", json={"weight": 2, "running_max": 5})
    await admin.put("/api/v1/tenants/search", json={})
    async with service.client(await service.token("read", ("ads",))) as client:
        listed = (await client.get("/api/v1/tenants")).json()["tenants"]
        hidden = await client.get("/api/v1/tenants/search")

    assert [(tenant["name"], tenant["weight"], tenant["running_max"]) for tenant in listed] == [
        ("ads", 2.0, 5)
    ]
    assert hidden.status_code == 404
