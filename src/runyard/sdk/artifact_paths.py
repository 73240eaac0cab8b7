"""Where a downloaded artifact may be written. Its path was chosen by the job, so it is not to be trusted."""

from __future__ import annotations

from pathlib import Path, PurePosixPath, PureWindowsPath

from runyard.sdk.errors import RunyardApiError


class UnsafeArtifact(RunyardApiError):
    """An artifact whose path would be written outside the folder that the caller named."""


def artifact_target(directory: Path, path: str) -> Path:
    """`path` beneath `directory`. Raises UnsafeArtifact for what leaves it: by `..`, as absolute, through a link."""
    parts = PurePosixPath(path).parts
    windows = PureWindowsPath(path)
    is_odd = not parts or "\0" in path or "\\" in path or windows.drive or windows.is_reserved()
    if is_odd or path.startswith("/") or ".." in parts:
        raise _unsafe(directory, path)
    root = directory.resolve()
    target = root.joinpath(*parts)
    if not target.parent.resolve().is_relative_to(root) or target.is_dir():
        raise _unsafe(directory, path)
    return target


def _unsafe(directory: Path, path: str) -> UnsafeArtifact:
    return UnsafeArtifact(
        f"cannot write artifact {path!r}: it would not be a file beneath {directory}",
        code="unsafe_path",
        cure="download it by itself with the API, to a name of your own",
    )
