"""What the cache did since it started, for /metrics. Plain numbers: one loop writes them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """`joined`: a blob served from a download that another request had begun. `stale`: a name served past its time
    because the upstream failed. `corrupt`: downloads that were not what their digest said."""

    hits: int = 0
    misses: int = 0
    joined: int = 0
    stale: int = 0
    denied: int = 0
    corrupt: int = 0
    evictions: int = 0
    upstream_requests: int = 0
    upstream_bytes: int = 0
    served_bytes: int = 0
    stored_bytes: int = 0
    stored_blobs: int = 0
