"""What prepare and collect do, on this host: the workspace, the bound on words, the tar."""

import base64
import io
import json
import os
import subprocess
import sys
import tarfile

import pytest

from runyard.host.plan import Plan
from runyard.model.job import FileSource, JobSpec, NamedCache, Workspace
from runyard.providers.kubernetes.manifest import PoolFacts, input_secret
from runyard.providers.kubernetes.options import KubernetesOptions
from runyard.providers.kubernetes.pod.collect import write_bundle
from runyard.providers.kubernetes.verdict import message_end
from tests.kubernetes.step_world import attempt_of, shell

pytestmark = pytest.mark.skipif(
    not os.path.exists("/bin/busybox"),
    reason="prepare lays out a static busybox: apt-get install busybox-static",
)
FACTS = PoolFacts(pool="k8s", installation="inst", namespace="jobs", image="runyard:1")


def prepare(root, spec, *, message_bytes=4096, also_planned=None) -> subprocess.CompletedProcess[str]:
    secret = input_secret(attempt_of(spec), KubernetesOptions(), FACTS)
    for folder in ("bin", "results", "files", "input"):
        (root / folder).mkdir()
    plan = json.loads(base64.b64decode(secret["data"]["plan.json"]))
    (root / "input" / "plan.json").write_text(json.dumps(plan | (also_planned or {})))
    call = (
        "import sys; from runyard.providers.kubernetes.pod.prepare import prepare;"
        f" sys.exit(prepare(2, {message_bytes}, root={str(root)!r}, message={str(root / 'message')!r}))"
    )
    return subprocess.run(
        [sys.executable, "-c", call], capture_output=True, text=True, timeout=60, check=False
    )


def test_prepare_makes_all_that_the_steps_need(tmp_path):
    files = (FileSource(path="in/a.txt", content_base64="aGVsbG8="),)
    done = prepare(tmp_path, JobSpec(steps=(shell("true"),), workspace=Workspace(files=files)))
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "files/workspace/in/a.txt").read_text() == "hello"
    assert sorted(each.name for each in (tmp_path / "results").iterdir()) == ["000", "001"]
    assert sorted(each.name for each in (tmp_path / "files").iterdir()) == ["outputs", "tmp", "workspace"]
    assert all(os.access(tmp_path / "bin" / name, os.X_OK) for name in ("busybox", "step.sh"))


def test_a_cache_that_no_pod_keeps_is_said_in_the_log_and_costs_nothing(tmp_path):
    cache = (NamedCache(key="deps", path="node_modules"),)
    done = prepare(tmp_path, JobSpec(steps=(shell("true"),), cache=cache))
    assert (done.returncode, done.stderr) == (0, "")
    assert "keeps no named caches: node_modules" in done.stdout


def test_a_plan_of_another_release_says_what_to_do(tmp_path):
    done = prepare(tmp_path, JobSpec(steps=(shell("true"),)), also_planned={"of_tomorrow": 1})
    assert done.returncode == 1
    assert "another release of Runyard than the service" in (tmp_path / "message").read_text()


def test_a_workspace_that_cannot_be_made_is_said_within_the_kubelets_bound(tmp_path):
    path = "ü" * 300 + "/x"
    files = (
        FileSource(path=path, content_base64=""),
        FileSource(path="f", url="http://127.0.0.1:1/", sha256="0" * 64),
    )
    done = prepare(
        tmp_path, JobSpec(steps=(shell("true"),), workspace=Workspace(files=files)), message_bytes=60
    )
    message = (tmp_path / "message").read_text()
    assert done.returncode == 1
    assert len(message) <= 60
    assert json.loads(message)["end"] == message_end(message)["end"] == "workspace"
    assert "workspace.files" in done.stdout


def plan(artifacts, **fields) -> Plan:
    return Plan(
        name="a", boot_id="", created_at=0, created_boottime=0, steps=(), log_directory="", artifact_directory="",
        artifacts=artifacts, **fields,
    )  # fmt: skip


def bundle(path, the_plan) -> dict[str, bytes]:
    for folder in ("workspace", "outputs"):
        (path / folder).mkdir(exist_ok=True)
    stream = io.BytesIO()
    write_bundle(the_plan, str(path), stream)
    stream.seek(0)
    with tarfile.open(fileobj=stream) as archive:
        return {member.name: archive.extractfile(member).read() for member in archive}


def test_the_tar_holds_what_matches_and_no_link_leads_out_of_the_workspace(tmp_path):
    work = tmp_path / "workspace"
    (work / "out" / "ü").mkdir(parents=True)
    (work / "out" / "ü" / "a").write_bytes(b"x" * 100_000)
    (work / "out" / "link").symlink_to("/etc/passwd")
    os.mkfifo(work / "out" / "fifo")
    (work / "elsewhere").symlink_to("/etc")
    read = bundle(tmp_path, plan(("out", "elsewhere/**", "none"), outputs={"link": "out/link"}))
    assert {name for name in read if name.startswith("artifacts/")} == {"artifacts/out/ü/a"}
    assert read["artifacts/out/ü/a"] == b"x" * 100_000
    assert json.loads(read["outputs.json"]) == {}
    assert "nothing matches 'none'" in read["words.txt"].decode()
    assert list(read)[-1] == "end"


def test_what_is_too_much_is_left_out_and_said(tmp_path):
    (tmp_path / "workspace").mkdir()
    (tmp_path / "workspace" / "a").write_bytes(b"1" * 10)
    (tmp_path / "workspace" / "b").write_bytes(b"2" * 10)
    read = bundle(tmp_path, plan(("*",), artifact_bytes_max=15))
    assert "artifacts/a" in read
    assert "artifacts/b" not in read
    assert "more than 15 bytes" in read["words.txt"].decode()
    assert "end" in read
