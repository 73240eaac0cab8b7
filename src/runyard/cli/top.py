"""`runyard top`: what waits and what runs, in the terminal, live."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from runyard.cli.connection import open_client
from runyard.cli.words import printable, span

if TYPE_CHECKING:
    from rich.console import Group
    from rich.table import Table

    from runyard.sdk.client import Client
    from runyard.wire.answers import JobAnswer, PoolAnswer, QueueAnswer

JOBS_SHOWN = 20
_UNFINISHED = ("starting", "running", "canceling", "queued")
_STYLES = {"healthy": "green", "unhealthy": "red", "unowned": "red", "running": "cyan", "queued": "yellow"}


def top(*, every: float = 1.0, once: bool = False) -> None:
    """Watch queues, pools and jobs until Ctrl-C; on anything but a terminal, print them once.

    Parameters
    ----------
    every
        Seconds between two looks.
    once
        Print once and end.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with open_client() as client:
        if once or not sys.stdout.isatty():
            console.print(_screen(client))
            return
        try:
            with Live(_screen(client), console=console, screen=True, auto_refresh=False) as live:
                while True:
                    time.sleep(max(every, 0.2))
                    live.update(_screen(client), refresh=True)
        except KeyboardInterrupt:
            return


def _screen(client: Client) -> Group:
    from rich.console import Group
    from rich.text import Text

    queues = client.queues.list()
    pools = client.pools.list()
    jobs = [job for state in _UNFINISHED for job in client.list(state=[state], limit=JOBS_SHOWN)][:JOBS_SHOWN]
    now = datetime.now(UTC)
    return Group(
        Text(f"{client.url}  {now.astimezone():%H:%M:%S}", style="dim"),
        _table(("POOL", "HEALTH", "RUNNING", "STARTING", "IDLE", "SLOTS"), map(_pool_row, pools)),
        _table(
            ("QUEUE", "QUEUED", "OLDEST", "STARTING", "RUNNING"), (_queue_row(one, now) for one in queues)
        ),
        _table(("JOB", "STATE", "QUEUE", "TENANT", "FOR"), (_job_row(one, now) for one in jobs)),
    )


def _table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(*headings, box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for row in rows:
        table.add_row(*(Text(printable(str(cell)), style=_STYLES.get(str(cell), "")) for cell in row))
    return table


def _pool_row(pool: PoolAnswer) -> tuple[object, ...]:
    health = "paused" if pool.paused else pool.health
    return pool.name, health, pool.running, pool.starting, pool.idle, pool.slots


def _queue_row(queue: QueueAnswer, now: datetime) -> tuple[object, ...]:
    name = f"{queue.name} (paused)" if queue.paused else queue.name
    return name, queue.queued, _since(queue.oldest_queued_at, now), queue.starting, queue.running


def _job_row(job: JobAnswer, now: datetime) -> tuple[object, ...]:
    return job.id, job.state, job.queue, job.tenant, _since(job.started_at or job.queued_at, now)


def _since(moment: datetime | None, now: datetime) -> str:
    return "-" if moment is None else span((now - moment).total_seconds())
