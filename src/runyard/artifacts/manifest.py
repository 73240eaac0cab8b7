"""What an attempt left, as the one document that names it. Pure.

Paths are bytes on the host that ran the job; here they are text with each byte that is no UTF-8 as a lone surrogate.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass

from runyard.artifacts.port import Artifact

_ESCAPED_BYTE = re.compile(rb"\\x([0-9a-f]{2})")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    """`sha256` is of the content and names its object."""

    path: bytes
    size: int
    sha256: str

    @property
    def artifact(self) -> Artifact:
        return Artifact(self.path.decode("utf-8", "backslashreplace"), self.size)


def to_json(files: Iterable[StoredFile]) -> bytes:
    rows = [{"path": os.fsdecode(each.path), "size": each.size, "sha256": each.sha256} for each in files]
    return json.dumps({"files": rows}).encode()


def parse(data: bytes) -> list[StoredFile]:
    """By path. Raises ValueError for what is no manifest."""
    try:
        files = [
            StoredFile(path=os.fsencode(row["path"]), size=int(row["size"]), sha256=row["sha256"])
            for row in json.loads(data)["files"]
        ]
    except (KeyError, TypeError, UnicodeEncodeError) as error:
        raise ValueError(f"no manifest of artifacts: {error}") from None
    if not all(_DIGEST.fullmatch(each.sha256) for each in files):
        raise ValueError("no manifest of artifacts: a digest is none")
    return sorted(files, key=lambda each: each.path)


def merged(old: Iterable[StoredFile], new: Iterable[StoredFile]) -> list[StoredFile]:
    """Both; where a path is in both, the new one."""
    return sorted({each.path: each for each in (*old, *new)}.values(), key=lambda each: each.path)


def find(files: Iterable[StoredFile], path: str) -> StoredFile | None:
    """The file of a path as it is written in a listing: exactly, else with its escapes read."""
    try:
        exact = path.encode()
    except UnicodeEncodeError:
        return None
    by_path = {each.path: each for each in files}
    unescaped = _ESCAPED_BYTE.sub(lambda match: bytes([int(match[1], 16)]), exact)
    return by_path.get(exact) or by_path.get(unescaped)
