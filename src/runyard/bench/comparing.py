"""Two series taken in turns, and what may be said of them. On a shared machine only ratios of the same minute hold."""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

Measure = Callable[[], Awaitable[float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """`reference` and `subject` in seconds (or per second for a rate), in the order they were taken."""

    name: str
    reference_name: str
    reference: tuple[float, ...]
    subject: tuple[float, ...]
    goal: str
    is_met: bool
    measured: str
    note: str = ""

    def row(self) -> dict[str, object]:
        """For `--json` and for docs/performance.md."""
        return {
            "what": self.name,
            "reference": self.reference_name,
            "reference_p50": median(self.reference),
            "subject_p50": median(self.subject),
            "samples": len(self.subject),
            "measured": self.measured,
            "goal": self.goal,
            "met": self.is_met,
            "note": self.note,
        }


async def in_turns(
    reference: Measure, subject: Measure, *, rounds: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Both series, one measurement of each by turns, so that a slow minute meets both. The first round warms up."""
    first: list[float] = []
    second: list[float] = []
    for _ in range(rounds + 1):
        first.append(await reference())
        second.append(await subject())
    return tuple(first[1:]), tuple(second[1:])


def median(series: tuple[float, ...]) -> float:
    return statistics.median(series)


def percentile(series: tuple[float, ...], share: float) -> float:
    """The value below which `share` (0..1) of the series lies, by the nearest rank."""
    ordered = sorted(series)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def compare_ratio(
    name: str,
    reference_name: str,
    series: tuple[tuple[float, ...], tuple[float, ...]],
    *,
    bound: float,
    kind: Literal["at most", "at least"] = "at most",
    note: str = "",
) -> Comparison:
    """Median against median, as a ratio that should be at most (a time) or at least (a rate) `bound`."""
    reference, subject = series
    ratio = median(subject) / median(reference)
    is_met = ratio <= bound if kind == "at most" else ratio >= bound
    unit = milliseconds if kind == "at most" else per_second
    return Comparison(
        name=name,
        reference_name=reference_name,
        reference=reference,
        subject=subject,
        goal=f"{kind} {bound:g} x",
        is_met=is_met,
        measured=f"{unit(median(subject))} against {unit(median(reference))}: {ratio:.2f} x",
        note=note,
    )


def compare_difference(
    name: str,
    reference_name: str,
    series: tuple[tuple[float, ...], tuple[float, ...]],
    *,
    p50_s: float,
    p95_s: float | None = None,
    note: str = "",
) -> Comparison:
    """What the subject adds to the reference, at the median and at the 95th percentile (None: no goal), in seconds."""
    reference, subject = series
    at_p50 = median(subject) - median(reference)
    at_p95 = percentile(subject, 0.95) - percentile(reference, 0.95)
    goal_at_p95 = "" if p95_s is None else f", + {milliseconds(p95_s)} at p95"
    return Comparison(
        name=name,
        reference_name=reference_name,
        reference=reference,
        subject=subject,
        goal=f"at most + {milliseconds(p50_s)} at p50{goal_at_p95}",
        is_met=at_p50 <= p50_s and (p95_s is None or at_p95 <= p95_s),
        measured=f"{milliseconds(median(subject))} against {milliseconds(median(reference))}: "
        f"{_signed(at_p50)} at p50, {_signed(at_p95)} at p95",
        note=note,
    )


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"


def _signed(seconds: float) -> str:
    return f"{'-' if seconds < 0 else '+'} {milliseconds(abs(seconds))}"


def per_second(rate: float) -> str:
    return f"{rate:.0f}/s"
