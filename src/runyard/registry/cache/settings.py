"""What an operator says of the cache, and which upstream a request's name means. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from runyard.registry.credentials import Rule
from runyard.registry.reference import (
    DEFAULT_HOST,
    DEFAULT_NAMESPACE,
    Reference,
    canonical_host,
    is_digest,
    is_host,
    is_repository,
    is_tag,
)


@dataclass(frozen=True, slots=True)
class Upstream:
    """A registry behind the cache. `host` carries its port.

    `needs_login`: nothing of it is served under the cache's own credentials, only under those of each request.
    """

    name: str
    host: str
    is_plain_http: bool = False
    needs_login: bool = False


@dataclass(frozen=True, slots=True)
class CacheSettings:
    """`upstreams` by the first part of a path; `default` is the one for names without it.

    `is_open`: any further public registry by its host as the first part. `tag_ttl_s`: how long a tag's digest is
    believed; `stale_s`: how long it is served while the upstream fails; `rights_s`: how long a login's rights hold
    without asking the upstream again. `asks_login`: docker and skopeo send a login only to who asks for one first.
    """

    directory: Path
    upstreams: Mapping[str, Upstream] = field(default_factory=dict)
    default: str | None = None
    is_open: bool = False
    bytes_max: int = 50 << 30
    tag_ttl_s: float = 300.0
    stale_s: float = 7 * 86400.0
    rights_s: float = 60.0
    asks_login: bool = False
    rules: tuple[Rule, ...] = ()

    @property
    def plain_http_hosts(self) -> frozenset[str]:
        return frozenset(one.host for one in self.upstreams.values() if one.is_plain_http)

    @property
    def private_hosts(self) -> frozenset[str]:
        """What an operator wrote down may be anywhere."""
        return frozenset(one.host for one in self.upstreams.values())


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request's path asks for: a manifest by tag or digest, or a blob by digest."""

    kind: str  # "manifests" or "blobs"
    upstream: Upstream
    reference: Reference


def parse_path(settings: CacheSettings, path: str, ns: str | None) -> Wanted | None:
    """`path` follows /v2/; `ns` is the registry that containerd means. None where it means nothing we serve."""
    name, _, target = path.rpartition("/")
    name, _, kind = name.rpartition("/")
    if kind not in ("manifests", "blobs") or not (
        is_digest(target) or (kind == "manifests" and is_tag(target))
    ):
        return None
    found = _upstream_of(settings, name, ns)
    if found is None:
        return None
    upstream, repository = found
    if upstream.host == DEFAULT_HOST and "/" not in repository:
        repository = f"{DEFAULT_NAMESPACE}/{repository}"
    if not is_repository(repository):
        return None
    by_digest = is_digest(target)
    reference = Reference(
        upstream.host, repository, tag=None if by_digest else target, digest=target if by_digest else None
    )
    return Wanted(kind, upstream, reference)


def _upstream_of(settings: CacheSettings, name: str, ns: str | None) -> tuple[Upstream, str] | None:
    if ns is not None:
        named = _by_host(settings, ns)
        return (named, name) if named is not None else None
    first, slash, rest = name.partition("/")
    if slash and first in settings.upstreams:
        return settings.upstreams[first], rest
    if slash and "." in first and (named := _by_host(settings, first)) is not None:
        return named, rest
    if settings.default is not None:
        return settings.upstreams[settings.default], name
    return None


def _by_host(settings: CacheSettings, host: str) -> Upstream | None:
    canonical = canonical_host(host)
    for upstream in settings.upstreams.values():
        if upstream.host == canonical or upstream.name == host:
            return upstream
    return Upstream(canonical, canonical) if settings.is_open and is_host(host) else None
