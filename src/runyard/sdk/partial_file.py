"""A file that appears under its name only when it is whole."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from types import TracebackType


class PartialFile:
    """Written beside `target` and moved over it by `finish`; left by an error, nothing remains."""

    def __init__(self, target: Path) -> None:
        self._target = target
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".part", dir=target.parent)
        self._file, self._path = os.fdopen(descriptor, "wb"), Path(name)

    def __enter__(self) -> PartialFile:
        return self

    def write(self, chunk: bytes) -> None:
        self._file.write(chunk)

    def finish(self) -> None:
        self._file.close()
        self._path.chmod(0o644)
        os.replace(self._path, self._target)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
