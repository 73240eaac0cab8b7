"""The images of one attempt: obtained before its plan is made, with the asking tenant's rights, within its start limit.

What may pass (a registry that cannot be reached, a full disk) is tried again until that limit; what cannot is the
attempt's outcome, in the registry's words.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import time
from collections.abc import AsyncIterator, Awaitable, Mapping
from pathlib import Path

from runyard.host.addresses import ALWAYS_CLOSED, connected_networks, is_public
from runyard.host.attempt_directory import PLAN, AttemptDirectory, Began
from runyard.host.images.layer_stream import LayerRefused
from runyard.host.images.store import ImageDiskFull, ImageStore, ImageTooLarge, ReadyImage, UnpackFailed
from runyard.host.linux import boottime
from runyard.model.errors import RegistryThrottled, RegistryUnreachable, RunyardError
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode
from runyard.providers.local.options import LocalOptions
from runyard.providers.port import AttemptRequest, RunContext
from runyard.registry.client import RegistryClient
from runyard.registry.credentials import CredentialStore
from runyard.registry.reference import Reference

_PASSING = (RegistryUnreachable, RegistryThrottled, UnpackFailed, ImageDiskFull)
_FINAL = (RunyardError, LayerRefused, ImageTooLarge)
_PAUSE_S, _PAUSE_S_MAX = 0.5, 15.0
_PROGRESS_S = 0.5
_QUIET_S = 0.1  # what takes no longer is no phase of its own
_ALWAYS_CLOSED = tuple(map(ipaddress.ip_network, ALWAYS_CLOSED))


class AttemptImages:
    """Owns the pool's store. `stop` ends the wait of an attempt that is asked to stop."""

    def __init__(self, folder: Path, options: LocalOptions) -> None:
        registries = options.registries
        self._mirrors = options.registry_mirrors
        self._client = RegistryClient(
            allow_address=lambda address: _may_reach(address, allow_private=options.allow_private_addresses),
            plain_http_hosts=registries.plain_http_hosts,
            private_hosts=registries.private_hosts,
        )
        self.store = ImageStore(
            folder,
            self._client,
            CredentialStore(registries.rules),
            bytes_max=options.image_disk_bytes_max,
            rewrite=self._rewrite,
        )
        self._stops: dict[str, asyncio.Event] = {}

    async def start(self, attempts: Path) -> None:
        """`attempts`: where the directories of attempts lie, whose plans name what they run in."""
        await self.store.start(await asyncio.to_thread(_leases, attempts))

    async def close(self) -> None:
        await self.store.close()
        await self._client.close()

    def stop(self, name: str) -> None:
        stop = self._stops.get(name)
        if stop is not None:
            stop.set()

    async def obtain(
        self, attempt: AttemptRequest, context: RunContext, directory: AttemptDirectory, began: Began
    ) -> Mapping[str, ReadyImage] | Outcome:
        """The job's images by name, leased to the attempt; or how it ended before it could begin."""
        stop = self._stops.setdefault(directory.name, asyncio.Event())
        if directory.stop_request() is not None:
            stop.set()
        pull = asyncio.create_task(self._obtain_all(attempt, context, began))
        waiting = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({pull, waiting}, return_when=asyncio.FIRST_COMPLETED)
            if pull.done():
                return await pull
            return _outcome(OutcomeKind.CANCELED, ReasonCode.CANCELED, "canceled on request")
        finally:
            self._stops.pop(directory.name, None)
            for task in (pull, waiting):
                task.cancel()
            await asyncio.gather(pull, waiting, return_exceptions=True)

    async def _obtain_all(
        self, attempt: AttemptRequest, context: RunContext, began: Began
    ) -> Mapping[str, ReadyImage] | Outcome:
        limit_s = attempt.spec.limits.start_s
        progress = _Progress(context)
        images: dict[str, ReadyImage] = {}
        try:
            async with asyncio.timeout(began.boottime + limit_s - boottime()), progress.shown():
                for name in attempt.spec.images:
                    images[name] = await self._persist(name, attempt, progress)
        except TimeoutError:
            words = f"the first step did not start within limits.start = {limit_s:g} s: {progress.last_words}"
            return _outcome(OutcomeKind.TIMED_OUT, ReasonCode.START_TIMEOUT, words)
        except _FINAL as error:
            return _outcome(OutcomeKind.FAILED, ReasonCode.IMAGE, str(error))
        return images

    async def _persist(self, name: str, attempt: AttemptRequest, progress: _Progress) -> ReadyImage:
        pause_s = _PAUSE_S
        progress.begin(name)
        while True:
            try:
                return await self.store.obtain(
                    name,
                    tenant=attempt.spec.tenant,
                    lease=attempt.key.resource_name,
                    report=progress.note,
                )
            except _PASSING as error:
                progress.fail(name, str(error))
                wait_s = error.after_s if isinstance(error, RegistryThrottled) else pause_s
            await asyncio.sleep(wait_s)
            pause_s = min(pause_s * 2, _PAUSE_S_MAX)

    def _rewrite(self, reference: Reference) -> Reference:
        """Through the mirror of its host, if the pool names one. Whose rights count is then the mirror's to check."""
        mirror = self._mirrors.get(reference.host)
        if mirror is None:
            return reference
        host, _, prefix = mirror.partition("/")
        repository = f"{prefix}/{reference.repository}" if prefix else reference.repository
        return Reference(host, repository, reference.tag, reference.digest)


class _Progress:
    """What is shown while an image comes; at most every half second, and nothing where all are there at once."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._began_at = time.time()
        self._is_shown = False
        self._comes = asyncio.Event()
        self._text = ""
        self._done = self._total = 0
        self.last_words = "its images were not there"

    def begin(self, name: str) -> None:
        self._text, self._done, self._total = f"pulling image {name}", 0, 0
        self.last_words = f"the image {name} was not there yet"

    def note(self, done: int, total: int) -> None:
        self._done, self._total = done, total
        self._comes.set()

    def fail(self, name: str, words: str) -> None:
        self._text = f"pulling image {name}: {words}; trying again"
        self.last_words = words

    @contextlib.asynccontextmanager
    async def shown(self) -> AsyncIterator[None]:
        ticker = asyncio.create_task(self._tick())
        try:
            yield
        finally:
            ticker.cancel()
            await asyncio.gather(ticker, return_exceptions=True)
            if self._is_shown:
                await self._context.record_progress(None)

    async def _tick(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._comes.wait(), _QUIET_S)
        self._is_shown = True
        await self._context.record_phase("image", self._began_at)
        while True:
            await self._tell()
            await asyncio.sleep(_PROGRESS_S)

    def _tell(self) -> Awaitable[None]:
        if not self._total:
            return self._context.record_progress(self._text)
        return self._context.record_progress(
            self._text,
            fraction=min(1.0, self._done / self._total),
            done_bytes=self._done,
            total_bytes=self._total,
        )


def _may_reach(address: str, *, allow_private: bool) -> bool:
    if allow_private:
        return not any(ipaddress.ip_address(address) in network for network in _ALWAYS_CLOSED)
    return is_public(address, connected_networks())


def placement(attempt: AttemptRequest, images: Mapping[str, ReadyImage]) -> dict[str, str]:
    """The digest of the steps' first image, of each other one by its step, and of the services'."""
    facts: dict[str, str] = {}
    spec = attempt.spec
    first = next((name for step in spec.steps if (name := spec.image_of(step)) is not None), None)
    if first is not None:
        facts["image"] = images[first].digest
    for step in spec.steps:
        name = spec.image_of(step)
        if name is not None and name != first and len(facts) < 8:
            facts[f"image:{step.name}"] = images[name].digest
    for service in spec.services:
        if len(facts) < 12:
            facts[f"service:{service.name}"] = images[service.image].digest
    return facts


def _outcome(kind: OutcomeKind, code: ReasonCode, message: str) -> Outcome:
    return Outcome(kind=kind, reason=Reason(code=code, message=message), was_seen=False)


def _leases(attempts: Path) -> dict[str, list[str]]:
    """What each attempt that has a plan runs in."""
    found: dict[str, list[str]] = {}
    for plan in attempts.glob(f"*/{PLAN}"):
        with contextlib.suppress(OSError, ValueError):
            document = json.loads(plan.read_text())
            layers = [layer for image in document.get("images", ()) for layer in image["layers"]]
            if layers:
                found[plan.parent.name] = layers
    return found
