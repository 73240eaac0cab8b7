"""The Authorization header that a registry wants for a repository: asked for once, used until it runs out.

Credentials leave in two ways only: to the registry they are for, where it asks for Basic, and to the token server that
this registry names, over TLS (or where the registry itself is spoken to without it).
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from runyard.model.errors import RegistryDenied
from runyard.registry.challenge import Basic, Bearer, Token, parse_challenges
from runyard.registry.credentials import Credentials
from runyard.registry.reference import Reference

AskToken: TypeAlias = Callable[[Reference, Bearer, Credentials | None], Awaitable[Token]]
KEPT_MAX = 4096
_EARLY = 0.1  # of a token's life: it must last until it arrives


@dataclass(frozen=True, slots=True)
class _Key:
    host: str
    repository: str
    credentials: Credentials | None


class Authorizer:
    """Headers by registry, repository and credentials. One token is asked for at a time for each of them."""

    def __init__(self, ask_token: AskToken, clock: Callable[[], float] = time.monotonic) -> None:
        self._ask_token = ask_token
        self._clock = clock
        self._kept: dict[_Key, tuple[str, float]] = {}
        self._locks: dict[_Key, asyncio.Lock] = {}

    def known(self, reference: Reference, credentials: Credentials | None) -> str | None:
        """The header to send at once; None to send none."""
        kept = self._kept.get(_key(reference, credentials))
        return kept[0] if kept is not None and self._clock() < kept[1] else None

    async def answer(
        self,
        challenges: Sequence[str],
        reference: Reference,
        credentials: Credentials | None,
        *,
        refused: str | None,
    ) -> str:
        """The header for after a 401 to `refused`. Raises RegistryDenied where there is nothing better to send."""
        key = _key(reference, credentials)
        async with self._locks.setdefault(key, asyncio.Lock()):
            known = self.known(reference, credentials)
            if known is not None and known != refused:
                return known
            self._kept.pop(key, None)
            header, lives_s = await self._make(challenges, reference, credentials)
            if header == refused:
                raise denied(reference, credentials)
            if len(self._kept) >= KEPT_MAX:
                self._kept.clear()
                self._locks.clear()
            self._kept[key] = (header, self._clock() + lives_s * (1 - _EARLY))
            return header

    async def _make(
        self, challenges: Sequence[str], reference: Reference, credentials: Credentials | None
    ) -> tuple[str, float]:
        match parse_challenges(challenges):
            case Bearer() as bearer:
                token = await self._ask_token(reference, bearer, credentials)
                return f"Bearer {token.text}", token.lives_s
            case Basic() if credentials is not None and credentials.password:
                return basic_header(credentials), float("inf")
            case _:
                raise denied(reference, credentials)


def basic_header(credentials: Credentials) -> str:
    packed = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    return f"Basic {packed}"


def denied(reference: Reference, credentials: Credentials | None) -> RegistryDenied:
    if credentials is None:
        how, cure = "without credentials", "check the name, or configure credentials for this registry"
    else:
        how = f"as {credentials.username or 'the configured user'!r:.80}"
        cure = "check the name, and these credentials' rights"
    return RegistryDenied(
        f"{reference.host} refuses {reference.repository} {how}: no rights, or no such repository",
        field="image",
        cure=cure,
    )


def _key(reference: Reference, credentials: Credentials | None) -> _Key:
    return _Key(reference.host, reference.repository, credentials)
