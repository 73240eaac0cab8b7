"""The keys of a `local` pool in the config file, validated all at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runyard.host.network.lookups import parse_servers
from runyard.model.errors import ConfigError
from runyard.model.requirements import Isolation
from runyard.providers.local.git_credentials import WANTED, GitCredential, parse_git_credentials
from runyard.providers.option_values import (
    Keys,
    boolean,
    cores,
    path,
    paths,
    read_keys,
    refuse_wrong_keys,
    seconds,
    size,
    table_of_texts,
    texts,
    whole,
)
from runyard.registry.credentials import Registries, parse_registries
from runyard.registry.reference import canonical_host, is_host, is_repository

GIT_PROTOCOLS = ("https", "ssh", "http", "git", "file")


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
    values, problems = read_keys(options, _KEYS, also_known=("registries",))
    if "registries" in options:
        try:
            values["registries"] = parse_registries(options["registries"], field=f"pools.{pool}.registries")
        except ConfigError as error:
            problems.append(error.message.removeprefix(f"pools.{pool}."))
    refuse_wrong_keys(pool, problems)
    return LocalOptions(**values)


def _isolation(value: Any) -> Isolation:
    level = Isolation.parse(value)
    if level is Isolation.MICROVM:
        raise ValueError
    return level


def _protocols(value: Any) -> tuple[str, ...]:
    protocols = texts(value)
    if not set(protocols) <= set(GIT_PROTOCOLS):
        raise ValueError
    return protocols


def _networks(value: Any) -> tuple[str, ...]:
    return tuple(str(ipaddress.IPv4Network(each)) for each in texts(value))


def _nameservers(value: Any) -> tuple[str, ...]:
    names = texts(value)
    for host, port in parse_servers(names):
        if not 1 <= port <= 65535:
            raise ValueError
        ipaddress.ip_address(host)
    return names


def _mirrors(value: Any) -> dict[str, str]:
    mirrors = table_of_texts(value)
    for host, mirror in mirrors.items():
        prefix, _, path = mirror.partition("/")
        if not is_host(host) or not is_host(prefix) or (path and not is_repository(path)):
            raise ValueError
    return {canonical_host(host): mirror for host, mirror in mirrors.items()}


_KEYS: Keys = {
    "isolation": ("isolation", _isolation, "'container' or 'none'"),
    "git_protocols": ("git_protocols", _protocols, f"a list of {', '.join(GIT_PROTOCOLS)}"),
    "git_file_roots": ("git_file_roots", paths, "a list of absolute folders"),
    "git_credentials": ("git_credentials", parse_git_credentials, WANTED),
    "git_ca_file": ("git_ca_file", path, "the absolute path of a PEM file"),
    "repository_disk_max": ("repository_bytes_max", size, "a size, such as '20Gi', or 0 to keep none"),
    "allow_private_addresses": ("allow_private_addresses", boolean, "true or false"),
    "egress_networks": ("egress_networks", _networks, "a list of IPv4 networks, such as ['10.3.0.0/16']"),
    "nameservers": (
        "nameservers",
        _nameservers,
        "a list of addresses, such as ['10.3.0.2', '10.3.0.3:5353']",
    ),
    "labels": ("labels", table_of_texts, "a table of texts"),
    "cpu": ("cpu_millis", cores, "cores, such as 4 or '500m'"),
    "cpu_reserve": ("cpu_reserve_millis", cores, "cores, such as 1 or '500m'"),
    "memory": ("memory_bytes", size, "a size, such as '8Gi'"),
    "memory_reserve": ("memory_reserve_bytes", size, "a size, such as '1Gi'"),
    "disk_reserve": ("disk_reserve_bytes", size, "a size, such as '5Gi'"),
    "disk_max": ("disk_bytes_max", size, "a size, such as '10Gi'"),
    "cache_disk_max": ("cache_disk_bytes_max", size, "a size, such as '10Gi'; 0 keeps no caches"),
    "cache_entry_max": ("cache_entry_bytes_max", size, "a size, such as '2Gi'"),
    "files_max": ("files_max", whole(1000, 1_000_000_000), "a whole number from 1000"),
    "pids_max": ("pids_max", whole(16, 4_000_000), "a whole number from 16"),
    "uid_base": (
        "uid_base",
        whole(100_000, 2_000_000_000),
        "a user id from 100000 to 2000000000, clear of real users",
    ),
    "image_disk_max": ("image_disk_bytes_max", size, "a size, such as '50Gi'"),
    "registry_mirrors": ("registry_mirrors", _mirrors, 'a table of host = "host[:port][/prefix]"'),
    "kill_grace": ("kill_grace_s", seconds(3600), "seconds from 0 to 3600"),
}
