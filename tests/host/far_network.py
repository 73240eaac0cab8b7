"""An internet for tests: a network namespace beside the host's, with addresses that look public and one that is
private, services on TCP and UDP at each, and a name server. Only this host has routes there.

Run as a program it is the far end: it prints `ready` and serves until its input ends.
"""

import contextlib
import os
import selectors
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator

PUBLIC, OTHER, PRIVATE = "45.67.89.10", "45.67.89.20", "10.213.7.7"
NAME_SERVER = "45.67.89.53"
HTTP, HTTPS, ECHO = 80, 443, 7
_HOST_END, _FAR_END = "198.18.213.1", "198.18.213.2"
ADDRESSES = (PUBLIC, OTHER, PRIVATE, NAME_SERVER)
ZONE = {
    "one.example.com": [("A", PUBLIC, 3)],
    "two.example.com": [("A", OTHER, 300)],
    "both.example.com": [("A", PUBLIC, 300), ("A", PRIVATE, 300)],
    "rebound.example.com": [("A", PRIVATE, 300)],
    "metadata.example.com": [("A", "169.254.169.254", 300)],
    "home.example.com": [("A", "127.0.0.1", 300)],
    "alias.example.com": [("CNAME", "middle.cdn.example", 300), ("middle.cdn.example", "CNAME", "end.cdn.example", 300),
                          ("end.cdn.example", "A", OTHER, 300)],
    "half.example.com": [("CNAME", "two.example.com", 300)],
    "loop.example.com": [("CNAME", "loop2.example.com", 300)],
    "loop2.example.com": [("CNAME", "loop.example.com", 300)],
    "empty.example.com": [],
}  # fmt: skip


class Far:
    """`asked` is every name that a question for came to the name server, in order."""

    def __init__(self, process: subprocess.Popen) -> None:
        self._process = process

    @property
    def name_server(self) -> str:
        return NAME_SERVER

    def asked(self) -> list[str]:
        self._process.stdin.write(b"asked\n")
        self._process.stdin.flush()
        return self._process.stdout.readline().decode().split()


@contextlib.contextmanager
def far_network() -> Iterator[Far]:
    name = f"runyard-far-{os.getpid()}"
    link = f"ryfar{os.getpid() % 100_000}"
    _ip("netns", "add", name)
    try:
        _ip("link", "add", link, "type", "veth", "peer", "name", "far", "netns", name)
        _ip("addr", "add", f"{_HOST_END}/30", "dev", link)
        _ip("link", "set", link, "up")
        _ip("-n", name, "link", "set", "lo", "up")
        _ip("-n", name, "addr", "add", f"{_FAR_END}/30", "dev", "far")
        _ip("-n", name, "link", "set", "far", "up")
        _ip("-n", name, "route", "add", "default", "via", _HOST_END)
        for address in ADDRESSES:
            _ip("-n", name, "addr", "add", f"{address}/32", "dev", "lo")
            _ip("route", "add", f"{address}/32", "via", _FAR_END)
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert process.stdout.readline() == b"ready\n"
            yield Far(process)
        finally:
            process.stdin.close()
            process.stdout.close()
            process.wait(10)
    finally:
        _ip("netns", "del", name)
        subprocess.run(["ip", "link", "del", link], capture_output=True, check=False)  # gone with its peer


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


def _serve() -> None:
    asked: list[str] = []
    selector = selectors.DefaultSelector()
    for port in (HTTP, HTTPS):
        server = socket.create_server(("0.0.0.0", port), backlog=64)
        selector.register(server, selectors.EVENT_READ, _greet)
    for address in ADDRESSES:
        echo = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        echo.bind((address, ECHO))
        selector.register(echo, selectors.EVENT_READ, _echo)
    names = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    names.bind((NAME_SERVER, 53))
    selector.register(names, selectors.EVENT_READ, lambda server: asked.append(_answer(server)))
    selector.register(sys.stdin.buffer, selectors.EVENT_READ, None)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                key.data(key.fileobj)
            elif os.read(0, 100):
                print(" ".join(asked), flush=True)
            else:
                return


def _greet(server: socket.socket) -> None:
    with server.accept()[0] as connection:
        connection.sendall(b"reached\n")


def _echo(server: socket.socket) -> None:
    data, asker = server.recvfrom(2000)
    server.sendto(data, asker)


def _answer(server: socket.socket) -> str:
    data, asker = server.recvfrom(2000)
    end = data.index(b"\0", 12) + 1
    name = _text(data[12:end])
    rows = [row if len(row) == 4 else (name, *row) for row in ZONE.get(name, ())]
    flags = 0x8180 if name in ZONE else 0x8183
    reply = data[:2] + struct.pack("!HHHHH", flags, 1, len(rows), 0, 0) + data[12 : end + 4]
    for owner, kind, value, ttl in rows:
        body = socket.inet_aton(value) if kind == "A" else _wire(value)
        reply += _wire(owner) + struct.pack("!HHIH", 1 if kind == "A" else 5, 1, ttl, len(body)) + body
    server.sendto(reply, asker)
    return name


def _wire(name: str) -> bytes:
    return b"".join(bytes([len(part)]) + part.encode() for part in name.split(".")) + b"\0"


def _text(wire: bytes) -> str:
    labels, at = [], 0
    while wire[at]:
        labels.append(wire[at + 1 : at + 1 + wire[at]].decode())
        at += 1 + wire[at]
    return ".".join(labels).lower()


if __name__ == "__main__":
    _serve()
