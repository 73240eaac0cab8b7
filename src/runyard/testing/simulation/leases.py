"""Who may write for a pool: the holder of its epoch, and nobody takes it while another's lease lasts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from runyard.ledger.port import ClaimRequest
from runyard.model.pool import Fence
from runyard.testing.simulation.snapshot import PoolRow, Snapshot

STATES = frozenset({"set_availability", "set_pool_health", "renew_pool"})
"""Writes of an owner about its pool alone."""

OF_MACHINES = frozenset({"contact_machine", "report_attempt", "take_attempt", "drop_attempt"})
"""What machines write in their own rows. Many, and no job or attempt changes by them."""

FENCED = STATES | {"claim", "settle", "record_phases", "finish_operation"}


class Leases:
    """Sees every call to the ledger, in the order of commit."""

    def __init__(self) -> None:
        self._holders: dict[tuple[str, int], str] = {}

    def taken(
        self, who: str, args: tuple[Any, ...], result: object, *, before: Mapping[str, PoolRow], now: float
    ) -> Iterator[str]:
        """After an `acquire_pool`. `before`: the pools as they stood, `now`: the ledger's clock. An owner's name is
        that of its service; that of a caretaker says so."""
        if not isinstance(result, Fence):
            return
        self._holders[result.pool, result.epoch] = who
        row = before.get(result.pool)
        if row is None or row.owner is None or row.lease_until is None or row.lease_until <= now:
            return
        name = who.partition(".")[0]
        if row.owner not in (name, f"{name}/caretaker"):
            yield f"{who} took {result.pool} while the lease of {row.owner} lasts"

    def broken(self, before: Snapshot, after: Snapshot, who: str, call: str, first: object) -> Iterator[str]:
        """After any call whose first argument is `first`."""
        if call not in FENCED:
            return
        fence = first.fence if isinstance(first, ClaimRequest) else first
        assert isinstance(fence, Fence)
        row = after.pools.get(fence.pool)
        if row is None:
            yield f"{who} wrote by {call} for {fence.pool}, which was given up"
            return
        holder = self._holders.get((row.name, row.epoch))
        if holder != who:
            yield f"{who} wrote by {call} while epoch {row.epoch} of {row.name} is {holder}'s"
        for name in after.attempts.keys() - before.attempts.keys():
            attempt = after.attempts[name]
            if (attempt.pool, attempt.epoch) != (row.name, row.epoch):
                yield f"{name} was claimed for {attempt.pool} at an epoch that is over"
