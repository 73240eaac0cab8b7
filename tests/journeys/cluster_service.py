"""The service as `deploy/kubernetes` puts it into a cluster: applied as it is, but for a namespace and an image of its
own, and for what a cluster may lack."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from runyard.sdk import Client
from tests.providers.kubernetes.real_cluster import IMAGE, KUBECONFIG

BASE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "base"
API = os.environ.get("RUNYARD_TEST_KUBE_API", "")
"""HOST:PORT at which pods reach the API server, where the cluster routes no Services."""

WITHIN_S = 60
Document = dict[str, Any]


def kubectl(*arguments: str, given: str | None = None, check: bool = True) -> str:
    done = subprocess.run(
        ["kubectl", "--kubeconfig", KUBECONFIG, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=WITHIN_S + 30,
        check=False,
    )
    assert not check or done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
    return done.stdout


class ClusterService:
    """`folder` holds its overlay, and its volume where the cluster has no storage class: then the node is this host."""

    def __init__(self, folder: Path) -> None:
        self.namespace = f"runyard-zero-{secrets.token_hex(4)}"
        self._folder, self._volume = folder, folder / "volume"

    def apply(self) -> None:
        documents = list(yaml.safe_load_all(kubectl("kustomize", str(self._overlay()))))
        if not json.loads(kubectl("get", "storageclass", "-o", "json"))["items"]:
            self._volume.mkdir()
            self._volume.chmod(0o777)
            documents.append(self._volume_document())
        kubectl("apply", "-f", "-", given=yaml.safe_dump_all(documents))

    def _overlay(self) -> Path:
        """As an operator adapts the base: another namespace, an image that the nodes have."""
        folder = self._folder / "overlay"
        folder.mkdir()
        name, _, tag = IMAGE.rpartition(":")
        written: Document = {
            "namespace": self.namespace,
            "resources": [os.path.relpath(BASE, folder)],
            "images": [{"name": "runyard", "newName": name, "newTag": tag}],
        }
        if API:
            host, _, port = API.rpartition(":")
            variables = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
            container = {"name": "runyard", "env": [{"name": k, "value": v} for k, v in variables.items()]}
            patch = {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": "runyard"},
                "spec": {"template": {"spec": {"containers": [container]}}},
            }
            written["patches"] = [{"patch": yaml.safe_dump(patch)}]
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(written))
        return folder

    def remove(self) -> None:
        kubectl("delete", "namespace", self.namespace, "--wait=false")
        kubectl("delete", "persistentvolume", self.namespace, "--ignore-not-found", "--wait=false")

    def _volume_document(self) -> Document:
        return {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": self.namespace},
            "spec": {
                "capacity": {"storage": "20Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "claimRef": {"namespace": self.namespace, "name": "runyard"},
                "hostPath": {"path": str(self._volume)},
            },
        }

    def wait_until_ready(self) -> str:
        """The name of the one pod of the service."""
        self.kubectl("rollout", "status", "deployment/runyard", f"--timeout={WITHIN_S}s", check=False)
        pods = self.pods("app.kubernetes.io/component=service")
        assert any(map(_is_ready, pods)), [self.logs(), *(one["status"] for one in pods)]
        [pod] = [one for one in pods if _is_ready(one)]
        return str(pod["metadata"]["name"])

    def replace(self, pod: str) -> str:
        """Deletes the pod as a drain or a node's end would; the name of the one that takes its place."""
        self.kubectl("delete", "pod", pod, "--wait=true")
        return self.wait_until_ready()

    def pods(self, labels: str) -> list[Document]:
        return list(json.loads(self.kubectl("get", "pods", "-l", labels, "-o", "json"))["items"])

    def kubectl(self, *arguments: str, check: bool = True) -> str:
        return kubectl("-n", self.namespace, *arguments, check=check)

    def logs(self) -> str:
        return self.kubectl("logs", "deployment/runyard", "--tail=60", check=False)

    @contextlib.contextmanager
    def client(self, pod: str) -> Iterator[Client]:
        """By `kubectl port-forward`, with the token that docs/kubernetes.md tells how to get."""
        token = self.kubectl("exec", pod, "--", "cat", "/var/lib/runyard/admin.token").strip()
        command = ["kubectl", "--kubeconfig", KUBECONFIG, "-n", self.namespace, "port-forward", pod, ":7700"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forward:
            try:
                assert forward.stdout is not None
                found = re.search(r"127\.0\.0\.1:(\d+)", forward.stdout.readline())
                assert found, "kubectl port-forward did not begin"
                with Client(url=f"http://127.0.0.1:{found[1]}", token=token) as client:
                    yield client
            finally:
                forward.terminate()


def _is_ready(pod: Document) -> bool:
    conditions = pod.get("status", {}).get("conditions") or []
    return not pod["metadata"].get("deletionTimestamp") and any(
        one["type"] == "Ready" and one["status"] == "True" for one in conditions
    )
