"""Layers for tests, made by hand: tar archives that no honest tool would write among them."""

import gzip
import hashlib
import io
import os
import tarfile
from pathlib import Path

from runyard.host.images.layer_stream import LayerLimits
from runyard.host.images.layers_beneath import Lower
from runyard.host.images.unpack import LayerFacts, unpack_layer


def entry(name: str, content: bytes | str | None = None, **fields) -> tuple[tarfile.TarInfo, bytes]:
    """A file where there is content, else a folder; `fields` are TarInfo's."""
    info = tarfile.TarInfo(name)
    info.type = tarfile.DIRTYPE if content is None else tarfile.REGTYPE
    info.mode = 0o755 if content is None else 0o644
    data = content.encode() if isinstance(content, str) else (content or b"")
    info.size = len(data)
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def link(name: str, target: str, **fields):
    return entry(name, b"", type=tarfile.SYMTYPE, linkname=target, **fields)


def hard_link(name: str, target: str):
    return entry(name, b"", type=tarfile.LNKTYPE, linkname=target)


def archive(*entries, format=tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def digest_of(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def packed(data: bytes) -> bytes:
    return gzip.compress(data, compresslevel=1, mtime=0)


class Stack:
    """Unpacked layers over one another in a folder, as overlayfs would stack them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.roots: list[Path] = []
        self._lowers: list[Lower] = []

    def add(self, data: bytes, *, blob: bytes | None = None, limits: LayerLimits | None = None) -> LayerFacts:
        """Unpacks an archive, gzipped unless `blob` holds it in another form."""
        root = self.folder / f"layer-{len(self.roots)}"
        root.mkdir(exist_ok=True)
        root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        blob_file = self.folder / f"blob-{len(self.roots)}"
        blob_file.write_bytes(packed(data) if blob is None else blob)
        blob_fd = os.open(blob_file, os.O_RDONLY)
        try:
            facts = unpack_layer(
                blob_fd, root_fd, lowers=self._lowers, diff_id=digest_of(data),
                as_root=os.geteuid() == 0, limits=limits,
            )  # fmt: skip
        finally:
            os.close(blob_fd)
        self.roots.append(root)
        self._lowers = [Lower(fd=root_fd, opaque=frozenset(facts.opaque)), *self._lowers]
        return facts

    def unpack(self, *entries, **fields) -> Path:
        self.add(archive(*entries, **fields))
        return self.roots[-1]
