"""What of the strict server no real one shows on demand: faults, old servers, lost nodes, time that a test moves."""

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.kubernetes.contract_worlds import OBEDIENT, STUBBORN, TALKATIVE, condition_of, container, job
from tests.kubernetes.strict_server import (
    OLD,
    Exit,
    Features,
    Kind,
    LoopClock,
    Program,
    Say,
    StrictServer,
    by_last_word,
)

Json = dict[str, Any]
JOBS = "/apis/batch/v1/namespaces/default/jobs"
CORE = "/api/v1/namespaces/default"


@pytest.fixture
async def server() -> AsyncIterator[StrictServer]:
    async with StrictServer() as server:
        server.kubelet.programs = by_last_word({STUBBORN: Program(), OBEDIENT: Program(on_term=Exit(3))})
        yield server


@pytest.fixture
async def client(server: StrictServer) -> AsyncIterator[httpx2.AsyncClient]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=5) as client:
        yield client


async def start(server: StrictServer, client: httpx2.AsyncClient, shell: str = STUBBORN) -> str:
    """A Job whose pod runs; its pod's name."""
    answer = await client.post(JOBS, json=job("j", container(shell)))
    assert answer.status_code == 201
    server.clock.advance(1)
    return str(server.objects("pods")[0]["metadata"]["name"])


async def test_nothing_happens_until_time_passes(server: StrictServer, client: httpx2.AsyncClient) -> None:
    await client.post(JOBS, json=job("j"))
    assert server.objects("pods") == []

    server.clock.advance(0.02)
    assert server.objects("pods")[0]["status"]["phase"] == "Pending"
    server.clock.advance(5)
    assert condition_of(server.objects("jobs")[0], "Complete")


async def test_a_dropped_reply_leaves_its_effect(server: StrictServer, client: httpx2.AsyncClient) -> None:
    server.faults.plan(f"POST {JOBS}", Kind.DROP_REPLY)

    with pytest.raises(httpx2.TransportError):
        await client.post(JOBS, json=job("j"))
    again = await client.post(JOBS, json=job("j"))

    assert again.status_code == 409
    assert len(server.objects("jobs")) == 1


async def test_a_reset_comes_before_the_effect(server: StrictServer, client: httpx2.AsyncClient) -> None:
    server.faults.plan(f"POST {JOBS}", Kind.RESET)

    with pytest.raises(httpx2.TransportError):
        await client.post(JOBS, json=job("j"))

    assert server.objects("jobs") == []


async def test_an_answer_that_never_comes_has_happened(
    server: StrictServer, client: httpx2.AsyncClient
) -> None:
    server.faults.plan(f"POST {JOBS}", Kind.NEVER_ANSWER)

    with pytest.raises(httpx2.ReadTimeout):
        await client.post(JOBS, json=job("j"), timeout=0.05)

    assert len(server.objects("jobs")) == 1


async def test_a_truncated_body_is_no_answer(server: StrictServer, client: httpx2.AsyncClient) -> None:
    await client.post(JOBS, json=job("j"))
    server.faults.plan(f"GET {JOBS}/j", Kind.TRUNCATE)

    with pytest.raises(httpx2.TransportError):
        await client.get(f"{JOBS}/j")

    assert (await client.get(f"{JOBS}/j")).status_code == 200


async def test_planned_errors_carry_their_words(server: StrictServer, client: httpx2.AsyncClient) -> None:
    server.faults.busy("GET /version", retry_after_s=3)
    busy = await client.get("/version")
    server.faults.broken("GET /version", code=503)
    broken = await client.get("/version")

    assert (busy.status_code, busy.headers["retry-after"], busy.json()["reason"]) == (
        429,
        "3",
        "TooManyRequests",
    )
    assert broken.json()["reason"] == "ServiceUnavailable"
    assert (await client.get("/version")).status_code == 200


async def test_a_watch_that_is_cut_every_two_events_loses_nothing_to_who_goes_on(
    server: StrictServer, client: httpx2.AsyncClient
) -> None:
    server.faults.watch_events_max = 2
    since = str(server.store.revision)
    for number in range(5):
        await client.post(f"{CORE}/secrets", json={"metadata": {"name": f"s{number}"}})

    seen: list[str] = []
    cuts = 0
    while len(seen) < 5:
        query = {"watch": "true", "resourceVersion": since}
        try:
            async with client.stream("GET", f"{CORE}/secrets", params=query) as response:
                async for line in response.aiter_lines():
                    metadata = json.loads(line)["object"]["metadata"]
                    seen.append(metadata["name"])
                    since = metadata["resourceVersion"]
                    if len(seen) == 5:
                        break
        except httpx2.TransportError:
            cuts += 1

    assert cuts == 2
    assert seen == [f"s{number}" for number in range(5)]


async def test_compaction_ends_watches_and_pages_of_before(
    server: StrictServer, client: httpx2.AsyncClient
) -> None:
    for name in ("a", "b"):
        await client.post(f"{CORE}/secrets", json={"metadata": {"name": name}})
    page = (await client.get(f"{CORE}/secrets", params={"limit": 1})).json()
    await client.delete(f"{CORE}/secrets/b")
    server.store.compact()

    old = page["metadata"]["resourceVersion"]
    watched = await client.get(f"{CORE}/secrets", params={"watch": "true", "resourceVersion": old})
    continued = await client.get(
        f"{CORE}/secrets", params={"limit": 1, "continue": page["metadata"]["continue"]}
    )

    assert watched.json()["object"]["code"] == 410
    assert (continued.status_code, continued.json()["reason"]) == (410, "Expired")
    assert continued.json()["metadata"]["continue"]


async def test_an_old_server_drops_in_silence_what_it_does_not_know() -> None:
    async with StrictServer(features=OLD) as server, httpx2.AsyncClient(base_url=server.url) as client:
        sidecar = container(STUBBORN, "side", restartPolicy="Always")
        pod = {"initContainers": [sidecar], "resources": {"limits": {"cpu": "1"}}}
        answer = await client.post(JOBS, json=job("j", spec={"suspend": True}, pod=pod))

    made = answer.json()
    assert (answer.status_code, answer.headers.get("warning")) == (201, None)
    assert "suspend" not in made["spec"]
    assert "resources" not in made["spec"]["template"]["spec"]
    assert "restartPolicy" not in made["spec"]["template"]["spec"]["initContainers"][0]


async def test_a_server_may_refuse_what_it_does_not_know() -> None:
    features = Features(refused=frozenset({"pod_level_resources"}))
    async with StrictServer(features=features) as server, httpx2.AsyncClient(base_url=server.url) as client:
        answer = await client.post(JOBS, json=job("j", pod={"resources": {"limits": {"cpu": "1"}}}))

    assert answer.status_code == 422
    assert answer.json()["details"]["causes"][0]["field"] == "spec.template.spec.resources"


async def test_a_lost_node_takes_its_pod_only_after_its_patience(
    server: StrictServer, client: httpx2.AsyncClient
) -> None:
    await start(server, client)
    server.kubelet.lose_node()

    server.clock.advance(299)
    assert condition_of(server.objects("pods")[0], "DisruptionTarget") is None
    server.clock.advance(2)
    (pod,) = server.objects("pods")
    assert condition_of(pod, "DisruptionTarget")["reason"] == "DeletionByTaintManager"  # type: ignore[index]
    server.clock.advance(600)
    assert server.objects("pods"), "nobody is there to confirm the end of a pod on a lost node"
    server.kubelet.remove_node()
    server.clock.advance(1)
    assert server.objects("pods") == []


async def test_an_eviction_by_the_kubelet_leaves_the_pod_with_its_reason(
    server: StrictServer, client: httpx2.AsyncClient
) -> None:
    name = await start(server, client)

    server.kubelet.evict(name, "The node was low on resource: ephemeral-storage.")

    (pod,) = server.objects("pods")
    assert (pod["status"]["phase"], pod["status"]["reason"]) == ("Failed", "Evicted")
    assert condition_of(pod, "DisruptionTarget")["reason"] == "TerminationByKubelet"  # type: ignore[index]
    server.clock.advance(3)
    assert condition_of(server.objects("jobs")[0], "Failed")


async def test_a_preempted_pod_is_marked_before_it_goes(
    server: StrictServer, client: httpx2.AsyncClient
) -> None:
    name = await start(server, client)

    server.kubelet.preempt(name)

    (pod,) = server.objects("pods")
    assert condition_of(pod, "DisruptionTarget")["reason"] == "PreemptionByScheduler"  # type: ignore[index]
    assert pod["metadata"]["deletionTimestamp"]
    server.clock.advance(4)
    assert server.objects("pods") == []


async def test_a_rotated_log_begins_later_and_a_cut_one_breaks(
    server: StrictServer, client: httpx2.AsyncClient
) -> None:
    server.kubelet.programs = by_last_word({TALKATIVE: Program((Say(b"a\nb\nc\n"),))})
    name = await start(server, client, TALKATIVE)
    server.kubelet.run_of(name).container("main").log.rotate(keep_lines=2)

    assert (await client.get(f"{CORE}/pods/{name}/log")).text == "b\nc\n"
    server.faults.log_bytes_max = 3
    with pytest.raises(httpx2.TransportError):
        await client.get(f"{CORE}/pods/{name}/log")


async def test_a_role_knows_what_nobody_used_of_it(server: StrictServer, client: httpx2.AsyncClient) -> None:
    rules = [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get", "list", "delete"]}]
    account = server.access.grant("t", "system:serviceaccount:default:runyard", rules, "default")
    headers = {"authorization": "Bearer t"}

    await client.get(JOBS, headers=headers)
    await client.delete(f"{JOBS}/none", headers=headers)
    refused = await client.post(JOBS, headers=headers, json=job("j"))

    assert refused.status_code == 403
    assert account.unused() == {("batch", "jobs", "get")}


async def test_with_the_loops_clock_all_runs_by_itself() -> None:
    async with (
        StrictServer(LoopClock(), OLD) as server,
        httpx2.AsyncClient(base_url=server.url, timeout=20) as client,
    ):
        watching = {"watch": "true", "timeoutSeconds": "10"}
        await client.post(JOBS, json=job("j"))
        async with client.stream("GET", JOBS, params=watching) as response:
            async for line in response.aiter_lines():
                found = json.loads(line)["object"]
                if condition_of(found, "Complete"):
                    break

    assert found["status"]["succeeded"] == 1
