"""What somebody's own login was allowed to read, for a short time after the upstream said so. In memory only.

A login is known by its keyed hash. An answer counts from before the question was asked.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict

from runyard.registry.credentials import Credentials
from runyard.registry.reference import Reference

GRANTS_MAX = 200_000


class Rights:
    """Grants of (login, repository, tag or digest), each with the digest it stood for."""

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._key = secrets.token_bytes(32)
        self._grants: OrderedDict[bytes, tuple[float, str]] = OrderedDict()

    def granted(self, login: Credentials, reference: Reference, now: float) -> str | None:
        """The digest that the login may read under this name; None where the upstream must be asked."""
        found = self._grants.get(self._name(login, reference.name, reference.target))
        return found[1] if found is not None and now - found[0] < self._ttl_s else None

    def grant(self, login: Credentials, reference: Reference, digest: str, *, asked_at: float) -> None:
        """For the name, and for its digest."""
        self._keep(self._name(login, reference.name, reference.target), asked_at, digest)
        self._keep(self._name(login, reference.name, digest), asked_at, digest)

    def _keep(self, name: bytes, asked_at: float, digest: str) -> None:
        self._grants.pop(name, None)
        self._grants[name] = (asked_at, digest)
        while len(self._grants) > GRANTS_MAX:
            self._grants.popitem(last=False)

    def _name(self, login: Credentials, repository: str, target: str) -> bytes:
        text = "\0".join((login.username, login.password, login.identity_token, repository, target))
        return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), key=self._key, digest_size=32).digest()
