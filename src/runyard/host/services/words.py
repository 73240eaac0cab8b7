"""What the services of a job are called, and what is said of one that ended: the same in every place that runs them."""

from __future__ import annotations

from collections.abc import Sequence

LAST_BYTES = 600
_LAST_LINES = 5


def service_address(index: int) -> str:
    """Of its own on the loopback that all share, by which the steps know it."""
    return f"127.0.1.{index + 1}"


def early_end(name: str, how: str) -> str:
    return f"service '{name}' {how} before the steps were done"


def shared_port(index: int, services: Sequence[tuple[str, Sequence[int]]]) -> str:
    """Why the one at `index` may have ended, for all bind in one namespace: `services` are their names and ports."""
    ports = set(services[index][1])
    for other, (name, used) in enumerate(services):
        both = ports & set(used)
        if other != index and both:
            return (
                f" (service '{name}' uses port {min(both)} too: services share one network, so let each"
                f" listen on its own address, {service_address(index)} here, or on another port)"
            )
    return ""


def last_lines(data: bytes) -> str:
    """Of the last LAST_BYTES that it printed; empty where it said nothing."""
    lines = data.decode(errors="replace").strip().splitlines()[-_LAST_LINES:]
    return " | ".join(line.strip() for line in lines if line.strip())
