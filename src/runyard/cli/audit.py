"""`runyard audit`: who changed what."""

from __future__ import annotations

from runyard.cli.connection import open_client
from runyard.cli.words import print_json, print_table, time_of

HEADINGS = ("WHEN", "WHO", "FROM", "DID", "DETAILS")


def audit(*, limit: int = 100, json: bool = False) -> None:
    """List who changed what, newest first.

    Parameters
    ----------
    limit
        How many lines at most, up to 500.
    json
        Print JSON.
    """
    with open_client() as client:
        lines = client.tokens.audit(limit=limit).lines
    if json:
        print_json(lines)
        return
    print_table(
        HEADINGS,
        (
            (
                time_of(line.at),
                line.actor,
                line.origin,
                f"{line.action} {line.subject}",
                ", ".join(f"{key}={value}" for key, value in line.details.items()),
            )
            for line in lines
        ),
    )
