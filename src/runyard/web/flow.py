"""The flow of the last hours, from the ledger's history to the series that the pages draw: of everything on the
overview, of one queue or pool on its page.

Figures are sums over all tenants, as /queues shows them to everybody who may read. One reading serves all who look:
what is drawn changes once in a bucket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from starlette.datastructures import QueryParams
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from runyard.api.caching import Cache
from runyard.api.services import ApiContext
from runyard.model.errors import Invalid
from runyard.model.history import ALL, BUCKET_S, SIGN_OF_LIFE_S, HistorySum, Subject
from runyard.model.outcome import OutcomeKind
from runyard.web.page import Address
from runyard.web.rendering import SECURITY_HEADERS
from runyard.web.session import call_of
from runyard.wire.job_document import NAME_PATTERN, SHAPES

GAUGES = ("queued", "starting", "running")
OUTCOMES = tuple(kind.value for kind in OutcomeKind)
START_PHASES = {
    "claimed": "claimed",
    "preparing": "place prepared",
    "workspace": "workspace",
    "image": "image",
    "cache": "caches",
    "services": "services",
}
"""What a start is made of, in its order, and how people call it."""

Chart = tuple[str, str, tuple[tuple[str, str], ...]]
"""Its key, its title, and its series by name and word."""

_JOBS: Chart = ("jobs", "Queued and running", tuple((name, name) for name in GAUGES))
_SLOTS: Chart = ("jobs", "Starting and running", tuple((name, name) for name in ("starting", "running")))
_STARTS: Chart = ("starts", "Time to start, by phase", tuple(START_PHASES.items()))
_ENDS: Chart = ("ends", "Ends by outcome", tuple((name, name.replace("_", " ")) for name in OUTCOMES))

TTL_S = 5.0
_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True, slots=True)
class Range:
    """How far back, and how much time one point stands for."""

    name: str
    span_s: int
    step_s: int


@dataclass(frozen=True, slots=True)
class Scene:
    """Whose flow it is: of all, or of one queue or pool."""

    subject: Subject | None = None
    name: str = ALL

    @property
    def page(self) -> str:
        return "/" if self.subject is None else f"/{self.subject.value}s/{self.name}"

    @property
    def charts(self) -> tuple[Chart, ...]:
        """A start belongs to a place: its phases are counted by pool alone."""
        match self.subject:
            case None:
                return (_JOBS, _STARTS, _ENDS)
            case Subject.QUEUE:
                return (_JOBS, _ENDS)
            case Subject.POOL:
                return (_SLOTS, _STARTS, _ENDS)

    def address(self, chosen: Range) -> str:
        whose = "" if self.subject is None else f"{self.subject.value}={self.name}&"
        return f"/flow?{whose}range={chosen.name}"


EVERYTHING = Scene()

RANGES = {one.name: one for one in (Range("1h", 3600, 15), Range("6h", 21600, 60), Range("24h", 86400, 300))}
DEFAULT_RANGE = "1h"

Series = Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A point each `step_s` from `at[0]` on, the last one still growing. None in `gauges`: nobody looked; in `phases`
    (mean seconds by phase of the start): no attempt ended. `outcomes` counts ends."""

    step_s: int
    at: Sequence[int]
    gauges: Mapping[str, Series]
    phases: Mapping[str, Series]
    outcomes: Mapping[str, Series]

    @property
    def is_empty(self) -> bool:
        """Whether nothing ever waited, ran or ended."""
        series = (*self.gauges.values(), *self.outcomes.values())
        return not any(value for one in series for value in one)

    def document(self, *, after: int) -> dict[str, Any]:
        """The points from `after` on: the last one that was seen comes again, since it may have grown."""
        first = next((index for index, at in enumerate(self.at) if at >= after), len(self.at))

        def rest(series: Mapping[str, Series]) -> dict[str, Series]:
            return {name: values[first:] for name, values in series.items()}

        return {
            "step_s": self.step_s,
            "is_empty": self.is_empty,
            "at": self.at[first:],
            "gauges": rest(self.gauges),
            "phases": rest(self.phases),
            "outcomes": rest(self.outcomes),
        }


class FlowReader:
    """Answers /flow, from a reading that is at most TTL_S old."""

    def __init__(self, context: ApiContext) -> None:
        self._ledger = context.services.ledger
        self._flows = Cache[tuple[Scene, str], Flow](self._read, clock=context.services.clock, ttl_s=TTL_S)

    async def answer(self, request: Request) -> Response:
        """`queue` or `pool`: whose; `range` by name; `after`: the newest point that is known. Raises Unauthenticated,
        Invalid."""
        await call_of(request)
        query = request.query_params
        chosen = range_of(query.get("range"))
        after = query.get("after", "0")
        if not (after.isascii() and after.isdecimal() and len(after) < 16):
            raise Invalid(f"after {after[:20]!r} is no moment", field="after", cure="give seconds since 1970")
        flow = await self._flows.get((scene_of(query), chosen.name))
        return JSONResponse(flow.document(after=int(after)), 200, SECURITY_HEADERS)

    async def _read(self, key: tuple[Scene, str]) -> Flow:
        scene, chosen = key[0], RANGES[key[1]]
        step_s = chosen.step_s
        end = (int(await self._ledger.now()) // step_s + 1) * step_s
        begin = end - chosen.span_s
        before = begin - step_s  # a zero of then may hold on
        read = partial(self._ledger.read_history, begin=before, end=end, step_s=step_s)
        of_all = await read(Subject.QUEUE, ALL)
        if scene.subject is None:
            counts = await read(Subject.POOL, ALL)
            return flow_of(of_all, counts, begin=begin, end=end, step_s=step_s)
        own = await read(scene.subject, scene.name)
        return flow_of(own, own, begin=begin, end=end, step_s=step_s, signs_of_life=of_all)


def flow_values(address: Address, scene: Scene = EVERYTHING) -> dict[str, Any]:
    """What a template needs of it; the figures themselves come with /flow. Raises Invalid."""
    chosen = range_of(address.query.get("range"))
    return {
        "range": chosen.name,
        "ranges": tuple(RANGES),
        "flow_page": scene.page,
        "flow_address": scene.address(chosen),
        "flow_charts": scene.charts,
    }


def scene_of(query: QueryParams) -> Scene:
    """Raises Invalid."""
    for subject in Subject:
        name = query.get(subject.value)
        if name is not None:
            if not _NAME.fullmatch(name):
                rule = SHAPES[NAME_PATTERN].rule
                raise Invalid(f"{subject.value} {name[:80]!r} is no name", field=subject.value, cure=rule)
            return Scene(subject, name)
    return EVERYTHING


def range_of(name: str | None) -> Range:
    """Raises Invalid."""
    chosen = RANGES.get(name or DEFAULT_RANGE)
    if chosen is None:
        raise Invalid(
            f"range {(name or '')[:20]!r} is not known", field="range", cure=f"one of {', '.join(RANGES)}"
        )
    return chosen


def flow_of(
    gauges: Sequence[HistorySum],
    counts: Sequence[HistorySum],
    *,
    begin: int,
    end: int,
    step_s: int,
    signs_of_life: Sequence[HistorySum] | None = None,
) -> Flow:
    """Series from the sums that were written. `signs_of_life`: the gauges of all queues, where `gauges` are of one
    queue or pool, which are written only while they are not zero. Pure."""
    at = range(begin, end, step_s)
    highest = _highest_of(gauges)
    sums = {(one.figure, one.at): one for one in counts}
    if signs_of_life is None:
        series = {name: _gauge(name, highest, at) for name in GAUGES}
    else:
        alive = _gauge("queued", _highest_of(signs_of_life), at)
        series = {name: _own_gauge(name, highest, alive, at) for name in GAUGES}
    return Flow(
        step_s=step_s,
        at=list(at),
        gauges=series,
        phases={name: [_mean(sums.get((f"phase:{name}", t))) for t in at] for name in START_PHASES},
        outcomes={name: [_amount(sums.get((f"outcome:{name}", t))) for t in at] for name in OUTCOMES},
    )


def _highest_of(sums: Sequence[HistorySum]) -> Mapping[tuple[str, int], float]:
    return {(one.figure, one.at): one.highest for one in sums}


def _own_gauge(name: str, highest: Mapping[tuple[str, int], float], alive: Series, at: range) -> Series:
    """Where it was not written it was zero, if anything was; else nobody looked."""
    return [highest.get((name, t), None if sign is None else 0.0) for t, sign in zip(at, alive, strict=True)]


def _gauge(name: str, highest: Mapping[tuple[str, int], float], at: range) -> Series:
    """Zero is written once and then now and then: it holds until the next sign of life. After anything else a missing
    bucket means that nobody wrote. The newest bucket is not there yet."""
    values: list[float | None] = []
    zero_until = -1
    for t in range(at.start - at.step, at.stop, at.step):
        value = highest.get((name, t))
        if value == 0:
            zero_until = t + SIGN_OF_LIFE_S + BUCKET_S
        elif value is not None:
            zero_until = -1
        elif t <= zero_until:
            value = 0.0
        values.append(value)
    return values[1:]


def _mean(one: HistorySum | None) -> float | None:
    return one.seconds / one.amount if one is not None and one.amount else None


def _amount(one: HistorySum | None) -> float:
    return one.amount if one is not None else 0.0
