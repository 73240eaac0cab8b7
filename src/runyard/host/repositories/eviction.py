"""Keeps a pool's repositories within their bytes: what was used longest ago goes, never what a job lies over."""

from __future__ import annotations

import os
from dataclasses import dataclass

from runyard.host.repositories import locks
from runyard.host.repositories.store import PreparedTree, RepositoryFolder


@dataclass(frozen=True, slots=True)
class _Kept:
    """A tree, or with None the mirror of a repository."""

    used_at: float
    size: int
    folder: RepositoryFolder
    tree: PreparedTree | None


def evict(store: str, bytes_max: int) -> int:
    """Removes until what is left fits, as far as nobody uses it. Returns the bytes that are left. Returns at once (0)
    where another evicts."""
    lock_path = os.path.join(store, "lock")
    os.close(os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    lock = locks.try_take(lock_path)
    if lock is None:
        return 0
    try:
        kept = sorted(_kept(store), key=lambda each: each.used_at)
        total = sum(each.size for each in kept)
        for each in kept:
            if total <= bytes_max:
                break
            if _remove(each):
                total -= each.size
        return total
    finally:
        os.close(lock)


def _kept(store: str) -> list[_Kept]:
    found = []
    for name in os.listdir(store):
        if not os.path.isdir(os.path.join(store, name)):
            continue
        folder = RepositoryFolder(store, name)
        folder.remove_leftovers()
        latest = _used_at(folder.lock)
        for tree in folder.trees():
            found.append(_Kept(tree.used_at, int((tree.about() or {}).get("bytes", 0)), folder, tree))
            latest = max(latest, tree.used_at)
        found.append(_Kept(latest + 1e-6, size_of(folder.mirror), folder, None))  # after its last tree
    return found


def _remove(each: _Kept) -> bool:
    """Whether it is gone. Who uses a tree holds its lock shared; who fetches holds the repository's."""
    if each.tree is not None:
        lock = locks.try_take(each.tree.lock)
        if lock is None:
            return False
        try:
            each.tree.remove()
        finally:
            os.close(lock)
        return True
    lock = locks.try_take(each.folder.lock)
    if lock is None:
        return False
    try:
        if each.folder.trees():
            return False  # one of them is in use, and the next of its kind wants the mirror
        each.folder.drop_mirror()
        return True
    finally:
        os.close(lock)


def _used_at(path: str) -> float:
    try:
        return os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def size_of(path: str, *, own_only: bool = False) -> int:
    """Bytes on disk of a tree. `own_only` leaves out files with other names: a tree shares its objects, and what did
    not change since the tree that it was made from."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            try:
                seen = os.stat(os.path.join(folder, name), follow_symlinks=False)
            except FileNotFoundError:
                continue  # a fetch goes on in it
            if seen.st_nlink == 1 or not own_only:
                total += seen.st_blocks * 512
    return total
