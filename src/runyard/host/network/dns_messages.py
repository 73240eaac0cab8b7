"""DNS messages as values and back: as much as a resolver of A records needs (RFC 1035, RFC 6891). Pure.

What comes from a job or from a name server is a stranger's: everything is bounded, and ValueError is all it can cause.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

A, CNAME, OPT, INTERNET = 1, 5, 41, 1
NOERROR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = 0, 2, 3, 4, 5
ADDRESSES_MAX = 25  # so that every answer fits into the 512 bytes that any client takes
_HEADER = struct.Struct("!HHHHHH")
_RESPONSE, _TRUNCATED, _RECURSION_DESIRED, _RECURSION_AVAILABLE = 0x8000, 0x0200, 0x0100, 0x0080
_OPCODE = 0x7800
_POINTERS_MAX, _RECORDS_MAX, _NAME_BYTES_MAX = 32, 200, 255
_UDP_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """One question. `name` in lower case; `question` is the bytes that an answer repeats."""

    id: int
    name: str
    kind: int
    question: bytes
    recursion_desired: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What a name server said: by name in lower case, where it leads, and its addresses, each with its TTL."""

    code: int
    aliases: dict[str, tuple[str, int]] = field(default_factory=dict)
    addresses: dict[str, list[tuple[str, int]]] = field(default_factory=dict)


def parse_query(data: bytes) -> Query:
    """Raises ValueError for what is no plain question."""
    number, flags, questions, *_ = _header(data)
    if flags & (_RESPONSE | _OPCODE) or questions != 1:
        raise ValueError("no plain question")
    name, end = _name(data, _HEADER.size)
    if len(data) < end + 4:
        raise ValueError("cut off")
    kind, network = struct.unpack_from("!HH", data, end)
    if network != INTERNET:
        raise ValueError("not of the internet's class")
    question = data[_HEADER.size : end + 4]
    return Query(
        id=number,
        name=name,
        kind=kind,
        question=question,
        recursion_desired=bool(flags & _RECURSION_DESIRED),
    )


def build_answer(query: Query, code: int, addresses: Sequence[str] = (), ttl_s: int = 0) -> bytes:
    """The addresses belong to the name that was asked for itself: whatever chain led to them is left out."""
    flags = _RESPONSE | _RECURSION_AVAILABLE | code
    if query.recursion_desired:
        flags |= _RECURSION_DESIRED
    kept = addresses[:ADDRESSES_MAX]
    records = b"".join(
        struct.pack("!HHHIH", 0xC000 | _HEADER.size, A, INTERNET, ttl_s, 4)
        + bytes(int(part) for part in address.split("."))
        for address in kept
    )
    return _HEADER.pack(query.id, flags, 1, len(kept), 0, 0) + query.question + records


def build_question(number: int, name: str) -> bytes:
    """For the A records of `name`, with room for a long answer."""
    labels = b"".join(bytes([len(label)]) + label for label in name.encode("ascii").split(b"."))
    room = b"\0" + struct.pack("!HHIH", OPT, _UDP_BYTES, 0, 0)
    header = _HEADER.pack(number, _RECURSION_DESIRED, 1, 0, 0, 1)
    return header + labels + b"\0" + struct.pack("!HH", A, INTERNET) + room


def parse_reply(data: bytes, number: int, name: str) -> Reply:
    """The reply to the question `number` for `name`. Raises ValueError where it is none."""
    found, flags, questions, answers, _, _ = _header(data)
    if found != number or not flags & _RESPONSE or questions != 1:
        raise ValueError("no reply to this question")
    asked, at = _name(data, _HEADER.size)
    if asked != name:
        raise ValueError("a reply to another question")
    at += 4
    reply = Reply(code=flags & 0xF)
    for _ in range(min(answers, _RECORDS_MAX)):
        try:
            at = _record(data, at, reply)
        except (ValueError, struct.error):
            if flags & _TRUNCATED:
                break  # what came whole is as good as ever
            raise ValueError("a torn record") from None
    return reply


def follow_aliases(reply: Reply, name: str) -> tuple[str, list[tuple[str, int]]]:
    """The end of the chain that begins at `name`, and its addresses with the least TTL on the way. Empty: the reply
    does not say them, and the name at the end is to be asked for."""
    ttl_s, seen = 1 << 31, {name}
    while name in reply.aliases and name not in reply.addresses:
        name, alias_ttl_s = reply.aliases[name]
        ttl_s = min(ttl_s, alias_ttl_s)
        if name in seen:
            return name, []
        seen.add(name)
    return name, [(address, min(ttl_s, own_ttl_s)) for address, own_ttl_s in reply.addresses.get(name, [])]


def _record(data: bytes, at: int, reply: Reply) -> int:
    owner, at = _name(data, at)
    length: int
    kind, network, ttl_s, length = struct.unpack_from("!HHIH", data, at)
    at += 10
    if at + length > len(data):
        raise ValueError("cut off")
    ttl_s = 0 if ttl_s >> 31 else ttl_s  # RFC 2181, 8
    if network == INTERNET and kind == A and length == 4:
        reply.addresses.setdefault(owner, []).append((".".join(map(str, data[at : at + 4])), ttl_s))
    elif network == INTERNET and kind == CNAME:
        reply.aliases[owner] = (_name(data, at)[0], ttl_s)
    return at + length


def _header(data: bytes) -> tuple[int, int, int, int, int, int]:
    if len(data) < _HEADER.size:
        raise ValueError("cut off")
    number, flags, questions, answers, authorities, more = _HEADER.unpack_from(data)
    return number, flags, questions, answers, authorities, more


def _name(data: bytes, at: int) -> tuple[str, int]:
    """The name at `at`, compressed or not, and where what follows it begins."""
    labels: list[bytes] = []
    end, jumps, length = -1, 0, 0
    while True:
        if at >= len(data):
            raise ValueError("cut off")
        size = data[at]
        if size >= 0xC0:
            if at + 1 >= len(data) or jumps >= _POINTERS_MAX:
                raise ValueError("a name that does not end")
            end = at + 2 if end < 0 else end
            at, jumps = (size & 0x3F) << 8 | data[at + 1], jumps + 1
            continue
        at += 1
        if size == 0:
            break
        if size > 63 or at + size > len(data) or (length := length + size + 1) > _NAME_BYTES_MAX:
            raise ValueError("no name")
        labels.append(data[at : at + size])
        at += size
    name = b".".join(labels)
    if not name.isascii() or not name.decode("ascii").isprintable() or any(b"." in label for label in labels):
        raise ValueError("no host name")
    return name.decode("ascii").lower(), end if end >= 0 else at
