"""On a real cluster, a service account with the Role of deploy/kubernetes and nothing more runs a pool."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from runyard.model.finding import Finding
from runyard.providers.kubernetes.client import Kind
from runyard.providers.kubernetes.provider import KubernetesProvider
from tests.providers.kubernetes import the_role
from tests.providers.kubernetes.real_cluster import KUBECONFIG, WHY_NOT, RealWorld
from tests.providers.kubernetes.world import UNCLOSED

pytestmark = [
    pytest.mark.service,
    UNCLOSED,
    pytest.mark.timeout(300),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]
ROLES = Kind("apis/rbac.authorization.k8s.io/v1", "roles", "Role")


class RoleWorld(RealWorld):
    """Its providers have a token of the service account, bound to the Role as the manifest says."""

    def kubectl(self, *arguments: str, given: str = "") -> str:
        command = ["kubectl", "--kubeconfig", KUBECONFIG, "-n", self.namespace, *arguments]
        return subprocess.run(
            command, input=given, check=True, capture_output=True, text=True, timeout=30
        ).stdout

    def _write_kubeconfig(self) -> Path:
        kubeconfig = super()._write_kubeconfig()
        document = yaml.safe_load(kubeconfig.read_text())
        token = self.kubectl("create", "token", "runyard").strip()
        for user in document["users"]:
            user["user"] = {"token": token}
        kubeconfig.write_text(yaml.safe_dump(document))
        return kubeconfig


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[RoleWorld]:
    world = RoleWorld(tmp_path)
    await world.open()
    documents = the_role.documents()
    for subject in (one for document in documents for one in document.get("subjects", [])):
        subject["namespace"] = world.namespace
    await asyncio.to_thread(world.kubectl, "apply", "-f", "-", given=yaml.safe_dump_all(documents))
    yield world
    await world.close()


async def test_the_role_is_enough_for_all_a_pool_does(world: RoleWorld) -> None:
    await the_role.live_a_whole_life(world, await world.start_provider())


async def test_a_check_names_each_verb_that_is_missing(world: RoleWorld) -> None:
    provider = await world.start_provider()
    for words in the_role.verbs():
        await world.client.patch(ROLES, "runyard", {"rules": the_role.rules_without(words)})
        rights = await said_of_rights(provider, words)
        assert rights.ok == (words in ("list events", "list resourcequotas"))


async def said_of_rights(provider: KubernetesProvider, words: str) -> Finding:
    """The authorizer learns of a change a moment later. Another verb that a check misses meanwhile is the last one."""
    async with asyncio.timeout(20):
        while True:
            [rights] = [finding for finding in await provider.check() if finding.name == "rights"]
            if words in rights.message:
                return rights
