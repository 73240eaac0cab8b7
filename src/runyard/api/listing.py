"""From the query of a listing to the ledger's filter, and what its rows say beyond the jobs themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from runyard.ledger.port import JobFilter, Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Invalid
from runyard.model.job import Job, JobState

LABELS_MAX = 20
READS_AT_ONCE = 50


def job_filter(
    tenants: tuple[str, ...] | None,
    *,
    queue: str | None,
    states: Sequence[str] | None,
    labels: Sequence[str] | None,
    pool: str | None,
    text: str | None,
) -> JobFilter:
    return JobFilter(
        queue=queue,
        states=tuple(JobState(state) for state in states or ()),
        tenants=tenants,
        labels=_label_map(labels or ()),
        pool=pool,
        text=text,
    )


def _label_map(labels: Sequence[str]) -> dict[str, str]:
    if len(labels) > LABELS_MAX:
        raise Invalid(
            f"label: {len(labels)} are more than {LABELS_MAX}", field="label", cure="ask for fewer labels"
        )
    pairs = [label.partition("=") for label in labels]
    wrong = next((key for key, separator, _ in pairs if not separator or not key), None)
    if wrong is not None:
        raise Invalid(
            f"label: {wrong[:100]!r} is no key=value", field="label", cure="write it like team=search"
        )
    return {key: value for key, _, value in pairs}


async def exit_codes_of(ledger: Ledger, jobs: Sequence[Job]) -> dict[str, int | None]:
    """By uid, of the final ones: that of the newest attempt. Success is 0 by contract, so only what ended otherwise is
    read, some 0.1 ms a job."""
    codes: dict[str, int | None] = {job.uid: 0 for job in jobs if job.state is JobState.SUCCEEDED}
    unknown = [job for job in jobs if job.state.is_final and job.attempts and job.uid not in codes]
    for begin in range(0, len(unknown), READS_AT_ONCE):
        keys = [AttemptKey(job.uid, job.attempts) for job in unknown[begin : begin + READS_AT_ONCE]]
        for attempt in await asyncio.gather(*(ledger.get_attempt(key) for key in keys)):
            if attempt is not None and attempt.outcome is not None:
                codes[attempt.key.uid] = attempt.outcome.exit_code
    return codes
