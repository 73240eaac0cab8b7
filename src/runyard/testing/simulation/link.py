"""What stands between a simulated service and the ledger and the places: where it stops, and what goes wrong.

Every call of a service passes here, before it takes effect and after, so that a service can stop at each await that
matters, a reply can be lost and a ledger be gone.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

from runyard.model.errors import (
    InvalidRequest,
    LedgerUnavailable,
    NoCapacity,
    ProviderDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unreachable,
)
from runyard.testing.misbehaviour import Fault, Verb, lost_reply, lost_request, refusal
from runyard.testing.simulation.scenario import QUIET_AT_S, Outage, Rates, Stop
from runyard.testing.virtual_time import Process

LAGS_S = (0.05, 0.5, 3.0)

Note = Callable[[str, str, object], None]
"""(who, what, detail): one line of the trace."""


class Link:
    """One service's way to the outside, for one life of its process."""

    def __init__(
        self,
        process: Process,
        *,
        stops: list[Stop],
        outages: list[Outage],
        rates: Rates,
        dice: Random,
        on_stop: Callable[[Stop], None],
        note: Note,
    ) -> None:
        self._process = process
        self._stops = stops
        self._outages = outages
        self._rates = rates
        self._dice = dice
        self._on_stop = on_stop
        self._note = note
        self._calls: Counter[str | None] = Counter()
        self.is_closed = False

    # -- stopping -------------------------------------------------------------------------------------------------
    async def before(self, what: str) -> None:
        self._calls.update((None, what))
        await self._stop_here(what, is_after=False)

    async def after(self, what: str) -> None:
        await self._stop_here(what, is_after=True)

    async def _stop_here(self, what: str, *, is_after: bool) -> None:
        if self.is_closed:
            raise asyncio.CancelledError
        for stop in self._stops:
            is_here = stop.call in (None, what) and self._calls[stop.call] >= stop.at_call
            if is_here and stop.is_after == is_after and _now() < QUIET_AT_S:
                self._stops.remove(stop)
                self._note(self._process.name, "pauses" if stop.is_pause else "crashes", what)
                self._process.freeze()
                self._on_stop(stop)
                await asyncio.sleep(0)  # the next turn comes when it is thawed, or never
                break
        if self.is_closed:
            raise asyncio.CancelledError

    # -- the ledger -----------------------------------------------------------------------------------------------
    def is_cut_off(self) -> bool:
        return any(outage.begins <= _now() < outage.ends for outage in self._outages)

    def goes_wrong(self) -> str | None:
        """What happens to this call to the ledger."""
        if _now() >= QUIET_AT_S or self._dice.randrange(100) >= self._rates.ledger:
            return None
        return self._dice.choice(("refused", "reply lost", "slow there", "slow back"))

    def lag_s(self) -> float:
        return self._dice.choice(LAGS_S)

    # -- the places -----------------------------------------------------------------------------------------------
    def misbehave(self, verb: Verb, name: str) -> Fault | None:
        if _now() >= QUIET_AT_S or self._dice.randrange(100) >= self._rates.place:
            return None
        fault = self._draw(verb)
        self._note(self._process.name, f"{verb} {name}", fault)
        return fault

    def _draw(self, verb: Verb) -> Fault:
        dice = self._dice
        match dice.randrange(8):
            case 0:
                return lost_reply(Unreachable("the reply was lost"))
            case 1:
                return lost_request(Unreachable("no route"))
            case 2:
                return Fault(request_lag_s=dice.choice(LAGS_S), reply_lag_s=dice.choice(LAGS_S))
            case 3:
                return Fault(is_doubled=True, request_lag_s=dice.choice(LAGS_S))
            case 4 if verb is Verb.LIST:
                return Fault(forgets=dice.choice((0.5, 1.0)), admits=dice.random() < 0.5)
            case 6 if verb is not Verb.RUN:
                return Fault(hangs=True, reaches=dice.random() < 0.5)
            case 5 if verb is Verb.RUN:
                return refusal(_refusal(dice))
            case _:
                return lost_request(
                    Throttled("slow down", after_s=1.0) if verb is not Verb.RUN else Unreachable("?")
                )


def _refusal(dice: Random) -> ProviderError:
    kinds: tuple[ProviderError, ...] = (
        NoCapacity("nothing free"),
        QuotaExceeded("the quota is used up"),
        Throttled("slow down", after_s=1.0),
        ProviderDenied("the key expired"),
        InvalidRequest("no such shape"),
    )
    return dice.choices(kinds, weights=(8, 4, 4, 2, 1))[0]


def _now() -> float:
    return asyncio.get_running_loop().time()


class LinkedLedger:
    """The ledger as a service sees it through its link. Stands in for the port by name, method by method."""

    def __init__(
        self, ledger: Any, link: Link, *, checked: Callable[[str, tuple[Any, ...], Any], None]
    ) -> None:
        self._ledger = ledger
        self._link = link
        self._checked = checked
        self.subscribe = ledger.subscribe

    def __getattr__(self, name: str) -> Any:
        method, link, checked = getattr(self._ledger, name), self._link, self._checked

        async def call(*args: Any, **kwargs: Any) -> Any:
            await link.before(name)
            wrong = link.goes_wrong()
            if wrong == "refused" or link.is_cut_off():
                raise LedgerUnavailable("the ledger does not answer", cure="wait")
            if wrong == "slow there":
                await asyncio.sleep(link.lag_s())
            result = await method(*args, **kwargs)
            checked(name, args, result)
            if wrong == "slow back":
                await asyncio.sleep(link.lag_s())
            await link.after(name)
            if wrong == "reply lost":
                raise LedgerUnavailable("the ledger's answer was lost", cure="repeat")
            return result

        self.__dict__[name] = call
        return call


class LinkedProvider:
    """A provider as a service sees it: each verb can be where the service stops."""

    _VERBS = frozenset(verb.value for verb in Verb) | {"check"}

    def __init__(self, provider: Any, link: Link) -> None:
        self._provider = provider
        self._link = link

    def __getattr__(self, name: str) -> Any:
        attribute, link = getattr(self._provider, name), self._link
        if name not in self._VERBS:
            return attribute

        async def call(*args: Any, **kwargs: Any) -> Any:
            await link.before(name)
            result = await attribute(*args, **kwargs)
            await link.after(name)
            return result

        self.__dict__[name] = call
        return call
