"""Where a pool keeps repositories: a folder for each, with its lock, what its remote said, its mirror and its trees.

A repository belongs to one tenant and the credentials that it is fetched with: no tenant's job is ever served from
what another's fetched, not even by a commit's name. Everything is made beside its place and renamed into it, so that
a kill at any moment leaves it whole, or missing.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import hmac
import json
import os
import time
from collections.abc import Mapping
from typing import Any

from runyard.host.removal import remove_tree
from runyard.host.repositories import locks
from runyard.host.repositories.answers import Answer

_LOCK, _MIRROR, _STATE, _TREES, _ANSWERS = "lock", "mirror", "mirror.json", "trees", "answers"
_ANSWERS_KEPT_S = 3600


def digest(document: object, salt: bytes = b"") -> str:
    """A name for what a document says; with a salt, one that cannot be told from it."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"))
    return hmac.new(salt, text.encode(), hashlib.sha256).hexdigest()[:32]


class RepositoryFolder:
    """One repository's folder. `name` stands for whom and what it is for, and nobody can guess it: where there is no
    stage, who fetches must reach it by its path."""

    def __init__(self, store: str, name: str) -> None:
        self.path = os.path.join(store, name)
        self.lock = os.path.join(self.path, _LOCK)
        self.mirror = os.path.join(self.path, _MIRROR)

    def create(self, about: Mapping[str, Any]) -> None:
        """`about` is for whoever looks at the folder. Raises OSError."""
        for folder in (self.path, os.path.join(self.path, _TREES), os.path.join(self.path, _ANSWERS)):
            os.makedirs(folder, mode=0o711, exist_ok=True)
        about_file = os.path.join(self.path, "about.json")
        if not os.path.exists(about_file):
            _write(about_file, about)

    def take_lock(self, wait: locks.WaitReadable) -> int:
        """Held by who changes the mirror, or takes from it."""
        return locks.take(self.lock, wait=wait)

    def take_asking_lock(self, wait: locks.WaitReadable) -> int:
        """Held by who asks the remote: one question for all that wait, and a long fetch is in no question's way."""
        return locks.take(f"{self.lock}.asking", wait=wait)

    # -- what the remote said -----------------------------------------------------------------------------------

    def read_answer(self, name: str) -> Answer | None:
        found = _read(os.path.join(self.path, _ANSWERS, name))
        return None if found is None else Answer(**found)

    def keep_answer(self, name: str, answer: Answer) -> None:
        _write(os.path.join(self.path, _ANSWERS, name), answer.to_json())

    # -- the mirror ---------------------------------------------------------------------------------------------

    def mirrored_refs(self) -> Mapping[str, str] | None:
        """The remote's refs as they were fetched last; None where no fetch came to its end."""
        found = _read(os.path.join(self.path, _STATE))
        return None if found is None else found["refs"]

    def keep_mirrored_refs(self, refs: Mapping[str, str]) -> None:
        _write(os.path.join(self.path, _STATE), {"refs": dict(refs)})

    def begin_fetch(self, owner: int | None) -> None:
        """From here until `keep_mirrored_refs` the mirror is not to be believed."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, _STATE))
        if not os.path.isdir(self.mirror):
            os.mkdir(self.mirror, 0o755)
            if owner is not None:
                os.chown(self.mirror, owner, owner)

    def drop_torn_mirror(self) -> None:
        """A pack that a crash cut off would be in the way of each fetch, and be handed on to each tree."""
        if not all(_is_whole(each) for each in glob.iglob(f"{glob.escape(self.mirror)}/objects/pack/*.pack")):
            self.drop_mirror()

    def drop_mirror(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self.path, _STATE))
        remove_tree(self.mirror)

    # -- prepared trees -----------------------------------------------------------------------------------------

    def tree(self, name: str) -> PreparedTree:
        return PreparedTree(os.path.join(self.path, _TREES, name))

    def trees(self) -> list[PreparedTree]:
        """Those that are whole, the latest used first."""
        folder = os.path.join(self.path, _TREES)
        trees = [PreparedTree(os.path.join(folder, name)) for name in _names(folder) if "." not in name]
        return sorted((tree for tree in trees if tree.about()), key=lambda tree: -tree.used_at)

    def remove_leftovers(self) -> None:
        """What a killed maker or remover left of a tree, locks of trees that are no more, answers that hold no more."""
        answers = os.path.join(self.path, _ANSWERS)
        for name in _names(answers):
            path = os.path.join(answers, name)
            with contextlib.suppress(FileNotFoundError):
                if os.stat(path).st_mtime < time.time() - _ANSWERS_KEPT_S:
                    os.unlink(path)
        folder = os.path.join(self.path, _TREES)
        for name in {name.partition(".")[0] for name in _names(folder) if "." in name}:
            tree = PreparedTree(os.path.join(folder, name))
            lock = locks.try_take(tree.lock)
            if lock is not None:
                with contextlib.closing(os.fdopen(lock)):
                    tree.clear()


class PreparedTree:
    """A checked-out tree that is never written to again. Who holds its lock shared may lie over it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.files = os.path.join(path, "tree")
        self.lock = f"{path}.lock"
        self.draft = f"{path}.new"
        self.draft_files = os.path.join(self.draft, "tree")

    def about(self) -> dict[str, Any] | None:
        """What it was made of, `bytes` and `boot_id` included; None where it is not whole."""
        return _read(os.path.join(self.path, "about.json"))

    @property
    def used_at(self) -> float:
        try:
            return os.stat(self.lock).st_mtime
        except FileNotFoundError:
            return 0.0

    def begin(self) -> str:
        """A folder for the draft, empty. Only under the exclusive lock."""
        remove_tree(self.draft)
        remove_tree(self.path)
        os.makedirs(self.draft_files, mode=0o755)
        return self.draft_files

    def publish(self, about: Mapping[str, Any]) -> None:
        _write(os.path.join(self.draft, "about.json"), about)
        os.rename(self.draft, self.path)

    def remove(self) -> None:
        """Only under the exclusive lock, which is gone with it."""
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, self._doomed)
        self.clear()

    def clear(self) -> None:
        """Removes what is not the whole tree, and the lock where there is none. Only under the exclusive lock."""
        remove_tree(self.draft)
        remove_tree(self._doomed)
        if not os.path.exists(self.path):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.lock)

    @property
    def _doomed(self) -> str:
        return f"{self.path}.old"


def _is_whole(pack: str) -> bool:
    """A pack ends with its checksum, which its index repeats before its own."""
    try:
        with open(pack, "rb") as file, open(f"{pack.removesuffix('.pack')}.idx", "rb") as index:
            size, index_size = os.fstat(file.fileno()).st_size, os.fstat(index.fileno()).st_size
            for length in (20, 32):
                if size > length and index_size > 2 * length:
                    file.seek(-length, os.SEEK_END)
                    index.seek(-2 * length, os.SEEK_END)
                    if file.read(length) == index.read(length):
                        return True
    except FileNotFoundError:
        pass
    return False


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _read(path: str) -> dict[str, Any] | None:
    """None where it is missing, or torn by a crash of the host."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _write(path: str, document: Mapping[str, Any]) -> None:
    temporary = f"{path}.{os.getpid()}.new"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        json.dump(document, file)
    os.replace(temporary, path)
