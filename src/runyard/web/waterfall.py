"""Where an attempt's time went: from its recorded phases to bars on one scale. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runyard.model.attempt import Attempt
from runyard.model.job import Job

WIDTH = 1000.0
_NAMES = {
    "preparing": "place prepared",
    "workspace": "workspace",
    "image": "image",
    "cache": "caches",
    "services": "services",
    "running": "started",
    "collecting": "collect",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One phase. `left` and `width` are parts of WIDTH; `end` None: it goes on."""

    name: str
    begin: float
    end: float | None
    left: float
    width: float

    @property
    def lasted_s(self) -> float | None:
        return None if self.end is None else self.end - self.begin


def bars_of(job: Job, attempts: Sequence[Attempt], attempt: Attempt, *, now: float) -> tuple[Bar, ...]:
    """From the moment the job became queued for this attempt to its end (`now` while it goes on)."""
    before = [one for one in attempts if one.key.number < attempt.key.number and one.ended_at is not None]
    queued_at = before[-1].ended_at if before else job.submitted_at
    assert queued_at is not None
    moments = [(queued_at, "queued"), (attempt.claimed_at, "claimed"), *phases_of(attempt)]
    last = attempt.ended_at if attempt.ended_at is not None else max(now, moments[-1][0])
    scale = WIDTH / max(last - queued_at, 1e-9)
    bars = []
    for index, (begin, name) in enumerate(moments):
        following = moments[index + 1][0] if index + 1 < len(moments) else None
        end = following if following is not None else attempt.ended_at
        width = ((end if end is not None else last) - begin) * scale
        bars.append(
            Bar(name=name, begin=begin, end=end, left=(begin - queued_at) * scale, width=max(width, 1.5))
        )
    return tuple(bars)


def phases_of(attempt: Attempt) -> list[tuple[float, str]]:
    """The phases in order. `running` and the first step begin at once: the step says more."""
    phases = {name: at for name, at in attempt.phases.items() if at >= attempt.claimed_at}
    if any(name.startswith("step:") for name in phases):
        phases.pop("running", None)
    return sorted((at, _NAMES.get(name, name.removeprefix("step:"))) for name, at in phases.items())
