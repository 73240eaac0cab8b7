"""One saved cache and whose it is: tenant and queue are a part of every name, by a hash that no two share."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass

_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose caches: no other scope can name, read or replace them."""

    tenant: str
    queue: str

    @property
    def folder(self) -> str:
        """JSON keeps the two apart whatever they hold; a separator would not."""
        return _hash(json.dumps([self.tenant, self.queue]))


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A key and the archive that it names. `saved_at` is epoch seconds."""

    scope: Scope
    key: str
    sha256: str
    size_bytes: int
    saved_at: float

    @property
    def file(self) -> str:
        return key_file(self.key)

    def to_json(self) -> str:
        return json.dumps(
            {
                "tenant": self.scope.tenant,
                "queue": self.scope.queue,
                "key": self.key,
                "sha256": self.sha256,
                "size_bytes": self.size_bytes,
                "saved_at": self.saved_at,
            }
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredEntry:
    """As it lies in the store. `used_at` (epoch seconds): when it was saved or restored last."""

    entry: Entry
    used_at: float


def key_file(key: str) -> str:
    """The name of a key's file: keys hold slashes, dots and anything else."""
    return _hash(key)


def parse_entry(text: str, *, folder: str, file: str) -> Entry | None:
    """None for what is torn, or does not belong where it lies."""
    try:
        document = json.loads(text)
        entry = Entry(
            scope=Scope(tenant=document["tenant"], queue=document["queue"]),
            key=document["key"],
            sha256=document["sha256"],
            size_bytes=int(document["size_bytes"]),
            saved_at=float(document["saved_at"]),
        )
        is_ours = entry.scope.folder == folder and entry.file == file and _DIGEST.fullmatch(entry.sha256)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
    return entry if is_ours else None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
