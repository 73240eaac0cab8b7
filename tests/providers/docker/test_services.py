"""Services beside the steps in a daemon: reachable by name, ready before the first step, gone with the attempt."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from runyard.host.services.readiness import parse_listeners
from runyard.model.errors import Unreachable
from runyard.model.job import Limits, Service, Step
from runyard.model.outcome import Outcome, OutcomeKind, ReasonCode
from runyard.model.requirements import Requirements
from runyard.providers.docker.listeners import Listeners, listening_pattern
from runyard.providers.port import AttemptRequest
from runyard.testing.memory_context import MemoryContext
from tests.docker_daemon import IMAGE, DockerDaemon, docker_daemon
from tests.docker_wire import DockerWire
from tests.host.images.layers import archive
from tests.postgres_image import postgres_entries
from tests.providers.docker.conftest import OpenPool, Pool
from tests.providers.docker.test_daemon import namespace_with_a_server

pytestmark = pytest.mark.service
GREETER = "echo serving; nc -ll -p {port} -e /bin/echo hello"
POSTGRES = "runyard-test/postgres:1"


def service(name: str, script: str, **fields: Any) -> Service:
    return Service(name=name, image=fields.pop("image", IMAGE), command=("/bin/sh", "-c", script), **fields)


def greeter(name: str, port: int, **fields: Any) -> Service:
    return service(name, GREETER.format(port=port), **{"ready_port": port, **fields})


def containers(dockerd: DockerDaemon, request: AttemptRequest, *states: str) -> list[str]:
    """What is left of the attempt's name, by the ends of names."""
    filters = [f"--filter=status={state}" for state in states]
    listed = dockerd.run(
        "ps", "-a", "--format={{.Names}}", f"--filter=name={request.key.resource_name}", *filters
    )
    return sorted(name.removeprefix(request.key.resource_name) for name in listed.stdout.decode().split())


def reason_of(outcome: Outcome) -> str:
    assert outcome.reason is not None, outcome
    assert (outcome.kind, outcome.reason.code) == (OutcomeKind.FAILED, ReasonCode.SERVICE), outcome
    return outcome.reason.message


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await holds():  # noqa: ASYNC110 -- the port tells nobody
            await asyncio.sleep(0.02)


async def test_a_step_reaches_its_services_by_name_and_their_logs_are_kept(
    dockerd: DockerDaemon, pool: Pool
) -> None:
    request = pool.request(
        "nc web 8080; nc 127.0.1.2 80; cat /etc/hosts; ls /sys/class/net",
        Step(name="other", command=("/bin/sh", "-c", "nc low 80"), image="runyard-test/other:1"),
        services=(greeter("web", 8080), greeter("low", 80)),
    )
    context = MemoryContext(pool.folder)
    outcome = await pool.provider.run_job(request, context)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    printed = context.printed().decode()
    assert printed.startswith("hello\nhello\n")
    assert "127.0.1.1\tweb\n127.0.1.2\tlow\n" in printed
    assert printed.endswith("\nlo\n")
    assert context.printed("001") == b"hello\n"
    assert context.printed("s000") == context.printed("s001") == b"serving\n"
    assert b"service 'low' was ready after" in context.printed("setup")
    assert context.placement["service:web"].startswith("sha256:")
    assert "services" in context.phases
    assert containers(dockerd, request, "running") == []
    await pool.provider.destroy_resource(request.key.resource_name)
    assert containers(dockerd, request) == []


async def test_no_step_starts_before_a_service_is_ready(pool: Pool) -> None:
    late = service("late", "sleep 0.7; nc -ll -p 81 -e /bin/echo hello", ready_port=81)
    asked = service(
        "asked", "sleep 0.3; touch /tmp/up; sleep 60", ready_command=("/bin/test", "-e", "/tmp/up")
    )
    outcome, context = await pool.run("nc late 81", services=(late, asked))
    assert (outcome.kind, context.printed()) == (OutcomeKind.SUCCEEDED, b"hello\n"), outcome


async def test_what_listens_is_seen_from_within_as_from_the_host(dockerd: DockerDaemon, pool: Pool) -> None:
    """A daemon elsewhere has no process here to look at."""
    request = pool.request("sleep 60", services=(greeter("web", 8080), greeter("low", 80)))
    running = asyncio.create_task(pool.provider.run_job(request, context := MemoryContext(pool.folder)))
    await context.reached("running")
    near = Listeners(pool.provider.place.client, f"{request.key.resource_name}-net")
    far = Listeners(pool.provider.place.client, f"{request.key.resource_name}-net")
    assert near._is_near
    far._is_near = False
    for listeners in (near, far):
        assert await listeners.missing("127.0.1.2", (8080, 80, 81)) == (81,)
    assert near._is_near
    await pool.provider.stop_job(request.key, grace_s=0)
    assert (await running).kind is OutcomeKind.CANCELED


@pytest.mark.parametrize(
    "local", ["00000000:1F90", "0101007F:1F90", "0" * 32 + ":1F90", "0000000000000000FFFF00000101007F:1F90"]
)
def test_the_pattern_for_a_daemon_elsewhere_reads_the_table_as_we_do(local: str, tmp_path: Path) -> None:
    remote = "0" * (len(local) - 5)
    table = tmp_path / "tcp"
    table.write_text(
        f"  sl  local_address rem_address   st\n   0: {local} {remote}:0000 0A 00000000:00000000\n"
    )
    assert {port for _, port in parse_listeners(table.read_text())} == {8080}
    for address, port, found in (
        ("127.0.1.1", 8080, True),
        ("127.0.1.1", 80, False),
        ("127.0.1.2", 8080, None),
    ):
        is_there = (
            subprocess.run(["grep", "-Eq", listening_pattern(address, port), table], check=False).returncode
            == 0
        )
        assert is_there is (found if found is not None else "7F:" not in local)


@pytest.mark.parametrize(
    ("fields", "lacking"),
    [
        ({"ready_port": 99}, "nothing listens on port 99"),
        ({"ready_command": ("/bin/sh", "-c", "exit 3")}, "ended with 3"),
        ({"ready_command": ("/none",)}, "ended with 127"),
    ],
)
async def test_one_that_does_not_become_ready_fails_the_attempt_with_its_last_words(
    dockerd: DockerDaemon, pool: Pool, fields: dict[str, Any], lacking: str
) -> None:
    never = service("never", "echo one; echo two >&2; sleep 60", ready_timeout_s=0.5, **fields)
    request, context = pool.request("echo ran", services=(never,)), MemoryContext(pool.folder)
    outcome = await pool.provider.run_job(request, context)
    words = reason_of(outcome)
    assert words.startswith("service 'never' was not ready within 0.5 s")
    assert lacking in words
    assert words.endswith("its last words: two")
    assert (context.printed(), context.printed("s000"), outcome.was_seen) == (b"", b"one\n", False)
    assert await pool.provider.run_job(request, context) == outcome  # whoever asks again
    assert containers(dockerd, request, "running") == []


@pytest.mark.parametrize("code", [0, 3])
async def test_one_that_ends_before_it_is_ready_fails_the_attempt_with_its_exit_code(
    pool: Pool, code: int
) -> None:
    broken = service("broken", f"echo no config >&2; exit {code}", ready_port=1)
    outcome, context = await pool.run("echo ran", services=(broken,))
    words = reason_of(outcome)
    assert words.startswith(f"service 'broken' ended with exit code {code} before the steps were done")
    assert words.endswith("its last words: no config")
    assert context.printed() == b""


async def test_one_that_dies_while_a_step_runs_ends_the_step_and_the_attempt(pool: Pool) -> None:
    dying = service("db", "sleep 1.5; echo bye; exit 5")
    outcome, context = await pool.run(
        "echo on; sleep 60", Step(name="always", command=("/bin/echo", "x")), services=(dying,)
    )
    assert "service 'db' ended with exit code 5" in reason_of(outcome)
    assert reason_of(outcome).endswith("its last words: bye")
    assert outcome.reason is not None
    assert outcome.reason.step == "step-0"
    assert (context.printed(), context.printed("001")) == (b"on\n", b"")


async def test_one_that_has_no_command_or_cannot_be_run_is_said(pool: Pool) -> None:
    for bad, words in (
        (Service(name="bad", image=IMAGE), "its image says no command"),
        (Service(name="bad", image=IMAGE, command=("/none",)), "could not be run"),
    ):
        outcome, _ = await pool.run("echo ran", services=(bad,))
        assert words in reason_of(outcome)


async def test_each_has_its_own_root_and_sees_nothing_of_the_job(pool: Pool) -> None:
    look = (
        "id -u; echo $FLAVOUR; ls /workspace; touch /tmp/mark; ls /tmp;"
        " grep -E 'CapEff|CapBnd|NoNewPrivs|Seccomp:' /proc/self/status; exec sleep 60"
    )
    outcome, context = await pool.run(
        "sleep 0.3; ls /tmp",
        services=(
            service("a", look, env={"FLAVOUR": "sour"}),
            service("b", look, image="runyard-test/other:1"),
        ),
    )
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    a, b = context.printed("s000").decode().split(), context.printed("s001").decode().split()
    assert a[:3] == ["1000", "sour", "mark"]
    assert b[:3] == ["4242", "sweet", "mark"]
    for words in (a, b):
        assert dict(zip(words[3::2], words[4::2], strict=True)) == {
            "CapEff:": "0" * 16, "CapBnd:": "0" * 16, "NoNewPrivs:": "1", "Seccomp:": "2"
        }  # fmt: skip
    assert context.printed() == b"home\n"
    assert b"No such file" in context.printed("s000", "stderr")


async def test_its_memory_is_bounded(pool: Pool) -> None:
    greedy = service(
        "greedy",
        "head -c 60000000 /dev/zero | tr '\\0' x | sh -c 'x=$(cat)'; sleep 0.1; kill -9 $$",
        memory_bytes=24 << 20,
    )
    outcome, _ = await pool.run("sleep 20", services=(greedy,))
    assert "service 'greedy' was killed: it used more memory than it may" in reason_of(outcome)


@pytest.mark.parametrize("how", ["success", "failure", "stop", "destroy"])
async def test_nothing_of_a_service_outlives_its_attempt(dockerd: DockerDaemon, pool: Pool, how: str) -> None:
    polite = service("polite", "trap 'echo stopped; exit 0' TERM; echo up; while :; do sleep 0.05; done")
    deaf = service("deaf", "trap '' TERM; echo up; while :; do sleep 0.05; done")
    script = {"success": "sleep 0.2", "failure": "sleep 0.2; exit 1"}.get(how, "sleep 60")
    request, context = pool.request(script, services=(polite, deaf)), MemoryContext(pool.folder)
    running = asyncio.create_task(pool.provider.run_job(request, context))
    await context.reached("running")
    if how == "stop":
        await pool.provider.stop_job(request.key, grace_s=0.2)
    if how == "destroy":
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await pool.provider.destroy_resource(request.key.resource_name)
        assert containers(dockerd, request) == []
        return
    outcome = await running
    kinds = {"success": "succeeded", "failure": "failed", "stop": "canceled"}
    assert outcome.kind.value == kinds[how], outcome
    assert context.printed("s000") == b"up\nstopped\n"
    assert containers(dockerd, request, "running") == []
    assert await pool.provider.run_job(request, context) == outcome


async def test_the_wait_for_one_ends_with_a_stop_and_with_the_limit_to_start(
    dockerd: DockerDaemon, pool: Pool
) -> None:
    never = service("never", "echo up; exec sleep 60", ready_port=99)
    request, context = pool.request("echo ran", services=(never,)), MemoryContext(pool.folder)
    running = asyncio.create_task(pool.provider.run_job(request, context))
    await until(lambda: _has(context, "s000"))
    await pool.provider.stop_job(request.key, grace_s=0.2)
    outcome = await running
    assert (outcome.kind, outcome.was_seen) == (OutcomeKind.CANCELED, False)
    assert containers(dockerd, request, "running") == []
    outcome, _ = await pool.run("echo ran", services=(never,), limits=Limits(start_s=2.0))
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.START_TIMEOUT


async def _has(context: MemoryContext, step: str) -> bool:
    return bool(context.printed(step))


async def test_they_go_on_without_the_service_and_are_adopted(open_pool: OpenPool, pool: Pool) -> None:
    request = pool.request("sleep 1; nc web 8080", services=(greeter("web", 8080),))
    context = MemoryContext(pool.folder)
    running = asyncio.create_task(pool.provider.run_job(request, context))
    await context.reached("running")
    listed = await pool.provider.list_resources()
    assert [each.is_running for each in listed.resources if each.name == request.key.resource_name] == [True]
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    other = await open_pool(local_images=["runyard-test/other:1"])
    outcome = await other.provider.run_job(request, again := MemoryContext(pool.folder))
    assert (outcome.kind, again.printed(), again.printed("s000")) == (
        OutcomeKind.SUCCEEDED,
        b"hello\n",
        b"serving\n",
    )


@pytest.mark.parametrize("step", ["sleep 60", "sleep 1.5"])
async def test_one_that_dies_while_nobody_follows_is_found_by_who_adopts(
    dockerd: DockerDaemon, pool: Pool, step: str
) -> None:
    request = pool.request(step, services=(service("db", "echo up; exec sleep 60"),))
    context = MemoryContext(pool.folder)
    running = asyncio.create_task(pool.provider.run_job(request, context))
    await context.reached("running")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    dockerd.run("kill", f"{request.key.resource_name}-svc-db")
    if step != "sleep 60":
        dockerd.run("wait", f"{request.key.resource_name}-s0")
    outcome = await pool.provider.run_job(request, context)
    assert "service 'db' was killed by signal 9" in reason_of(outcome)
    assert await pool.provider.run_job(request, context) == outcome


CREATES = [
    rb"containers/create\?name=[^ ]+-net ",
    rb"containers/[^/ ]+-net/start",
    rb"containers/create\?name=[^ ]+-svc-web ",
    rb"containers/[^/ ]+-svc-web/start",
    rb"containers/[^/ ]+-s0/start",
]


@pytest.mark.parametrize("call", CREATES)
async def test_a_call_that_failed_and_an_answer_that_was_lost_start_nothing_twice(
    dockerd: DockerDaemon, open_pool: OpenPool, call: bytes
) -> None:
    async with DockerWire.to(dockerd.socket) as wire:
        pool = await open_pool(host=wire.address)
        request = pool.request("nc web 8080", services=(greeter("web", 8080),))
        context = MemoryContext(pool.folder)
        wire.refuse(call, "not now")
        with pytest.raises(Unreachable):
            await pool.provider.run_job(request, context)
        wire.lose_reply(call)
        with pytest.raises(Unreachable):
            await pool.provider.run_job(request, context)
        outcome = await pool.provider.run_job(request, context)
        assert (outcome.kind, context.printed()) == (OutcomeKind.SUCCEEDED, b"hello\n"), outcome
        assert context.printed("s000") == b"serving\n"
        await pool.close()


async def test_what_was_ended_from_outside_before_the_first_step_is_made_anew(
    dockerd: DockerDaemon, pool: Pool
) -> None:
    web = service("web", "echo serving; sleep 1; nc -ll -p 8080 -e /bin/echo hello", ready_port=8080)
    request, context = pool.request("nc web 8080", services=(web,)), MemoryContext(pool.folder)
    running = asyncio.create_task(pool.provider.run_job(request, context))
    await until(lambda: _has(context, "s000"))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    for part in ("svc-web", "net"):
        dockerd.run("kill", f"{request.key.resource_name}-{part}")
    outcome = await pool.provider.run_job(request, context)
    assert (outcome.kind, context.printed()) == (OutcomeKind.SUCCEEDED, b"hello\n"), outcome


async def test_steps_and_services_that_ended_with_their_daemon_are_lost(
    dockerd: DockerDaemon, pool: Pool
) -> None:
    request = pool.request("sleep 60", services=(greeter("web", 8080),))
    context = MemoryContext(pool.folder)
    running = asyncio.create_task(pool.provider.run_job(request, context))
    await context.reached("running")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    for part in ("svc-web", "s0", "net"):
        dockerd.run("kill", f"{request.key.resource_name}-{part}")
    outcome = await pool.provider.run_job(request, context)
    assert outcome.kind is OutcomeKind.LOST, outcome
    assert await pool.provider.run_job(request, context) == outcome


async def test_on_an_open_network_services_are_kept_from_what_is_private_too(open_pool: OpenPool) -> None:
    public, private = "192.31.196.1", "10.77.0.1"
    with namespace_with_a_server(public, private, 8080) as inside, docker_daemon(inside=inside) as daemon:
        daemon.import_busybox()
        pool = await open_pool(host=daemon.address, open_network=True)
        look = (
            f"nc -w 3 {private} 8080 || echo no-private; nc -w 3 {public} 8080; nc -ll -p 80 -e /bin/echo web"
        )
        outcome, context = await pool.run(
            "nc web 80",
            services=(service("web", look, ready_port=80),),
            requirements=Requirements(network="open"),
        )
        await pool.close()
    assert (outcome.kind, context.printed()) == (OutcomeKind.SUCCEEDED, b"web\n"), outcome
    assert context.printed("s000") == b"no-private\nhello\n"


async def test_a_job_works_with_a_real_database(dockerd: DockerDaemon, open_pool: OpenPool) -> None:
    entries = postgres_entries()
    if entries is None:
        pytest.skip("PostgreSQL's server is not installed here: apt-get install postgresql")
    changes = ("USER 999:999", "EXPOSE 5432", "ENV PATH=/bin", 'ENTRYPOINT ["/bin/sh", "-c"]')
    options = [word for change in changes for word in ("--change", change)]
    files = {info.name: (info, data) for info, data in entries}  # dockerd takes no path twice
    dockerd.run("import", *options, "-", POSTGRES, given=archive(*files.values()))
    start = (
        "initdb -A trust -D /tmp/data --no-sync -E UTF8 --locale=C -U postgres >/dev/null;"
        " exec postgres -D /tmp/data -c listen_addresses=127.0.1.1 -c fsync=off"
    )
    pool = await open_pool(local_images=[POSTGRES])
    database = Service(name="db", image=POSTGRES, command=(start,))
    asked = Step(
        name="ask", command=("psql", "-h", "db", "-U", "postgres", "-tAc", "select 6 * 7"), image=POSTGRES
    )
    outcome, context = await pool.run(
        asked, services=(database,), requirements=Requirements(memory_bytes=1 << 30, cpu_millis=1000)
    )
    assert (outcome.kind, context.printed()) == (OutcomeKind.SUCCEEDED, b"42\n"), (
        outcome,
        context.log.streams,
    )
    with contextlib.suppress(subprocess.CalledProcessError):
        dockerd.run("rmi", POSTGRES)
