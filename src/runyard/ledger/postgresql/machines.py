"""Machines, and the race for an attempt between its owner and its machine: each step is one stored function."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from runyard.ledger import refusals, rows, statements
from runyard.ledger.postgresql import pools
from runyard.ledger.postgresql.database import Database
from runyard.ledger.postgresql.snapshot import Snapshot
from runyard.model.attempt import AttemptKey
from runyard.model.machine import Binding, Machine, MachineState
from runyard.model.outcome import Outcome
from runyard.model.pool import Fence

_LIST_MACHINES = """
    SELECT * FROM machine_row WHERE pool = :pool AND (state <> 'gone' OR :with_gone) ORDER BY name LIMIT :limit
"""
_outcome = msgspec.json.Decoder(Outcome)


# -- machines, by their owner -------------------------------------------------------------------------------------
async def intend_machine(
    database: Database, fence: Fence, name: str, *, slots: int, facts: Mapping[str, str]
) -> Machine:
    document = {"name": name, "slots": slots, "facts": _storable(facts)}
    await pools.call_fenced(database, "intend_machine", fence, document)
    async with database.read() as snapshot:
        machine = await get_machine(snapshot, name)
    assert machine is not None
    if machine.pool != fence.pool:
        raise refusals.machine_of_another_pool(name, machine.pool)
    return machine


async def get_machine(snapshot: Snapshot, name: str) -> Machine | None:
    row = await snapshot.row("SELECT * FROM machine_row WHERE name = :name", name=name)
    return None if row is None else rows.machine_of(row)


async def list_machines(snapshot: Snapshot, pool: str, *, with_gone: bool) -> list[Machine]:
    found = await snapshot.rows(_LIST_MACHINES, pool=pool, with_gone=with_gone, limit=statements.MACHINES_MAX)
    return [rows.machine_of(row) for row in found]


async def change_machine(
    database: Database,
    fence: Fence,
    name: str,
    *,
    seen: MachineState,
    to: MachineState,
    facts: Mapping[str, str],
) -> bool:
    refusals.check_change(seen, to)
    document = {"seen": seen.value, "to": to.value, "facts": _storable(facts)}
    return await _ask_machine(database, "change_machine", fence, name, document)


async def fence_machine(database: Database, fence: Fence, name: str, reason: str) -> bool:
    return await _ask_machine(database, "fence_machine", fence, name, {"reason": pools.storable(reason)})


async def _ask_machine(
    database: Database, function: str, fence: Fence, name: str, document: Mapping[str, Any]
) -> bool:
    answer = await pools.call_fenced(database, function, fence, {"name": name, **document})
    return _is_done(answer, name)


def _is_done(answer: Mapping[str, Any], name: str) -> bool:
    if answer.get("refused") == "other_pool":
        raise refusals.machine_of_another_pool(name, answer["pool"])
    return bool(answer["done"])


# -- machines, by an operator ------------------------------------------------------------------------------------
async def set_machine_drained(database: Database, name: str, *, is_drained: bool) -> Machine:
    answer = await database.call("set_machine_drained", {"name": name, "is_drained": is_drained})
    if answer.get("refused") == "no_machine":
        raise refusals.no_machine(name)
    async with database.read() as snapshot:
        machine = await get_machine(snapshot, name)
    if machine is None:
        raise refusals.no_machine(name)
    return machine


# -- attempts, by their owner -------------------------------------------------------------------------------------
async def bind_attempt(database: Database, fence: Fence, key: AttemptKey, machine: str) -> bool:
    return _is_done(await _ask(database, "bind_attempt", fence, key, {"machine": machine}), machine)


async def unbind_attempt(database: Database, fence: Fence, key: AttemptKey) -> bool:
    return bool((await _ask(database, "unbind_attempt", fence, key, {}))["done"])


async def stop_attempt(database: Database, fence: Fence, key: AttemptKey, *, grace_s: float) -> None:
    await _ask(database, "stop_attempt", fence, key, {"grace_s": grace_s})


async def end_attempt(database: Database, fence: Fence, key: AttemptKey, outcome: Outcome) -> Outcome | None:
    answer = await _ask(database, "end_attempt_of", fence, key, {"outcome": rows.to_json(outcome)})
    return _outcome.decode(answer["outcome"]) if answer["done"] else None


async def release_attempt(database: Database, fence: Fence, key: AttemptKey) -> bool:
    return bool((await _ask(database, "release_attempt_of", fence, key, {}))["done"])


async def _ask(
    database: Database, function: str, fence: Fence, key: AttemptKey, document: Mapping[str, Any]
) -> dict[str, Any]:
    answer = await pools.call_fenced(
        database, function, fence, {"uid": key.uid, "number": key.number, **document}
    )
    if answer.get("refused") == "not_yours":
        raise refusals.not_yours(fence, key, answer["pool"])
    return answer


async def get_binding(snapshot: Snapshot, key: AttemptKey) -> Binding | None:
    row = await snapshot.row(statements.BINDING, uid=key.uid, number=key.number)
    return None if row is None else rows.binding_of(row)


async def list_bindings(snapshot: Snapshot, pool: str, *, machine: str | None) -> list[Binding]:
    found = await snapshot.rows(
        statements.LIST_BINDINGS.replace(":machine IS NULL", ":machine::text IS NULL"),
        pool=pool,
        machine=machine,
        limit=statements.BINDINGS_MAX,
    )
    return [rows.binding_of(row) for row in found]


# -- what a machine does itself -----------------------------------------------------------------------------------
async def contact_machine(
    database: Database, name: str, *, slots: int | None, facts: Mapping[str, str]
) -> Machine | None:
    await database.call("contact_machine", {"name": name, "slots": slots, "facts": _storable(facts)})
    async with database.read() as snapshot:
        return await get_machine(snapshot, name)


async def take_attempt(database: Database, machine: str, key: AttemptKey) -> bool:
    return bool((await database.call("take_attempt", _taken(machine, key)))["done"])


async def report_attempt(
    database: Database,
    machine: str,
    key: AttemptKey,
    *,
    phases: Mapping[str, float],
    outcome: Outcome | None,
    outputs: Mapping[str, str],
) -> Binding | None:
    document = {
        "phases": phases,
        "outcome": None if outcome is None else rows.to_json(outcome),
        "outputs": rows.to_json(_storable(outputs)),
    }
    answer = await database.call("report_attempt", {**_taken(machine, key), **document})
    if not answer["done"]:
        return None
    async with database.read() as snapshot:
        return await get_binding(snapshot, key)


async def drop_attempt(database: Database, machine: str, key: AttemptKey) -> None:
    await database.call("drop_attempt", _taken(machine, key))


def _taken(machine: str, key: AttemptKey) -> dict[str, Any]:
    return {"machine": machine, "uid": key.uid, "number": key.number}


def _storable(words: Mapping[str, str]) -> dict[str, str]:
    return {pools.storable(name): pools.storable(value) for name, value in words.items()}


# -- retention ----------------------------------------------------------------------------------------------------
async def delete_gone_machines(database: Database, *, before: float, limit: int) -> int:
    return await database.execute(statements.DELETE_GONE_MACHINES, before=before, limit=limit)
