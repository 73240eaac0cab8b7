"""What an image's name means: which registry, which repository, which tag or digest. Pure.

The grammar is that of the reference package of the Docker distribution project, which every client follows.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

from runyard.model.errors import Invalid

DEFAULT_HOST = "registry-1.docker.io"  # where names without a host live, by the protocol's own default
DEFAULT_HOST_NAMES = frozenset(("docker.io", "index.docker.io", DEFAULT_HOST))
DEFAULT_NAMESPACE = "library"
DEFAULT_TAG = "latest"
LENGTH_MAX = 1024
_REPOSITORY_LENGTH_MAX = 255

_HOST = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,252}[A-Za-z0-9])?|\[[0-9a-fA-F:.]+\])(?::[0-9]{1,5})?")
_PART = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_CURE = "write [host[:port]/]repository[:tag][@sha256:digest], like python:3.12"


@dataclass(frozen=True, slots=True)
class Reference:
    """One image, or one moving name of an image. `host` carries its port; a digest wins over the tag."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def target(self) -> str:
        """What the registry is asked for: the digest, else the tag."""
        return self.digest or self.tag or DEFAULT_TAG

    @property
    def name(self) -> str:
        return f"{self.host}/{self.repository}"

    def at(self, digest: str) -> Reference:
        """The same repository's content of that digest."""
        return Reference(self.host, self.repository, self.tag, digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}{f'@{self.digest}' if self.digest else ''}"


def parse_reference(text: str, *, field: str = "image") -> Reference:
    """`python:3.12` is registry-1.docker.io/library/python:3.12. Raises Invalid with the field, value and cure."""
    if not text or len(text) > LENGTH_MAX:
        raise _invalid(text, "it is empty" if not text else f"longer than {LENGTH_MAX} characters", field)
    name, at, digest = text.partition("@")
    if at and not is_digest(digest):
        raise _invalid(text, f"{digest!r:.80} is no digest (sha256: and 64 of 0-9a-f)", field)
    first, slash, rest = name.partition("/")
    if slash and _is_host(first):
        host, path = first, rest
    else:
        host, path = DEFAULT_HOST, name
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text, f"{tag!r:.80} is no tag", field)
    host = _checked_host(host, text, field)
    if host == DEFAULT_HOST and "/" not in path:
        path = f"{DEFAULT_NAMESPACE}/{path}"
    if not is_repository(path):
        raise _invalid(text, f"{path!r:.80} is no repository (lower case, digits, . _ - between /)", field)
    return Reference(host, path, tag or (None if at else DEFAULT_TAG), digest or None)


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    return len(text) <= _REPOSITORY_LENGTH_MAX and all(_PART.fullmatch(part) for part in text.split("/"))


def is_host(text: str) -> bool:
    """Whether it can stand for a registry: a name or address, with a port or without."""
    if not _HOST.fullmatch(text) or ".." in text:
        return False
    port = text.rpartition(":")[2] if not text.endswith("]") and ":" in text else "443"
    return 0 < int(port) < 65536


def canonical_host(text: str) -> str:
    """The one spelling of a registry's host: lower case, and one of the default registry's several names."""
    lowered = text.lower()
    return DEFAULT_HOST if lowered in DEFAULT_HOST_NAMES else lowered


def is_loopback_host(host: str) -> bool:
    """Whether a host (its port apart) is this machine by its own text, so that plain HTTP crosses no network."""
    name = host_name(host)
    try:
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def host_name(host: str) -> str:
    """A registry's host without its port, an IPv6 address without its brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_host(first: str) -> bool:
    """Whether the part before the first slash is a host, and no namespace of the default registry."""
    return "." in first or ":" in first or first == "localhost" or first != first.lower()


def _checked_host(host: str, text: str, field: str) -> str:
    if not is_host(host):
        raise _invalid(text, f"{host!r:.80} is no host[:port]", field)
    return canonical_host(host)


def _invalid(text: str, why: str, field: str) -> Invalid:
    return Invalid(f"{text!r:.200} is no image name: {why}", field=field, cure=_CURE)
