"""The manifests on a real cluster: taken by its schema and by restricted Pod Security, and carried out by a kubelet."""

from __future__ import annotations

import http.server
import io
import json
import os
import secrets
import shutil
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from runyard.model.attempt import AttemptKey
from runyard.model.job import FileSource, GitSource, JobSpec, Limits, Step, StepCondition, Workspace
from runyard.model.requirements import Requirements
from runyard.providers.kubernetes.manifest import PoolFacts, ServerFeatures, input_secret, job_manifest
from runyard.providers.kubernetes.options import KubernetesOptions, parse_options
from runyard.providers.kubernetes.sighting import Ended, Running, Sighting, read_sighting
from runyard.providers.kubernetes.verdict import Marks, judge
from runyard.providers.port import AttemptRequest

KUBECONFIG = os.environ.get("RUNYARD_TEST_KUBECONFIG", "")
IMAGE = os.environ.get("RUNYARD_TEST_KUBE_PLATFORM_IMAGE", "")
BUSYBOX_IMAGE = os.environ.get("RUNYARD_TEST_KUBE_IMAGE", "")
BARE_IMAGE = os.environ.get("RUNYARD_TEST_KUBE_BARE_IMAGE", "")
HOST = os.environ.get("RUNYARD_TEST_KUBE_HOST", "")
pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(
        not KUBECONFIG or not IMAGE or shutil.which("kubectl") is None,
        reason="no cluster: RUNYARD_TEST_KUBECONFIG names its kubeconfig, RUNYARD_TEST_KUBE_PLATFORM_IMAGE the image"
        " of deploy/Dockerfile, kubectl must be there (docs/contributing.md)",
    ),
]
SMALL = Requirements(cpu_millis=100, memory_bytes=64 << 20)
LIMITS = Limits(start_s=60, run_s=60)


def kubectl(*arguments: str, stdin: str | None = None, is_bytes: bool = False) -> Any:
    done = subprocess.run(
        ["kubectl", "--kubeconfig", KUBECONFIG, *arguments],
        input=None if stdin is None else stdin.encode(),
        capture_output=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout if is_bytes else done.stdout.decode()


@pytest.fixture(scope="module")
def namespace() -> Iterator[str]:
    name = f"runyard-pods-{secrets.token_hex(3)}"
    kubectl("create", "namespace", name)
    kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
    yield name
    kubectl("delete", "namespace", name, "--wait=false")


class Cluster:
    def __init__(self, namespace: str, options: KubernetesOptions | None = None) -> None:
        self.options = options or KubernetesOptions(kill_grace_s=1.0)
        self.namespace = namespace
        self.facts = PoolFacts(pool="pods", installation="test", namespace=namespace, image=IMAGE)
        self.name = ""

    def documents(self, spec: JobSpec) -> tuple[dict[str, Any], dict[str, Any]]:
        self.spec = spec
        attempt = AttemptRequest(
            key=AttemptKey(secrets.token_hex(8), 1),
            job_id="a",
            spec=spec,
            slot=0,
            epoch=1,
            env={"RUNYARD_JOB": "a"},
        )
        self.name = attempt.key.resource_name
        secret = input_secret(attempt, self.options, self.facts)
        return secret, job_manifest(attempt, self.options, ServerFeatures(), self.facts)

    def start(self, spec: JobSpec) -> None:
        for document in self.documents(spec):
            kubectl("create", "-f", "-", stdin=json.dumps(document))

    def look(self) -> Sighting:
        job = json.loads(kubectl("-n", self.namespace, "get", "job", self.name, "-o", "json"))
        pods = json.loads(
            kubectl(
                "-n",
                self.namespace,
                "get",
                "pod",
                "-l",
                f"runyard.dev/job={self.name.split('-')[1]}",
                "-o",
                "json",
            )
        )["items"]
        return read_sighting(job, pods[0] if pods else None)

    def wait(self, is_there: Any, timeout_s: float = 80.0) -> Sighting:
        ends_at = time.monotonic() + timeout_s
        while True:
            sighting = self.look()
            if is_there(sighting):
                return sighting
            assert time.monotonic() < ends_at, sighting
            time.sleep(0.2)

    def outcome(self) -> Any:
        def judged(sighting: Sighting) -> Any:
            return judge(sighting, self.spec, marks=Marks(was_created=True), now=time.time(), suspended_s=60)

        return judged(self.wait(lambda sighting: judged(sighting) is not None))

    def log(self, container: str) -> str:
        return str(kubectl("-n", self.namespace, "logs", self.look().pod_name, "-c", container))


def shell(script: str, **fields: Any) -> Step:
    return Step(name=fields.pop("name", "one"), command=("sh", "-c", script), **fields)


def spec_of(*steps: Step, **fields: Any) -> JobSpec:
    return JobSpec(**{"steps": steps, "requirements": SMALL, "limits": LIMITS, **fields})


def test_the_servers_schema_takes_every_shape_of_job_strictly(namespace):
    options = parse_options(
        "pods",
        {
            "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
            "node_selector": {"disk": "ssd"},
            "image_pull_secrets": ["registry"],
            "service_account": "default",
            "job_labels": {"kueue.x-k8s.io/queue-name": "team"},
            "pod_template": {
                "metadata": {"labels": {"team": "a"}},
                "spec": {
                    "dnsPolicy": "ClusterFirst",
                    "containers": [{"name": "step", "resources": {"limits": {"example.com/gpu": "1"}}}],
                    "volumes": [{"name": "mine", "emptyDir": {}}],
                },
            },
        },
    )
    big = replace(SMALL, disk_bytes=1 << 30, arch="x86_64")
    spec = spec_of(shell("true"), shell("true", name="two"), requirements=big, artifacts=("*",))
    for document in Cluster(namespace, options).documents(spec):
        kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=json.dumps(document))


def test_a_job_in_two_images_with_files_runs_as_the_restricted_user(namespace):
    files = Workspace(files=(FileSource(path="in/a.txt", content_base64="aGVsbG8="),))
    cluster = Cluster(namespace)
    cluster.start(
        spec_of(
            shell("id -u; cat in/a.txt; echo kept > out; pwd", name="a", image=BUSYBOX_IMAGE or None),
            shell("cat out; touch $HOME/x; stat -c %u /workspace", name="b"),
            workspace=files,
        )
    )
    outcome = cluster.outcome()
    assert outcome.kind.value == "succeeded", outcome
    assert cluster.log("step-000") == "1000\nhello/workspace\n"
    assert cluster.log("step-001") == "kept\n1000\n"


@pytest.mark.skipif(
    not BARE_IMAGE, reason="RUNYARD_TEST_KUBE_BARE_IMAGE names an image that holds /echo and no more"
)
def test_an_image_with_one_static_binary_and_nothing_else_runs(namespace):
    cluster = Cluster(namespace)
    cluster.start(spec_of(Step(name="one", command=("/echo", "from nothing"), image=BARE_IMAGE)))
    assert cluster.outcome().kind.value == "succeeded"
    assert cluster.log("step-000") == "from nothing\n"


def test_a_step_over_its_memory_is_told_and_the_next_one_still_runs(namespace):
    cluster = Cluster(namespace)
    cluster.start(
        spec_of(
            Step(name="eat", command=("python3", "-c", "x = bytearray(500 << 20)")),
            shell("echo cleanup", name="clean", condition=StepCondition.ALWAYS),
        )
    )
    outcome = cluster.outcome()
    assert (outcome.kind.value, outcome.reason.code.value, outcome.reason.step) == ("failed", "memory", "eat")
    assert cluster.log("step-001") == "cleanup\n"


def test_time_outs_and_missing_commands_are_told_apart(namespace):
    cluster = Cluster(namespace)
    cluster.start(
        spec_of(
            shell("sleep 60", name="slow", timeout_s=1.0),
            Step(name="none", command=("no-such",), condition=StepCondition.ALWAYS),
        )
    )
    outcome = cluster.outcome()
    assert (outcome.kind.value, outcome.reason.code.value) == ("timed_out", "step_timeout")
    last = cluster.look().steps[1]
    assert isinstance(last, Ended)
    assert (last.exit_code, last.message) == (127, '{"end":"not_found"}')


def test_an_image_that_is_not_there_is_said_in_the_clusters_words(namespace):
    cluster = Cluster(namespace, KubernetesOptions(image_pull_policy="Never"))
    cluster.start(spec_of(shell("true", image="example.test/none:1"), limits=Limits(start_s=20, run_s=60)))
    outcome = cluster.outcome()
    assert (outcome.kind.value, outcome.was_seen) == ("timed_out", False)
    assert "ErrImageNeverPull" in outcome.reason.message


def test_what_a_job_leaves_is_read_as_one_tar(namespace):
    cluster = Cluster(namespace)
    script = (
        "mkdir out; echo x > out/a; ln -s /etc/passwd out/link; echo 3 > $RUNYARD_OUTPUTS/count; echo hi > o"
    )
    cluster.start(spec_of(shell(script), artifacts=("out",), outputs={"greeting": "o"}))
    cluster.wait(lambda seen: seen.have_steps_ended and isinstance(seen.collect, Running))
    pod = cluster.look().pod_name
    collect = (
        "-n",
        namespace,
        "exec",
        pod,
        "-c",
        "collect",
        "--",
        "python3",
        "-m",
        "runyard.providers.kubernetes.pod",
    )
    with tarfile.open(fileobj=io.BytesIO(kubectl(*collect, "read", is_bytes=True))) as bundle:
        read = {member.name: bundle.extractfile(member).read() for member in bundle}  # type: ignore[union-attr]
    assert list(read) == ["artifacts/out/a", "outputs.json", "words.txt", "end"]
    assert read["artifacts/out/a"] == b"x\n"
    assert json.loads(read["outputs.json"]) == {"greeting": "hi\n", "count": "3\n"}
    kubectl(*collect, "done")
    cluster.wait(lambda seen: isinstance(seen.collect, Ended))


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[str]:
    folder = tmp_path / "repo"
    git = partial(subprocess.run, check=True, cwd=folder, capture_output=True)
    folder.mkdir()
    git(["git", "init", "-q", "-b", "main"])
    (folder / "a.txt").write_text("from git\n")
    git(["git", "add", "."])
    git(["git", "-c", "user.name=a", "-c", "user.email=a@example.test", "commit", "-qm", "one"])
    git(["git", "update-server-info"])
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(folder / ".git"))
    server = http.server.ThreadingHTTPServer((HOST, 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://{HOST}:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(not HOST, reason="RUNYARD_TEST_KUBE_HOST is an address of this host that pods reach")
class TestGit:
    def test_a_repository_is_checked_out_before_the_steps(self, namespace, repository):
        cluster = Cluster(namespace, KubernetesOptions(git_protocols=("http",), allow_private_addresses=True))
        work = Workspace(git=GitSource(url=repository, ref="main"))
        cluster.start(spec_of(shell("cat a.txt; git status --short; git log --format=%s"), workspace=work))
        outcome = cluster.outcome()
        assert outcome.kind.value == "succeeded", (outcome, cluster.log("prepare"))
        assert cluster.log("step-000") == "from git\none\n"

    def test_a_ref_that_is_not_there_is_the_jobs_failure(self, namespace, repository):
        cluster = Cluster(namespace, KubernetesOptions(git_protocols=("http",), allow_private_addresses=True))
        work = Workspace(git=GitSource(url=repository, ref="nowhere"))
        cluster.start(spec_of(shell("true"), workspace=work))
        outcome = cluster.outcome()
        assert (outcome.kind.value, outcome.reason.code.value, outcome.was_seen) == (
            "failed",
            "workspace",
            False,
        )
        assert "nowhere" in outcome.reason.message
