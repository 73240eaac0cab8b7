"""The images of one attempt in the daemon: the registry is asked for each tenant and job, then the daemon pulls.

That an image lies in the daemon is no right to it: only what the registry says to the asking tenant's credentials, now,
opens it (by digest, so that nobody can be given another's content under a name). The pool's own image and its
`local_images` are the operator's word, and used as they are.
"""

from __future__ import annotations

import asyncio
import ipaddress
import time
from collections.abc import Mapping

from runyard.host.addresses import ALWAYS_CLOSED, connected_networks, is_public
from runyard.model.errors import RegistryThrottled, RegistryUnreachable, RunyardError, Unreachable
from runyard.model.job import JobSpec
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode
from runyard.providers.docker.client import DockerClient, Document, Missing, Refused
from runyard.providers.docker.options import DockerOptions
from runyard.providers.docker.plan import Image
from runyard.providers.port import RunContext
from runyard.registry.client import RegistryClient
from runyard.registry.credentials import Credentials, CredentialStore
from runyard.registry.images import Platform
from runyard.registry.reference import Reference, parse_reference

_PAUSE_S, _PAUSE_S_MAX = 0.5, 15.0
_SILENCE_S = 120.0
_ALWAYS_CLOSED = tuple(map(ipaddress.ip_network, ALWAYS_CLOSED))


class DaemonImages:
    """Owns the pool's way to registries."""

    def __init__(self, client: DockerClient, options: DockerOptions, architecture: str) -> None:
        registries = options.host.registries
        self._client = client
        self._options = options
        self._platform = Platform(architecture)
        self._credentials = CredentialStore(registries.rules)
        self._registry = RegistryClient(
            allow_address=lambda address: _may_reach(
                address, allow_private=options.host.allow_private_addresses
            ),
            plain_http_hosts=registries.plain_http_hosts,
            private_hosts=registries.private_hosts,
        )

    async def close(self) -> None:
        await self._registry.close()

    async def obtain_all(
        self, spec: JobSpec, context: RunContext, *, within_s: float
    ) -> Mapping[str, Image] | Outcome:
        """By their names in the job; or how the attempt ended before it could begin. What may pass is tried again until
        the start limit. Raises Unreachable where the daemon does not answer."""
        named = [spec.image_of(step) or self._options.image for step in spec.steps]
        names = dict.fromkeys([*named, *(service.image for service in spec.services)])
        images: dict[str, Image] = {}
        words = "its images were not there"
        try:
            async with asyncio.timeout(within_s):
                for name in names:
                    pause_s = _PAUSE_S
                    while name not in images:
                        try:
                            images[name] = await self._obtain(name, spec.tenant, context)
                        except (RegistryUnreachable, RegistryThrottled) as error:
                            words = str(error)
                            await context.record_progress(f"pulling image {name}: {words}; trying again")
                            pause = error.after_s if isinstance(error, RegistryThrottled) else pause_s
                            await asyncio.sleep(pause)
                            pause_s = min(pause_s * 2, _PAUSE_S_MAX)
        except TimeoutError:
            limit_s = spec.limits.start_s
            message = f"the first step did not start within limits.start = {limit_s:g} s: {words}"
            return _unseen(OutcomeKind.TIMED_OUT, ReasonCode.START_TIMEOUT, message)
        except Unreachable:
            raise
        except RunyardError as error:
            return _unseen(OutcomeKind.FAILED, ReasonCode.IMAGE, str(error))
        return images

    async def _obtain(self, name: str, tenant: str, context: RunContext) -> Image:
        if name == self._options.image or name in self._options.local_images:
            found = await self._client.inspect_image(name)
            if found is None:
                raise Missing(
                    404, f"image {name}: the daemon does not have it, and the pool says that it must"
                )
            return _image(found, "")
        reference = parse_reference(name)
        credentials = await self._credentials.find(reference.host, reference.repository, tenant=tenant)
        resolved = await self._registry.resolve(reference, platform=self._platform, credentials=credentials)
        pulled = f"{reference.name}@{resolved.digest}"
        found = await self._client.inspect_image(pulled)
        if found is None:
            await self._pull(name, reference, resolved.digest, credentials, context)
            found = await self._client.inspect_image(pulled)
        if found is None:
            raise Refused(500, f"image {name}: the daemon pulled {resolved.digest} and does not have it")
        return _image(found, resolved.digest)

    async def _pull(
        self,
        name: str,
        reference: Reference,
        digest: str,
        credentials: Credentials | None,
        context: RunContext,
    ) -> None:
        await context.record_phase("image", time.time())
        progress = _Progress()
        pulling = self._client.pull_image(reference.name, digest, _authorization(reference, credentials))
        try:
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    row = await anext(pulling, None)
                if row is None:
                    break
                progress.note(row)
                await context.record_progress(
                    f"pulling image {name}",
                    fraction=progress.fraction,
                    done_bytes=progress.done,
                    total_bytes=progress.total,
                )
        except TimeoutError:
            raise Unreachable(
                f"the daemon said nothing for {_SILENCE_S:g} s while it pulled {name}"
            ) from None
        except Refused as error:
            raise Refused(error.status, f"image {name}: {error.message}") from None
        finally:
            await pulling.aclose()
            await context.record_progress(None)


class _Progress:
    """Sums up what the daemon tells of each layer."""

    def __init__(self) -> None:
        self._layers: dict[str, tuple[int, int]] = {}

    def note(self, row: Document) -> None:
        detail = row.get("progressDetail") or {}
        layer, total = str(row.get("id", "")), int(detail.get("total") or 0)
        if row.get("status") == "Downloading" and total:
            self._layers[layer] = (int(detail.get("current") or 0), total)
        elif row.get("status") in ("Download complete", "Pull complete") and layer in self._layers:
            self._layers[layer] = (self._layers[layer][1],) * 2

    @property
    def done(self) -> int | None:
        return sum(done for done, _ in self._layers.values()) or None

    @property
    def total(self) -> int | None:
        return sum(total for _, total in self._layers.values()) or None

    @property
    def fraction(self) -> float | None:
        return min(1.0, (self.done or 0) / self.total) if self.total else None


def _image(document: Document, digest: str) -> Image:
    config = document.get("Config") or {}
    pairs = (entry.partition("=") for entry in config.get("Env") or ())
    return Image(
        id=document["Id"],
        digest=digest or document["Id"],
        env={key: value for key, _, value in pairs},
        user=config.get("User") or "",
    )


def _authorization(reference: Reference, credentials: Credentials | None) -> dict[str, str] | None:
    if credentials is None:
        return None
    if credentials.identity_token:
        return {"serveraddress": reference.host, "identitytoken": credentials.identity_token}
    return {
        "serveraddress": reference.host,
        "username": credentials.username,
        "password": credentials.password,
    }


def _may_reach(address: str, *, allow_private: bool) -> bool:
    if allow_private:
        return not any(ipaddress.ip_address(address) in network for network in _ALWAYS_CLOSED)
    return is_public(address, connected_networks())


def _unseen(kind: OutcomeKind, code: ReasonCode, message: str) -> Outcome:
    return Outcome(kind=kind, reason=Reason(code=code, message=message), was_seen=False)
