"""What an attempt leaves, as one tar on stdout, for the service to read by an exec; its container holds until then.

The same walk as on a host of ours (host/collect.py): regular files, opened beneath the workspace, bounded in number,
bytes and time. The members come as `artifacts/PATH`, then `outputs.json`, then `words.txt` (what was left out, and
why). `end` is last: a stream without it was cut off.
"""

from __future__ import annotations

import io
import json
import os
import sys
import tarfile
import time
from pathlib import Path
from typing import IO

from runyard.host import collect
from runyard.host.linux import boottime
from runyard.host.plan import Plan
from runyard.providers.kubernetes import layout

ARTIFACTS, OUTPUTS, WORDS, END = "artifacts/", "outputs.json", "words.txt", "end"
_HOLD_S = 330.0  # step.sh ends it by then anyway
_LOOK_S = 0.05
_CHUNK_BYTES = 1 << 20


def hold(root: str = layout.ROOT) -> int:
    """Until `done`: as long as this lasts, its container can be asked."""
    ends_at = boottime() + _HOLD_S
    while boottime() < ends_at and not os.path.exists(f"{root}/result/{layout.DONE}"):
        time.sleep(_LOOK_S)
    return 0


def done(root: str = layout.ROOT) -> int:
    Path(root, "result", layout.DONE).touch()
    return 0


def read(root: str = layout.ROOT) -> int:
    """Writes the tar to stdout."""
    plan = Plan.from_json(Path(root, "input", layout.PLAN).read_text())
    write_bundle(plan, f"{root}/files", sys.stdout.buffer)
    sys.stdout.buffer.flush()
    return 0


def write_bundle(plan: Plan, files: str, stream: IO[bytes]) -> None:
    words: list[str] = []
    ends_at = boottime() + plan.collect_limit_s

    def must_end() -> str | None:
        return f"collecting took longer than {plan.collect_limit_s:g} s" if boottime() > ends_at else None

    with tarfile.open(fileobj=stream, mode="w|", format=tarfile.PAX_FORMAT) as bundle:
        copier = _TarCopier(bundle, plan.artifact_bytes_max, must_end)
        outputs: dict[str, str] = {}
        try:
            collect.gather(plan.artifacts, f"{files}/workspace", copier, words.append)
            outputs = collect.read_outputs(plan, f"{files}/workspace", f"{files}/outputs", words.append)
        except OSError as error:
            words.append(f"artifacts: not all could be kept: {error}")
        _add(bundle, OUTPUTS, json.dumps(outputs).encode())
        _add(bundle, WORDS, "".join(f"{word}\n" for word in words).encode(errors="replace"))
        _add(bundle, END, b"")


class _TarCopier:
    """A collect.Copier whose target is the tar: each file has the size that it had when it was opened."""

    def __init__(self, bundle: tarfile.TarFile, bytes_max: int, must_end: collect.MustEnd) -> None:
        self._bundle = bundle
        self._bytes_max = self._bytes_left = bytes_max
        self._must_end = must_end

    def check(self) -> None:
        if why := self._must_end():
            raise collect.TooMuch(why)

    def copy(self, source: int, path: str) -> None:
        self.check()
        size = os.fstat(source).st_size
        if size > self._bytes_left:
            raise collect.TooMuch(f"more than {self._bytes_max} bytes match, at {path}")
        self._bytes_left -= size
        entry = tarfile.TarInfo(ARTIFACTS + path)
        entry.size = size
        self._bundle.addfile(entry, _Exactly(source, size))


class _Exactly:
    """Reads that many bytes of a file, zeros where it became shorter; never more than a chunk in memory."""

    def __init__(self, fd: int, size: int) -> None:
        self._fd = fd
        self._left = size

    def read(self, size: int = _CHUNK_BYTES) -> bytes:
        wanted = min(size, self._left)
        data = os.read(self._fd, wanted)
        self._left -= wanted
        while 0 < len(data) < wanted:
            more = os.read(self._fd, wanted - len(data))
            if not more:
                break
            data += more
        return data.ljust(wanted, b"\0")


def _add(bundle: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    bundle.addfile(entry, io.BytesIO(content))
