"""What a job that means harm cannot do."""

import os
import socket

import pytest

from runyard.host.plan import PlanStep
from runyard.model.outcome import OutcomeKind
from tests.host.world import ENV, USER_ID, living_with, open_world, sh

pytestmark = pytest.mark.service


def python(script: str, **fields) -> PlanStep:
    return PlanStep(name="main", command=("python3", "-c", script), env=ENV, **fields)


async def test_a_job_is_nobody_on_the_host_and_has_no_rights(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("touch mine; grep -E '^(Cap(Eff|Prm|Bnd|Amb)|NoNewPrivs|Seccomp):' /proc/self/status; id -u")
        )
        lines = dict(line.split() for line in ran.text.splitlines() if ":" in line)
        assert {lines[f"Cap{kind}:"] for kind in ("Eff", "Prm", "Bnd", "Amb")} == {"0" * 16}
        assert (lines["NoNewPrivs:"], lines["Seccomp:"]) == ("1", "2")
        assert (ran.directory.path / "workspace/mine").stat().st_uid == USER_ID


@pytest.mark.parametrize(
    "path",
    ["/var/run/docker.sock", "/run/docker.sock", "/var/lib", "/home/*", "/root/.??*", "/etc/shadow", "/oldroot",
     "/work", "/sys/fs", "/opt", "/run/*", "/proc/1/root/etc/shadow"],
)  # fmt: skip
async def test_nothing_of_the_host_but_programs_is_there(tmp_path, path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh(f"ls -d {path}"))
        assert ran.text == ""
        assert ran.outcome.exit_code != 0


async def test_the_data_folder_its_token_and_other_attempts_are_out_of_reach(tmp_path):
    (tmp_path / "admin.token").write_text("secret")
    async with open_world(tmp_path) as world:
        other = await world.run(sh("echo secret > file"))
        ran = await world.run(
            sh(f"cat {tmp_path}/admin.token {other.directory.path}/workspace/file; find / -name admin.token")
        )
        assert ran.text == ""


async def test_a_job_sees_its_own_processes_only(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("ls -d /proc/[0-9]* | wc -l; kill -9 1; echo alive"))
        count, alive = ran.text.split()
        assert int(count) < 6
        assert alive == "alive"


async def test_a_job_holds_no_descriptor_of_ours(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(python("import os; print(sorted(map(int, os.listdir('/proc/self/fd')))[:-1])"))
        assert ran.text == "[0, 1, 2]\n"


async def test_programs_and_settings_of_the_host_cannot_be_written(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("touch /usr/x /etc/x /x /dev/x; echo x > /etc/passwd; mkdir /usr/y; echo end")
        )
        assert ran.text == "end\n"
    assert not os.path.exists("/usr/x")  # noqa: ASYNC240


@pytest.mark.parametrize(
    "call",
    [
        "libc.unshare(0x10000000)", "libc.mount(b'a', b'/tmp', b'tmpfs', 0, 0)", "libc.setns(0, 0)",
        "libc.syscall(321, 0, 0, 0)", "libc.syscall(298, 0, 0, 0, 0, 0)", "libc.syscall(425, 1, 0)",
        "libc.syscall(56, 0x10000011, 0, 0, 0, 0)", "libc.syscall(250, 0, 0)", "libc.ioctl(0, 0x5412, b'x')",
        "libc.syscall(438, 0, 0, 0)", "libc.syscall(457, 0, 0, 0, 0)", "libc.socket(40, 1, 0)", "libc.socket(17, 3, 0)",
    ],
)  # fmt: skip
async def test_calls_into_the_kernel_that_no_job_needs_are_denied(tmp_path, call):
    script = f"import ctypes; libc = ctypes.CDLL(None, use_errno=True); print({call}, ctypes.get_errno())"
    async with open_world(tmp_path) as world:
        ran = await world.run(python(script))
        assert ran.text in ("-1 1\n", "-1 97\n")


async def test_clone3_says_that_it_is_not_there(tmp_path):
    script = "import ctypes; c = ctypes.CDLL(None, use_errno=True); print(c.syscall(435, 0, 0), ctypes.get_errno())"
    async with open_world(tmp_path) as world:
        assert (await world.run(python(script))).text == "-1 38\n"


async def test_without_network_not_even_the_hosts_loopback_is_there(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2)"
        async with open_world(tmp_path) as world:
            ran = await world.run(python(script))
    assert b"refused" in ran.log(stream="stderr") or ran.outcome.kind is OutcomeKind.FAILED


async def test_abstract_sockets_of_the_host_are_out_of_reach(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0runyard-test")
        server.listen()
        async with open_world(tmp_path) as world:
            ran = await world.run(
                python("import socket; socket.socket(socket.AF_UNIX).connect('\\0runyard-test')")
            )
    assert ran.outcome.kind is OutcomeKind.FAILED


async def test_the_environment_of_a_job_does_not_reach_what_runs_outside(tmp_path):
    """LD_PRELOAD of a step would be obeyed by bubblewrap on the host, if it were in its environment."""
    async with open_world(tmp_path) as world:
        env = {**ENV, "LD_PRELOAD": "/run/runyard/test-stage/workspace/evil.so", "LD_DEBUG": "files"}
        ran = await world.run(
            PlanStep(name="a", command=("true",), env=env),
            PlanStep(name="b", command=("/bin/true",), env=ENV),
        )
        loaded = ran.log(stream="stderr")
        assert b"bwrap" not in loaded
        assert b"/bin/true" in loaded or b"true" in loaded


async def test_secrets_in_an_environment_are_in_no_process_list(tmp_path):
    async with open_world(tmp_path) as world:
        seen: list[list[int]] = []

        async def look(record):
            seen.append(living_with("hunter2-secret"))

        plan = world.plan(
            PlanStep(name="a", command=("sleep", "0.2"), env={**ENV, "TOKEN": "hunter2-secret"})
        )
        await world.run_plan(plan, look)
        assert seen
        assert not any(seen)


async def test_what_a_job_leaves_is_removed_without_following_links(tmp_path):
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "file").write_text("stays")
    os.chmod(victim, 0o777)
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh(f"ln -s {victim} link; mkdir closed; touch closed/x; chmod 0 closed; mkfifo fifo")
        )
        ran.directory.destroy(world.plan().cgroups)
        assert not ran.directory.path.exists()
    assert (victim / "file").read_text() == "stays"


async def test_the_folders_of_an_attempt_carry_no_set_uid_programs_and_no_devices(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("grep -E 'test-stage/(workspace|tmp|outputs) ' /proc/self/mountinfo"), isolation="none"
        )
        options = [line.split()[5].split(",") for line in ran.text.splitlines()]
        assert len(options) == 3
        assert all({"nosuid", "nodev"} <= set(each) for each in options)
