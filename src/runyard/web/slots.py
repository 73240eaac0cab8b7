"""What a pool's slots hold, and counts that never disagree with the list that is shown beside them. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runyard.model.attempt import Attempt, AttemptState
from runyard.model.job import Job


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """One that is in use: the job, its attempt, and since when it is busy with what it is busy with."""

    job: Job
    attempt: Attempt

    @property
    def doing(self) -> str:
        if self.attempt.progress is not None:
            return self.attempt.progress.text
        return (
            max(self.attempt.phases.items(), key=lambda item: item[1])[0]
            if self.attempt.phases
            else "claimed"
        )

    @property
    def since(self) -> float:
        return max([self.attempt.claimed_at, *self.attempt.phases.values()])


def slots_of(jobs: Sequence[Job], attempts: Sequence[Attempt]) -> tuple[Slot, ...]:
    """In order of slot. A job whose attempt has ended since is left out."""
    by_key = {attempt.key: attempt for attempt in attempts if attempt.state is not AttemptState.ENDED}
    by_job = {key.uid: attempt for key, attempt in by_key.items()}
    found = [Slot(job=job, attempt=by_job[job.uid]) for job in jobs if job.uid in by_job]
    return tuple(sorted(found, key=lambda slot: slot.attempt.slot))


def counted(listed: Sequence[object], counter: int, *, is_whole: bool) -> int:
    """How many there are. The counter was read a moment before or after the list: where the list is whole it is the
    list that is said, and where it is not, never less than what is seen of it and one more."""
    return len(listed) if is_whole else max(counter, len(listed) + 1)
