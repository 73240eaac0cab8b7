"""`runyard pools` and `runyard pool …`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runyard.cli.connection import open_client
from runyard.cli.operations import print_operation
from runyard.cli.words import print_facts, print_json, print_table, size_of, time_of

if TYPE_CHECKING:
    from runyard.wire.answers import PoolAnswer


def pools(*, json: bool = False) -> None:
    """List pools.

    Parameters
    ----------
    json
        Print JSON.
    """
    with open_client() as client:
        listed = client.pools.list()
    if json:
        print_json(listed)
        return
    headings = (
        "POOL",
        "PROVIDER",
        "ISOLATION",
        "STATE",
        "HEALTH",
        "SLOTS",
        "RUNNING",
        "STARTING",
        "IDLE",
        "QUEUES",
    )
    print_table(headings, map(_row, listed))


def _row(pool: PoolAnswer) -> tuple[object, ...]:
    return (
        pool.name, pool.provider, pool.isolation, _state(pool), pool.health, pool.slots, pool.running,
        pool.starting, pool.idle, ",".join(pool.queues),
    )  # fmt: skip


def _state(pool: PoolAnswer) -> str:
    return "paused" if pool.paused else "open"


def show(name: str, /, *, json: bool = False) -> None:
    """Show one pool.

    Parameters
    ----------
    name
        The pool.
    json
        Print JSON.
    """
    with open_client() as client:
        pool = client.pools.get(name)
    if json:
        print_json(pool)
        return
    print_facts(
        [
            ("pool", pool.name),
            ("provider", pool.provider),
            ("description", pool.description),
            ("isolation", pool.isolation),
            ("state", _state(pool)),
            ("health", pool.health),
            ("", pool.health_message),
            ("queues", ", ".join(pool.queues)),
            ("labels", ", ".join(f"{key}={value}" for key, value in pool.labels.items())),
            ("slots", pool.slots),
            ("running", pool.running),
            ("starting", pool.starting),
            ("idle", pool.idle),
            ("draining", pool.draining or None),
            ("cpu", pool.cpu),
            ("memory", size_of(pool.memory)),
            ("disk", size_of(pool.disk)),
            ("owner", f"{pool.owner}, epoch {pool.epoch}" if pool.owner else "nobody"),
            ("lease until", time_of(pool.lease_until)),
        ]
    )


def check(name: str, /, *, json: bool = False) -> int:
    """Let the pool's owner try its provider, and say what it found.

    Parameters
    ----------
    name
        The pool.
    json
        Print JSON.
    """
    with open_client() as client:
        return print_operation(client, client.pools.check(name), json=json)


def pause(name: str, /) -> None:
    """Start no more jobs in a pool; what runs goes on.

    Parameters
    ----------
    name
        The pool.
    """
    with open_client() as client:
        print(f"{name}  {_state(client.pools.pause(name))}")


def resume(name: str, /) -> None:
    """Start jobs in a pool again.

    Parameters
    ----------
    name
        The pool.
    """
    with open_client() as client:
        print(f"{name}  {_state(client.pools.resume(name))}")


def forget(name: str, /, *, json: bool = False) -> int:
    """Declare a pool's host dead: its unfinished attempts are lost, and tried again elsewhere where that is allowed.

    Parameters
    ----------
    name
        The pool.
    json
        Print JSON.
    """
    with open_client() as client:
        return print_operation(client, client.pools.forget(name), json=json)
