"""The places of the scripted provider: a dictionary that outlives the provider objects, as real places outlive the
service. What happens in it happens whether anybody watches or not.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from runyard.model.attempt import AttemptKey
from runyard.model.errors import Unreachable
from runyard.model.outcome import Outcome, lost
from runyard.providers.port import AttemptRequest, Resource
from runyard.testing.plays import CANCELED, NEVER_STARTED, Play
from runyard.testing.virtual_time import call_outside


@dataclass(slots=True)
class Place:
    """Where one attempt runs. `starts` counts how often its command really began: more than once breaks the promise.
    `request` is None for the mark of a stop that came before the start."""

    request: AttemptRequest | None
    created_at: float
    starts: int = 0
    started_at: float = 0.0
    outcome: Outcome | None = None
    is_told: bool = False
    play: Play = field(default_factory=Play)
    watching: list[asyncio.Future[None]] = field(default_factory=list)

    @property
    def is_running(self) -> bool:
        return self.outcome is None


class World:
    """All places there are. `now` is its own clock (epoch seconds); `script` says what a command does; ends are told
    `outcome_lag_s` late; `starts` and `ends` remember what was destroyed too; listings show what was `listing_lag_s`
    ago; `on_start` and `on_destroy` look on."""

    def __init__(
        self,
        *,
        now: Callable[[], float] = lambda: 1.0,
        script: Callable[[AttemptRequest], Play] = lambda request: Play(),
    ) -> None:
        self.now = now
        self.script = script
        self.places: dict[str, Place] = {}
        self.starts: dict[str, int] = defaultdict(int)
        self.ends: dict[str, Outcome] = {}
        self.started = asyncio.Event()
        self.outcome_lag_s = 0.0
        self.listing_lag_s = 0.0
        self.on_start: Callable[[str], None] = lambda name: None
        self.on_destroy: Callable[[str, Place], None] = lambda name, place: None
        self.is_gone = False
        self._gone: dict[str, tuple[Resource, float]] = {}

    @property
    def running(self) -> list[AttemptKey]:
        return [
            place.request.key
            for place in self.places.values()
            if place.request is not None and place.is_running
        ]

    # -- what providers ask ---------------------------------------------------------------------------------------
    def run(self, request: AttemptRequest) -> Place:
        """The attempt's place, made and started unless it is there already: idempotent by name."""
        self._need_there()
        name = request.key.resource_name
        place = self.places.get(name)
        if place is None:
            place = Place(request=request, created_at=self.now(), play=self.script(request))
            self.places[name] = place
        if place.is_running and not place.starts:
            self._start(name, place)
        return place

    def stop(self, key: AttemptKey, *, grace_s: float) -> None:
        self._need_there()
        place = self.places.get(key.resource_name)
        if place is None:
            self.places[key.resource_name] = Place(
                request=None, created_at=self.now(), outcome=NEVER_STARTED, is_told=True
            )
        elif place.is_running and place.play.ignores_term:
            call_outside(grace_s, self._end_if_running, key.resource_name, place, CANCELED)
        elif place.is_running:
            self.end(key, CANCELED)

    def destroy(self, name: str) -> None:
        self._need_there()
        place = self.places.pop(name, None)
        if place is None:
            return
        self.on_destroy(name, place)
        self._gone[name] = (_resource(name, place), self.now())
        for watcher in place.watching:
            if not watcher.done():
                watcher.set_result(None)

    def list(self) -> tuple[Resource, ...]:
        """As it was `listing_lag_s` ago."""
        self._need_there()
        seen_at = self.now() - self.listing_lag_s
        listed = [
            _resource(name, place) for name, place in self.places.items() if place.created_at <= seen_at
        ]
        if self.listing_lag_s:
            listed += [resource for resource, gone_at in self._gone.values() if gone_at > seen_at]
        return tuple(listed)

    # -- what happens by itself -----------------------------------------------------------------------------------
    def end(self, key: AttemptKey, outcome: Outcome) -> None:
        """The attempt's command ends, whether anybody watches or not."""
        self._end_if_running(key.resource_name, self.places[key.resource_name], outcome)

    def reboot(self) -> None:
        """All that runs dies without a word to who listens; who asks again is told."""
        for name, place in self.places.items():
            if place.is_running:
                place.outcome = self.ends[name] = lost("its host died", was_seen=place.starts > 0)
                place.is_told = True
                place.watching.clear()

    def perish(self) -> None:
        """The whole site dies and never comes back: nobody there answers any more."""
        self.reboot()
        self.places.clear()
        self.is_gone = True

    def _need_there(self) -> None:
        if self.is_gone:
            raise Unreachable("nobody is there any more")

    def _start(self, name: str, place: Place) -> None:
        assert place.request is not None
        place.starts += 1
        place.started_at = self.now()
        self.starts[name] += 1
        self.started.set()
        self.on_start(name)
        for after_s, outcome in place.play.ends(place.request):
            call_outside(after_s, self._end_if_running, name, place, outcome)

    def _end_if_running(self, name: str, place: Place, outcome: Outcome) -> None:
        if not place.is_running or self.places.get(name) is not place:
            return
        place.outcome = outcome
        self.ends[name] = outcome
        if self.outcome_lag_s:
            call_outside(self.outcome_lag_s, _tell, place)
        else:
            _tell(place)


def _tell(place: Place) -> None:
    place.is_told = True
    for watcher in place.watching:
        if not watcher.done():
            watcher.set_result(None)
    place.watching.clear()


def _resource(name: str, place: Place) -> Resource:
    return Resource(name=name, created_at=place.created_at, is_running=place.is_running)
