"""Services beside the steps: reachable by name, ready before the first step, their logs kept, gone with the attempt."""

import dataclasses
import os
import signal

import pytest

from runyard.host.cgroups import AttemptCgroup, Limits
from runyard.host.egress import RESOLV_CONF
from runyard.host.plan import PlanEgress, PlanImage, PlanService, PlanStep
from runyard.host.process import descendants
from runyard.host.services.readiness import missing_ports, parse_listeners
from runyard.model.outcome import OutcomeKind
from tests.host.images.layers import Stack, entry, link
from tests.host.images.test_image_steps import BASE, base_entries
from tests.host.world import ENV, host, open_world, sh, until

pytestmark = pytest.mark.service
IMAGE_ENV = {"PATH": "/bin:/usr/bin", "HOME": "/root"}
GREETER = "echo serving; exec httpd -f -p {port} -h /www"


@pytest.fixture
def layers(tmp_path):
    folder = tmp_path / "layers"
    folder.mkdir()
    stack = Stack(folder)
    more = [
        link(f"bin/{name}", "busybox")
        for name in ("nc", "httpd", "wget", "hostname", "sync", "head", "tr", "true")
    ]
    pages = [entry("www", mode=0o755), entry("www/index.html", "hello\n", mode=0o644)]
    stack.unpack(*base_entries(), *more, *pages)
    return tuple(str(root) for root in reversed(stack.roots))


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as world:
        yield world


def service(name, script, *, image=0, **fields) -> PlanService:
    return PlanService(name=name, image=image, command=("/bin/sh", "-c", script), env=IMAGE_ENV, **fields)


def greeter(name, port, **fields) -> PlanService:
    return service(name, GREETER.format(port=port), **{"ready_ports": (port,), **fields})


def with_services(layers, *services, users=(), **fields):
    """The fields of a plan: each service has a root of its own, and what asks whether it is ready another one."""
    count = len(services)
    numbered = tuple(
        dataclasses.replace(each, image=index, ready_image=count + index)
        for index, each in enumerate(services)
    )
    images = tuple(PlanImage(layers=layers, user_id=user) for user in (users or (0,) * count) * 2)
    return {"services": numbered, "images": images, "id_base": BASE, "user_id": BASE + 1000, **fields}


def get(*urls: str) -> PlanStep:
    script = (
        "import urllib.request, sys\n"
        "for url in sys.argv[1:]: print(urllib.request.urlopen(url, timeout=5).read().decode().strip())"
    )
    return PlanStep(name="main", command=("python3", "-c", script, *urls), env=ENV)


async def test_a_step_reaches_its_services_by_name_and_their_logs_are_kept(world, layers):
    ran = await world.run(
        get("http://web:8080/", "http://127.0.1.2:80/"),
        sh("cat /etc/hosts; wc -l < /proc/net/route", "hosts"),
        **with_services(layers, greeter("web", 8080), greeter("low", 80, ready_timeout_s=20)),
    )
    assert ran.outcome.kind is OutcomeKind.SUCCEEDED, (ran.message, ran.log("000", "stderr"))
    assert ran.text == "hello\nhello\n"
    assert ran.log("001").decode().endswith("127.0.1.1 web\n127.0.1.2 low\n1\n")
    assert ran.log("s000") == ran.log("s001") == b"serving\n"
    assert "service 'web' was ready" in ran.log("setup", "stderr").decode()
    assert [each["what"] for each in ran.records].index("services") > 0


async def test_no_step_starts_before_a_service_is_ready(world, layers):
    late = service("late", "sleep 0.6; echo up; exec httpd -f -p 81 -h /www", ready_ports=(81,))
    ran = await world.run(get("http://late:81/"), **with_services(layers, late))
    assert (ran.text, ran.outcome.kind) == ("hello\n", OutcomeKind.SUCCEEDED)


async def test_a_ready_command_decides_where_there_is_one_and_runs_in_a_root_of_its_own(world, layers):
    """No sandbox is ever made in a root in which a program of the job could turn its mount points into links."""
    slow = service(
        "slow",
        "touch /mark; sleep 0.3; exec httpd -f -p 83 -h /www",
        ready_command=("/bin/sh", "-c", "! test -e /mark && wget -q -O /dev/null http://slow:83/"),
    )
    ran = await world.run(sh("echo ran"), **with_services(layers, slow))
    assert (ran.text, ran.message) == ("ran\n", "")


@pytest.mark.parametrize(
    ("fields", "lacking"),
    [
        ({"ready_ports": (99,)}, "nothing listens on port 99"),
        ({"ready_command": ("/bin/sh", "-c", "exit 3")}, "ended with 3"),
    ],
)
async def test_one_that_does_not_become_ready_fails_the_attempt_with_its_last_words(
    world, layers, fields, lacking
):
    never = service("never", "echo one; echo two >&2; exec sleep 60", ready_timeout_s=0.5, **fields)
    ran = await world.run(sh("echo ran"), **with_services(layers, never))
    assert (ran.outcome.kind, ran.code, ran.text) == (OutcomeKind.FAILED, "service", "")
    assert "service 'never' was not ready within 0.5 s" in ran.message
    assert lacking in ran.message
    assert ran.message.endswith("its last words: two")


@pytest.mark.parametrize("code", [0, 3])
async def test_one_that_ends_before_it_is_ready_fails_the_attempt_with_its_exit_code(world, layers, code):
    broken = service("broken", f"echo no config >&2; exit {code}", ready_ports=(1,))
    ran = await world.run(sh("echo ran"), **with_services(layers, broken))
    assert (ran.outcome.kind, ran.code, ran.text) == (OutcomeKind.FAILED, "service", "")
    assert ran.message.startswith(f"service 'broken' ended with exit code {code} before the steps were done")
    assert ran.message.endswith("its last words: no config")


async def test_one_that_dies_while_a_step_runs_ends_the_step_and_the_attempt(world, layers):
    dying = service("db", "sleep 0.7; exit 5")
    ran = await world.run(
        sh("echo on; sleep 60"),
        sh("echo always", "always", condition="always"),
        **with_services(layers, dying),
    )
    assert (ran.outcome.kind, ran.code, ran.text) == (OutcomeKind.FAILED, "service", "on\n")
    assert "service 'db' ended with exit code 5" in ran.message
    assert ran.outcome.reason.step == "main"
    assert ran.log("001") == b""


@pytest.mark.parametrize("how", ["stop", "limit"])
async def test_the_wait_for_one_ends_with_a_stop_and_with_the_limit_to_start(world, layers, how):
    never = service("never", "echo up; exec sleep 60", ready_ports=(99,))
    plan = world.plan(
        sh("echo ran"), **with_services(layers, never), start_limit_s=60.0 if how == "stop" else 0.7
    )
    directory = world.directory(plan)

    async def stop(record) -> None:
        if how == "stop" and record["what"] == "services":
            directory.request_stop(0.2)

    ran = await world.run_plan(plan, stop)
    assert (ran.code, ran.text) == ({"stop": "canceled", "limit": "start_timeout"}[how], "")
    assert not ran.outcome.was_seen


async def test_with_an_open_network_services_and_steps_share_it_and_private_addresses_stay_closed(
    world, layers
):
    out = "wget -q -O - http://10.1.1.1/ 2>&1; cat /etc/resolv.conf; exec httpd -f -p 84 -h /www"
    ran = await world.run(
        sh("grep -c tap0 /proc/net/route; cat /etc/resolv.conf"),
        **with_services(layers, service("a", out, ready_ports=(84,))),
        network="open",
    )
    assert ran.outcome.kind is OutcomeKind.SUCCEEDED, ran.message
    assert ran.text.endswith(RESOLV_CONF)
    assert "No route to host" in ran.log("s000").decode()
    assert ran.log("s000").decode().endswith(RESOLV_CONF)


async def test_one_that_has_no_command_or_cannot_be_run_is_said(world, layers):
    for command, words in (((), "its image says no command"), (("/none",), "could not be run")):
        bad = PlanService(name="bad", image=0, command=command, env=IMAGE_ENV, ready_ports=(1,))
        ran = await world.run(sh("echo ran"), **with_services(layers, bad))
        assert (ran.code, ran.text) == ("service", "")
        assert words in ran.message


async def test_two_that_use_one_port_are_told_apart(world, layers):
    ran = await world.run(sh("sleep 5"), **with_services(layers, greeter("one", 82), greeter("two", 82)))
    assert ran.code == "service"
    assert "services share one network" in ran.message


async def test_each_has_its_own_root_and_user_and_sees_nothing_of_the_job(world, layers):
    """As hardened as a step: no rights over the network, none of the workspace."""
    look = (
        "id -u; ls /workspace /outputs | grep -v :; touch /mark; ls /;"
        " grep -E 'CapEff|NoNewPrivs|Seccomp:' /proc/self/status; exec sleep 60"
    )
    ran = await world.run(
        sh("sleep 0.3; ls /"),
        **with_services(layers, service("a", look), service("b", look), users=(0, 1234)),
    )
    a, b = ran.log("s000").decode().split(), ran.log("s001").decode().split()
    assert (a[0], b[0]) == ("0", "1234")
    assert "mark" in a
    assert "mark" not in ran.text.split()
    assert a[a.index("NoNewPrivs:") + 1] == "1"
    assert a[a.index("Seccomp:") + 1] == "2"
    assert b[b.index("CapEff:") + 1] == "0000000000000000"
    assert int(a[a.index("CapEff:") + 1], 16) & (1 << 12) == 0  # CAP_NET_ADMIN


async def test_its_memory_is_bounded_within_the_jobs_and_what_it_used_is_counted(world, layers):
    greedy = service(
        "greedy",
        "head -c 60000000 /dev/zero | tr '\\0' x | sh -c 'x=$(cat); sleep 60'",
        memory_bytes=24 << 20,
    )
    ran = await world.run(
        sh("sleep 20"), **with_services(layers, greedy), limits=Limits(memory_bytes=256 << 20, pids_max=128)
    )
    assert ran.code == "service"
    assert "service 'greedy'" in ran.message
    assert ran.outcome.usage.memory_bytes_peak > 16 << 20


@pytest.mark.parametrize("how", ["success", "failure", "stop", "kill"])
async def test_nothing_of_a_service_outlives_its_attempt(world, layers, how):
    script = "trap 'echo stopped; exit 0' TERM; echo up; while :; do sleep 0.05; done"
    plan = world.plan(
        sh({"success": "true", "failure": "exit 1"}.get(how, "sleep 60")),
        **with_services(layers, service("s", script)),
    )
    directory = world.directory(plan)

    async def act(record) -> None:
        if record["what"] != "step_started":
            return
        if how == "stop":
            directory.request_stop(1.0)
        elif how == "kill":
            os.kill(directory.shim_pid(), signal.SIGKILL)

    ran = await world.run_plan(plan, act)
    kinds = {"success": "succeeded", "failure": "failed", "stop": "canceled", "kill": "lost"}
    assert ran.outcome.kind.value == kinds[how], ran.message
    assert not AttemptCgroup(plan.cgroups, plan.name).processes()
    await until(lambda: not descendants(world.zygote.pid))
    if how != "kill":
        assert ran.log("s000") == b"up\nstopped\n"
        assert not AttemptCgroup(plan.cgroups, plan.name).exists
    directory.destroy(plan.cgroups)
    assert not AttemptCgroup(plan.cgroups, plan.name).exists


async def test_one_that_ignores_term_is_killed_after_the_grace(world, layers):
    deaf = service("deaf", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    ran = await world.run(sh("sleep 0.2"), **with_services(layers, deaf))
    assert ran.outcome.kind is OutcomeKind.SUCCEEDED
    await until(lambda: not descendants(world.zygote.pid))


async def test_services_and_a_list_of_places_go_together(world, layers):
    egress = PlanEgress(allow=("one.example.com",), nameservers=("127.0.0.1:1",), nft=host().nft)
    ran = await world.run(
        get("http://web:8080/"),
        sh(
            "python3 -c \"import socket; socket.create_connection(('45.1.1.1', 80), 5)\" 2>&1 | tail -1",
            "out",
        ),
        **with_services(layers, greeter("web", 8080), network="allow", egress=egress),
    )
    assert ran.text == "hello\n"
    assert "No route to host" in ran.log("001").decode()


def test_what_listens_is_read_from_the_kernels_table():
    table = (
        "  sl  local_address rem_address   st\n"
        "   0: 00000000:1538 00000000:0000 0A 0\n"
        "   1: 0101007F:0050 00000000:0000 0A 0\n"
        "   2: 0100007F:0016 00000000:0000 01 0\n"
    )
    found = parse_listeners(table)
    assert found == {("0.0.0.0", 5432), ("127.0.1.1", 80)}
    assert missing_ports(found, "127.0.1.1", (5432, 80, 22)) == (22,)
    assert missing_ports(found, "127.0.1.2", (5432, 80)) == (80,)
    v6 = "sl\n 0: 00000000000000000000000000000000:1F90 0:0 0A\n 1: 0000000000000000FFFF00000101007F:0051 0:0 0A\n"
    assert parse_listeners(v6) == {("::", 8080), ("127.0.1.1", 81)}


async def test_a_directory_that_holds_a_nul_makes_no_options_of_what_follows_it(world, layers):
    """An image says the directory of its program, and bubblewrap's arguments are parted by NULs."""
    hostile = service("hostile", "ls /mnt; exec sleep 100", directory="/\0--bind\0/etc\0/mnt")
    ran = await world.run(sh("sleep 0.2"), **with_services(layers, hostile))
    assert ran.log("s000") == b""
    assert (ran.outcome.kind, ran.code) == (OutcomeKind.FAILED, "service")
    assert "a path or a variable holds a NUL character" in ran.message


async def test_the_words_of_a_service_that_could_not_be_run_are_cut_whole(world, layers):
    """They come from its keeper as JSON, in which each of these letters takes six bytes."""
    lost = service("lost", "exec sleep 100", directory="/" + "\u00e9" * 900)
    ran = await world.run(sh("sleep 5"), **with_services(layers, lost))
    assert (ran.outcome.kind, ran.code) == (OutcomeKind.FAILED, "service")
    assert "service 'lost' could not be run: Can't chdir to /\u00e9\u00e9" in ran.message
