"""An attempt's objects through crashes and races: each effect lost just before and just after it happened."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from runyard.model.attempt import AttemptKey
from runyard.model.errors import ProviderDenied, QuotaExceeded, Unreachable
from runyard.model.outcome import lost, succeeded
from runyard.providers.kubernetes.attempt_place import AttemptPlaces, Place
from runyard.providers.kubernetes.attempt_views import AttemptViews
from runyard.providers.kubernetes.client import JOBS, PODS, KubernetesClient
from runyard.providers.kubernetes.marks import EndMark
from runyard.providers.kubernetes.shared_watch import SharedWatch
from tests.kubernetes.strict_server import Kind, Program, StrictServer
from tests.kubernetes.strict_server.resources import QUOTAS, SECRETS
from tests.providers.kubernetes.conftest import client_of

KEY = AttemptKey("0123456789abcdef", 1)
NAME = KEY.resource_name
OURS = {"app.kubernetes.io/managed-by": "runyard", "runyard.dev/installation": "here"}


def secret(labels: dict[str, str] = OURS) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": NAME, "labels": labels}}


def job(labels: dict[str, str] = OURS) -> dict[str, Any]:
    pod = {"restartPolicy": "Never", "containers": [{"name": "step-000", "image": "i"}]}
    template = {"metadata": {"labels": labels}, "spec": pod}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": NAME, "labels": labels},
        "spec": {"backoffLimit": 0, "template": template},
    }


class Owner:
    """One service's hands on the cluster."""

    def __init__(self, client: KubernetesClient) -> None:
        self.client, self.views = client, AttemptViews()
        self.places = AttemptPlaces(client, self.views, pool="k", labels=OURS)
        self._watches = [
            SharedWatch(client, kind, labels="runyard.dev/installation=here", listen=listen)
            for kind, listen in ((JOBS, self.views.note_job), (PODS, self.views.note_pod))
        ]

    async def begin(self) -> None:
        for watch in self._watches:
            watch.start()
            await watch.synced()

    async def end(self) -> None:
        for watch in self._watches:
            await watch.close()
        await self.client.close()

    async def start(self) -> Place:
        return await self.places.start(secret(), job(), lambda within_s: True)

    async def start_again(self) -> Place:
        """As dispatch does: until it is known."""
        while True:
            try:
                return await self.start()
            except Unreachable:
                continue


@pytest.fixture
async def owner(server: StrictServer, tmp_path: Path) -> AsyncIterator[Owner]:
    server.kubelet.programs = lambda pod, container: Program()  # runs until it is stopped
    made = Owner(client_of(server, tmp_path))
    await made.begin()
    yield made
    await made.end()


@pytest.fixture
async def other(server: StrictServer, tmp_path: Path) -> AsyncIterator[Owner]:
    made = Owner(client_of(server, tmp_path))
    await made.begin()
    yield made
    await made.end()


def count(server: StrictServer) -> tuple[int, int, int]:
    server.clock.advance(1)
    return len(server.objects("secrets")), len(server.objects("jobs")), len(server.objects("pods"))


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.DROP_REPLY, Kind.TRUNCATE])
@pytest.mark.parametrize("call", ["POST .*/secrets", "POST .*/jobs", "PATCH .*/secrets", "GET .*/secrets/"])
async def test_a_start_that_dies_around_any_call_is_found_again_and_made_once(
    server: StrictServer, owner: Owner, call: str, kind: Kind
) -> None:
    server.faults.plan(call, kind)
    place = await owner.start_again()
    assert place.marks.job_uid == server.objects("jobs")[0]["metadata"]["uid"]
    assert count(server) == (1, 1, 1)


async def test_two_owners_at_a_time_make_one(server: StrictServer, owner: Owner, other: Owner) -> None:
    places = await asyncio.gather(owner.start_again(), other.start_again())
    assert len({place.marks.job_uid for place in places}) == 1
    assert count(server) == (1, 1, 1)


async def test_a_job_that_was_deleted_by_others_is_not_made_again(server: StrictServer, owner: Owner) -> None:
    await owner.start()
    await owner.client.delete(JOBS, NAME)
    count(server)
    with owner.views.following(NAME) as (view, changed):
        while view.job is not None and not view.is_job_gone:
            changed.clear()
            await asyncio.wait_for(changed.wait(), 10)
    place = await owner.start()
    assert (place.job, place.marks.job_uid is not None) == (None, True)
    assert server.objects("jobs") == []


async def test_a_refused_start_leaves_nothing(server: StrictServer, owner: Owner) -> None:
    server.cluster.create(
        QUOTAS, "default", {"metadata": {"name": "team"}, "spec": {"hard": {"count/jobs.batch": "0"}}}
    )
    with pytest.raises(QuotaExceeded):
        await owner.start()
    assert count(server) == (0, 0, 0)


async def test_nothing_is_made_when_the_lease_ends_before(server: StrictServer, owner: Owner) -> None:
    with pytest.raises(Unreachable, match="lease"):
        await owner.places.start(secret(), job(), lambda within_s: False)
    assert count(server) == (0, 0, 0)


async def test_another_installations_objects_are_left_alone(server: StrictServer, owner: Owner) -> None:
    theirs = {**OURS, "runyard.dev/installation": "there"}
    server.cluster.create(SECRETS, "default", secret(theirs))
    with pytest.raises(ProviderDenied, match="another installation"):
        await owner.start()
    await owner.places.destroy(NAME)
    assert count(server) == (1, 0, 0)


# -- stopping ---------------------------------------------------------------------------------------------------------
async def stop(owner: Owner) -> None:
    await owner.places.stop(KEY, secret(), grace_s=2.0, was_seen=False)


async def test_a_stop_before_the_start_is_found_by_it(
    server: StrictServer, owner: Owner, other: Owner
) -> None:
    await stop(other)
    place = await owner.start()
    assert (place.marks.stop is not None, place.job) == (True, None)
    assert count(server) == (1, 0, 0)


@pytest.mark.parametrize("call", ["POST .*/secrets", "POST .*/jobs", "PATCH .*/secrets"])
async def test_of_a_stop_and_a_start_that_race_one_sees_the_other(
    server: StrictServer, owner: Owner, other: Owner, call: str
) -> None:
    held = server.faults.plan(call, Kind.HOLD)
    starting = asyncio.create_task(owner.start_again())
    async with asyncio.timeout(10):
        while not held.hits:  # noqa: ASYNC110 -- the server tells nobody
            await asyncio.sleep(0.005)
    await stop(other)
    held.gate.set()
    place = await starting
    stopped = server.objects("jobs")
    is_seen_by_stop = all("runyard.dev/stop" in one["metadata"].get("annotations", {}) for one in stopped)
    assert place.marks.stop is not None or (stopped and is_seen_by_stop)


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.DROP_REPLY])
@pytest.mark.parametrize("call", ["PATCH .*/secrets", "PATCH .*/jobs", "DELETE .*/pods", "POST .*/secrets"])
async def test_a_stop_that_dies_around_any_call_is_repeated_to_its_end(
    server: StrictServer, owner: Owner, call: str, kind: Kind
) -> None:
    if "POST" not in call:
        await owner.start()
        server.clock.advance(2)
    server.faults.plan(call, kind)
    while True:
        try:
            await stop(owner)
            break
        except Unreachable:
            continue
    server.clock.advance(10)
    assert [pod["status"]["phase"] for pod in server.objects("pods")] in ([], ["Failed"])
    (marked,) = server.objects("secrets")
    assert "runyard.dev/stop" in marked["metadata"]["annotations"]


async def test_a_stop_gives_the_grace_that_was_asked_for(server: StrictServer, owner: Owner) -> None:
    await owner.start()
    server.clock.advance(2)
    await owner.places.stop(KEY, secret(), grace_s=60.0, was_seen=True)
    server.clock.advance(50)
    assert [pod["metadata"]["deletionGracePeriodSeconds"] for pod in server.objects("pods")] == [60]


# -- ending and removing ----------------------------------------------------------------------------------------------
async def test_of_two_ends_the_first_stands_for_both(owner: Owner, other: Owner) -> None:
    place = await owner.start()
    first, second = EndMark(outcome=succeeded()), EndMark(outcome=lost("gone", was_seen=True))
    version = place.marks.version
    assert await owner.places.record_end(NAME, first, version=version) == first
    assert await other.places.record_end(NAME, second, version=version) == first
    assert (await other.start()).marks.end == first


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.DROP_REPLY])
async def test_an_end_whose_writing_was_lost_is_written_by_the_next(
    server: StrictServer, owner: Owner, kind: Kind
) -> None:
    place = await owner.start()
    end = EndMark(outcome=succeeded(), phases={"running": 1.0}, outputs={"name": "välue"})
    server.faults.plan("PATCH .*/secrets", kind)
    with pytest.raises(Unreachable):
        await owner.places.record_end(NAME, end, version=place.marks.version)
    assert await owner.places.record_end(NAME, end, version=place.marks.version) == end


async def test_a_late_owner_who_makes_what_has_ended_takes_it_back(
    server: StrictServer, owner: Owner, other: Owner
) -> None:
    """It was stopped between its two creates, and the next owner did the whole work meanwhile."""
    held = server.faults.plan("POST .*/jobs", Kind.HOLD)
    late = asyncio.create_task(owner.start_again())
    async with asyncio.timeout(10):
        while not held.hits:  # noqa: ASYNC110 -- the server tells nobody
            await asyncio.sleep(0.005)
    place = await other.start()
    await other.places.record_end(NAME, EndMark(outcome=succeeded()), version=place.marks.version)
    await other.client.delete(JOBS, NAME)
    held.gate.set()
    clock = asyncio.create_task(tick(server))
    found = await asyncio.wait_for(late, 20)
    clock.cancel()
    assert found.marks.end is not None
    assert count(server)[1:] == (0, 0)


async def tick(server: StrictServer) -> None:
    while True:
        server.clock.advance(0.2)
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.DROP_REPLY])
@pytest.mark.parametrize("call", ["GET .*/secrets/", "DELETE .*/jobs", "DELETE .*/pods", "DELETE .*/secrets"])
async def test_a_removal_that_dies_around_any_call_is_repeated_to_its_end(
    server: StrictServer, owner: Owner, call: str, kind: Kind
) -> None:
    await owner.start()
    server.clock.advance(2)
    server.faults.plan(call, kind)
    clock = asyncio.create_task(tick(server))
    while True:
        try:
            await owner.places.destroy(NAME)
            break
        except Unreachable:
            continue
    clock.cancel()
    assert count(server) == (0, 0, 0)


async def test_the_secret_goes_last(server: StrictServer, owner: Owner) -> None:
    await owner.start()
    clock = asyncio.create_task(tick(server))
    await owner.places.destroy(NAME)
    clock.cancel()
    deletes = [asked.split("/")[-2] for asked in server.requests if asked.startswith("DELETE")]
    assert deletes[-1] == "secrets"
