"""What is told of an attempt while it is followed: its phases and where it runs. Pure, and the same from every look at
the same states: whoever adopts an attempt tells what the one before told."""

from __future__ import annotations

from collections.abc import Iterator

from runyard.model.job import JobSpec, StepCondition
from runyard.providers.kubernetes.layout import step_container
from runyard.providers.kubernetes.sighting import Ended, Running, Sighting

_IMAGES_MAX = 8


def phases_of(sighting: Sighting, spec: JobSpec) -> Iterator[tuple[str, float]]:
    """Each phase that began, with its time (epoch seconds, whole ones: the cluster keeps no finer), in order."""
    latest = 0.0
    for name, at in _phases(sighting, spec):
        latest = max(latest, at)  # clocks of several machines wrote these
        yield name, latest


def _phases(sighting: Sighting, spec: JobSpec) -> Iterator[tuple[str, float]]:
    if sighting.created_at is not None:
        yield "preparing", sighting.created_at
    began = _began_at(sighting.prepare)
    if began is not None:
        yield "workspace", began
    for index, step in enumerate(spec.steps[: len(sighting.steps)]):
        at = sighting.step_began_at(index)
        if at is None:
            return
        if index == 0:
            yield "running", at
        if runs(sighting, spec, index):
            yield f"step:{step.name}", at
    last = sighting.steps[-1] if sighting.steps else None
    if sighting.collect is not None and isinstance(last, Ended) and last.at is not None:
        yield "collecting", last.at


def runs(sighting: Sighting, spec: JobSpec, index: int) -> bool:
    """Whether the step's condition lets it run, after the ends of those before it."""
    before = sighting.steps[:index]
    has_failed = any(isinstance(state, Ended) and state.exit_code != 0 for state in before)
    match spec.steps[index].condition:
        case StepCondition.SUCCESS:
            return not has_failed
        case StepCondition.FAILURE:
            return has_failed
        case StepCondition.ALWAYS:
            return True


def placement_of(sighting: Sighting, spec: JobSpec, *, namespace: str) -> dict[str, str]:
    """Node and pod, and the digest of each image that a step named: the first as `image`, others by step."""
    if not sighting.has_pod or not sighting.node:
        return {}
    facts = {"node": sighting.node, "pod": f"{namespace}/{sighting.pod_name}"}
    first: str | None = None
    for index, step in enumerate(spec.steps):
        named, found = spec.image_of(step), sighting.images.get(step_container(index))
        if named is None or not found or len(facts) > _IMAGES_MAX:
            continue
        if first is None:
            first, facts["image"] = named, found
        elif named != first:
            facts[f"image:{step.name}"] = found
    return facts


def was_seen(sighting: Sighting) -> bool:
    """Whether a command of it ran: its first container was started, which is after the workspace was made."""
    first = sighting.steps[0] if sighting.steps else None
    return _began_at(first) is not None


def _began_at(state: object) -> float | None:
    match state:
        case Running(since=since):
            return since
        case Ended(began_at=began):
            return began
        case _:
            return None
