"""Where the pools of a history have their places: one world for each, and what attempts leave behind for good."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from runyard.model.attempt import AttemptKey
from runyard.model.outcome import Outcome
from runyard.providers.port import AttemptRequest
from runyard.testing.plays import Play
from runyard.testing.scripted_world import World
from runyard.testing.simulation.fleet import Fleet


class Sites:
    """Looks at all worlds at once: an attempt may be started in one of them only, whichever it is."""

    def __init__(
        self,
        pools: Iterable[str],
        *,
        fleets: Mapping[str, Fleet],
        now: Callable[[], float],
        script: Callable[[AttemptRequest], Play],
    ) -> None:
        self.worlds = {pool: World(now=now, script=script) for pool in pools}
        self.fleets = fleets
        self.by_pool: dict[str, World | Fleet] = {**self.worlds, **fleets}

    def starts(self, name: str) -> int:
        return sum(world.starts.get(name, 0) for world in self.by_pool.values())

    def end_of(self, name: str) -> Outcome | None:
        ends = [world.ends.get(name) for world in self.worlds.values()]
        return next((end for end in ends + [one.end_of(name) for one in self.fleets.values()] if end), None)

    def is_running(self, name: str) -> bool:
        places = [world.places[name] for world in self.worlds.values() if name in world.places]
        is_in_place = any(place.starts and place.is_running for place in places)
        return is_in_place or any(fleet.is_running(name) for fleet in self.fleets.values())

    def running(self, uid: str) -> list[str]:
        """The names of all places where an attempt of this job runs."""
        names = [key.resource_name for world in self.worlds.values() for key in world.running]
        names += [name for fleet in self.fleets.values() for name in fleet.running()]
        return [name for name in names if name.startswith(f"runyard-{uid}-")]

    @property
    def left(self) -> list[str]:
        names = [name for world in self.worlds.values() for name in world.places]
        return sorted(names + [name for fleet in self.fleets.values() for name in fleet.left])


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

    async def delete_job(self, uid: str) -> None:
        for key in [key for key in self.kept if key.uid == uid]:
            await self.delete(key)

    async def size_bytes(self) -> int:
        return len(self.kept)
