"""What was received within the last hour, by queue and tenant: one reading, some seconds old, for all who look."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from runyard.api.access import Call
from runyard.api.caching import Cache
from runyard.ledger.port import Ledger
from runyard.model.clock import Clock

SPAN_S = 3600.0
TTL_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Lately:
    """Resource seconds by (queue, tenant) within the last `span_s`: less than SPAN_S where too much ended in that."""

    span_s: float
    by_share: Mapping[tuple[str, str], float]

    @property
    def words(self) -> str:
        """The span as people say it."""
        if self.span_s >= SPAN_S:
            return "the last hour"
        return (
            f"the last {self.span_s / 60:.0f} min" if self.span_s >= 90 else f"the last {self.span_s:.0f} s"
        )

    def by_queue(self) -> Mapping[str, float]:
        sums: dict[str, float] = {}
        for (queue, _), seconds in self.by_share.items():
            sums[queue] = sums.get(queue, 0.0) + seconds
        return sums

    def by_tenant(self, queue: str) -> Mapping[str, float]:
        return {tenant: seconds for (name, tenant), seconds in self.by_share.items() if name == queue}

    def queues_of(self, tenant: str) -> tuple[str, ...]:
        return tuple(
            sorted(
                queue for (queue, name), seconds in self.by_share.items() if name == tenant and seconds > 0
            )
        )


class LatelyReader:
    """Reads it at most once in TTL_S: a reading may cost a tenth of a second of the database's time."""

    def __init__(self, ledger: Ledger, *, clock: Clock) -> None:
        self._ledger = ledger
        self._known = Cache[None, Lately](self._read, clock=clock, ttl_s=TTL_S)

    async def read(self) -> Lately:
        return await self._known.get(None)

    async def _read(self, _: None) -> Lately:
        now = await self._ledger.now()
        received = await self._ledger.read_received(since=now - SPAN_S, now=now)
        return Lately(span_s=now - received.since, by_share=received.by_share)


async def received_lately(call: Call) -> Lately:
    reader: LatelyReader = call.request.app.state.lately
    return await reader.read()
