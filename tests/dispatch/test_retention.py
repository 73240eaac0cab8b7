"""What is old or too much goes, oldest first, never of an unfinished job."""

from __future__ import annotations

from pathlib import Path

from runyard.dispatch.retention import Keep, Retention, Store
from runyard.logs.files import FileLogStore
from runyard.logs.layout import attempt_directory
from runyard.model.attempt import AttemptKey
from runyard.model.job import JobState
from runyard.model.machine import MachineState, machine_name
from runyard.model.outcome import succeeded
from tests.dispatch.conftest import Yard

DAY_S = 86_400.0


class Shelf:
    """A store of a known size for each attempt."""

    def __init__(self, keys: list[AttemptKey], size: int = 100) -> None:
        self.kept = dict.fromkeys(keys, size)

    async def delete(self, key: AttemptKey) -> None:
        self.kept.pop(key, None)

    async def delete_job(self, uid: str) -> None:
        self.kept = {key: size for key, size in self.kept.items() if key.uid != uid}

    async def size_bytes(self) -> int:
        return sum(self.kept.values())


async def finished(yard: Yard, count: int) -> list[AttemptKey]:
    """Jobs that ended one after the other, oldest first."""
    keys = []
    for _ in range(count):
        uid = await yard.submit()
        key = await yard.place_of(uid)
        yard.world.end(key, succeeded())
        await yard.reaches(uid, JobState.SUCCEEDED)
        yard.clock.time += 0.01
        keys.append(key)
    return keys


def retention(yard: Yard, logs: Store, artifacts: Store, **keep: float) -> Retention:
    kept = Keep(**{"jobs_s": 90 * DAY_S, "logs_s": 30 * DAY_S, "artifacts_s": 30 * DAY_S, **keep})  # type: ignore[arg-type]
    return Retention(kept, ledger=yard.ledger, logs=logs, artifacts=artifacts)


async def test_logs_older_than_kept_go_and_are_known_to_be_gone(yard: Yard) -> None:
    yard.start_owner()
    (key,) = await finished(yard, 1)
    logs = Shelf([key])
    sweeper = retention(yard, logs, Shelf([key], 0))
    await sweeper.sweep()
    assert logs.kept
    yard.clock.time += 31 * DAY_S
    await sweeper.sweep()
    assert not logs.kept
    assert await yard.ledger.is_logs_deleted(key)


async def test_beyond_the_bytes_the_oldest_go_first(yard: Yard) -> None:
    yard.start_owner()
    keys = await finished(yard, 30)
    logs = Shelf(keys)
    await retention(yard, logs, Shelf(keys, 0), logs_bytes_max=1_500).sweep()
    assert set(logs.kept) <= set(keys[20:])


async def test_an_unfinished_jobs_log_is_never_swept(yard: Yard) -> None:
    yard.start_owner()
    uid = await yard.submit()
    key = await yard.place_of(uid)
    await yard.reaches(uid, JobState.RUNNING)
    logs = Shelf([key])
    yard.clock.time += 400 * DAY_S
    await retention(yard, logs, Shelf([]), logs_bytes_max=1).sweep()
    assert logs.kept


async def test_old_jobs_go_with_all_that_is_theirs(yard: Yard) -> None:
    yard.start_owner()
    (key,) = await finished(yard, 1)
    logs, artifacts = Shelf([key]), Shelf([key])
    yard.clock.time += 91 * DAY_S
    await retention(yard, logs, artifacts).sweep()
    assert await yard.ledger.get_job(key.uid) is None
    assert not logs.kept
    assert not artifacts.kept
    assert await yard.ledger.list_events(after=0, limit=10) == []


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_of_a_forgotten_job_no_folder_is_left(yard: Yard, tmp_path: Path) -> None:
    """Not even an empty one: there would be one for each job that ever was."""
    yard.start_owner()
    (key,) = await finished(yard, 1)
    attempt_directory(tmp_path, key.uid, key.number).mkdir(parents=True)
    logs = FileLogStore(tmp_path)
    yard.clock.time += 91 * DAY_S
    await retention(yard, logs, Shelf([key]), logs_bytes_max=1 << 30).sweep()
    logs.close()
    assert names_in(tmp_path) == []


async def test_rows_of_gone_machines_go_after_a_day_and_living_ones_stay(yard: Yard) -> None:
    fence = await yard.ledger.acquire_pool("local", owner="service-1", lease_s=1)
    assert fence is not None
    gone, living = (machine_name("installation", "local", number) for number in (1, 2))
    for name in (gone, living):
        await yard.ledger.intend_machine(fence, name, slots=1, facts={})
    await yard.ledger.change_machine(fence, gone, seen=MachineState.INTENDED, to=MachineState.GONE, facts={})
    for hours, names in ((23, [gone, living]), (2, [living])):
        yard.clock.time += hours * 3600
        await retention(yard, Shelf([]), Shelf([])).sweep()
        assert [one.name for one in await yard.ledger.list_machines("local", with_gone=True)] == names
