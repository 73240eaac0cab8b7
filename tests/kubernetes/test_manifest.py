"""The documents of an attempt: the whole of a small one, and what each part of a job makes of it."""

import base64
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from runyard.model.errors import InvalidRequest
from runyard.model.job import FileSource, GitSource, JobSpec, Step, Workspace
from runyard.model.requirements import Requirements
from runyard.providers.kubernetes.manifest import (
    PoolFacts,
    ReadCredential,
    ServerFeatures,
    input_secret,
    job_manifest,
)
from runyard.providers.kubernetes.options import KubernetesOptions, parse_options
from tests.kubernetes.step_world import attempt_of, shell

FACTS = PoolFacts(pool="k8s", installation="inst", namespace="jobs", image="runyard:1")
GOLDEN = Path(__file__).parent / "golden_job.json"
SMALL = JobSpec(
    steps=(shell("make", name="build", image="builder:1"), shell("make check", name="test")),
    artifacts=("out",),
)


def manifest(spec=SMALL, options=None, features=None):
    return job_manifest(attempt_of(spec), options or KubernetesOptions(), features or ServerFeatures(), FACTS)


def pod_of(document):
    return document["spec"]["template"]["spec"]


def test_the_whole_of_a_small_job():
    """To accept a change: write the printed document over the file, and read the difference."""
    document = manifest()
    assert document == json.loads(GOLDEN.read_text()), json.dumps(document, indent=1)


def test_nothing_of_the_job_that_may_be_secret_is_in_the_job_document():
    spec = JobSpec(
        steps=(Step(name="a", command=("deploy", "--key=hush-argument"), env={"KEY": "hush-env"}),)
    )
    assert "hush" not in json.dumps(manifest(spec))
    content = input_secret(attempt_of(spec), KubernetesOptions(), FACTS)["data"]
    assert b"hush-argument" in base64.b64decode(content["step-000"])
    assert b"hush" not in base64.b64decode(content["plan.json"])


def test_names_and_labels_are_those_of_the_attempt_on_every_document():
    attempt = attempt_of(SMALL)
    for document in (manifest(), input_secret(attempt, KubernetesOptions(), FACTS)):
        assert document["metadata"]["name"] == "runyard-abcdefghij234567-1"
        assert document["metadata"]["labels"] == {
            "app.kubernetes.io/managed-by": "runyard",
            "runyard.dev/installation": "inst",
            "runyard.dev/pool": "k8s",
            "runyard.dev/job": "abcdefghij234567",
            "runyard.dev/attempt": "1",
        }
        assert document["metadata"]["annotations"]["runyard.dev/epoch"] == "3"


def test_the_queue_label_goes_on_the_job_and_not_on_the_pod():
    options = parse_options("k8s", {"job_labels": {"kueue.x-k8s.io/queue-name": "team"}})
    document = manifest(options=options)
    assert document["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "team"
    assert "kueue.x-k8s.io/queue-name" not in document["spec"]["template"]["metadata"]["labels"]


def test_the_steps_requests_add_up_to_what_the_job_asked_for_once():
    steps = tuple(shell("true", name=f"s{index}") for index in range(5))
    spec = JobSpec(
        steps=steps, requirements=Requirements(cpu_millis=4000, memory_bytes=8 << 30, disk_bytes=1 << 30)
    )
    containers = pod_of(manifest(spec))["containers"]
    assert [each["resources"]["requests"]["cpu"] for each in containers] == ["4000m", "1m", "1m", "1m", "1m"]
    assert {each["resources"]["limits"]["memory"] for each in containers} == {str(8 << 30)}
    assert [each["resources"]["requests"]["ephemeral-storage"] for each in containers] == [
        str(1 << 30),
        *"0000",
    ]


def test_where_a_job_may_run_is_the_pools_and_its_own():
    options = parse_options(
        "k8s",
        {
            "node_selector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "runtime_class": "kata",
            "isolation": "microvm",
            "priority_class": "low",
            "image_pull_secrets": ["registry"],
        },
    )
    pod = pod_of(manifest(replace(SMALL, requirements=Requirements(arch="aarch64")), options))
    assert pod["nodeSelector"] == {"disk": "ssd", "kubernetes.io/os": "linux", "kubernetes.io/arch": "arm64"}
    assert (pod["runtimeClassName"], pod["priorityClassName"]) == ("kata", "low")
    assert pod["tolerations"] == [{"key": "gpu", "operator": "Exists"}]
    assert pod["imagePullSecrets"] == [{"name": "registry"}]


def test_a_template_reaches_every_step_and_a_helper_comes_before_prepare():
    template = {
        "spec": {
            "containers": [{"name": "step", "env": [{"name": "PROXY", "value": "x"}]}],
            "initContainers": [{"name": "db", "image": "db:1", "restartPolicy": "Always"}],
        }
    }
    options = parse_options("k8s", {"pod_template": template})
    pod = pod_of(manifest(options=options))
    assert [each.get("env") for each in pod["containers"]] == [[{"name": "PROXY", "value": "x"}]] * 2 + [None]
    assert [each["name"] for each in pod["initContainers"]] == ["db", "prepare"]
    older = pod_of(manifest(options=options, features=ServerFeatures(has_native_sidecars=False)))
    assert [each["name"] for each in older["initContainers"]] == ["prepare"]


def test_credentials_are_for_prepare_alone():
    spec = replace(SMALL, workspace=Workspace(files=()))
    credential = ReadCredential(url="https://git.example.test/", username="u", password=b"hush")
    secret = input_secret(attempt_of(spec), KubernetesOptions(), FACTS, credentials=(credential,))
    assert base64.b64decode(secret["data"]["credential-000.password"]) == b"hush"
    pod = pod_of(manifest(spec))
    for container in pod["containers"]:
        for mount in container["volumeMounts"]:
            assert mount["name"] != "input" or mount["subPath"] in (
                "step-000",
                "step-001",
                "collect",
                "plan.json",
            )


def test_an_input_that_no_secret_holds_is_refused_with_the_cure():
    files = Workspace(files=(FileSource(path="big", content_base64="A" * 1_100_000),))
    with pytest.raises(InvalidRequest, match="by URL"):
        input_secret(attempt_of(replace(SMALL, workspace=files)), KubernetesOptions(), FACTS)


def test_names_in_the_documents_are_valid_for_a_cluster():
    document = manifest(
        JobSpec(steps=tuple(shell("x", name=f"Größe {index}") for index in range(200)), artifacts=("*",))
    )
    names = [each["name"] for each in pod_of(document)["containers"]]
    assert len(set(names)) == 201
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)
    assert len(json.dumps(document)) < 1_000_000  # what the API server's store takes of one object is 1.5 MB


@pytest.mark.parametrize(
    ("network", "workspace", "label"),
    [
        ("none", Workspace(), "none"),
        ("none", Workspace(files=(FileSource(path="a", content_base64="YQ=="),)), "none"),
        (
            "none",
            Workspace(files=(FileSource(path="a", url="https://example.test/a", sha256="0" * 64),)),
            "fetch",
        ),
        ("none", Workspace(git=GitSource(url="https://example.test/r.git")), "fetch"),
        ("open", Workspace(git=GitSource(url="https://example.test/r.git")), "open"),
        ("open", Workspace(), "open"),
    ],
)
def test_the_label_for_network_policies_says_what_the_pod_needs(network, workspace, label):
    spec = replace(SMALL, workspace=workspace, requirements=Requirements(network=network))
    assert manifest(spec)["spec"]["template"]["metadata"]["labels"]["runyard.dev/network"] == label
