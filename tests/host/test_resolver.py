"""The resolver beside an attempt with a list, asked by a job that wants the memory of its host. No root is needed."""

import socket
import struct

import pytest

from runyard.host.network.dns_messages import ADDRESSES_MAX, build_question
from runyard.host.network.packet_filter import NAMED_MAX, ruleset
from runyard.host.network.resolver import ASKERS_MAX, Resolver
from runyard.model.egress import parse_egress_rule


class Opened:
    """Where the packet filter stands: what was opened."""

    def __init__(self) -> None:
        self.addresses: list[str] = []

    def open(self, addresses, ports, *, for_s: int) -> None:
        self.addresses += addresses


@pytest.fixture
def udp():
    made = []

    def make() -> socket.socket:
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made[-1].bind(("127.0.0.1", 0))
        made[-1].settimeout(5)
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def place(udp):
    """(resolver, its own address, its name server, what it opened)"""
    listening, server, opened = udp(), udp(), Opened()
    rules = [parse_egress_rule("*.example.com")]
    resolver = Resolver(listening, rules, (), [server.getsockname()], opened, lambda line: None)
    return resolver, listening.getsockname(), server, opened


def reply(question: bytes, addresses: int) -> bytes:
    """To a question with one record more, its EDNS."""
    rows = b"".join(
        struct.pack("!HHHIHBBBB", 0xC00C, 1, 1, 86_400, 4, 45, 67, number >> 8, number & 255)
        for number in range(addresses)
    )
    return question[:2] + struct.pack("!HHHHH", 0x8180, 1, addresses, 0, 0) + question[12:-11] + rows


def test_of_one_name_no_more_addresses_are_opened_than_are_answered(place, udp):
    resolver, address, server, opened = place
    job = udp()
    job.sendto(build_question(7, "many.example.com"), address)
    resolver.turn()
    question, asker = server.recvfrom(512)
    server.sendto(reply(question, 150), asker)
    resolver.turn()
    assert struct.unpack_from("!H", job.recv(4096), 6)[0] == ADDRESSES_MAX
    assert len(opened.addresses) == ADDRESSES_MAX


def test_of_those_who_ask_while_a_name_is_looked_up_so_many_are_kept_in_memory(place, udp):
    resolver, address, server, _ = place
    job = udp()
    for number in range(ASKERS_MAX + 50):
        job.sendto(build_question(number, "slow.example.com"), address)
        resolver.turn()
    question, asker = server.recvfrom(512)
    server.sendto(reply(question, 1), asker)
    resolver.turn()
    job.setblocking(False)
    answers = [job.recv(512) for _ in range(ASKERS_MAX)]
    assert len({answer[:2] for answer in answers}) == ASKERS_MAX
    with pytest.raises(BlockingIOError):
        job.recv(512)


def test_the_addresses_that_names_open_take_a_bounded_memory_of_the_kernel():
    text = ruleset([], ["10.0.0.0/8"])
    assert text.count(f"flags timeout; size {NAMED_MAX};") == 2
