"""A layer's archive -> a folder that overlayfs can stack, or a refusal; the folder is only whole after a return."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from runyard.host.images.archive import entries
from runyard.host.images.layer_stream import LayerLimits, LayerRefused, LayerStream
from runyard.host.images.layer_tree import LayerTree
from runyard.host.images.layers_beneath import Lower

_REPORT_EVERY_BYTES = 4 << 20
_HOSTILE = {errno.ENAMETOOLONG, errno.EINVAL, errno.EMLINK, errno.EFBIG}
"""What the kernel says of names, counts and sizes that no honest archive holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFacts:
    """`opaque` are the folders that hide what lies beneath; the rest was not kept as it was, and is told."""

    diff_id: str
    bytes: int
    entries: int
    opaque: tuple[str, ...] = ()
    devices: int = 0
    xattrs: int = 0
    foreign_ids: int = 0


def unpack_layer(
    blob_fd: int,
    root_fd: int,
    *,
    lowers: Sequence[Lower],
    diff_id: str,
    as_root: bool,
    limits: LayerLimits | None = None,
    report: Callable[[int], None] = lambda packed_bytes: None,
) -> LayerFacts:
    """Unpacks into the empty folder `root_fd`; `lowers` are the layers beneath from the top down. `report` hears how
    many packed bytes were read. Raises LayerRefused, OSError (the disk is full, …)."""
    limits = limits or LayerLimits()
    count = reported = 0
    with os.fdopen(os.dup(blob_fd), "rb") as file:
        stream = LayerStream(file, limits)
        tree = LayerTree(root_fd=root_fd, lowers=lowers, as_root=as_root)
        try:
            for entry in entries(stream):
                count += 1
                if count > limits.entries_max:
                    raise LayerRefused(f"the layer holds more than {limits.entries_max} entries")
                if entry.size > limits.bytes_max:
                    raise LayerRefused(f"{entry.path!r} is larger than {limits.bytes_max} bytes")
                tree.add(entry, stream)
                if stream.packed_bytes_read > reported + _REPORT_EVERY_BYTES:
                    reported = stream.packed_bytes_read
                    report(reported)
            tree.finish()
        except OSError as error:
            if error.errno in _HOSTILE:
                raise LayerRefused(f"the layer cannot be unpacked: {error}") from None
            raise
        stream.drain()
    if stream.digest != diff_id:
        raise LayerRefused(f"the layer unpacks to {stream.digest}, the image's configuration says {diff_id}")
    tally = tree.tally
    return LayerFacts(
        diff_id=diff_id,
        bytes=stream.bytes_read,
        entries=count,
        opaque=tuple(sorted(tree.opaque)),
        devices=tally.devices,
        xattrs=tally.xattrs,
        foreign_ids=tally.foreign_ids,
    )
