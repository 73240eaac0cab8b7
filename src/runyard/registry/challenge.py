"""What a registry asks for when it answers 401, and what its token server answers. Pure.

Sources: RFC 9110 section 11 for the header; the distribution project's spec/auth/token.md and oauth.md for the rest.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from runyard.model.errors import RegistryCorrupt
from runyard.registry.images import parse_document

TOKEN_S_DEFAULT = 60.0  # token.md: what a token lives that does not say so
_TOKEN_S_MAX = 3600.0
_HEADER_LENGTH_MAX = 8192
_SCHEME = re.compile(r"\s*,?\s*([A-Za-z][A-Za-z0-9-]*)(?:\s+|$)")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z][A-Za-z0-9_-]*)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s",]+))')


@dataclass(frozen=True, slots=True)
class Basic:
    """User name and password with each request."""


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token from the server at `realm`."""

    realm: str
    service: str = ""
    scope: str = ""


@dataclass(frozen=True, slots=True)
class Token:
    """`lives_s` from when it was asked for."""

    text: str
    lives_s: float

    def __repr__(self) -> str:
        return f"Token(<hidden>, lives_s={self.lives_s})"


def parse_challenges(headers: Sequence[str]) -> Bearer | Basic | None:
    """The strongest challenge of all WWW-Authenticate headers that we can answer; None where there is none."""
    found: list[tuple[str, dict[str, str]]] = []
    for header in headers:
        found.extend(_challenges(header[:_HEADER_LENGTH_MAX]))
    for scheme, parameters in found:
        if scheme == "bearer" and parameters.get("realm"):
            return Bearer(
                parameters["realm"], service=parameters.get("service", ""), scope=parameters.get("scope", "")
            )
    return Basic() if any(scheme == "basic" for scheme, _ in found) else None


def parse_token(body: bytes, what: str) -> Token:
    """Raises RegistryCorrupt; the answer is never shown, because it holds the token."""
    document = parse_document(body, what)
    text = document.get("token") or document.get("access_token")
    if not isinstance(text, str) or not text or not text.isascii() or not text.isprintable():
        raise RegistryCorrupt(f"{what} holds no token")
    lives_s = document.get("expires_in")
    if isinstance(lives_s, bool) or not isinstance(lives_s, int | float) or lives_s <= 0:
        lives_s = TOKEN_S_DEFAULT
    return Token(text, min(float(lives_s), _TOKEN_S_MAX))


def _challenges(header: str) -> list[tuple[str, dict[str, str]]]:
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(header):
        parameter = _PARAMETER.match(header, at)
        if parameter and found:
            name, quoted, bare = parameter.groups()
            found[-1][1].setdefault(name.lower(), bare if quoted is None else re.sub(r"\\(.)", r"\1", quoted))
            at = parameter.end()
            continue
        scheme = _SCHEME.match(header, at)
        if not scheme:
            break
        found.append((scheme[1].lower(), {}))
        at = scheme.end()
    return found
