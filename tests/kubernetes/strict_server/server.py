"""The strict Kubernetes API server as one object: a cluster in memory, its controllers, and a port."""

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from tests.kubernetes.strict_server.access import AccessTable
from tests.kubernetes.strict_server.api import Api
from tests.kubernetes.strict_server.clock import Clock, FakeClock, LoopClock
from tests.kubernetes.strict_server.cluster import Cluster
from tests.kubernetes.strict_server.faults import Faults
from tests.kubernetes.strict_server.features import CURRENT, Features
from tests.kubernetes.strict_server.garbage import GarbageCollector
from tests.kubernetes.strict_server.http_rim import HttpRim
from tests.kubernetes.strict_server.job_controller import JobController
from tests.kubernetes.strict_server.kubelet import Kubelet
from tests.kubernetes.strict_server.pod_streams import PodStreams
from tests.kubernetes.strict_server.resources import NAMESPACES, NODES, find_resource
from tests.kubernetes.strict_server.store import Store
from tests.kubernetes.strict_server.watching import Watches

Json = dict[str, Any]


class StrictServer:
    """`async with StrictServer() as server`; its parts are public, for tests to script, to break and to look at.

    By default time stands still until `server.clock.advance(seconds)`; with a LoopClock everything runs by itself.
    """

    def __init__(
        self, clock: Clock | None = None, features: Features = CURRENT, *, namespace: str = "default"
    ) -> None:
        self.clock: Any = clock or FakeClock()
        self.namespace = namespace
        self.cluster = Cluster(self.clock, features)
        self.faults, self.access = Faults(), AccessTable()
        self.watches = Watches(self.cluster.store, self.clock, self.faults)
        self.kubelet = Kubelet(self.cluster)
        self.jobs, self.garbage = JobController(self.cluster), GarbageCollector(self.cluster)
        streams = PodStreams(self.cluster, self.kubelet, self.faults)
        self._rim = HttpRim(Api(self.cluster, self.access, self.watches, streams).answer, self.faults)
        self.url = ""
        self._furnish()

    def _furnish(self) -> None:
        for name in {"default", self.namespace}:
            self.cluster.create(NAMESPACES, "", {"metadata": {"name": name}})
        labels = {
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/os": "linux",
            "kubernetes.io/hostname": "node-1",
        }
        self.cluster.create(NODES, "", {"metadata": {"name": "node-1", "labels": labels}})

    @property
    def store(self) -> Store:
        return self.cluster.store

    @property
    def requests(self) -> list[str]:
        """Every request in the order of its arrival, as `METHOD path?query`."""
        return self._rim.requests

    async def __aenter__(self) -> Self:
        self.url = f"http://127.0.0.1:{await self._rim.start()}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._rim.stop()
        if isinstance(self.clock, LoopClock):
            self.clock.close()

    # --- for tests ----------------------------------------------------------------------------------------------

    def objects(self, plural: str, namespace: str | None = None) -> list[Json]:
        """What is stored, by the plural (`jobs`, `pods`, `secrets` …), in every namespace where none is named."""
        found = next(
            filter(None, (find_resource(group, "v1", plural) for group in ("", "batch", "networking.k8s.io")))
        )
        return self.store.select(found, namespace)

    def kubeconfig(self, token: str = "") -> Json:
        user = {"token": token} if token else {}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "strict",
            "clusters": [{"name": "strict", "cluster": {"server": self.url}}],
            "users": [{"name": "strict", "user": user}],
            "contexts": [
                {
                    "name": "strict",
                    "context": {"cluster": "strict", "user": "strict", "namespace": self.namespace},
                }
            ],
        }

    def write_kubeconfig(self, path: Path, token: str = "") -> Path:
        path.write_text(yaml.safe_dump(self.kubeconfig(token)))
        return path
