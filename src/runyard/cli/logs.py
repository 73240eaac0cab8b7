"""`runyard logs`: a job's log, its stdout on stdout and its stderr on stderr."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from runyard.cli.bounds import AttemptNumber
from runyard.cli.byte_output import gap_words, prepare_output, write_bytes
from runyard.cli.connection import open_client
from runyard.cli.words import say
from runyard.sdk.errors import NotFound
from runyard.sdk.following import Interruption, LogChunk, LogEnd, LogGap

if TYPE_CHECKING:
    from runyard.sdk.client import Client
    from runyard.wire.answers import JobAnswer


def logs(
    id: str,
    /,
    *,
    follow: Annotated[bool, Parameter(name=("--follow", "-f"))] = False,
    attempt: AttemptNumber | None = None,
    step: str | None = None,
    tenant: str | None = None,
) -> None:
    """Show a job's log, byte for byte: its stdout on stdout, its stderr on stderr.

    Parameters
    ----------
    id
        The job.
    follow
        Go on as it grows, until the job ends.
    attempt
        Of this attempt (default: the last).
    step
        Only of this step.
    tenant
        Its tenant, if the token is for several.
    """
    prepare_output()
    with open_client(tenant) as client:
        job = client.get(id)
        if follow or job.is_final:
            _follow(client, id, attempt=attempt, step=step)
        else:
            _print_what_is_there(client, job, attempt=attempt, step=step)


def _follow(client: Client, id: str, *, attempt: int | None, step: str | None) -> None:
    for item in client.follow_log(id, attempt=attempt, step=step, watch=_say_break):
        match item:
            case LogChunk():
                write_bytes(item.stream, item.data)
            case LogGap():
                say(gap_words(item))
            case LogEnd():
                return


def _say_break(interruption: Interruption) -> None:
    say(f"{interruption.message}; trying again in {interruption.delay_s:.1f}s")


def _print_what_is_there(client: Client, job: JobAnswer, *, attempt: int | None, step: str | None) -> None:
    """Step by step, each stream after the other: without following there is no order between the two."""
    steps = [one.get("name") or f"step-{n}" for n, one in enumerate(job.effective.get("steps", ()), start=1)]
    for name in [step] if step else steps:
        for stream in ("stdout", "stderr"):
            _print_stream(client, job.id, attempt=attempt, step=name, stream=stream)


def _print_stream(client: Client, id: str, *, attempt: int | None, step: str, stream: str) -> None:
    try:
        for piece in client.stream_log(id, attempt=attempt, step=step, stream=stream):
            write_bytes(stream, piece)
    except NotFound:
        return  # no attempt has begun
