"""From `[registry_cache]` of the config to a cache that runs: within the service, or alone."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import urlsplit

from runyard.clock import SystemClock
from runyard.config import RegistryCacheSection, Settings, UpstreamSection
from runyard.host.addresses import connected_networks, is_public
from runyard.metrics import render_cache_metrics
from runyard.model.errors import ConfigError
from runyard.registry.cache.counters import Counters
from runyard.registry.cache.serving import listening_socket, serving
from runyard.registry.cache.settings import CacheSettings, Upstream
from runyard.registry.credentials import Rule, parse_registries
from runyard.registry.reference import DEFAULT_HOST, canonical_host, is_host, is_loopback_host, is_repository

DEFAULT_NAME = "docker.io"


def cache_settings(section: RegistryCacheSection, data: Path) -> CacheSettings:
    """Raises ConfigError that lists every problem."""
    sections = section.upstreams or {DEFAULT_NAME: UpstreamSection(url=f"https://{DEFAULT_HOST}")}
    problems: list[str] = []
    upstreams: dict[str, Upstream] = {}
    rules: list[Rule] = []
    for name, one in sections.items():
        where = f"registry_cache.upstreams.{name}"
        if not is_repository(name) or "/" in name:
            problems.append(f"{where}: the name is a part of a path: write it of a-z, 0-9, . _ -")
            continue
        try:
            upstreams[name] = _upstream(name, one, where)
            rules += _rules(upstreams[name], one, where)
        except ConfigError as error:
            problems.append(error.message)
    default = section.default or (DEFAULT_NAME if DEFAULT_NAME in sections else None)
    if default is not None and default not in sections:
        problems.append(
            f"registry_cache.default: {default!r} is none of the upstreams ({', '.join(sections)})"
        )
    if problems:
        raise ConfigError("; ".join(problems), field="registry_cache", cure="correct each of them")
    return CacheSettings(
        section.directory or data / "registry-cache",
        upstreams=upstreams,
        default=default,
        is_open=section.any_upstream,
        bytes_max=section.bytes_max,
        tag_ttl_s=section.tag_ttl,
        stale_s=section.stale_if_error,
        rights_s=section.rights_ttl,
        asks_login=section.asks_login,
        rules=tuple(rules),
    )


@contextlib.asynccontextmanager
async def running(
    section: RegistryCacheSection, data: Path, *, has_metrics: bool = False
) -> AsyncIterator[Counters | None]:
    """The cache while the context is open, where the section turns it on; what it counts. Raises ConfigError.

    `has_metrics`: its own listener answers /metrics, for one that runs alone."""
    if section.listen is None:
        yield None
        return
    settings = cache_settings(section, data)
    counters = Counters()
    with contextlib.closing(listening_socket(section.listen)) as sock:
        async with serving(
            settings,
            sock,
            clock=SystemClock(),
            allow_address=public_only(),
            counters=counters,
            render_metrics=(lambda: render_cache_metrics(counters)) if has_metrics else None,
        ):
            yield counters


async def run_alone(settings: Settings) -> None:
    """Until TERM or INT. Raises ConfigError."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    if settings.registry_cache.listen is None:
        raise ConfigError(
            "registry_cache.listen is not set, so there is nothing to run",
            field="registry_cache.listen",
            cure="set it in the file, or RUNYARD_REGISTRY_CACHE__LISTEN=0.0.0.0:7710",
        )
    async with running(settings.registry_cache, settings.data, has_metrics=True):
        await stop.wait()


def public_only() -> Callable[[str], bool]:
    """What a registry may be at that no operator wrote down: nothing of this host's own networks, nothing private."""
    connected = connected_networks()

    def allows(address: str) -> bool:
        try:
            ipaddress.ip_address(address)  # one with a zone is link-local
            return is_public(address, connected)
        except ValueError:
            return False

    return allows


def _upstream(name: str, section: UpstreamSection, where: str) -> Upstream:
    parts = urlsplit(section.url)
    host = parts.netloc.lower()
    if parts.scheme not in ("http", "https") or not is_host(host) or parts.path.strip("/") or parts.query:
        raise ConfigError(f"{where}.url: {section.url!r:.80} is no http[s]://host[:port]")
    if parts.scheme == "https" and is_loopback_host(host):
        raise ConfigError(f"{where}.url: a registry on a loopback address is spoken to by http:// only")
    return Upstream(
        name,
        canonical_host(host),
        is_plain_http=parts.scheme == "http",
        needs_login=section.login == "request",
    )


def _rules(upstream: Upstream, section: UpstreamSection, where: str) -> tuple[Rule, ...]:
    if section.docker_config is not None:
        return parse_registries([{"docker_config": str(section.docker_config)}], field=where).rules
    row: dict[str, object] = {"host": upstream.host}
    if section.username is not None:
        row["username"] = section.username
    if section.password is not None:
        row["password"] = section.password.get_secret_value()
    if section.password_file is not None:
        row["password_file"] = str(section.password_file)
    return parse_registries([row], field=where).rules
