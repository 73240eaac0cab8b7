"""The keys of a `local` pool in the config file, validated all at once."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from runyard.host.network.lookups import parse_servers
from runyard.model.errors import ConfigError
from runyard.model.requirements import Isolation
from runyard.providers.local.git_credentials import WANTED, GitCredential, parse_git_credentials
from runyard.registry.credentials import Registries, parse_registries
from runyard.registry.reference import canonical_host, is_host, is_repository

GIT_PROTOCOLS = ("https", "ssh", "http", "git", "file")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kMGT]i?)?B?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30, "Ti": 1 << 40}


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalOptions:
    """`disk_max` is for a job that names no disk; `files_max` counts the files and folders of each;
    `cache_disk_max` bounds all named caches together, `cache_entry_max` each. `cpu` (cores) and `memory` set the
    budget; None: the host's, less the reserve. `egress_networks` are networks that jobs may reach although they are
    private; `nameservers` look up the names that a job lists, none: the host's own. A slot's user ids are the 65536
    from `uid_base + slot * 65536` on, clear of real users and of /etc/subuid; that of what fetches is the one before.
    `repository_bytes_max` 0 keeps no repositories. `image_disk_max` is for unpacked images; `registry_mirrors` leads
    images of a host to HOST[/PREFIX]. `isolation` none runs jobs bare that accept it."""

    isolation: Isolation = Isolation.CONTAINER
    git_protocols: tuple[str, ...] = ("https", "ssh")
    git_file_roots: tuple[str, ...] = ()
    git_credentials: tuple[GitCredential, ...] = field(default=(), repr=False)
    git_ca_file: str | None = None
    repository_bytes_max: int = 20 << 30
    allow_private_addresses: bool = False
    egress_networks: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    cpu_millis: int | None = None
    cpu_reserve_millis: int = 0
    memory_bytes: int | None = None
    memory_reserve_bytes: int = 512 << 20
    disk_reserve_bytes: int = 1 << 30
    disk_bytes_max: int = 10 << 30
    files_max: int = 1_000_000
    cache_disk_bytes_max: int = 10 << 30
    cache_entry_bytes_max: int = 2 << 30
    pids_max: int = 4096
    uid_base: int = 731_000_000
    kill_grace_s: float = 10.0
    image_disk_bytes_max: int = 20 << 30
    registries: Registries = field(default_factory=Registries)
    registry_mirrors: Mapping[str, str] = field(default_factory=dict)


def parse_options(pool: str, options: Mapping[str, Any]) -> LocalOptions:
    """Raises ConfigError naming every wrong key with its value and the cure."""
    values: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in options.items():
        if key == "registries":
            try:
                values[key] = parse_registries(value, field=f"pools.{pool}.registries")
            except ConfigError as error:
                problems.append(error.message.removeprefix(f"pools.{pool}."))
            continue
        entry = _KEYS.get(key)
        if entry is None:
            known = ", ".join(sorted((*_KEYS, "registries")))
            problems.append(f"{key} is not known; known are {known}")
            continue
        name, parse, wanted = entry
        try:
            values[name] = parse(value)
        except (ValueError, TypeError, KeyError):
            problems.append(f"{key} = {value!r} is wrong; give {wanted}")
    if problems:
        raise ConfigError(
            "; ".join(f"pools.{pool}.{problem}" for problem in problems),
            field=f"pools.{pool}",
            cure="correct these keys of the pool in the config file",
        )
    return LocalOptions(**values)


def parse_size(value: Any) -> int:
    """Bytes, from a number or a text such as `4Gi` or `500M`. Raises ValueError."""
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, int):
        if value < 0:
            raise ValueError
        return value
    match = _SIZE.fullmatch(str(value).strip())
    if match is None:
        raise ValueError
    unit = match[2] or ""
    return int(float(match[1]) * (_BINARY.get(unit) or _UNITS[unit]))


def _isolation(value: Any) -> Isolation:
    level = Isolation.parse(value)
    if level is Isolation.MICROVM:
        raise ValueError
    return level


def _protocols(value: Any) -> tuple[str, ...]:
    protocols = _texts(value)
    if not set(protocols) <= set(GIT_PROTOCOLS):
        raise ValueError
    return protocols


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(each, str) for each in value):
        raise ValueError
    return tuple(value)


def _paths(value: Any) -> tuple[str, ...]:
    paths = _texts(value)
    if not all(path.startswith("/") for path in paths):
        raise ValueError
    return paths


def _networks(value: Any) -> tuple[str, ...]:
    return tuple(str(ipaddress.IPv4Network(each)) for each in _texts(value))


def _nameservers(value: Any) -> tuple[str, ...]:
    names = _texts(value)
    for host, port in parse_servers(names):
        if not 1 <= port <= 65535:
            raise ValueError
        ipaddress.ip_address(host)
    return names


def _path(value: Any) -> str:
    return _paths([value])[0]


def _boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _labels(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping) or not all(isinstance(each, str) for each in value.values()):
        raise ValueError
    return dict(value)


def _mirrors(value: Any) -> dict[str, str]:
    mirrors = _labels(value)
    for host, mirror in mirrors.items():
        prefix, _, path = mirror.partition("/")
        if not is_host(host) or not is_host(prefix) or (path and not is_repository(path)):
            raise ValueError
    return {canonical_host(host): mirror for host, mirror in mirrors.items()}


def _cpu(value: Any) -> int:
    if isinstance(value, bool):
        raise ValueError
    millis = int(value[:-1]) if isinstance(value, str) and value.endswith("m") else round(float(value) * 1000)
    if millis < 0:
        raise ValueError
    return millis


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return parse


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 3600:
        raise ValueError
    return float(value)


_KEYS: dict[str, tuple[str, Callable[[Any], Any], str]] = {
    "isolation": ("isolation", _isolation, "'container' or 'none'"),
    "git_protocols": ("git_protocols", _protocols, f"a list of {', '.join(GIT_PROTOCOLS)}"),
    "git_file_roots": ("git_file_roots", _paths, "a list of absolute folders"),
    "git_credentials": ("git_credentials", parse_git_credentials, WANTED),
    "git_ca_file": ("git_ca_file", _path, "the absolute path of a PEM file"),
    "repository_disk_max": ("repository_bytes_max", parse_size, "a size, such as '20Gi', or 0 to keep none"),
    "allow_private_addresses": ("allow_private_addresses", _boolean, "true or false"),
    "egress_networks": ("egress_networks", _networks, "a list of IPv4 networks, such as ['10.3.0.0/16']"),
    "nameservers": (
        "nameservers",
        _nameservers,
        "a list of addresses, such as ['10.3.0.2', '10.3.0.3:5353']",
    ),
    "labels": ("labels", _labels, "a table of texts"),
    "cpu": ("cpu_millis", _cpu, "cores, such as 4 or '500m'"),
    "cpu_reserve": ("cpu_reserve_millis", _cpu, "cores, such as 1 or '500m'"),
    "memory": ("memory_bytes", parse_size, "a size, such as '8Gi'"),
    "memory_reserve": ("memory_reserve_bytes", parse_size, "a size, such as '1Gi'"),
    "disk_reserve": ("disk_reserve_bytes", parse_size, "a size, such as '5Gi'"),
    "disk_max": ("disk_bytes_max", parse_size, "a size, such as '10Gi'"),
    "cache_disk_max": ("cache_disk_bytes_max", parse_size, "a size, such as '10Gi'; 0 keeps no caches"),
    "cache_entry_max": ("cache_entry_bytes_max", parse_size, "a size, such as '2Gi'"),
    "files_max": ("files_max", _whole(1000, 1_000_000_000), "a whole number from 1000"),
    "pids_max": ("pids_max", _whole(16, 4_000_000), "a whole number from 16"),
    "uid_base": (
        "uid_base",
        _whole(100_000, 2_000_000_000),
        "a user id from 100000 to 2000000000, clear of real users",
    ),
    "image_disk_max": ("image_disk_bytes_max", parse_size, "a size, such as '50Gi'"),
    "registry_mirrors": ("registry_mirrors", _mirrors, 'a table of host = "host[:port][/prefix]"'),
    "kill_grace": ("kill_grace_s", _seconds, "seconds from 0 to 3600"),
}
