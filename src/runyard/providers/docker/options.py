"""The keys of a `docker` pool in the config file, validated all at once."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runyard.model.errors import ConfigError
from runyard.providers.docker.client import Tls
from runyard.providers.local.options import LocalOptions
from runyard.providers.local.options import parse_options as parse_host_options
from runyard.providers.option_values import Keys, boolean, path, read_keys, refuse_wrong_keys, whole

DEFAULT_IMAGE = "debian:bookworm-slim"
DEFAULT_BUSYBOX = "/bin/busybox"
_SHARED = (  # mean the same as for a local pool, and are parsed there
    "git_protocols", "git_file_roots", "git_credentials", "git_ca_file", "repository_disk_max",
    "allow_private_addresses", "labels", "cpu", "cpu_reserve", "memory", "memory_reserve", "disk_max", "disk_reserve",
    "pids_max", "kill_grace", "registries", "uid_base",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class DockerOptions:
    """`address` None: DOCKER_HOST, else dockerd's socket. `image` is for steps that name none. `open_network`: whether
    the pool gives `network: open`; `dns` are the resolvers there, which may be at private addresses. `user` is the id
    of jobs whose image names no user. `host` is what it shares with local pools: fetching, limits, labels."""

    address: str | None = None
    tls: Tls | None = None
    image: str = DEFAULT_IMAGE
    local_images: tuple[str, ...] = ()
    runtime: str | None = None
    busybox: str = DEFAULT_BUSYBOX
    open_network: bool = False
    dns: tuple[str, ...] = ()
    user: int = 1000
    host: LocalOptions = field(default_factory=LocalOptions)


def parse_options(pool: str, options: Mapping[str, Any]) -> DockerOptions:
    """Raises ConfigError naming every wrong key with its value and the cure."""
    files = {key: options[key] for key in _TLS if key in options}
    values, problems = read_keys(options, _KEYS, also_known=(*_TLS, *_SHARED))
    problems += _tls_problems(files)
    try:
        values["host"] = parse_host_options(pool, {key: options[key] for key in _SHARED if key in options})
    except ConfigError as error:
        problems.append(error.message.removeprefix(f"pools.{pool}."))
    refuse_wrong_keys(pool, problems)
    if files:
        values["tls"] = Tls(**{_TLS[key]: value for key, value in files.items()})
    return DockerOptions(**values)


def _tls_problems(files: Mapping[str, Any]) -> list[str]:
    problems = [
        f"{key} = {value!r} is wrong; give the absolute path of a PEM file"
        for key, value in files.items()
        if not isinstance(value, str) or not value.startswith("/")
    ]
    if ("tls_certificate" in files) != ("tls_key" in files):
        problems.append("tls_certificate and tls_key come together; give both")
    return problems


def _address(value: Any) -> str:
    if not isinstance(value, str) or not value.startswith(("unix:///", "tcp://", "http://", "https://")):
        raise ValueError
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value or any(char.isspace() for char in value):
        raise ValueError
    return value


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError
    return tuple(_text(each) for each in value)


def _addresses(value: Any) -> tuple[str, ...]:
    addresses = _texts(value)
    for each in addresses:
        ipaddress.IPv4Address(each)
    return addresses


_TLS = {"tls_ca": "ca", "tls_certificate": "certificate", "tls_key": "key"}
_KEYS: Keys = {
    "host": ("address", _address, "'unix:///path' or 'tcp://host:port'"),
    "image": ("image", _text, "an image's name"),
    "local_images": ("local_images", _texts, "a list of images' names"),
    "runtime": ("runtime", _text, "the name of a runtime that the daemon has, such as 'crun'"),
    "busybox": ("busybox", path, "the absolute path of a static busybox"),
    "open_network": ("open_network", boolean, "true or false"),
    "dns": ("dns", _addresses, "a list of IPv4 addresses"),
    "user": ("user", whole(1, 60_000), "a user id from 1 to 60000"),
}
