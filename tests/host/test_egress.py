"""Network `open`: a way out, and none to the host. (Only loopback and namespaces here: no internet.)"""

import socket

import pytest

from runyard.host import egress
from runyard.host.egress import host_addresses
from runyard.host.plan import PlanStep
from runyard.host.process import descendants
from runyard.model.outcome import OutcomeKind
from tests.host.world import ENV, living_with, open_world, sh, until

pytestmark = pytest.mark.service
RESOLV_CONF = "/etc/hostname"  # any readable file


def reach(host: str, port: int) -> PlanStep:
    script = (
        "import socket\n"
        f"try: socket.create_connection(({host!r}, {port}), 1.5); print('reached')\n"
        "except OSError as error: print(type(error).__name__, error.errno)"
    )
    return PlanStep(name="main", command=("python3", "-c", script), env=ENV)


async def test_the_job_has_an_address_a_route_and_a_resolver_before_its_command_runs(tmp_path):
    """Wherever the data folder lies: no parent of it needs to be open to a slot's id."""
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    out_of_reach = closed / "resolv.conf"
    out_of_reach.write_text(egress.RESOLV_CONF)
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("cat /proc/net/route /etc/resolv.conf"), network="open", resolv_conf=str(out_of_reach)
        )
        assert ran.outcome.kind is OutcomeKind.SUCCEEDED, ran.message
        assert "tap0\t00000000\t0202000A" in ran.text
        assert ran.text.endswith(egress.RESOLV_CONF)


@pytest.mark.parametrize("where", ["10.0.2.2", "127.0.0.1", "own"])
async def test_a_listener_on_the_host_is_out_of_reach(tmp_path, where):
    with socket.create_server(("0.0.0.0" if where == "own" else "127.0.0.1", 0)) as server:
        address = host_addresses()[0].partition("/")[0] if where == "own" else where
        async with open_world(tmp_path) as world:
            ran = await world.run(
                reach(address, server.getsockname()[1]), network="open", resolv_conf=RESOLV_CONF
            )
    assert "reached" not in ran.text
    assert ran.text


@pytest.mark.parametrize(
    "address",
    [
        "168.63.129.16",
        "203.0.113.7",
        "169.254.169.254",
        "192.168.1.1",
        "172.16.0.1",
        "10.1.1.1",
        "100.100.100.200",
    ],
)
async def test_metadata_and_private_addresses_are_unreachable_at_once(tmp_path, address):
    async with open_world(tmp_path) as world:
        ran = await world.run(reach(address, 80), network="open", resolv_conf=RESOLV_CONF)
        assert ran.text == "OSError 113\n"


async def test_the_network_ends_with_the_step_and_the_next_step_has_its_own(tmp_path):
    others = set(living_with("--disable-host-loopback"))
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh("grep -c tap0 /proc/net/route"),
            sh("grep -c tap0 /proc/net/route"),
            network="open",
            resolv_conf=RESOLV_CONF,
        )
        assert ran.text == ran.log("001").decode()
        await until(lambda: not descendants(world.zygote.pid))
        assert set(living_with("--disable-host-loopback")) <= others


async def test_a_network_that_cannot_be_made_lets_no_command_run(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("echo ran"), network="open", resolv_conf=RESOLV_CONF, slirp="/bin/false")
        assert (ran.outcome.kind, ran.code, ran.text) == (OutcomeKind.LOST, "isolation", "")
        assert "/bin/false did not bring the network up" in ran.message
