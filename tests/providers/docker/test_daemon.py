"""The daemon as a neighbour: it pulls with rights, hangs, dies, is looked at; and networks of the pool's."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.model.errors import ConfigError, Unreachable
from runyard.model.job import Step
from runyard.model.outcome import OutcomeKind, ReasonCode
from runyard.model.pool import AvailabilityKind, WaitCode
from runyard.model.requirements import Requirements
from runyard.providers.docker.client import DockerClient
from runyard.providers.docker.health import Health
from runyard.testing.memory_context import MemoryContext
from tests.docker_daemon import DockerDaemon, docker_daemon
from tests.docker_wire import DockerWire
from tests.providers.docker.conftest import OpenPool, Pool
from tests.registry.upstream import PASSWORD, USER, Upstream, pack_image

pytestmark = pytest.mark.service


def in_image(name: str, *command: str) -> Step:
    return Step(name="main", command=command or ("/bin/busybox", "echo", "ran"), image=name)


@pytest.fixture
def private(tmp_path: Path) -> Iterator[Upstream]:
    real = Upstream(tmp_path / "private", has_login=True)
    real.start()
    real.push(pack_image(tmp_path / "image.tar"), "team/app:1")
    yield real
    real.stop()


async def test_an_image_is_pulled_with_its_tenant_s_login_and_not_served_to_another(
    open_pool: OpenPool, private: Upstream
) -> None:
    login = {"host": private.host, "username": USER, "password": PASSWORD, "tenants": ["a"], "private": True}
    pool = await open_pool(registries=[login])
    name = f"{private.host}/team/app:1"
    outcome, context = await pool.run(in_image(name, "/bin/sh", "-c", "echo ran"), tenant="a")
    assert (outcome.kind, context.printed()) == (OutcomeKind.SUCCEEDED, b"ran\n")
    assert context.placement["image"].startswith("sha256:")
    outcome, _ = await pool.run(in_image(name, "/bin/sh", "-c", "echo ran"), tenant="b")
    assert outcome.reason is not None
    assert (outcome.kind, outcome.reason.code, outcome.was_seen) == (
        OutcomeKind.FAILED,
        ReasonCode.IMAGE,
        False,
    )


async def test_an_image_that_is_not_there_is_told_in_the_registry_s_words(
    open_pool: OpenPool, private: Upstream
) -> None:
    login = {"host": private.host, "username": USER, "password": PASSWORD, "private": True}
    pool = await open_pool(registries=[login])
    outcome, _ = await pool.run(in_image(f"{private.host}/team/none:1"))
    assert outcome.reason is not None
    assert outcome.reason.code is ReasonCode.IMAGE
    assert "team/none" in outcome.reason.message


async def test_a_check_sees_what_the_daemon_enforces(pool: Pool) -> None:
    findings = {finding.name: finding for finding in await pool.provider.check()}
    assert {"daemon", "storage", "runtime", "container", "isolation", "seccomp", "limits"} == findings.keys()
    assert all(finding.ok for finding in findings.values()), findings


async def test_a_daemon_that_hangs_is_told_and_holds_nobody_up(dockerd: DockerDaemon, pool: Pool) -> None:
    provider = pool.provider
    assert provider._place is not None
    await provider._health.close()
    provider._health = Health(provider._place.client, every_s=0.02, ping_s=0.2)
    with dockerd.frozen():
        async with asyncio.timeout(10):
            answer = await provider.can_dequeue(Requirements())
            while answer.kind is AvailabilityKind.NOW:
                await asyncio.sleep(0.02)
                answer = await provider.can_dequeue(Requirements())
        assert (answer.kind, answer.code) == (AvailabilityKind.SOON, WaitCode.POOL_UNHEALTHY)
        began = time.monotonic()
        with pytest.raises(Unreachable):
            await provider.list_resources()
        assert time.monotonic() - began < 30
    async with asyncio.timeout(10):
        while (await provider.can_dequeue(Requirements())).kind is not AvailabilityKind.NOW:  # noqa: ASYNC110 -- the port tells nobody
            await asyncio.sleep(0.02)


async def test_what_ran_in_a_daemon_that_was_restarted_is_lost_with_proof(
    open_pool: OpenPool, tmp_path: Path
) -> None:
    with docker_daemon() as daemon:
        daemon.import_busybox()
        pool = await open_pool(host=daemon.address)
        request, context = pool.request("echo began; sleep 600"), MemoryContext(tmp_path)
        running = asyncio.create_task(pool.provider.run_job(request, context))
        await context.reached("running")
        await asyncio.to_thread(daemon.stop)
        with pytest.raises(Unreachable):
            await running
        await asyncio.to_thread(daemon.start)
        outcome = await pool.provider.run_job(request, context)
        assert (outcome.kind, outcome.was_seen) == (OutcomeKind.LOST, True)
        again, context = await pool.run("echo again")
        assert (again.kind, context.printed()) == (OutcomeKind.SUCCEEDED, b"again\n")
        await pool.close()


async def test_a_job_that_was_never_started_is_started_and_no_success(
    dockerd: DockerDaemon, open_pool: OpenPool
) -> None:
    """As after a crash between the record of the start and the start."""
    async with DockerWire.to(dockerd.socket) as wire:
        pool = await open_pool(host=wire.address)
        request, context = pool.request("echo ran"), MemoryContext(pool.folder)
        wire.refuse(rb"containers/[^/ ]+-s0/start", "not now")
        with pytest.raises(Unreachable):
            await pool.provider.run_job(request, context)
        outcome = await pool.provider.run_job(request, context)
        assert (outcome.kind, context.printed()) == (OutcomeKind.SUCCEEDED, b"ran\n")
        await pool.close()


def test_a_client_without_its_package_is_told_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "aiodocker", None)
    with pytest.raises(ConfigError) as error:
        DockerClient("unix:///nowhere")
    assert error.value.cure == "pip install 'runyard[docker]'"


@contextlib.contextmanager
def namespace_with_a_server(public: str, private: str, port: int) -> Iterator[list[str]]:
    """A network namespace that answers at both addresses; the command that enters it."""
    name = f"rd-{secrets.token_hex(4)}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    inside = ["nsenter", f"--net=/run/netns/{name}"]  # `ip netns exec` would hide the cgroups
    try:
        for words in ("link set lo up", f"addr add {public}/32 dev lo", f"addr add {private}/32 dev lo"):
            subprocess.run([*inside, "ip", *words.split()], check=True)
        server = subprocess.Popen(
            [*inside, "/bin/busybox", "nc", "-ll", "-p", str(port), "-e", "/bin/echo", "hello"]
        )
        try:
            yield inside
        finally:
            server.kill()
            server.wait()
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)


async def test_an_open_network_reaches_the_world_and_nothing_private(open_pool: OpenPool) -> None:
    public, private = "192.31.196.1", "10.77.0.1"  # both are the daemon's host, in a namespace of its own
    script = (
        f"nc -w 3 {public} 8080 || echo no-public; nc -w 2 {private} 8080 || echo no-private;"
        "nc -w 2 $(ip route | grep -o 'via [0-9.]*' | cut -d' ' -f2 | head -1) 8080 || echo no-host;"
        "ip route add 10.0.0.0/8 dev eth0 2>&1 || echo no-right"
    )
    with namespace_with_a_server(public, private, 8080) as inside, docker_daemon(inside=inside) as daemon:
        daemon.import_busybox()
        pool = await open_pool(host=daemon.address, open_network=True)
        outcome, context = await pool.run(script, requirements=Requirements(network="open"))
        await pool.close()
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    words = context.printed().decode()
    assert words.startswith("hello\n"), words
    assert [word for word in ("no-private", "no-host", "no-right") if word not in words] == []
