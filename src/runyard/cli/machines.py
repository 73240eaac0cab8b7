"""`runyard machines` and `runyard machine …`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runyard.cli.connection import open_client
from runyard.cli.words import print_facts, print_json, print_table

if TYPE_CHECKING:
    from runyard.wire.answers import MachineAnswer


def machines(*, json: bool = False) -> None:
    """List machines.

    Parameters
    ----------
    json
        Print JSON.
    """
    with open_client() as client:
        listed = client.machines.list()
    if json:
        print_json(listed)
        return
    print_table(("MACHINE", "POOL", "STATE"), ((one.name, one.pool, one.state) for one in listed))


def show(name: str, /, *, json: bool = False) -> None:
    """Show one machine.

    Parameters
    ----------
    name
        The machine.
    json
        Print JSON.
    """
    with open_client() as client:
        _print_machine(client.machines.get(name), json=json)


def drain(name: str, /, *, json: bool = False) -> None:
    """Give a machine nothing new; what runs on it goes on, then it ends.

    Parameters
    ----------
    name
        The machine.
    json
        Print JSON.
    """
    with open_client() as client:
        _print_machine(client.machines.drain(name), json=json)


def undrain(name: str, /, *, json: bool = False) -> None:
    """Give a drained machine work again.

    Parameters
    ----------
    name
        The machine.
    json
        Print JSON.
    """
    with open_client() as client:
        _print_machine(client.machines.undrain(name), json=json)


def _print_machine(machine: MachineAnswer, *, json: bool) -> None:
    if json:
        print_json(machine)
    else:
        drain = "drained by an operator" if machine.drain_asked_at else ""
        print_facts(
            [
                ("machine", machine.name),
                ("pool", machine.pool),
                ("state", machine.state),
                ("holds", f"{machine.held} of {machine.slots}"),
                ("drain", drain),
            ]
        )
