"""step.sh, run for real by the busybox of this host: order, conditions, limits, signals, its word at the end."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from runyard.model.job import Step, StepCondition
from tests.kubernetes.step_world import StepWorld, shell

pytestmark = pytest.mark.skipif(
    not os.path.exists("/bin/busybox"),
    reason="step.sh needs a static busybox: apt-get install busybox-static",
)


def wait_for(path: Path, timeout_s: float = 20.0) -> None:
    ends_at = time.monotonic() + timeout_s
    while not path.exists():
        assert time.monotonic() < ends_at, f"{path} never came"
        time.sleep(0.01)


def test_a_step_exits_with_its_commands_code(tmp_path):
    (end,) = StepWorld(tmp_path, shell("echo out; echo err >&2; exit 7")).run()
    assert (end.code, end.end, end.output) == (7, "exit", "out\nerr\n")


def test_steps_run_one_after_the_other_whoever_starts_first(tmp_path):
    steps = [shell(f"echo {each} >> order", name=each) for each in ("a", "b", "c")]
    world = StepWorld(tmp_path, *steps)
    for index in (2, 1, 0):
        world.start(index)
    assert [world.finish(index).code for index in range(3)] == [0, 0, 0]
    assert (world.workspace / "order").read_text() == "a\nb\nc\n"


def test_conditions_decide_which_steps_run(tmp_path):
    world = StepWorld(
        tmp_path,
        shell("true", name="a"),
        shell("echo no", name="b", condition=StepCondition.FAILURE),
        shell("exit 3", name="c"),
        shell("echo no", name="d"),
        shell("echo failure", name="e", condition=StepCondition.FAILURE),
        shell("echo always", name="f", condition=StepCondition.ALWAYS),
    )
    ends = world.run()
    assert [end.end for end in ends] == ["exit", "skipped", "exit", "skipped", "exit", "exit"]
    assert [end.code for end in ends] == [0, 0, 3, 0, 0, 0]
    assert [end.output for end in ends] == ["", "", "", "", "failure\n", "always\n"]


def test_a_command_that_dies_of_a_signal_ends_with_128_and_its_number(tmp_path):
    (end,) = StepWorld(tmp_path, Step(name="one", command=("sh", "-c", "kill -KILL $$"))).run()
    assert (end.code, end.end, end.output) == (128 + signal.SIGKILL, "exit", "")


def test_a_command_that_is_not_there_is_told_from_one_that_cannot_be_executed(tmp_path):
    world = StepWorld(tmp_path, Step(name="one", command=("no-such-command",)))
    (tmp_path / "workspace" / "plain").write_text("no program")
    (end,) = world.run()
    assert (end.code, end.end) == (127, "not_found")


def test_a_file_that_is_no_program_cannot_be_executed(tmp_path):
    world = StepWorld(tmp_path, Step(name="one", command=("./plain",)))
    (world.workspace / "plain").write_text("no program")
    (end,) = world.run()
    assert (end.code, end.end) == (126, "not_executable")


def test_a_directory_that_is_not_there_is_said(tmp_path):
    (end,) = StepWorld(tmp_path, shell("true", dir=str(tmp_path / "nowhere"))).run()
    assert (end.code, end.end) == (126, "no_directory")


def test_a_command_of_its_own_that_ends_with_127_is_no_missing_command(tmp_path):
    (end,) = StepWorld(tmp_path, shell("exit 127")).run()
    assert (end.code, end.end) == (127, "exit")


def test_the_command_is_found_by_the_path_and_never_among_busyboxs_own(tmp_path):
    """Busybox would run its own `tar` where the image has none."""
    step = Step(name="one", command=("tar", "--version"), env={"PATH": str(tmp_path / "bin-of-nothing")})
    (end,) = StepWorld(tmp_path, step).run()
    assert (end.code, end.end) == (127, "not_found")


def test_a_step_that_is_too_slow_gets_term_and_then_kill(tmp_path):
    script = "trap 'echo term' TERM; echo up; while :; do sleep 0.05; done"
    (end,) = StepWorld(tmp_path, shell(script, timeout_s=0.4)).run()
    assert (end.code, end.end) == (124, "step_timeout")
    assert end.output.replace("Terminated\n", "") == "up\nterm\n"  # which /bin/sh says of its `sleep`


def test_after_a_steps_time_out_the_steps_for_failures_run(tmp_path):
    ends = StepWorld(
        tmp_path,
        shell("sleep 60", name="a", timeout_s=0.2),
        shell("echo cleanup", name="b", condition=StepCondition.ALWAYS),
    ).run()
    assert [end.end for end in ends] == ["step_timeout", "exit"]
    assert ends[1].output == "cleanup\n"


def test_the_run_limit_counts_from_the_first_step_and_ends_everything(tmp_path):
    ends = StepWorld(
        tmp_path,
        shell("sleep 0.4", name="a"),
        shell("sleep 60", name="b"),
        shell("echo no", name="c", condition=StepCondition.ALWAYS),
        run_s=1.0,
    ).run()
    assert [(end.code, end.end) for end in ends] == [(0, "exit"), (124, "run_timeout"), (0, "skipped")]


def test_a_container_that_starts_late_counts_the_run_limit_from_the_first_start_too(tmp_path):
    world = StepWorld(tmp_path, shell("true", name="a"), shell("echo no", name="b"), run_s=30.0)
    world.start(0)
    assert world.finish(0).code == 0
    long_ago = time.time() - 60
    os.utime(world.results / "000" / "started", (long_ago, long_ago))
    world.start(1)
    assert (world.finish(1).code, world.finish(1).end) == (124, "run_timeout")


def test_a_stop_ends_the_running_step_and_those_that_wait(tmp_path):
    world = StepWorld(
        tmp_path,
        shell("trap 'echo stopping; exit 5' TERM; touch up; while :; do sleep 0.05; done", name="a"),
        shell("echo no", name="b", condition=StepCondition.ALWAYS),
    )
    world.start(0)
    world.start(1)
    wait_for(world.workspace / "up")
    for index in (0, 1):
        os.kill(world.running[index].pid, signal.SIGTERM)
    first, second = world.finish(0), world.finish(1)
    assert (first.code, first.end) == (5, "stopped")
    assert first.output.replace("Terminated\n", "") == "stopping\n"
    assert (second.code, second.end, second.output) == (143, "unstarted", "")


def test_a_step_whose_container_died_counts_as_failed_for_those_after_it(tmp_path):
    """Killed for memory as a group, it left no result."""
    world = StepWorld(
        tmp_path,
        shell("touch up; sleep 60", name="a"),
        shell("echo no", name="b"),
        shell("echo after", name="c", condition=StepCondition.FAILURE),
    )
    for index in range(3):
        world.start(index)
    wait_for(world.workspace / "up")
    os.killpg(world.running[0].pid, signal.SIGKILL)
    world.finish(0)
    assert (world.finish(1).end, world.finish(2).output) == ("skipped", "after\n")


def test_a_great_deal_of_output_passes_whole(tmp_path):
    (end,) = StepWorld(tmp_path, shell("yes 0123456789abcde | head -c 16000000")).run()
    assert (end.code, len(end.output)) == (0, 16_000_000)


def test_the_environment_is_the_documented_one_and_none_of_the_clusters(tmp_path):
    step = Step(
        name="it's",
        command=("env", "-0"),
        env={"PLAIN": "a b", "HARD": "'\"$(reboot)`x`\\\n}", "IFS": "x", "command": "mine"},
    )
    world = StepWorld(tmp_path, step)
    given = {
        "PATH": os.environ["PATH"], "OF_IMAGE": "kept", "LANG": "C", "HOSTNAME": "pod",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_PORT_6443_TCP": "x",
    }  # fmt: skip
    world.start(0, env=given)
    found = dict(entry.split("=", 1) for entry in world.finish(0).output.rstrip("\0").split("\0"))
    assert found.pop("PWD") == str(world.workspace)
    found.pop("_", None)
    assert found == {
        "PATH": os.environ["PATH"], "HOME": "/tmp/home", "LANG": "C", "TZ": "UTC", "CI": "true", "OF_IMAGE": "kept",
        "RUNYARD_JOB": "build", "RUNYARD_STEP": "it's", "RUNYARD_WORKSPACE": "/workspace",
        "RUNYARD_OUTPUTS": "/outputs",
        "PLAIN": "a b", "HARD": "'\"$(reboot)`x`\\\n}", "IFS": "x", "command": "mine",
    }  # fmt: skip


def test_arguments_reach_the_command_byte_for_byte_and_it_has_its_own_name(tmp_path):
    words = ("", " ", "*", "$(x)", "$HOME", "it's", 'a"b', "\\", "line\nline", "ü", "-n")
    (end,) = StepWorld(
        tmp_path, Step(name="one", command=("sh", "-c", 'printf "[%s]" "$0" "$@"', *words))
    ).run()
    assert end.output == "".join(f"[{word}]" for word in words)


def test_a_hostile_step_spoils_no_result_but_its_own(tmp_path):
    """It deletes its marks, puts a FIFO where its result will be, and writes another end into its message."""
    root = tmp_path / "container-000"
    script = (
        f'cd {root}/result; rm -rf pending started life; mkfifo failure; echo \'{{"end":"skipped"}}\' > {root}/message;'
        " exit 9"
    )
    world = StepWorld(tmp_path, shell(script, name="a"), shell("echo no", name="b"))
    ends = world.run()
    assert (ends[0].code, ends[0].end) == (9, "exit")
    assert (ends[1].code, ends[1].end) == (0, "skipped")


@pytest.mark.service
@pytest.mark.skipif(os.geteuid() != 0, reason="a pid namespace of its own needs root")
class TestAsTheFirstProcess:
    """In a container step.sh is process 1, and all others are the step's."""

    def test_what_a_step_left_behind_ends_with_it(self, tmp_path):
        daemon = "trap '' TERM HUP; while :; do date +%s%N > alive; sleep 0.02; done"
        script = f'setsid sh -c "{daemon}" & sleep 0.2; exit 4'
        world = StepWorld(tmp_path, shell(script))
        world.start(0, namespace=True)
        end = world.finish(0)
        assert (end.code, end.end) == (4, "exit")
        before = (world.workspace / "alive").read_text()
        time.sleep(0.1)
        assert (world.workspace / "alive").read_text() == before

    def test_a_step_that_kills_everything_it_sees_does_not_escape_its_limit(self, tmp_path):
        script = "kill -KILL -1; kill -KILL 1; while :; do sleep 0.05; done"
        world = StepWorld(tmp_path, shell(f"({script}) & while :; do sleep 0.05; done", timeout_s=0.5))
        world.start(0, namespace=True)
        end = world.finish(0)
        assert end.end in ("step_timeout", "exit")  # its shell may have been killed by its own hand
        assert end.code in (124, 137)

    def test_orphans_are_reaped_while_the_step_runs(self, tmp_path):
        script = (
            "for each in 1 2 3 4 5 6 7 8; do (sh -c 'sleep 0.05 &' ); done; sleep 2.3;"
            " grep -l 'State:.Z' /proc/[0-9]*/status | wc -l"
        )
        world = StepWorld(tmp_path, shell(script))
        world.start(0, namespace=True)
        assert world.finish(0).output == "0\n"

    def test_an_image_with_nothing_but_one_static_binary_runs(self, tmp_path):
        world = StepWorld(tmp_path, Step(name="one", command=("/echo", "hi"), dir="/"))
        rootfs = tmp_path / "rootfs"
        for folder in ("dev", "proc", "run/runyard/bin", "run/runyard/results", "run/runyard/result"):
            (rootfs / folder).mkdir(parents=True)
        shutil.copyfile("/bin/busybox", rootfs / "echo")
        shutil.copyfile("/bin/busybox", rootfs / "run/runyard/bin/busybox")
        for path in ("echo", "run/runyard/bin/busybox"):
            (rootfs / path).chmod(0o755)
        (rootfs / "run/runyard/bin/step.sh").write_bytes(
            (Path(__file__).parents[2] / STEP_SH_PATH).read_bytes()
        )
        shutil.copyfile(world.root(0) / "step", rootfs / "run/runyard/step")
        os.mknod(rootfs / "dev/null", 0o666 | 0o020000, os.makedev(1, 3))
        done = subprocess.run(
            ["unshare", "--pid", "--fork", "--mount", "sh", "-c",
             f"mount -t proc proc {rootfs}/proc && exec chroot {rootfs} /run/runyard/bin/busybox sh"
             " /run/runyard/bin/step.sh /run/runyard /message"],
            capture_output=True, text=True, timeout=30, env={}, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "hi\n")
        assert (rootfs / "message").read_text() == '{"end":"exit"}'


STEP_SH_PATH = "src/runyard/providers/kubernetes/pod/step.sh"
