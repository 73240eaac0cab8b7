"""`runyard tenants` and `runyard tenant …`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runyard.cli.bounds import Weight, changed_bounds, merged
from runyard.cli.connection import open_client
from runyard.cli.words import print_facts, print_json, print_table
from runyard.sdk.errors import NotFound

if TYPE_CHECKING:
    from runyard.sdk.client import Client
    from runyard.wire.answers import TenantAnswer

SETTINGS = ("weight", "running_max", "queued_max")


def tenants(*, json: bool = False) -> None:
    """List tenants.

    Parameters
    ----------
    json
        Print JSON.
    """
    with open_client() as client:
        listed = client.tenants.list()
    if json:
        print_json(listed)
        return
    headings = ("TENANT", "QUEUED", "RUNNING", "RUNNING MAX", "QUEUED MAX", "WEIGHT")
    print_table(
        headings, ((t.name, t.queued, t.running, t.running_max, t.queued_max, t.weight) for t in listed)
    )


def show(name: str, /, *, json: bool = False) -> None:
    """Show one tenant.

    Parameters
    ----------
    name
        The tenant.
    json
        Print JSON.
    """
    with open_client() as client:
        _print_tenant(client.tenants.get(name), json=json)


def set_tenant(
    name: str,
    /,
    *,
    weight: Weight | None = None,
    running_max: str | None = None,
    queued_max: str | None = None,
    json: bool = False,
) -> None:
    """Change of a tenant what is named here.

    Parameters
    ----------
    name
        The tenant.
    weight
        Its share against the other tenants of a queue.
    running_max
        How many of its jobs may run at once, or none.
    queued_max
        How many may wait before more are answered with 429, or none.
    json
        Print JSON.
    """
    bounds = changed_bounds(running_max=running_max, queued_max=queued_max)
    with open_client() as client:
        settings = merged(_current(client, name), weight, bounds)
        _print_tenant(client.tenants.put(name, **settings), json=json)


def _current(client: Client, name: str) -> dict[str, Any]:
    try:
        tenant = client.tenants.get(name)
    except NotFound:
        return {}
    return {key: getattr(tenant, key) for key in SETTINGS}


def _print_tenant(tenant: TenantAnswer, *, json: bool) -> None:
    if json:
        print_json(tenant)
        return
    print_facts(
        [
            ("tenant", tenant.name),
            ("queued", tenant.queued),
            ("running", tenant.running),
            ("weight", tenant.weight),
            ("running max", tenant.running_max),
            ("queued max", tenant.queued_max),
            ("set by", "the config file (read-only here)" if tenant.configured else None),
        ]
    )
