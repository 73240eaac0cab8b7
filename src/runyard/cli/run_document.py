"""The job document that `run`'s flags spell."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runyard.cli.exit_codes import UsageError

FILES_BYTES_MAX = 3 << 20
"""Base64 makes four bytes of three, and a whole document may have 4 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFlags:
    """What the user gave, still as text; None and () are what was not given, so the queue's defaults hold."""

    command: Sequence[str]
    image: str | None = None
    queue: str | None = None
    tenant: str | None = None
    id: str | None = None
    git: str | None = None
    ref: str | None = None
    file: Sequence[str] = ()
    env: Sequence[str] = ()
    secret: Sequence[str] = ()
    network: str | None = None
    allow: Sequence[str] = ()
    isolation: str | None = None
    cpu: str | None = None
    memory: str | None = None
    timeout: str | None = None
    label: Sequence[str] = ()
    artifact: Sequence[str] = ()


def build_document(flags: RunFlags, environ: Mapping[str, str]) -> dict[str, Any]:
    """Only what was given. Raises UsageError for what cannot be sent; whether it can run is the service's word."""
    if not flags.command:
        raise UsageError("nothing to run; write `runyard run [flags] -- COMMAND…`")
    if flags.ref and not flags.git:
        raise UsageError("--ref needs --git, the repository it is a ref of")
    if flags.allow and flags.network:
        raise UsageError(f"--allow is a network of its own; leave --network {flags.network} away")
    whole: dict[str, Any] = {
        "id": flags.id,
        "queue": flags.queue,
        "tenant": flags.tenant,
        "image": flags.image,
        "labels": dict(_pair(one, "--label") for one in flags.label),
        "env": dict(_variable(one, environ) for one in flags.env),
        "steps": [{"name": "run", "command": list(flags.command)}],
        "workspace": _given(
            {"git": _given({"url": flags.git, "ref": flags.ref}), "files": read_files(flags.file)}
        ),
        "requirements": _given({"isolation": flags.isolation, "cpu": flags.cpu, "memory": flags.memory}),
        "limits": _given({"run": flags.timeout}),
        "network": {"allow": list(flags.allow)} if flags.allow else flags.network,
        "secrets": list(flags.secret),
        "artifacts": list(flags.artifact),
    }
    return _given(whole)


def read_files(sources: Iterable[str]) -> dict[str, Any]:
    """`SRC[:DEST]` each, as `files` of a workspace; together at most FILES_BYTES_MAX."""
    files: dict[str, Any] = {}
    rest = FILES_BYTES_MAX
    for given in sources:
        source, target = split_file(given)
        content = _read_bytes(source, rest)
        rest -= len(content)
        if target in files:
            raise UsageError(f"--file: two files go to '{target}' in the workspace")
        files[target] = {"base64": base64.b64encode(content).decode()}
    return files


def split_file(given: str) -> tuple[Path, str]:
    r"""`SRC[:DEST]`. DEST is the file's name if it is left out; in `C:\x` the colon belongs to the drive."""
    drive, rest = (given[:2], given[2:]) if given[1:3] in (":\\", ":/") else ("", given)
    source, colon, target = rest.partition(":")
    path = Path(drive + source)
    return path, (target if colon and target else path.name)


def _read_bytes(path: Path, bytes_max: int) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise UsageError(f"--file: {path} cannot be read ({error.strerror})") from None
    if len(content) > bytes_max:
        raise UsageError(
            f"--file: with {path} the files are above {FILES_BYTES_MAX >> 20} MiB in all; fetch large ones in the"
            " job, with --git or from a URL"
        )
    return content


def _variable(given: str, environ: Mapping[str, str]) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if equals:
        return name, value
    if name not in environ:
        raise UsageError(f"--env {name}: it is not set here; set it, or write --env {name}=VALUE")
    return name, environ[name]


def _pair(given: str, flag: str) -> tuple[str, str]:
    name, equals, value = given.partition("=")
    if not equals or not name:
        raise UsageError(f"{flag} {given}: write it as {flag} NAME=VALUE")
    return name, value


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value not in (None, {}, [])}
