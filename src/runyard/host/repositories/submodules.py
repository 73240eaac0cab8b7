"""The submodules of a commit: which there are, by git's own index, and where each comes from. Pure."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass

from runyard.host.setup import WorkspaceFailed

SUBMODULES_MAX = 64
_LINK = b"160000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submodule:
    path: str
    commit: str
    name: str
    url: str


def read_submodules(entries: bytes, modules: bytes) -> list[Submodule]:
    """From `git ls-files -s -z` and `git config -z --get-regexp` over .gitmodules. Raises WorkspaceFailed."""
    commits: dict[str, str] = {}
    for entry in entries.split(b"\0"):
        head, _, path = entry.partition(b"\t")
        if head.startswith(_LINK):
            commits[path.decode(errors="surrogateescape")] = head.split()[1].decode()
    settings: dict[str, dict[str, str]] = {}
    for line in modules.decode(errors="surrogateescape").split("\0"):
        key, _, value = line.partition("\n")
        name, _, what = key.removeprefix("submodule.").rpartition(".")
        if name:
            settings.setdefault(name, {})[what] = value
    by_path = {
        each["path"].rstrip("/"): (name, each.get("url", ""))
        for name, each in settings.items()
        if "path" in each
    }
    found: list[Submodule] = []
    for where, commit in sorted(commits.items()):
        if where not in by_path:
            raise WorkspaceFailed(f"workspace.git.submodules: .gitmodules says nothing of {where!r}")
        name, url = by_path[where]
        found.append(Submodule(path=where, commit=commit, name=name, url=url))
    return found


def submodule_url(parent: str, url: str) -> str:
    """Relative ones count from the repository that names them, as git has it."""
    if not url.startswith(("./", "../")):
        return url
    if "://" in parent:
        protocol, _, rest = parent.partition("://")
        place, _, path = rest.partition("/")
        return f"{protocol}://{place}{_joined('/' + path, url)}"
    if parent.startswith("/"):
        return _joined(parent, url)
    place, _, path = parent.partition(":")
    return f"{place}:{_joined('/' + path, url).lstrip('/')}"


def _joined(path: str, relative: str) -> str:
    return posixpath.normpath(posixpath.join(path, relative))
