"""Finds the service and the token: RUNYARD_URL and RUNYARD_TOKEN, else what `serve` left in its data folder."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from runyard.sdk.errors import NotConfigured

DEFAULT_ADDRESS = "http://127.0.0.1:7700"
_MAKE_TOKEN = (
    "run `runyard token create NAME --scope submit` as the user who runs the service (often"
    " `sudo runyard token create …`) and set RUNYARD_TOKEN to what it prints"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    url: str
    token: str = field(repr=False)


def data_folders(environ: Mapping[str, str], *, is_root: bool | None = None) -> list[Path]:
    """Where a service of this host may have left its address, the likeliest first."""
    state = environ.get("XDG_STATE_HOME")
    own = (Path(state) if state else Path.home() / ".local" / "state") / "runyard"
    shared = Path("/var/lib/runyard")
    if is_root is None:
        is_root = hasattr(os, "geteuid") and os.geteuid() == 0
    folders = [shared, own] if is_root else [own, shared]
    named = environ.get("RUNYARD_DATA")
    return [Path(named), *folders] if named else folders


def find_service(
    environ: Mapping[str, str] | None = None,
    *,
    url: str | None = None,
    token: str | None = None,
    folders: Sequence[Path] | None = None,
) -> Service:
    """The service to talk to; what the caller gives goes first. Raises NotConfigured, which says the cure.

    A token found in a folder is the admin's: it goes only to the address found beside it or to this very host.
    """
    environ = os.environ if environ is None else environ
    folders = data_folders(environ) if folders is None else folders
    url = url or environ.get("RUNYARD_URL") or None
    token = token or environ.get("RUNYARD_TOKEN") or None
    folder = next((one for one in folders if _has_service(one)), None)
    if url is None:
        address = _read(folder / "address") if folder else None
        if folder is None and token is None:
            raise _nothing_found(folders)
        url = address or DEFAULT_ADDRESS
    url = _as_url(url)
    _check_url(url)
    return Service(url=url, token=token or _folder_token(url, folder, folders))


def _has_service(folder: Path) -> bool:
    """Whether `serve` made its files here; a folder that may not be looked into counts."""
    try:
        return (folder / "address").exists() or (folder / "admin.token").exists()
    except PermissionError:
        return True


def _folder_token(url: str, folder: Path | None, folders: Sequence[Path]) -> str:
    if not is_loopback(url) and (folder is None or _as_url(_read(folder / "address") or "") != url):
        raise NotConfigured(
            f"no token for {url}: RUNYARD_TOKEN is not set", code="no_token", cure=_MAKE_TOKEN
        )
    if folder is None:
        searched = ", ".join(str(one) for one in folders)
        raise NotConfigured(
            f"no token for {url}: RUNYARD_TOKEN is not set and none of {searched} holds admin.token",
            code="no_token",
            cure=_MAKE_TOKEN,
        )
    path = folder / "admin.token"
    try:
        token = path.read_text().strip()
    except FileNotFoundError:
        raise NotConfigured(
            f"no token for {url}: RUNYARD_TOKEN is not set and there is no {path}",
            code="no_token",
            cure=_MAKE_TOKEN,
        ) from None
    except OSError as error:
        raise NotConfigured(
            f"no token for {url}: RUNYARD_TOKEN is not set and {path} cannot be read ({error.strerror})",
            code="no_token",
            cure=_MAKE_TOKEN,
        ) from None
    return token


def _nothing_found(folders: Sequence[Path]) -> NotConfigured:
    searched = ", ".join(str(folder) for folder in folders)
    return NotConfigured(
        f"no service found: RUNYARD_URL is not set and none of {searched} holds an address",
        code="no_service",
        cure="start one with `runyard serve`; or set RUNYARD_DATA to its data folder, or RUNYARD_URL and RUNYARD_TOKEN",
    )


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip() or None
    except OSError:
        return None


def _as_url(address: str) -> str:
    """`127.0.0.1:7700` means http. A URL loses its trailing slash."""
    return (address if "://" in address else f"http://{address}").rstrip("/")


def _check_url(url: str) -> None:
    try:
        parts = urlsplit(url)
        is_good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_good = False
    if not is_good:
        raise NotConfigured(
            f"{url!r} is no address of a service",
            code="bad_url",
            cure="write RUNYARD_URL like http://127.0.0.1:7700 or https://runyard.example.org",
        )


def is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
