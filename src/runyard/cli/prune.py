"""`runyard prune`: resources that no living attempt owns, over all pools."""

from __future__ import annotations

from runyard.cli.connection import open_client
from runyard.cli.exit_codes import DONE
from runyard.cli.operations import print_operation


def prune(*, pool: str | None = None, dry_run: bool = False, json: bool = False) -> int:
    """Remove resources that no job owns any more, and say which; each pool's owner does it, within its guards.

    Parameters
    ----------
    pool
        Only in this pool (default: in all).
    dry_run
        Only say what would be removed.
    json
        Print JSON.
    """
    code = DONE
    with open_client() as client:
        for name in [pool] if pool else [one.name for one in client.pools.list()]:
            if not json:
                print(f"pool {name}")
            operation = client.pools.prune(name, is_dry_run=dry_run)
            code = max(code, print_operation(client, operation, json=json))
    return code
