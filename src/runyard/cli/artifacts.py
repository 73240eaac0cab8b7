"""`runyard artifacts`: list a job's artifacts, or download them."""

from __future__ import annotations

from pathlib import Path

from runyard.cli.bounds import AttemptNumber
from runyard.cli.connection import open_client
from runyard.cli.words import print_json, print_table, size_of


def artifacts(
    id: str,
    /,
    *,
    get: Path | None = None,
    attempt: AttemptNumber | None = None,
    tenant: str | None = None,
    json: bool = False,
) -> None:
    """List a job's artifacts, or download them.

    Parameters
    ----------
    id
        The job.
    get
        Folder to download all of them into; prints where each was written.
    attempt
        Of this attempt (default: the last).
    tenant
        Its tenant, if the token is for several.
    json
        Print JSON.
    """
    with open_client(tenant) as client:
        if get is not None:
            written = client.download_artifacts(id, get, attempt=attempt)
            if json:
                print_json([str(path) for path in written])
            else:
                print("".join(f"{path}\n" for path in written), end="")
            return
        listed = client.artifacts(id, attempt=attempt)
    if json:
        print_json(listed)
    else:
        print_table(("PATH", "SIZE", "ATTEMPT"), ((a.path, size_of(a.size), a.attempt) for a in listed))
