"""Whose credentials go to which registry: rules and their choice, purely, and the rim that reads files, asks helpers.

A rule is a user name and password for a host (or a part of its repositories), or a docker config.json. A rule that
names tenants serves these alone and wins over one for everybody; then a login wins over a config, then the longer
prefix.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from runyard.model.errors import ConfigError
from runyard.registry import docker_config
from runyard.registry.reference import canonical_host, is_host, is_repository

_KEYS = frozenset(
    ("host", "username", "password", "password_file", "docker_config", "tenants", "plain_http", "private")
)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a registry is shown. `identity_token` is an OAuth2 refresh token instead of user name and password."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class Rule:
    """`prefix` is a host, or a host and the beginning of its repositories' path; None for a config file.

    `tenants` None is every tenant, and also whoever asks for none.
    """

    prefix: str | None
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: Path | None = None
    config_file: Path | None = None
    tenants: frozenset[str] | None = None

    @property
    def has_credentials(self) -> bool:
        return bool(self.username) or self.config_file is not None


@dataclass(frozen=True, slots=True)
class Registries:
    """What an operator says of registries. Hosts carry their port."""

    rules: tuple[Rule, ...] = ()
    plain_http_hosts: frozenset[str] = frozenset()
    private_hosts: frozenset[str] = frozenset()


def parse_registries(rows: Any, *, field: str = "registries") -> Registries:
    """The array of tables `[[registries]]` of a config. Raises ConfigError that lists every problem.

    Keys: `host` (host[:port][/prefix]) or `docker_config` (a file), `username` with `password` or `password_file`,
    `tenants` (a list), `plain_http` (no TLS), `private` (may be at an address that is not public).
    """
    problems: list[str] = []
    parsed: list[tuple[Rule, Mapping[str, Any]]] = []
    if not isinstance(rows, Sequence) or isinstance(rows, str):
        raise ConfigError(f"{field} is {rows!r:.80}", field=field, cure="write it as tables, [[…registries]]")
    for number, row in enumerate(rows):
        where = f"{field}.{number}"
        faults = list(_faults(row, where))
        problems += faults
        if not faults:
            parsed.append((_rule(row), row))
    if problems:
        raise ConfigError("; ".join(problems), field=field, cure="correct each of them")
    hosts = {key: frozenset(_host_of(rule) for rule, row in parsed if row.get(key)) for key in _FLAGS}
    rules = tuple(rule for rule, _ in parsed if rule.has_credentials)
    return Registries(rules, plain_http_hosts=hosts["plain_http"], private_hosts=hosts["private"])


def rules_for(rules: Iterable[Rule], host: str, repository: str, tenant: str | None) -> list[Rule]:
    """The rules that may answer for a repository and tenant, the best first. A config may know none."""
    name = f"{canonical_host(host)}/{repository}"
    fit = [rule for rule in rules if _is_for(rule, name, tenant)]
    return sorted(
        fit, key=lambda rule: (rule.tenants is None, rule.config_file is not None, -len(rule.prefix or ""))
    )


class CredentialStore:
    """Finds credentials. Files are read at each look, so that a rotated password counts at once; what a helper said is
    kept for `HELPER_KEPT_S`."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = tuple(rules)
        self._helpers = docker_config.Helpers()

    async def find(self, host: str, repository: str, *, tenant: str | None = None) -> Credentials | None:
        """None where no rule fits: the registry is asked as anybody. Raises ConfigError where a file or helper that
        should answer cannot: asking as anybody would then only hide the fault."""
        for rule in rules_for(self._rules, host, repository, tenant):
            if rule.config_file is not None:
                found = await self._from_config(rule.config_file, host, repository)
                if found is not None:
                    return found
            elif rule.password_file is not None:
                return Credentials(rule.username, await asyncio.to_thread(_password, rule.password_file))
            else:
                return Credentials(rule.username, rule.password)
        return None

    async def _from_config(self, file: Path, host: str, repository: str) -> Credentials | None:
        config = await asyncio.to_thread(docker_config.read, file)
        match docker_config.look_up(config, host, repository):
            case docker_config.AskHelper(helper, server):
                answer = await self._helpers.ask(helper, server)
            case answer:
                pass
        if answer is None:
            return None
        return Credentials(answer.username, password=answer.password, identity_token=answer.identity_token)


_FLAGS = ("plain_http", "private")


def _faults(row: Any, where: str) -> Iterable[str]:
    if not isinstance(row, Mapping):
        yield f"{where} is {row!r:.80}, not a table"
        return
    for key in sorted(set(row) - _KEYS):
        yield f"{where}.{key}: no such key; there are {', '.join(sorted(_KEYS))}"
    host, config = row.get("host"), row.get("docker_config")
    if (host is None) == (config is None):
        yield f"{where}: give `host` or `docker_config`, one of them"
    if host is not None and not (isinstance(host, str) and _is_prefix(host)):
        yield f"{where}.host: {host!r:.80} is no host[:port][/repository]"
    for key in ("username", "password", "password_file", "docker_config"):
        if key in row and not (isinstance(row[key], str) and row[key]):
            yield f"{where}.{key}: write a text that is not empty"
    if config is not None and {"username", "password", "password_file", *_FLAGS} & set(row):
        yield f"{where}: beside `docker_config` only `tenants` can stand"
    if host is not None and ("username" in row) != (("password" in row) + ("password_file" in row) == 1):
        yield f"{where}: `username` needs `password` or `password_file`, one of them"
    tenants = row.get("tenants")
    if tenants is not None and not (
        isinstance(tenants, list) and all(isinstance(name, str) for name in tenants)
    ):
        yield f"{where}.tenants: write a list of tenants' names"
    for key in _FLAGS:
        if not isinstance(row.get(key, False), bool):
            yield f"{where}.{key}: write true or false"


def _rule(row: Mapping[str, Any]) -> Rule:
    prefix = row.get("host")
    if prefix is not None:
        host, slash, path = prefix.partition("/")
        prefix = f"{canonical_host(host)}{slash}{path}"
    password_file, config_file = row.get("password_file"), row.get("docker_config")
    tenants = row.get("tenants")
    return Rule(
        prefix,
        username=row.get("username", ""),
        password=row.get("password", ""),
        password_file=Path(password_file) if password_file else None,
        config_file=Path(config_file) if config_file else None,
        tenants=None if tenants is None else frozenset(tenants),
    )


def _is_prefix(text: str) -> bool:
    host, slash, path = text.partition("/")
    return is_host(host) and (not slash or is_repository(path))


def _host_of(rule: Rule) -> str:
    return (rule.prefix or "").partition("/")[0]


def _is_for(rule: Rule, name: str, tenant: str | None) -> bool:
    if rule.tenants is not None and tenant not in rule.tenants:
        return False
    return rule.prefix is None or name == rule.prefix or name.startswith(rule.prefix + "/")


def _password(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8").strip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        raise ConfigError(f"cannot read the registry password in {file}: {reason}") from None
