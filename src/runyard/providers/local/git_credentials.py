"""The pool option `git_credentials`: with what to fetch which repositories, and for whose jobs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from runyard.host.git_source import SourceRefused, parse_url

ANYONE = "*"
WANTED = (
    "a list of tables with `url`, the beginning of the addresses that it is for; `tenants`, a list of names or ['*'];"
    " and either `username` and `password_file` (https), or `ssh_key_file` and `known_hosts_file` (ssh)"
)
_KEYS = ("url", "tenants", "username", "password_file", "ssh_key_file", "known_hosts_file")


@dataclass(frozen=True, slots=True, kw_only=True)
class GitCredential:
    """`url` is a prefix by whole parts of the path. Files are absolute paths on the pool's host."""

    url: str
    tenants: tuple[str, ...]
    username: str = ""
    password_file: str | None = None
    ssh_key_file: str | None = None
    known_hosts_file: str | None = None

    def is_for(self, tenant: str) -> bool:
        return ANYONE in self.tenants or tenant in self.tenants


def parse_git_credentials(value: Any) -> tuple[GitCredential, ...]:
    """Raises ValueError, TypeError, KeyError."""
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(_parse(each) for each in value)


def _parse(value: Any) -> GitCredential:
    if not isinstance(value, Mapping) or not set(value) <= set(_KEYS):
        raise ValueError
    tenants = value["tenants"]
    if (
        not isinstance(tenants, list | tuple)
        or not tenants
        or not all(isinstance(each, str) for each in tenants)
    ):
        raise ValueError
    texts = {key: each for key, each in value.items() if key != "tenants"}
    if not all(isinstance(each, str) and each for each in texts.values()):
        raise ValueError
    if not all(each.startswith("/") for key, each in texts.items() if key.endswith("_file")):
        raise ValueError
    credential = GitCredential(tenants=tuple(tenants), **texts)
    _check_url(credential)
    return credential


def _check_url(credential: GitCredential) -> None:
    """An address without credentials of its own, of the protocol that the rest is for."""
    try:
        remote = parse_url(credential.url)
    except SourceRefused as error:
        raise ValueError from error
    if remote.password or (remote.protocol == "https" and remote.user):
        raise ValueError
    if remote.protocol == "ssh":
        is_whole = (
            bool(credential.ssh_key_file and credential.known_hosts_file) and not credential.password_file
        )
    else:
        is_whole = bool(credential.username and credential.password_file) and not credential.ssh_key_file
    if remote.protocol not in ("https", "http", "ssh") or not is_whole:
        raise ValueError
