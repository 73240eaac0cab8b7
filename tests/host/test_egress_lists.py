"""`network: {allow: […]}`: what is listed is reached, everything else is refused at once. Real sockets, between network
namespaces; the far one is an internet of its own."""

import asyncio
import os
import signal
import time

import pytest

from runyard.host.plan import PlanEgress, PlanStep
from runyard.host.process import descendants
from runyard.model.outcome import OutcomeKind
from tests.host.far_network import ECHO, HTTP, HTTPS, NAME_SERVER, OTHER, PRIVATE, PUBLIC, far_network
from tests.host.world import ENV, host, living_with, open_world, sh, until

pytestmark = pytest.mark.service

TRY = """
import socket, sys, time
for place in sys.argv[1:]:
    kind, host, port = place.split(':')
    began = time.monotonic()
    try:
        address = socket.getaddrinfo(host, int(port), socket.AF_INET)[0][4]
        s = socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == 'tcp' else socket.SOCK_DGRAM)
        s.settimeout(10)
        s.connect(address)
        if kind == 'udp': s.send(b'reached\\n')
        word = s.recv(100).decode().strip()
    except OSError as error:
        word = error.strerror
    print(word, 'SLOW' if time.monotonic() - began > 3 else '', flush=True)
"""
REACHED, REFUSED, NOT_FOUND = "reached", "No route to host", "Name or service not known"


@pytest.fixture(scope="module")
def far():
    with far_network() as far:
        yield far


@pytest.fixture
async def world(tmp_path):
    async with open_world(tmp_path) as world:
        yield world


def tries(*places: str) -> PlanStep:
    return PlanStep(name="main", command=("python3", "-c", TRY, *places), env=ENV)


async def outcomes(world, allow, *places, **egress):
    """A word for each place, and the attempt's own words."""
    ran = await world.run(tries(*places), **listed(*allow, **egress))
    assert ran.outcome.kind is OutcomeKind.SUCCEEDED, ran.message
    return [line.strip() for line in ran.text.splitlines()], ran.log("setup", "stderr").decode()


def listed(*allow, opened=(), allow_private=False):
    return {
        "network": "allow",
        "allow_private_addresses": allow_private,
        "egress": PlanEgress(allow=allow, opened=opened, nameservers=(NAME_SERVER,), nft=host().nft),
    }


async def test_a_listed_name_is_reached_by_tcp_and_udp_and_everything_else_is_refused_at_once(world, far):
    words, said = await outcomes(
        world,
        ["one.example.com"],
        f"tcp:one.example.com:{HTTP}",
        f"udp:one.example.com:{ECHO}",
        f"tcp:{PUBLIC}:{HTTPS}",
        f"tcp:{OTHER}:{HTTP}",
        f"udp:{OTHER}:{ECHO}",
        f"tcp:two.example.com:{HTTP}",
        "tcp:10.0.2.2:80",
        "udp:10.0.2.3:53",
        f"udp:{NAME_SERVER}:53",
    )
    assert words[:3] == [REACHED] * 3
    assert words[3:6] == [REFUSED, "Operation not permitted", NOT_FOUND]
    assert REACHED not in words[6:]
    assert f"tcp to {OTHER}:{HTTP} was refused" in said
    assert "the name 'two.example.com' was refused: it is not in network.allow" in said


async def test_a_name_that_is_not_listed_never_leaves_the_host(world, far):
    before = len(far.asked())
    words, said = await outcomes(
        world, ["*.example.com"], "tcp:stolen-data.attacker.example:80", f"tcp:one.example.com:{HTTP}",
        "tcp:example.com:80",
    )  # fmt: skip
    assert words == [NOT_FOUND, REACHED, NOT_FOUND]
    assert set(far.asked()[before:]) == {"one.example.com"}
    assert "'stolen-data.attacker.example' was refused" in said


async def test_a_port_that_is_listed_opens_no_other_one(world, far):
    words, said = await outcomes(
        world,
        [f"one.example.com:{HTTP}", f"{OTHER}:{HTTPS}"],
        f"tcp:one.example.com:{HTTP}",
        f"tcp:one.example.com:{HTTPS}",
        f"tcp:{OTHER}:{HTTPS}",
        f"tcp:{OTHER}:{HTTP}",
        f"udp:{OTHER}:{ECHO}",
    )
    assert words == [REACHED, REFUSED, REACHED, REFUSED, "Operation not permitted"]
    assert f"tcp to {PUBLIC}:{HTTPS} (one.example.com) was refused" in said


async def test_a_listed_network_is_open_but_for_what_the_pool_keeps_closed(world, far):
    words, said = await outcomes(
        world,
        ["0.0.0.0/0", "10.0.0.0/8"],
        f"tcp:{OTHER}:{HTTP}",
        f"tcp:{PRIVATE}:{HTTP}",
        "tcp:169.254.169.254:80",
        f"udp:{PRIVATE}:{ECHO}",
    )
    assert words == [REACHED, REFUSED, REFUSED, "Operation not permitted"]
    assert "10.0.0.0/8 is listed, and stays closed" in said


async def test_a_listed_name_cannot_lead_to_what_the_pool_keeps_closed(world, far):
    words, said = await outcomes(
        world,
        ["*.example.com"],
        f"tcp:rebound.example.com:{HTTP}",
        "tcp:metadata.example.com:80",
        "tcp:home.example.com:80",
        f"tcp:both.example.com:{HTTP}",
        f"tcp:{PRIVATE}:{HTTP}",
    )
    assert words == [NOT_FOUND, NOT_FOUND, NOT_FOUND, REACHED, REFUSED]
    assert f"rebound.example.com leads to {PRIVATE}, which the pool keeps closed" in said


async def test_what_the_operator_opens_is_reached_where_it_is_listed(world, far):
    places = (f"tcp:rebound.example.com:{HTTP}", f"tcp:{PRIVATE}:{HTTPS}", "tcp:169.254.169.254:80")
    words, _ = await outcomes(world, ["rebound.example.com"], *places, opened=("10.213.0.0/16",))
    assert words == [REACHED, REACHED, REFUSED]
    words, _ = await outcomes(world, ["one.example.com"], *places, opened=("10.213.0.0/16",))
    assert words == [NOT_FOUND, REFUSED, REFUSED]
    words, _ = await outcomes(world, ["0.0.0.0/0"], *places, allow_private=True)
    assert words == [NOT_FOUND, REACHED, REFUSED]


async def test_an_alias_is_followed_to_its_end(world, far):
    words, _ = await outcomes(
        world,
        ["alias.example.com", "half.example.com", "loop.example.com", "empty.example.com"],
        f"tcp:alias.example.com:{HTTP}",
        f"tcp:half.example.com:{HTTP}",
        "tcp:loop.example.com:80",
        "tcp:empty.example.com:80",
        "tcp:end.cdn.example:80",
    )
    assert words[:2] == [REACHED, REACHED]
    assert REACHED not in words[2:]
    assert not any("SLOW" in word for word in words)


async def test_all_steps_share_one_network_whose_rules_the_job_cannot_change(world, far):
    ran = await world.run(
        tries(f"tcp:one.example.com:{HTTP}"),
        sh(
            "nft flush ruleset || ip link set tap0 down || ip route add 10.0.0.0/8 via 10.0.2.2 || echo denied",
            "second",
        ),
        tries(f"tcp:{OTHER}:{HTTP}"),
        **listed("one.example.com"),
    )
    assert ran.text.strip() == REACHED
    assert ran.log("001").decode() == "denied\n"
    assert ran.log("002").decode().strip() == REFUSED


async def test_ipv6_is_closed_and_a_name_has_no_address_there(world, far):
    script = (
        "import socket\n"
        "try: socket.getaddrinfo('one.example.com', 80, socket.AF_INET6)\n"
        "except OSError as error: print(error.strerror)\n"
        "try: socket.create_connection(('2606:4700::1', 80), 5)\n"
        "except OSError as error: print(error.strerror)"
    )
    ran = await world.run(
        PlanStep(name="main", command=("python3", "-c", script), env=ENV), **listed("one.example.com")
    )
    assert ran.text.splitlines()[0] in ("No address associated with hostname", NOT_FOUND)
    assert ran.text.splitlines()[1] in ("Network is unreachable", REFUSED, "Permission denied")


async def test_nothing_of_the_network_outlives_its_attempt_not_even_a_killed_shim(world, far):
    plan = world.plan(sh("echo up; sleep 60"), **listed("one.example.com"))
    directory = world.directory(plan)

    async def kill(record) -> None:
        if record["what"] == "step_started":
            os.kill(directory.shim_pid(), signal.SIGKILL)

    ran = await world.run_plan(plan, kill)
    assert ran.outcome.kind is OutcomeKind.LOST
    await until(lambda: not descendants(world.zygote.pid))
    assert not living_with("--disable-dns")


async def test_names_are_looked_up_and_opened_while_the_service_is_gone(world, far):
    script = f"until test -e go; do sleep 0.02; done; exec cat < /dev/tcp/one.example.com/{HTTP}"
    plan = world.plan(
        PlanStep(name="main", command=("bash", "-c", script), env=ENV), **listed("one.example.com")
    )
    directory, started = world.directory(plan), asyncio.Event()

    async def note(record) -> None:
        if record["what"] == "step_started":
            started.set()

    following = asyncio.create_task(world.runner.run(directory, lambda: plan, note))
    await started.wait()
    following.cancel()
    await world.zygote.close()
    (directory.path / "workspace/go").touch()
    await until(directory.is_ended)
    assert (directory.path / "log/000.stdout").read_bytes() == b"reached\n"


async def test_a_filter_that_cannot_be_made_lets_no_command_run(world):
    egress = PlanEgress(allow=("one.example.com",), nft="/bin/false")
    ran = await world.run(sh("echo ran"), network="allow", egress=egress)
    assert (ran.outcome.kind, ran.code, ran.text) == (OutcomeKind.LOST, "isolation", "")
    assert "the network of the job could not be made: /bin/false" in ran.message


async def test_a_name_server_that_does_not_answer_costs_a_bounded_time_and_is_said(world):
    egress = PlanEgress(allow=("one.example.com",), nameservers=("127.0.0.1:1",), nft=host().nft)
    began = time.monotonic()
    ran = await world.run(tries("tcp:one.example.com:80"), network="allow", egress=egress)
    assert ran.text.strip() not in ("", REACHED)
    assert time.monotonic() - began < 30
    assert "one.example.com is listed, but no name server" in ran.log("setup", "stderr").decode()
