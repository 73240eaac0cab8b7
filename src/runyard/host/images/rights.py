"""Who may have which image: the registry's own word, asked with the credentials of the asking tenant.

It counts for RIGHTS_S, for the same name, tenant and credentials. Tags are resolved by the same question.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from runyard.host.images.single_flight import SingleFlight
from runyard.registry.client import RegistryClient
from runyard.registry.credentials import Credentials
from runyard.registry.reference import Reference

RIGHTS_S = 60.0


@dataclass(frozen=True, slots=True)
class Asker:
    """With whose rights, and for which name. `origin` is who answers for what the name's registry says."""

    tenant: str
    reference: Reference
    origin: str
    credentials: Credentials | None


@dataclass(frozen=True, slots=True)
class _Right:
    digest: str
    until: float


class Rights:
    """`clock` is in seconds that only grow."""

    def __init__(self, client: RegistryClient, clock: Callable[[], float]) -> None:
        self._client = client
        self._clock = clock
        self._rights: dict[Asker, _Right] = {}
        self._asking: SingleFlight[str] = SingleFlight()

    async def close(self) -> None:
        await self._asking.close()

    def has(self, asker: Asker) -> bool:
        right = self._rights.get(asker)
        return right is not None and self._clock() < right.until

    async def digest(self, asker: Asker) -> str:
        """The digest that the name has for this tenant now, or had within RIGHTS_S: an index's or an image's. Raises
        RegistryError."""
        if self.has(asker):
            return self._rights[asker].digest
        return await self._asking.do(asker, lambda: self._ask(asker))

    async def _ask(self, asker: Asker) -> str:
        digest = await self._client.head(asker.reference, credentials=asker.credentials)
        now = self._clock()
        self._rights = {each: right for each, right in self._rights.items() if right.until > now}
        self._rights[asker] = _Right(digest, now + RIGHTS_S)
        return digest


def origin_of(reference: Reference) -> str:
    """The registry and the first part of the repository: one owner, or one upstream of a registry that serves many.

    A registry's word counts for its own content only. Another one may say that its tag has the digest of a stranger's
    private image, and name its layers: then it must give them, whole, before it shares what is there.
    """
    return f"{reference.host}/{reference.repository.partition('/')[0]}"
