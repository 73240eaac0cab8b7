"""`runyard jobs`, `job`, `cancel`, `retry`, `delete`."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any

from runyard.cli.bounds import Limit
from runyard.cli.connection import open_client
from runyard.cli.exit_codes import DONE, UsageError, exit_code_of_error
from runyard.cli.words import (
    age_of,
    print_facts,
    print_json,
    print_table,
    printable,
    progress_words,
    say,
    say_error,
    size_of,
    span,
    time_of,
)
from runyard.sdk.errors import RunyardApiError, Unreachable

if TYPE_CHECKING:
    from runyard.wire.answers import AttemptAnswer, JobAnswer, ReasonAnswer


def jobs(
    *,
    queue: str | None = None,
    state: str | None = None,
    tenant: str | None = None,
    label: str | None = None,
    pool: str | None = None,
    text: str | None = None,
    since: str | None = None,
    until: str | None = None,
    limit: Limit = 100,
    json: bool = False,
) -> None:
    """List jobs, the newest first.

    Parameters
    ----------
    queue
        Only of this queue.
    state
        Only in this state: queued, starting, running, canceling, succeeded, failed, canceled, timed_out, lost or
        refused.
    tenant
        Only of this tenant.
    label
        Only with this label, as KEY=VALUE.
    pool
        Only those whose last attempt is in this pool.
    text
        Only those whose id or name holds this text.
    since
        Only those submitted then or later: how long ago, like 2h, or when, like 2026-11-24T10:00:00Z.
    until
        Only those submitted before then.
    limit
        At most so many; 0 lists all.
    json
        Print JSON.
    """
    begin, end = _moment("--since", since), _moment("--until", until)
    with open_client(tenant) as client:
        found = client.list(
            queue=queue,
            state=state,
            label=label,
            pool=pool,
            text=text,
            since=begin,
            until=end,
            limit=limit + 1 if limit else None,
        )
        listed = list(islice(found, limit or None))
        has_more = bool(limit) and next(found, None) is not None
    if json:
        print_json(listed)
    else:
        print_table(("ID", "STATE", "QUEUE", "TENANT", "SUBMITTED", "TOOK", "NOTE"), map(_row, listed))
    if has_more:
        say(f"only the newest {limit} are shown; --limit 0 shows all")


def _moment(flag: str, text: str | None) -> datetime | None:
    """Raises UsageError."""
    from runyard.wire.moments import parse_moment

    if text is None:
        return None
    try:
        now = datetime.now(UTC)
        return datetime.fromtimestamp(parse_moment(text, now=now.timestamp()), UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(f"{flag}: {error}") from None


def _row(job: JobAnswer) -> tuple[object, ...]:
    note = job.reason.message if job.reason else job.name or ""
    return (
        job.id, job.state, job.queue, job.tenant, age_of(job.submitted_at),
        _took(job.started_at, job.ended_at), note[:60],
    )  # fmt: skip


def job(id: str, /, *, tenant: str | None = None, json: bool = False) -> None:
    """Show one job: its attempts, phases, outcome, outputs.

    Parameters
    ----------
    id
        The job.
    tenant
        Its tenant, if the token is for several.
    json
        Print JSON.
    """
    with open_client(tenant) as client:
        found = client.get(id)
    if json:
        print_json(found)
        return
    _print_job(found)
    for attempt in found.attempts:
        print()
        _print_attempt(attempt)


def _print_job(job: JobAnswer) -> None:
    print_facts(
        [
            ("job", job.id),
            ("name", job.name),
            ("state", job.state),
            ("reason", _reason_words(job.reason)),
            ("exit code", job.exit_code),
            ("queue", job.queue),
            ("tenant", job.tenant),
            ("priority", job.priority or None),
            ("labels", ", ".join(f"{key}={value}" for key, value in job.labels.items())),
            ("retry of", job.retry_of),
            ("submitted", time_of(job.submitted_at)),
            ("submitted by", job.submitted_by),
            ("not before", time_of(job.not_before)),
            ("started", time_of(job.started_at)),
            ("ended", time_of(job.ended_at)),
            ("took", _took(job.started_at, job.ended_at)),
            *_step_facts(job.effective),
            *((f"output {name}", value) for name, value in job.outputs.items()),
        ]
    )


def _step_facts(effective: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for index, step in enumerate(effective.get("steps") or (), start=1):
        command = step.get("run") or shlex.join(step.get("command") or ())
        first = (command.strip().splitlines() or [""])[0]
        yield f"step {step.get('name') or f'step-{index}'}", first[:100]


def _print_attempt(attempt: AttemptAnswer) -> None:
    usage = attempt.usage
    cpu_s = usage.cpu_s if usage else None
    print_facts(
        [
            ("attempt", attempt.number),
            ("pool", f"{attempt.pool}, slot {attempt.slot}"),
            ("outcome", attempt.outcome or attempt.state),
            ("reason", _reason_words(attempt.reason)),
            ("exit code", attempt.exit_code),
            ("signal", attempt.signal),
            ("cpu", None if cpu_s is None else f"{cpu_s:.1f}s"),
            ("memory peak", size_of(usage.memory_bytes_peak) if usage else None),
            *((f"  {name}", value) for name, value in attempt.placement.items()),
            ("now", progress_words(attempt.progress) if attempt.progress else None),
        ]
    )
    before: datetime = attempt.claimed_at
    print(f"  {'claimed'.ljust(20)}{attempt.claimed_at.astimezone():%H:%M:%S}")
    for name, moment in sorted(attempt.phases.items(), key=lambda phase: phase[1]):
        gap_s = (moment - before).total_seconds()
        print(f"  {printable(name).ljust(20)}{moment.astimezone():%H:%M:%S}  +{gap_s:.3f}s")
        before = moment


def _reason_words(reason: ReasonAnswer | None) -> str | None:
    if reason is None:
        return None
    return f"{reason.message} ({reason.code}{f', step {reason.step}' if reason.step else ''})"


def _took(started: datetime | None, ended: datetime | None) -> str | None:
    if started is None:
        return None
    if ended is None:
        return f"{span((datetime.now(started.tzinfo) - started).total_seconds())} so far"
    seconds = (ended - started).total_seconds()
    return f"{seconds:.1f}s" if seconds < 60 else span(seconds)


def cancel(*ids: str, tenant: str | None = None) -> int:
    """Cancel jobs.

    Parameters
    ----------
    ids
        The jobs.
    tenant
        Their tenant, if the token is for several.
    """
    return _each(ids, tenant, "cancel")


def delete(*ids: str, tenant: str | None = None) -> int:
    """Delete final jobs with their logs and artifacts.

    Parameters
    ----------
    ids
        The jobs.
    tenant
        Their tenant, if the token is for several.
    """
    return _each(ids, tenant, "delete")


def _each(ids: tuple[str, ...], tenant: str | None, verb: str) -> int:
    """All of them, whatever becomes of one; the exit code is the first failure's."""
    if not ids:
        raise UsageError(f"no job named; write `runyard {verb} ID…`")
    code = DONE
    with open_client(tenant) as client:
        for id in ids:
            try:
                if verb == "cancel":
                    print(f"{id}  {client.cancel(id).state}")
                else:
                    client.delete(id)
                    print(f"{id}  deleted")
            except Unreachable:
                raise
            except RunyardApiError as error:
                sys.stdout.flush()
                say_error(error)
                code = code or exit_code_of_error(error)
    return code


def retry(id: str, /, *, tenant: str | None = None) -> None:
    """Run a final job again, as a new job; prints the new id.

    Parameters
    ----------
    id
        The job.
    tenant
        Its tenant, if the token is for several.
    """
    with open_client(tenant) as client:
        print(client.retry(id).id)
