"""Entries of an egress list, the ruleset they become, and DNS messages: as values, without a network."""

import contextlib
from ipaddress import IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.host.egress import closed_networks
from runyard.host.network.dns_messages import (
    NOERROR,
    build_answer,
    build_question,
    follow_aliases,
    parse_query,
    parse_reply,
)
from runyard.host.network.lookups import parse_servers
from runyard.host.network.packet_filter import ruleset
from runyard.model.egress import parse_egress_rule, ports_of


@pytest.mark.parametrize(
    ("entries", "name", "ports"),
    [
        (["Example.com."], "example.com", None),
        (["example.com:443", "example.com:80"], "example.com", {443, 80}),
        (["example.com:443", "example.com"], "example.com", None),
        (["example.com"], "www.example.com", set()),
        (["*.example.com"], "example.com", set()),
        (["*.example.com"], "a.b.example.com", None),
        (["*.example.com"], "badexample.com", set()),
        (["192.0.2.1"], "192.0.2.1", set()),
    ],
)
def test_a_name_is_covered_by_the_entries_that_mean_it(entries, name, ports):
    found = ports_of([parse_egress_rule(entry) for entry in entries], name)
    assert found == (None if ports is None else frozenset(ports))


@given(st.text(max_size=40))
def test_an_entry_is_read_or_refused_with_words(text):
    try:
        rule = parse_egress_rule(text)
    except ValueError:
        return
    assert (rule.name is None) != (rule.network is None)
    assert rule.name is None or set(rule.name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-_.*")


def test_networks_that_overlap_become_one_interval():
    rules = [parse_egress_rule(entry) for entry in ("10.0.0.0/8", "10.1.0.0/16", "10.1.0.0/16:443")]
    text = ruleset(rules, ("192.168.0.0/16", "192.168.3.0/24"))
    assert "ip daddr { 10.0.0.0/8 } accept" in text
    assert "th dport 443 ip daddr { 10.1.0.0/16 } accept" in text
    assert text.index("{ 192.168.0.0/16 } jump refuse") < text.index("accept\nmeta l4proto")


def test_what_the_operator_opens_is_taken_out_and_metadata_only_where_it_is_named_itself():
    def is_closed(address, *opened):
        closed = map(IPv4Network, closed_networks(allow_private=False, opened=opened))
        return any(IPv4Address(address) in network for network in closed)

    assert is_closed("10.3.0.1")
    assert not is_closed("10.3.0.1", "10.3.0.0/16")
    assert is_closed("10.4.0.1", "10.3.0.0/16")
    assert not is_closed("10.3.0.1", "0.0.0.0/0")
    assert is_closed("169.254.169.254", "0.0.0.0/0")
    assert not is_closed("169.254.169.254", "169.254.169.254/32")


def test_a_question_and_its_answer_come_back_as_they_were():
    query = parse_query(build_question(7, "a.example.com"))
    assert (query.id, query.name, query.kind) == (7, "a.example.com", 1)
    reply = parse_reply(build_answer(query, NOERROR, ["192.0.2.1", "192.0.2.2"], 30), 7, "a.example.com")
    assert follow_aliases(reply, "a.example.com") == ("a.example.com", [("192.0.2.1", 30), ("192.0.2.2", 30)])


def test_an_answer_fits_into_what_any_client_takes():
    query = parse_query(build_question(7, ".".join(["a" * 10] * 5)))
    assert len(build_answer(query, NOERROR, ["192.0.2.1"] * 64, 30)) <= 512


@given(st.binary(max_size=600))
def test_no_bytes_do_more_than_be_refused(data):
    for parse in (parse_query, lambda data: parse_reply(data, int.from_bytes(data[:2], "big"), "a.example")):
        with contextlib.suppress(ValueError):
            parse(data)


@given(st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=12))
def test_a_reply_with_any_bytes_changed_is_read_or_refused(changes):
    query = parse_query(build_question(7, "a.example.com"))
    data = bytearray(build_answer(query, NOERROR, ["192.0.2.1", "192.0.2.2"], 30))
    for at, value in changes:
        data[at % len(data)] = value
    try:
        reply = parse_reply(bytes(data), 7, "a.example.com")
    except ValueError:
        return
    follow_aliases(reply, "a.example.com")


def test_a_name_server_is_an_address_with_or_without_a_port():
    assert parse_servers(["10.0.0.1", "10.0.0.1:5353", "2001:db8::1", "[2001:db8::1]:5353"]) == [
        ("10.0.0.1", 53),
        ("10.0.0.1", 5353),
        ("2001:db8::1", 53),
        ("2001:db8::1", 5353),
    ]
