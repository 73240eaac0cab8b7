"""Repositories to fetch from, and plans that keep what they fetched, for tests."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from runyard.host.plan import FetchRules, PlanGit

FETCH_ID = 731_499_999


@dataclass
class Upstream:
    """A repository with a work tree on this host."""

    folder: Path

    def git(self, *words: str) -> str:
        argv = ["git", "-C", str(self.folder), "-c", "user.name=a", "-c", "user.email=b@c"]
        argv += ["-c", "protocol.file.allow=always", *words]
        return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, files: dict[str, str], message: str = "x") -> str:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        self.git("add", ".")
        self.git("commit", "-qm", message)
        return self.git("rev-parse", "HEAD")


def make_upstream(folder: Path) -> Upstream:
    subprocess.run(["git", "init", "-q", "-b", "main", str(folder)], check=True)
    return Upstream(folder)


def kept(folder: Path, url: object, *, rules: dict | None = None, **fields) -> dict:
    """The parts of a plan for a repository whose mirror is kept in `folder`/store."""
    rules = {"protocols": ("file",), "file_roots": (str(folder),), "user_id": FETCH_ID, **(rules or {})}
    git = {"tenant": "t", "store": str(folder / "store"), "store_bytes_max": 1 << 30, **fields}
    return {"git": PlanGit(url=str(url), **git), "fetch": FetchRules(**rules)}


def mirrors(folder: Path) -> list[Path]:
    return sorted((folder / "store").glob("*/mirror"))


def trees(folder: Path) -> list[Path]:
    return sorted((folder / "store").glob("*/trees/*/tree"))
