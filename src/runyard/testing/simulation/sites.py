"""Where the pools of a history have their places: one world for each, and what attempts leave behind for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from runyard.model.attempt import AttemptKey
from runyard.model.outcome import Outcome
from runyard.providers.port import AttemptRequest
from runyard.testing.plays import Play
from runyard.testing.scripted_world import Place, World


class Sites:
    """Looks at all worlds at once: an attempt may be started in one of them only, whichever it is."""

    def __init__(
        self, pools: Iterable[str], *, now: Callable[[], float], script: Callable[[AttemptRequest], Play]
    ) -> None:
        self.by_pool = {pool: World(now=now, script=script) for pool in pools}

    def starts(self, name: str) -> int:
        return sum(world.starts.get(name, 0) for world in self.by_pool.values())

    def end_of(self, name: str) -> Outcome | None:
        return next((world.ends[name] for world in self.by_pool.values() if name in world.ends), None)

    def place_of(self, name: str) -> Place | None:
        return next((world.places[name] for world in self.by_pool.values() if name in world.places), None)

    def running(self, uid: str) -> list[str]:
        """The names of all places where an attempt of this job runs."""
        return [
            key.resource_name for world in self.by_pool.values() for key in world.running if key.uid == uid
        ]

    @property
    def left(self) -> list[str]:
        return sorted(name for world in self.by_pool.values() for name in world.places)


class KeptStore:
    """The logs, or the artifacts, of all attempts: a set of names. Shared by the services, as folders or buckets are.
    Each counts as one byte."""

    def __init__(self, *, on_delete: Callable[[AttemptKey], None]) -> None:
        self.kept: dict[AttemptKey, None] = {}
        self._on_delete = on_delete

    def keep(self, key: AttemptKey) -> None:
        self.kept[key] = None

    async def delete(self, key: AttemptKey) -> None:
        """Deleting what is not there is fine."""
        if key in self.kept:
            self._on_delete(key)
            del self.kept[key]

    async def size_bytes(self) -> int:
        return len(self.kept)
