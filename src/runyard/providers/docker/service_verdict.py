"""From how a service ended to what that makes of the attempt. Pure: whoever adopts it comes to the same."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass

from runyard.model.job import JobSpec, Service
from runyard.model.outcome import Outcome, OutcomeKind
from runyard.providers.docker.client import Document
from runyard.providers.docker.verdict import Story, is_cut_short


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceEnd:
    """How one ended by itself: when, by the daemon's clock, and what is said of it."""

    at: float
    words: str


def is_to_blame(
    spec: JobSpec,
    outcome: Outcome,
    story: Story,
    *,
    ended_at: float | None,
    is_marked: bool,
    stopped_at: float | None,
) -> bool:
    """Whether a service that ended then, and not the steps, decided the attempt: the first failure does. `is_marked`:
    somebody who followed ended the steps for it. Where all ended with their daemon, nobody is to blame."""
    if outcome.kind is OutcomeKind.LOST:
        return is_marked
    if outcome.kind is OutcomeKind.CANCELED:
        if stopped_at is None:  # it was ours to stop the steps
            return is_marked or ended_at is not None
        return ended_at is not None and ended_at < stopped_at
    if outcome.kind is OutcomeKind.SUCCEEDED and is_marked and is_cut_short(spec, story):
        return True
    failed = [story.ended_at[index] for index, end in story.ended.items() if end.code or end.why != "-"]
    decided_at = min(failed) if failed else max(story.ended_at.values(), default=None)
    return ended_at is not None and decided_at is not None and ended_at < decided_at


def ready_ports(service: Service, exposed: Mapping[str, object]) -> tuple[int, ...]:
    """`exposed` is as an image's config has it: `5432/tcp`."""
    if service.ready_command:
        return ()
    if service.ready_port is not None:
        return (service.ready_port,)
    return tuple(sorted(int(each.split("/")[0]) for each in exposed if each.endswith("/tcp")))


def how_ended(state: Document) -> str:
    """Of a container's state as the daemon shows it."""
    code = int(state["ExitCode"])
    if state.get("OOMKilled"):
        return "was killed: it used more memory than it may"
    if 128 < code <= 128 + signal.NSIG:
        return f"was killed by signal {code - 128}"
    return f"ended with exit code {code}"
