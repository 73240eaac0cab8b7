"""`runyard queues` and `runyard queue …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runyard.cli.bounds import Weight, changed_bounds, merged
from runyard.cli.connection import open_client
from runyard.cli.words import age_of, print_facts, print_json, print_table
from runyard.sdk.errors import NotFound

if TYPE_CHECKING:
    from runyard.sdk.client import Client
    from runyard.wire.answers import QueueAnswer

SETTINGS = ("weight", "running_max", "queued_max", "tenant_running_max", "defaults")


def queues(*, json: bool = False) -> None:
    """List queues.

    Parameters
    ----------
    json
        Print JSON.
    """
    with open_client() as client:
        listed = client.queues.list()
    if json:
        print_json(listed)
        return
    headings = ("QUEUE", "STATE", "QUEUED", "STARTING", "RUNNING", "RUNNING MAX", "WEIGHT", "OLDEST")
    print_table(headings, map(_row, listed))


def _row(queue: QueueAnswer) -> tuple[object, ...]:
    return (
        queue.name, _state(queue), queue.queued, queue.starting, queue.running, queue.running_max, queue.weight,
        age_of(queue.oldest_queued_at),
    )  # fmt: skip


def _state(queue: QueueAnswer) -> str:
    return "paused" if queue.paused else "open"


def show(name: str, /, *, json: bool = False) -> None:
    """Show one queue.

    Parameters
    ----------
    name
        The queue.
    json
        Print JSON.
    """
    with open_client() as client:
        _print_queue(client.queues.get(name), json=json)


def set_queue(
    name: str,
    /,
    *,
    weight: Weight | None = None,
    running_max: str | None = None,
    queued_max: str | None = None,
    tenant_running_max: str | None = None,
    json: bool = False,
) -> None:
    """Create a queue, or change of one what is named here.

    Parameters
    ----------
    name
        The queue.
    weight
        Its share against the other queues.
    running_max
        How many of its jobs may run at once, or none.
    queued_max
        How many may wait before more are answered with 429, or none.
    tenant_running_max
        How many of one tenant may run at once, or none.
    json
        Print JSON.
    """
    bounds = changed_bounds(
        running_max=running_max, queued_max=queued_max, tenant_running_max=tenant_running_max
    )
    with open_client() as client:
        settings = merged(_current(client, name), weight, bounds)
        _print_queue(client.queues.put(name, **settings), json=json)


def _current(client: Client, name: str) -> dict[str, Any]:
    try:
        queue = client.queues.get(name)
    except NotFound:
        return {}
    return {key: getattr(queue, key) for key in SETTINGS}


def pause(name: str, /) -> None:
    """Start no more jobs of a queue; what runs goes on.

    Parameters
    ----------
    name
        The queue.
    """
    with open_client() as client:
        print(f"{name}  {_state(client.queues.pause(name))}")


def resume(name: str, /) -> None:
    """Start jobs of a queue again.

    Parameters
    ----------
    name
        The queue.
    """
    with open_client() as client:
        print(f"{name}  {_state(client.queues.resume(name))}")


def delete(name: str, /) -> None:
    """Delete an empty queue.

    Parameters
    ----------
    name
        The queue.
    """
    with open_client() as client:
        client.queues.delete(name)
    print(f"{name}  deleted")


def _print_queue(queue: QueueAnswer, *, json: bool) -> None:
    if json:
        print_json(queue)
        return
    print_facts(
        [
            ("queue", queue.name),
            ("state", _state(queue)),
            ("queued", queue.queued),
            ("starting", queue.starting),
            ("running", queue.running),
            ("oldest", age_of(queue.oldest_queued_at)),
            ("weight", queue.weight),
            ("running max", queue.running_max),
            ("queued max", queue.queued_max),
            ("running max of one tenant", queue.tenant_running_max),
            ("defaults", queue.defaults),
            ("set by", "the config file (read-only here)" if queue.configured else None),
        ]
    )
