"""What a pool's check proves and cures, and that the rights it asks for are those that are used: no more, no fewer."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import pytest

from runyard.model.finding import Finding
from runyard.model.outcome import OutcomeKind
from runyard.providers.kubernetes.rights import RIGHTS, Right
from runyard.testing.conformance import TinyCommand
from runyard.testing.promises.world import Following, following
from tests.kubernetes.strict_server import kubelet
from tests.kubernetes.strict_server.resources import JOBS, QUOTAS
from tests.providers.kubernetes.world import UNCLOSED, StrictWorld, strict_world

pytestmark = [pytest.mark.service, UNCLOSED]


@pytest.fixture
async def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[StrictWorld]:
    monkeypatch.setattr(kubelet, "CREATING_S", 0.02)
    monkeypatch.setattr(kubelet, "INIT_GAP_S", 0.02)
    async with strict_world(tmp_path) as made:
        made.token = "ours"
        yield made


def rules(rights: Iterable[Right]) -> list[dict[str, Any]]:
    return [
        {
            "apiGroups": [right.kind.group],
            "resources": [right.kind.plural + (f"/{right.subresource}" if right.subresource else "")],
            "verbs": [right.verb],
        }
        for right in rights
    ]


def named(findings: Iterable[Finding], name: str) -> Finding:
    (found,) = [finding for finding in findings if finding.name == name]
    return found


async def test_the_rights_are_those_that_are_used(world: StrictWorld) -> None:
    world.options["runtime_class"] = "none-such"
    account = world.server.access.grant("ours", "runyard", rules(RIGHTS))
    provider = await world.start_provider()
    await provider.can_dequeue(world.requirements)
    request = dataclasses.replace(world.request(TinyCommand.GIVE_OUTPUT))
    assert (await Following(world, provider, request).outcome()).kind is OutcomeKind.SUCCEEDED
    assert (await Following(world, provider, request).outcome()).kind is OutcomeKind.SUCCEEDED
    stopped = world.request(TinyCommand.WAIT, number=2)
    async with following(world, provider, stopped) as followed:
        await provider.stop_job(stopped.key, grace_s=1.0)
        await followed.outcome()
    quota = {"metadata": {"name": "team"}, "spec": {"hard": {"pods": "0"}}}
    world.server.cluster.create(QUOTAS, "default", quota)
    waiting = Following(world, provider, world.request(number=3))
    async with asyncio.timeout(15):
        while not any("team" in (text or "") for text in waiting.context.progress):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    world.server.cluster.delete(
        JOBS, "default", "runyard-" + world.uid + "-3", {"propagationPolicy": "Background"}
    )
    await waiting.outcome()
    for resource in (await provider.list_resources()).resources:
        await provider.destroy_resource(resource.name)
    late = world.request(number=4)
    await provider.stop_job(late.key, grace_s=1.0)
    await Following(world, provider, late).outcome()
    exec_by_post = ("", "pods/exec", "create")  # of servers from 1.35 on, for a websocket too
    own_pod = ("", "pods", "get")  # inside a cluster, for the image of the service's own pod
    assert account.unused() <= {exec_by_post, own_pod}


async def test_missing_rights_are_named_with_the_rules_that_cure_them(world: StrictWorld) -> None:
    lacking = [right for right in RIGHTS if right.words not in ("create jobs", "get pods/log", "list nodes")]
    world.server.access.grant("ours", "runyard", rules(lacking))
    findings = await (await world.start_provider()).check()
    rights = named(findings, "rights")
    assert not rights.ok
    assert "create jobs" in rights.message
    assert "get pods/log" in rights.message
    assert "nodes" not in rights.message
    assert '{apiGroups: ["batch"], resources: [jobs], verbs: [create]}' in rights.cure
    assert all(finding.name != "job" for finding in findings), "nothing is tried that cannot work"


async def test_what_is_optional_costs_words_only(world: StrictWorld) -> None:
    world.server.access.grant("ours", "runyard", rules(right for right in RIGHTS if not right.is_optional))
    findings = await (await world.start_provider()).check()
    assert all(finding.ok for finding in findings), findings
    assert "list nodes" in named(findings, "rights").message
    assert "log and artifact came through" in named(findings, "job").message


async def test_a_runtime_class_that_is_missing_is_named_with_its_cure(world: StrictWorld) -> None:
    world.options["runtime_class"] = "kata"
    world.server.access.grant("ours", "runyard", rules(RIGHTS))
    found = named(await (await world.start_provider()).check(), "runtime class")
    assert (found.ok, "'kata'" in found.message, bool(found.cure)) == (False, True, True)
