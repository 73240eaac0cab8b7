"""From the query of a listing to the ledger's filter, and what its rows say beyond the jobs themselves."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.ledger.port import JobFilter, Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Invalid
from runyard.model.job import Job, JobState
from runyard.wire.moments import parse_moment

LABELS_MAX = 20
ROUNDED_S = 0.75e-6
"""Times are answered in whole microseconds, and kept finer: a bound lies this much before what was written, so that a
job's own `submitted_at` as it was answered is never after the job. Half a microsecond, and what floats add to it."""


def job_filter(
    tenants: tuple[str, ...] | None,
    *,
    queue: str | None,
    states: Sequence[str] | None,
    labels: Sequence[str] | None,
    pool: str | None,
    text: str | None,
    since: float | None = None,
    until: float | None = None,
) -> JobFilter:
    return JobFilter(
        queue=queue,
        states=tuple(JobState(state) for state in states or ()),
        tenants=tenants,
        labels=_label_map(labels or ()),
        pool=pool,
        text=text,
        since=since,
        until=until,
    )


def moment_of(text: str | None, *, field: str, now: float | None = None) -> float | None:
    """Seconds since the epoch of one end of a stretch of time; None for nothing written. With `now` it may be written
    as people write it. Raises Invalid naming the field."""
    if not text:
        return None
    try:
        return parse_moment(text, now=now) - ROUNDED_S
    except ValueError as error:
        statement, _, cure = str(error).rpartition("; ")
        raise Invalid(f"{field}: {statement}", field=field, cure=cure) from None


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
    read, all of it at once."""
    codes: dict[str, int | None] = {job.uid: 0 for job in jobs if job.state is JobState.SUCCEEDED}
    unknown = [
        AttemptKey(job.uid, job.attempts)
        for job in jobs
        if job.state.is_final and job.attempts and job.uid not in codes
    ]
    for attempt in await ledger.get_attempts(unknown) if unknown else ():
        if attempt.outcome is not None:
            codes[attempt.key.uid] = attempt.outcome.exit_code
    return codes
