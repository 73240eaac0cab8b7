"""deploy/kubernetes: what it grants, opens and demands; its schemas are the server's own, where a cluster is there."""

from __future__ import annotations

import ipaddress
import os
import shutil
import subprocess
import uuid
from pathlib import Path
from typing import Any

import pytest
import yaml

from runyard.providers.kubernetes.layout import MANAGED_BY, NETWORK, NETWORK_FETCH, RUNYARD
from runyard.providers.kubernetes.rights import RIGHTS

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
OF_THE_WHOLE_CLUSTER = {"nodes", "runtimeclasses"}
Document = dict[str, Any]


def documents(*folders: str) -> list[Document]:
    files = [file for folder in folders for file in sorted((FOLDER / folder).glob("*.yaml"))]
    found = [document for file in files for document in yaml.safe_load_all(file.read_text())]
    return [document for document in found if document.get("kind", "Kustomization") != "Kustomization"]


def named(kind: str, name: str) -> Document:
    [found] = [one for one in documents("base") if (one["kind"], one["metadata"]["name"]) == (kind, name)]
    return found


def pod_specs() -> list[Document]:
    found = documents("base", "postgresql", "registry-cache")
    specs = [one["spec"]["template"]["spec"] for one in found if one["kind"] in ("Deployment", "StatefulSet")]
    return [spec for spec in specs if "securityContext" in spec]  # one is a patch of another


def test_the_role_grants_exactly_what_the_provider_uses() -> None:
    granted = {
        (verb, resource)
        for rule in named("Role", "runyard")["rules"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }
    used = {
        tuple(right.words.split(" ")) for right in RIGHTS if right.kind.plural not in OF_THE_WHOLE_CLUSTER
    }
    assert granted == used


def test_what_no_role_can_grant_is_nothing_that_a_pool_needs() -> None:
    of_the_cluster = [right for right in RIGHTS if right.kind.plural in OF_THE_WHOLE_CLUSTER]
    assert {right.kind.plural for right in of_the_cluster} == OF_THE_WHOLE_CLUSTER
    assert all(right.is_optional for right in of_the_cluster)


def test_the_role_is_bound_to_the_account_that_the_service_has() -> None:
    [subject] = named("RoleBinding", "runyard")["subjects"]
    account = named("Deployment", "runyard")["spec"]["template"]["spec"]["serviceAccountName"]
    assert (subject["kind"], subject["name"]) == ("ServiceAccount", account)
    assert named("ServiceAccount", account)


def test_every_pod_satisfies_the_strictest_level_of_its_namespace() -> None:
    assert (
        named("Namespace", "runyard")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    for spec in pod_specs():
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"]


def test_only_the_service_holds_a_token_of_the_cluster() -> None:
    with_token = [spec for spec in pod_specs() if spec.get("automountServiceAccountToken", True)]
    assert [spec.get("serviceAccountName") for spec in with_token] == ["runyard"]


def test_policies_select_the_pods_of_jobs_by_what_the_provider_writes_on_them() -> None:
    closed, opened = (
        named("NetworkPolicy", "runyard-jobs-closed"),
        named("NetworkPolicy", "runyard-jobs-open"),
    )
    for policy in (closed, opened):
        assert policy["spec"]["podSelector"]["matchLabels"] == {MANAGED_BY: RUNYARD}
    assert closed["spec"]["policyTypes"] == ["Ingress", "Egress"]
    assert "ingress" not in closed["spec"]
    assert "egress" not in closed["spec"]
    [expression] = opened["spec"]["podSelector"]["matchExpressions"]
    assert expression == {"key": NETWORK, "operator": "NotIn", "values": ["none"]}
    # The workspace of a job without a network may come over one.
    assert NETWORK_FETCH not in expression["values"]


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "10.96.0.1", "10.0.0.1", "172.20.0.1", "192.168.1.1", "100.100.100.200", "127.0.0.1",
     "fd00:ec2::254", "fe80::1", "::1", "64:ff9b::a9fe:a9fe"],
)  # fmt: skip
def test_a_job_with_an_open_network_reaches_neither_metadata_nor_private_addresses(address: str) -> None:
    wanted = ipaddress.ip_address(address)
    to_anybody = named("NetworkPolicy", "runyard-jobs-open")["spec"]["egress"][0]["to"]
    blocks = [peer["ipBlock"] for peer in to_anybody]
    [excepted] = [
        one["except"] for one in blocks if ipaddress.ip_network(one["cidr"]).version == wanted.version
    ]
    assert any(wanted in ipaddress.ip_network(each) for each in excepted)


def test_a_drain_of_a_node_evicts_no_job() -> None:
    budget = named("PodDisruptionBudget", "runyard-jobs")["spec"]
    assert budget["selector"]["matchLabels"] == {MANAGED_BY: RUNYARD}
    assert budget["minAvailable"] > 100_000


@pytest.mark.service
@pytest.mark.parametrize("folder", ["base", "postgresql", "registry-cache"])
def test_a_real_server_takes_every_manifest(folder: str) -> None:
    kubeconfig = os.environ.get("RUNYARD_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("no Kubernetes: RUNYARD_TEST_KUBECONFIG names none (docs/contributing.md)")
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is missing: apt-get install kubernetes-client")
    namespace = f"runyard-manifests-{uuid.uuid4().hex[:8]}"

    def kubectl(*arguments: str, given: str | None = None) -> str:
        command = ["kubectl", "--kubeconfig", kubeconfig, *arguments]
        done = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    built = subprocess.run(
        ["kubectl", "kustomize", str(FOLDER / folder)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    kubectl("create", "namespace", namespace)
    try:
        elsewhere = [one for one in yaml.safe_load_all(built) if one["kind"] != "Namespace"]
        for one in elsewhere:
            one["metadata"]["namespace"] = namespace
        text = yaml.safe_dump_all(elsewhere)
        assert kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", given=text)
    finally:
        kubectl("delete", "namespace", namespace, "--wait=false")
