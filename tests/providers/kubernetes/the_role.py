"""The Role of deploy/kubernetes, and one life of a pool that uses every verb of it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

from runyard.model.job import Step
from runyard.model.outcome import OutcomeKind
from runyard.model.pool import AvailabilityKind
from runyard.providers.port import AttemptRequest, Provider
from runyard.testing.conformance import FarProviderWorld, TinyCommand
from runyard.testing.promises.world import Following, attempts_in, following

MANIFEST = Path(__file__).parents[3] / "deploy" / "kubernetes" / "base" / "rights.yaml"
Document = dict[str, Any]


def documents() -> list[Document]:
    return list(yaml.safe_load_all(MANIFEST.read_text()))


def rules() -> list[Document]:
    [role] = [one for one in documents() if one["kind"] == "Role"]
    return list(role["rules"])


def verbs() -> list[str]:
    """Each as a check names it."""
    return [
        f"{verb} {resource}" for rule in rules() for resource in rule["resources"] for verb in rule["verbs"]
    ]


def rules_without(words: str) -> list[Document]:
    return list(_rules_without(words))


def _rules_without(words: str) -> Iterator[Document]:
    for rule in rules():
        for resource in rule["resources"]:
            left = [verb for verb in rule["verbs"] if f"{verb} {resource}" != words]
            if left:
                yield {**rule, "resources": [resource], "verbs": left}


async def live_a_whole_life(
    world: FarProviderWorld, provider: Provider, leave: Callable[[AttemptRequest], None] = lambda _: None
) -> Provider:
    """A check, a job whose log and artifact come, a start whose reply is lost, a stop before a start, an adoption, a
    stop, the listing and the end of all. `leave` plays what a job left as its artifact, where none really runs. Returns
    the provider that adopted."""
    assert (await provider.can_dequeue(world.requirements)).kind is AvailabilityKind.NOW
    wrong = [finding for finding in await provider.check() if not finding.ok]
    assert not wrong
    await _run_with_an_artifact(world, provider, leave)
    await world.lose_next_start_reply(provider)
    lost = world.request(number=2)
    await asyncio.gather(Following(world, provider, lost).outcome(), return_exceptions=True)
    assert (await Following(world, provider, lost).outcome()).kind is OutcomeKind.SUCCEEDED
    never = world.request(TinyCommand.WAIT, number=3)
    await provider.stop_job(never.key, grace_s=1)
    assert (await Following(world, provider, never).outcome()).kind is OutcomeKind.CANCELED
    heir = await _adopt_and_stop(world, provider, world.request(TinyCommand.WAIT, number=4))
    listed = attempts_in(await heir.list_resources())
    assert len(listed) == 4
    for name in listed:
        await heir.destroy_resource(name)
    assert attempts_in(await heir.list_resources()) == []
    return heir


async def _run_with_an_artifact(
    world: FarProviderWorld, provider: Provider, leave: Callable[[AttemptRequest], None]
) -> None:
    request = world.request(TinyCommand.SUCCEED)
    leave(request)
    step: Step = dataclasses.replace(
        request.spec.steps[0], command=("/bin/sh", "-c", "echo began; printf kept > kept")
    )
    spec = dataclasses.replace(request.spec, steps=(step,), artifacts=("*",))
    followed = Following(world, provider, dataclasses.replace(request, spec=spec))
    assert (await followed.outcome()).kind is OutcomeKind.SUCCEEDED
    assert followed.context.printed() == b"began\n"
    assert followed.context.artifacts == {"kept": b"kept"}


async def _adopt_and_stop(world: FarProviderWorld, provider: Provider, request: AttemptRequest) -> Provider:
    async with following(world, provider, request):
        pass
    heir = await world.start_provider()
    async with following(world, heir, request) as followed:
        await heir.stop_job(request.key, grace_s=1)
        assert (await followed.outcome()).kind is OutcomeKind.CANCELED
    assert world.count_starts(request.key) == 1
    return heir
