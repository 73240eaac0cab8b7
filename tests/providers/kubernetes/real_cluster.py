"""The provider's world over a real cluster, where one is given.

RUNYARD_TEST_KUBECONFIG names a kubeconfig that may make namespaces; RUNYARD_TEST_KUBE_PLATFORM_IMAGE is the platform's
image, which the cluster must have or can pull. docs/contributing.md tells how.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import secrets
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from runyard.model.attempt import AttemptKey
from runyard.model.errors import ProviderError
from runyard.model.job import Limits
from runyard.model.requirements import Requirements
from runyard.providers.kubernetes import create_provider
from runyard.providers.kubernetes.attempt_views import job_of
from runyard.providers.kubernetes.client import PODS, QUOTAS, Kind, KubernetesClient
from runyard.providers.kubernetes.cluster_access import reach_cluster
from runyard.providers.kubernetes.provider import KubernetesProvider
from runyard.providers.kubernetes.shared_watch import SharedWatch
from runyard.providers.kubernetes.sighting import Ended, Running, read_sighting
from runyard.providers.port import AttemptRequest, Provider, ProviderConfig
from runyard.testing.conformance import FarProviderWorld, TinyCommand
from tests.providers.kubernetes.world import with_outputs

KUBECONFIG = os.environ.get("RUNYARD_TEST_KUBECONFIG", "")
IMAGE = os.environ.get("RUNYARD_TEST_KUBE_PLATFORM_IMAGE", "")
WHY_NOT = (
    ""
    if KUBECONFIG and IMAGE
    else "RUNYARD_TEST_KUBECONFIG and RUNYARD_TEST_KUBE_PLATFORM_IMAGE name no cluster"
)
NAMESPACES = Kind("api/v1", "namespaces", "Namespace", is_namespaced=False)
SMALL = Requirements(cpu_millis=20, memory_bytes=64 << 20)


class Wire:
    """A relay on a loopback port to the API server, which can be cut. TLS goes through it untouched."""

    def __init__(self, host: str, port: int) -> None:
        self._far = (host, port)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.is_cut = False
        self.cuts_at_next_answer = False
        self.port = 0

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.is_cut:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._far)
        self._writers |= {writer, far_writer}
        for source, target, is_answer in ((reader, far_writer, False), (far_reader, writer, True)):
            task = asyncio.create_task(self._relay(source, target, is_answer=is_answer))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _relay(
        self, source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_answer: bool
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(65536):
                if is_answer and self.cuts_at_next_answer:
                    self.cuts_at_next_answer = False
                    self.cut()
                    return
                target.write(data)
                await target.drain()
        target.transport.abort()
        self._writers.discard(target)


class RealWorld(FarProviderWorld):
    """A namespace of its own. Starts are counted by a watch of the world's own: pods whose first step began."""

    requirements = SMALL
    deadline_s = 90.0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.namespace = f"runyard-test-{secrets.token_hex(4)}"
        access = reach_cluster(kubeconfig=KUBECONFIG, context=None, field="RUNYARD_TEST_KUBECONFIG")
        self.client = KubernetesClient(access.http, namespace=self.namespace)
        server = urlsplit(self.client.server)
        self.wire = Wire(server.hostname or "", server.port or 443)
        self.options: dict[str, Any] = {}
        self._began: dict[str, set[str]] = defaultdict(set)
        self._watch = SharedWatch(self.client, PODS, labels="runyard.dev/pool", listen=self._see)
        self._providers: list[KubernetesProvider] = []

    async def open(self) -> None:
        await self.wire.open()
        namespace = {
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": self.namespace,
                "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
            },
        }
        await self.client.create(NAMESPACES, namespace)
        self._watch.start()
        await self._watch.synced()
        async with asyncio.timeout(30):
            accounts = Kind("api/v1", "serviceaccounts", "ServiceAccount")
            while await self.client.read(accounts, "default") is None:  # noqa: ASYNC110 -- pods need it
                await asyncio.sleep(0.05)

    async def start_provider(self) -> KubernetesProvider:
        options = {
            "kubeconfig": str(self._write_kubeconfig()),
            "namespace": self.namespace,
            "image": IMAGE,
            "image_pull_policy": "IfNotPresent",
            **self.options,
        }
        config = ProviderConfig(
            pool="k", installation="conformance", data_directory=self.folder, options=options
        )
        provider = create_provider(config)
        self._providers.append(provider)
        await provider.start()
        return provider

    def _write_kubeconfig(self) -> Path:
        """The one that was given, by way of the wire."""
        document = yaml.safe_load(Path(KUBECONFIG).read_text())
        for cluster in document["clusters"]:
            cluster["cluster"]["server"] = f"https://127.0.0.1:{self.wire.port}"
        kubeconfig = self.folder / "kubeconfig"
        kubeconfig.write_text(yaml.safe_dump(document))
        return kubeconfig

    def request(
        self,
        tiny: TinyCommand = TinyCommand.SUCCEED,
        *,
        number: int = 1,
        limits: Limits | None = None,
        step_s: float | None = None,
    ) -> AttemptRequest:
        return with_outputs(super().request(tiny, number=number, limits=limits, step_s=step_s), tiny)

    async def quota_counts(self, name: str) -> None:
        """Until its controller has counted what is there: only then it refuses."""
        async with asyncio.timeout(30):
            while not (await self.client.read(QUOTAS, name) or {}).get("status", {}).get("used"):  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def kill_place(self, key: AttemptKey) -> None:
        for pod in self._watch.objects.values():
            if job_of(pod) == key.resource_name:
                await self._forget(pod["metadata"]["name"])

    async def _forget(self, pod: str) -> None:
        """By force, without waiting for its end: as when its node is gone."""
        await self.client.delete(PODS, pod, grace_s=0)

    def count_starts(self, key: AttemptKey) -> int:
        return len(self._began[key.resource_name])

    def _see(self, pod: dict[str, Any], is_gone: bool) -> None:
        steps = read_sighting(None, pod).steps
        if steps and isinstance(steps[0], Running | Ended):
            self._began[job_of(pod)].add(pod["metadata"]["uid"])

    @contextlib.asynccontextmanager
    async def cut_off(self, provider: Provider) -> AsyncIterator[None]:
        self.wire.is_cut = True
        self.wire.cut()
        try:
            yield
        finally:
            self.wire.is_cut = False

    async def lose_next_start_reply(self, provider: Provider) -> None:
        self.wire.cuts_at_next_answer = True

    async def refuse_next_start(self, provider: Provider) -> None:
        raise NotImplementedError("a cluster refuses for want of quota, which is another word")

    async def close(self) -> None:
        for provider in self._providers:
            await provider.close()
        await self._watch.close()
        with contextlib.suppress(ProviderError):
            await self.client.delete(NAMESPACES, self.namespace)
        await self.client.close()
        await self.wire.close()
        gc.collect()  # while UNCLOSED holds
