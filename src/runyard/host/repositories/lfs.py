"""Large files of a checkout, placeholder until the fetch of files by URL is in."""

from __future__ import annotations

from runyard.host.repositories.fetch_sandbox import FetchSandbox
from runyard.host.repositories.mirrors import Mirror
from runyard.host.sandbox_command import Place
from runyard.host.setup import Setup, WorkspaceFailed


def fetch_large_files(
    place: Place,
    setup: Setup,
    sandbox: FetchSandbox,
    mirror: Mirror,
    root: str,
    path: str,
    *,
    owner: int | None,
) -> None:
    raise WorkspaceFailed("workspace.git.lfs: not built")
