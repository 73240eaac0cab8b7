"""`runyard submit`: the jobs of files, in batches; ids on stdout, refusals on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from runyard.cli.connection import open_client
from runyard.cli.exit_codes import DONE, FAILED, REFUSED, UsageError
from runyard.cli.job_files import FileJob, read_job_file
from runyard.cli.words import say, say_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from runyard.sdk.client import Client
    from runyard.wire.answers import BatchItem, ErrorBody

BAR_FROM_JOBS = 100
BATCH_JOBS = 200


def submit(*files: Annotated[str, Parameter(allow_leading_hyphen=True)], wait: bool = False) -> int:
    """Submit the jobs of one or more job files.

    Prints the ids of the accepted jobs on stdout, one a line. What is refused is said on stderr with its file, place,
    field and cure; the others are submitted all the same. Exit code 4 if any was refused; with --wait, 1 if one did
    not succeed.

    Parameters
    ----------
    files
        YAML files (also with several documents), JSON files (an object, a list or {"jobs": [..]}), or - for stdin.
    wait
        Wait until all are final.
    """
    if not files:
        raise UsageError("no file named; write `runyard submit FILE…`, or - for stdin")
    _refuse_unknown_flags(files)
    jobs = [job for name in files for job in read_job_file(name)]
    with open_client() as client:
        accepted = list(_submit_all(client, jobs))
        if len(accepted) < len(jobs):
            say(f"{len(jobs) - len(accepted)} of {len(jobs)} jobs were refused")
        has_failed = wait and not _all_succeed(client, accepted)
    if len(accepted) < len(jobs):
        return REFUSED
    return FAILED if has_failed else DONE


def _refuse_unknown_flags(files: Iterable[str]) -> None:
    """`-` is stdin, so the parser lets through whatever begins like it."""
    for name in files:
        if name.startswith("-") and name != "-":
            raise UsageError(f"no such flag: {name} (a file of that name is written ./{name})")


def _submit_all(client: Client, jobs: Sequence[FileJob]) -> Iterator[tuple[str, str | None]]:
    """The (id, tenant) of each accepted job, printed as soon as its batch is in."""
    from runyard.sdk.plans import split_batches, with_ids

    places = iter(jobs)
    with _progress(len(jobs)) as advance:
        for batch in split_batches(with_ids(job.document for job in jobs), jobs_max=BATCH_JOBS):
            items = client.submit_batch(batch)
            for job, item in zip(places_of(places, batch), items, strict=True):
                job_id = _accepted(job, item)
                if job_id is not None:
                    print(job_id)
                    yield job_id, job.document.get("tenant")
            sys.stdout.flush()
            advance(len(batch))


def places_of(places: Iterator[FileJob], batch: Sequence[object]) -> list[FileJob]:
    return [next(places) for _ in batch]


def _accepted(job: FileJob, item: BatchItem) -> str | None:
    if item.error is not None:
        _say_refusal(job, item.error)
    return item.id if item.error is None else None


def _say_refusal(job: FileJob, error: ErrorBody) -> None:
    """All problems of the document, each with its own field and cure."""
    name = f" ('{job.document['id']}')" if job.document.get("id") else ""
    say_problem(error, prefix=f"{job.place}{name}: ")


def _all_succeed(client: Client, jobs: Iterable[tuple[str, str | None]]) -> bool:
    all_well = True
    for job_id, tenant in jobs:
        job = client.wait(job_id, tenant=tenant)
        if job.state != "succeeded":
            all_well = False
            say(f"job '{job_id}' {job.state}{f': {job.reason.message}' if job.reason else ''}")
    return all_well


@contextmanager
def _progress(total: int) -> Iterator[Callable[[int], object]]:
    """A bar on a terminal, for batches that take a while; else nothing."""
    if total < BAR_FROM_JOBS or not sys.stderr.isatty():
        yield lambda count: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("submitting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # rich takes over stdout and prints it to its own console: only right where both are the same terminal.
    console, is_shared = Console(stderr=True), sys.stdout.isatty()
    with Progress(*columns, console=console, transient=True, redirect_stdout=is_shared) as progress:
        task = progress.add_task("submitting", total=total)
        yield lambda count: progress.advance(task, count)
