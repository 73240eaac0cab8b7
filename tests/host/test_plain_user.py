"""Without root: the same attempt, sandboxed by an ordinary user's own rights, limited by rlimits."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

import runyard
from runyard.host import host_tree, probe
from runyard.host.linux import boot_id, boottime
from runyard.host.plan import Plan, PlanImage, PlanStep
from tests.host import fake_service
from tests.host.images.layers import Stack, entry, link
from tests.host.world import Limits, sh
from tests.registry_server import busybox_entries

pytestmark = pytest.mark.service
NOBODY = 65534
PYTHON = "/usr/bin/python3"


def run_as_nobody(*steps, **fields) -> tuple[list[dict], dict[str, str]]:
    """The records and the logs of an attempt that a service of user nobody ran."""
    folder = Path(tempfile.mkdtemp(prefix="runyard-nobody-"))
    try:
        os.chown(folder, NOBODY, NOBODY)
        source = folder / "src"
        shutil.copytree(
            Path(runyard.__file__).parent, source / "runyard", ignore=shutil.ignore_patterns("__pycache__")
        )
        script = shutil.copy(fake_service.__file__, folder / "service.py")
        host_tree.write_generated(str(folder / "etc"))
        plan = plan_for(folder, steps, fields)
        (folder / "plan.json").write_text(plan.to_json())
        subprocess.run(["chmod", "-R", "a+rX", str(folder)], check=True)
        os.chmod(folder, 0o755)
        open_tun = (
            f'mknod -m 666 {folder}/tun c 10 200 && mount --bind {folder}/tun /dev/net/tun && exec "$@"'
        )
        argv = ["unshare", "-m", "sh", "-c", open_tun, "sh"]  # udev opens it to all; a bare container may not
        argv += ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", PYTHON, script]
        done = subprocess.run(
            [*argv, str(folder / "plan.json"), str(folder), ""],
            env={"PYTHONPATH": str(source), "PATH": os.defpath},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        logs = {file.name: file.read_text() for file in (folder / plan.name / "log").glob("*")}
        return [json.loads(line) for line in done.stdout.splitlines()], logs
    finally:
        shutil.rmtree(folder)


def plan_for(folder: Path, steps, fields) -> Plan:
    name = "runyard-nobody0000000000-1"
    bwrap = next(each for each in probe.probe(NOBODY).bwraps if each.works)
    return Plan(
        **{
            "name": name,
            "boot_id": boot_id(),
            "created_at": 0.0,
            "created_boottime": boottime(),
            "steps": steps,
            "log_directory": str(folder / name / "log"),
            "artifact_directory": str(folder / name / "artifacts"),
            "bwrap": bwrap.path,
            "host_tree": host_tree.host_tree(str(folder / "etc")),
            "limits": Limits(memory_bytes=256 << 20, pids_max=200),
            "kill_grace_s": 0.2,
            **fields,
        }
    )


@pytest.mark.skipif(not Path(PYTHON).exists(), reason="there is no python3 that an ordinary user can run")
def test_an_ordinary_user_runs_a_step_in_an_image_with_the_one_id_there_is():
    folder = Path(tempfile.mkdtemp(prefix="runyard-layers-"))
    try:
        folder.chmod(0o755)
        stack = Stack(folder)
        stack.unpack(*busybox_entries("lower"))
        stack.unpack(
            entry("etc/os-release", "upper\n"), link("workspace", "/oldroot/tmp"), link("etc/hosts", "/x")
        )
        image = PlanImage(layers=tuple(str(root) for root in reversed(stack.roots)))
        script = "id -u; cat /etc/os-release; echo x > /etc/mine; touch made; ls /workspace; "
        script += "grep -c localhost /etc/hosts"
        steps = [
            PlanStep(name=name, command=("/bin/sh", "-c", words), env={"PATH": "/bin"}, image=0)
            for name, words in (("a", script), ("b", "cat /etc/mine; ls"))
        ]
        bwrap = probe.choose_bwrap(probe.probe(NOBODY).bwraps)
        records, logs = run_as_nobody(*steps, images=(image,), bwrap=bwrap.path)
        assert records[-1]["outcome"]["kind"] == "succeeded", (records, logs)
        assert logs["000.stdout"].split() == ["0", "upper", "made", "2"]
        assert logs["001.stdout"].split() == ["x", "made"]
    finally:
        shutil.rmtree(folder)


@pytest.mark.skipif(not Path(PYTHON).exists(), reason="there is no python3 that an ordinary user can run")
def test_an_ordinary_user_runs_a_sandboxed_attempt_with_rlimits():
    script = (
        "id -un; grep Seccomp: /proc/self/status; ls /root /home; ls -d /dev/shm /dev/pts/ptmx; ulimit -d"
    )
    records, logs = run_as_nobody(sh(script), sh("setsid sleep 98765.1 & echo b", "b"))
    assert records[-1]["outcome"]["kind"] == "succeeded", records
    lines = logs["000.stdout"].splitlines()
    assert lines[0] == "runyard"
    assert lines[1].split() == ["Seccomp:", "2"]
    assert lines[2:4] == ["/dev/pts/ptmx", "/dev/shm"]
    assert int(lines[4]) == 256 << 10
    assert logs["001.stdout"] == "b\n"
    assert subprocess.run(["pgrep", "-f", "sleep 98765.1"], capture_output=True, check=False).stdout == b""


@pytest.mark.skipif(not Path(PYTHON).exists(), reason="there is no python3 that an ordinary user can run")
def test_an_ordinary_user_has_network_open_and_time_outs():
    records, logs = run_as_nobody(
        sh("cat /proc/net/route"),
        sh("trap '' TERM; sleep 60", "b", timeout_s=0.5),
        network="open",
        resolv_conf="/etc/hostname",
        slirp=shutil.which("slirp4netns"),
    )
    assert "tap0" in logs.get("000.stdout", ""), records[-1]["outcome"]["reason"]
    assert records[-1]["outcome"]["reason"]["code"] == "step_timeout"


def as_user(user_id: int, argv: list[str], mode: str) -> str:
    """What a program printed as that user, with /dev/net/tun of that mode."""
    script = (
        'd=$(mktemp -d) && mknod -m 600 $d/tun c 10 200 && chmod "$1" $d/tun && mount --bind $d/tun /dev/net/tun'
        ' && rm -r $d; shift; exec "$@"'
    )
    setpriv = ["setpriv", f"--reuid={user_id}", f"--regid={user_id}", "--clear-groups"]
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script, "sh", mode, *setpriv, *argv],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.strip() or done.stderr


@pytest.mark.skipif(not Path(PYTHON).exists(), reason="there is no python3 that an ordinary user can run")
@pytest.mark.parametrize(("mode", "can"), [("600", "False"), ("666", "True")])
def test_network_open_is_promised_only_where_the_tun_device_opens(tmp_path, mode, can):
    source = Path(tempfile.mkdtemp(prefix="runyard-tun-"))
    try:
        shutil.copytree(Path(runyard.__file__).parent, source / "runyard")
        subprocess.run(["chmod", "-R", "a+rX", str(source)], check=True)
        code = (
            f"import sys; sys.path.insert(0, {str(source)!r}); from runyard.host.probe import probe;"
            " from runyard.host.findings import judge; r = probe();"
            " print(r.has_tun, judge(r).has_network_open == r.has_tun)"
        )
        assert as_user(1001, [PYTHON, "-c", code], mode) == f"{can} True"
    finally:
        shutil.rmtree(source)
