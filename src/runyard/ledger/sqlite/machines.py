"""Machines, and the race for an attempt between its owner (bind, withdraw, drain) and its machine (take, report).

Each step is one compare-and-set: what stood in its way is told by False or None, never by an error.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping

from runyard.ledger import refusals, rows, statements
from runyard.ledger.sqlite import pools
from runyard.ledger.sqlite.transaction import Transaction
from runyard.model.attempt import AttemptKey
from runyard.model.machine import Binding, BindingState, Machine, MachineState
from runyard.model.outcome import Outcome
from runyard.model.pool import Fence


# -- machines, by their owner -------------------------------------------------------------------------------------
def intend_machine(
    tx: Transaction, fence: Fence, name: str, *, slots: int, facts: Mapping[str, str]
) -> Machine:
    pools.need_fenced(tx, fence)
    tx.execute(
        "INSERT INTO machines (name, pool, state, slots, epoch, intended_at, since, facts)"
        " VALUES (:name, :pool, 'intended', :slots, :epoch, :now, :now, :facts) ON CONFLICT (name) DO NOTHING",
        name=name,
        pool=fence.pool,
        slots=slots,
        epoch=fence.epoch,
        now=tx.now,
        facts=rows.to_json(facts),
    )
    machine = get_machine(tx, name)
    assert machine is not None
    if machine.pool != fence.pool:
        raise refusals.machine_of_another_pool(name, machine.pool)
    tx.fire(f"machines:{fence.pool}")
    return machine


def get_machine(tx: Transaction, name: str) -> Machine | None:
    row = tx.row(f"{statements.MACHINE} WHERE m.name = :name", name=name)
    return None if row is None else rows.machine_of(row)


def list_machines(tx: Transaction, pool: str, *, with_gone: bool) -> list[Machine]:
    found = tx.rows(statements.LIST_MACHINES, pool=pool, with_gone=with_gone, limit=statements.MACHINES_MAX)
    return [rows.machine_of(row) for row in found]


def change_machine(
    tx: Transaction,
    fence: Fence,
    name: str,
    *,
    seen: MachineState,
    to: MachineState,
    facts: Mapping[str, str],
) -> bool:
    refusals.check_change(seen, to)
    machine = _own_machine(tx, fence, name)
    if machine is None or machine.state not in (seen, to):
        return False
    step = (machine.state, to)
    if step == (MachineState.READY, MachineState.DRAINING) and machine.held:
        return False
    if step == (MachineState.DRAINING, MachineState.READY) and machine.drain_asked_at is not None:
        return False
    _set_machine(tx, machine, to, facts)
    return True


def fence_machine(tx: Transaction, fence: Fence, name: str, reason: str) -> bool:
    machine = _own_machine(tx, fence, name)
    if machine is None or machine.state is MachineState.GONE:
        return machine is not None
    if machine.fenced_at is None:
        tx.execute(
            "UPDATE machines SET fenced_at = :now, fence_reason = :reason WHERE name = :name",
            now=tx.now,
            reason=reason,
            name=name,
        )
    _set_machine(tx, machine, MachineState.ENDING, {})
    tx.fire(f"machine:{name}")
    return True


def _own_machine(tx: Transaction, fence: Fence, name: str) -> Machine | None:
    pools.need_fenced(tx, fence)
    machine = get_machine(tx, name)
    if machine is not None and machine.pool != fence.pool:
        raise refusals.machine_of_another_pool(name, machine.pool)
    return machine


def _set_machine(tx: Transaction, machine: Machine, to: MachineState, facts: Mapping[str, str]) -> None:
    tx.execute(
        "UPDATE machines SET state = :to, since = CASE WHEN state = :to THEN since ELSE :now END, facts = :facts"
        " WHERE name = :name",
        to=to.value,
        now=tx.now,
        facts=rows.to_json({**machine.facts, **facts}),
        name=machine.name,
    )
    tx.fire(f"machines:{machine.pool}")


# -- machines, by an operator ------------------------------------------------------------------------------------
def set_machine_drained(tx: Transaction, name: str, *, is_drained: bool) -> Machine:
    machine = get_machine(tx, name)
    if machine is None:
        raise refusals.no_machine(name)
    if machine.state in (MachineState.ENDING, MachineState.GONE):
        return machine
    tx.execute(
        "UPDATE machines SET drain_asked_at = CASE WHEN :is_drained THEN coalesce(drain_asked_at, :now) END"
        " WHERE name = :name",
        is_drained=is_drained,
        now=tx.now,
        name=name,
    )
    tx.fire(f"machines:{machine.pool}")
    tx.fire(f"pool:{machine.pool}")
    found = get_machine(tx, name)
    assert found is not None
    return found


# -- attempts, by their owner -------------------------------------------------------------------------------------
def bind_attempt(tx: Transaction, fence: Fence, key: AttemptKey, name: str) -> bool:
    machine, binding = _own_machine(tx, fence, name), _own_binding(tx, fence, key)
    if machine is None or binding is None or binding.is_settled:
        return False
    if binding.machine == name and binding.state in (BindingState.BOUND, BindingState.TAKEN):
        return True
    is_open = binding.state is BindingState.UNBOUND and binding.stop_grace_s is None
    if not is_open or machine.free_slots < 1:
        return False
    _need_row(tx, fence, key)
    _set_binding(tx, key, BindingState.BOUND, machine=name)
    tx.fire(f"machine:{name}")
    return True


def unbind_attempt(tx: Transaction, fence: Fence, key: AttemptKey) -> bool:
    binding = _own_binding(tx, fence, key)
    if binding is None or binding.state is BindingState.UNBOUND:
        return True
    if binding.state is not BindingState.BOUND:
        return False
    _set_binding(tx, key, BindingState.UNBOUND, machine=None)
    return True


def stop_attempt(tx: Transaction, fence: Fence, key: AttemptKey, *, grace_s: float) -> None:
    binding = _own_binding(tx, fence, key)
    if binding is None:
        return
    _need_row(tx, fence, key)
    tx.execute(
        "UPDATE bindings SET stop_grace_s = coalesce(stop_grace_s, :grace_s) WHERE uid = :uid AND number = :number",
        grace_s=grace_s,
        uid=key.uid,
        number=key.number,
    )
    _tell(tx, binding)


def end_attempt(tx: Transaction, fence: Fence, key: AttemptKey, outcome: Outcome) -> Outcome | None:
    binding = _own_binding(tx, fence, key)
    if binding is None:
        return None
    if binding.state is BindingState.ENDED:
        return binding.outcome
    if binding.state is BindingState.TAKEN and not _is_fenced(tx, binding):
        return None
    _need_row(tx, fence, key)
    kept = binding.machine if binding.state is BindingState.TAKEN else None
    _set_binding(tx, key, BindingState.ENDED, machine=kept, outcome=outcome)
    return outcome


def release_attempt(tx: Transaction, fence: Fence, key: AttemptKey) -> bool:
    binding = _own_binding(tx, fence, key)
    if binding is None:
        return True
    if binding.taken_at is not None and not _is_fenced(tx, binding):
        tx.execute(
            "UPDATE bindings SET is_unwanted = 1 WHERE uid = :uid AND number = :number",
            uid=key.uid,
            number=key.number,
        )
        _tell(tx, binding)
        return False
    _delete_binding(tx, binding)
    return True


def get_binding(tx: Transaction, key: AttemptKey) -> Binding | None:
    row = tx.row(statements.BINDING, uid=key.uid, number=key.number)
    return None if row is None else rows.binding_of(row)


def list_bindings(tx: Transaction, pool: str, *, machine: str | None) -> list[Binding]:
    found = tx.rows(statements.LIST_BINDINGS, pool=pool, machine=machine, limit=statements.BINDINGS_MAX)
    return [rows.binding_of(row) for row in found]


def _own_binding(tx: Transaction, fence: Fence, key: AttemptKey) -> Binding | None:
    """Also of an attempt that nobody bound yet; None where there is no such attempt."""
    pools.need_fenced(tx, fence)
    row = tx.row(statements.BINDING, uid=key.uid, number=key.number)
    if row is not None and row["attempt_pool"] != fence.pool:
        raise refusals.not_yours(fence, key, row["attempt_pool"])
    return None if row is None else rows.binding_of(row)


def _is_fenced(tx: Transaction, binding: Binding) -> bool:
    """Whether its machine can run nothing any more, or is condemned."""
    machine = None if binding.machine is None else get_machine(tx, binding.machine)
    return machine is None or machine.fenced_at is not None or machine.state is MachineState.GONE


def _need_row(tx: Transaction, fence: Fence, key: AttemptKey) -> None:
    tx.execute(
        "INSERT INTO bindings (uid, number, pool, state) VALUES (:uid, :number, :pool, 'unbound')"
        " ON CONFLICT (uid, number) DO NOTHING",
        uid=key.uid,
        number=key.number,
        pool=fence.pool,
    )


def _set_binding(
    tx: Transaction,
    key: AttemptKey,
    state: BindingState,
    *,
    machine: str | None,
    outcome: Outcome | None = None,
) -> None:
    tx.execute(
        "UPDATE bindings SET state = :state, machine = :machine, outcome = :outcome"
        " WHERE uid = :uid AND number = :number",
        state=state.value,
        machine=machine,
        outcome=None if outcome is None else rows.to_json(outcome),
        uid=key.uid,
        number=key.number,
    )
    tx.fire(f"job:{key.uid}")


def _delete_binding(tx: Transaction, binding: Binding) -> None:
    tx.execute(
        "DELETE FROM bindings WHERE uid = :uid AND number = :number",
        uid=binding.key.uid,
        number=binding.key.number,
    )
    _tell(tx, binding)


def _tell(tx: Transaction, binding: Binding) -> None:
    tx.fire(f"job:{binding.key.uid}")
    if binding.machine is not None:
        tx.fire(f"machine:{binding.machine}")


# -- what a machine does itself -----------------------------------------------------------------------------------
def contact_machine(
    tx: Transaction, name: str, *, slots: int | None, facts: Mapping[str, str]
) -> Machine | None:
    machine = get_machine(tx, name)
    if machine is None or machine.state is MachineState.GONE:
        return machine
    tx.execute(
        "UPDATE machines SET contact_at = :now, slots = coalesce(:slots, slots), facts = :facts WHERE name = :name",
        now=tx.now,
        slots=slots,
        facts=rows.to_json({**machine.facts, **facts}),
        name=name,
    )
    if machine.state in (MachineState.INTENDED, MachineState.STARTING):
        _set_machine(tx, machine, MachineState.READY, facts)
    return get_machine(tx, name)


def take_attempt(tx: Transaction, name: str, key: AttemptKey) -> bool:
    binding, machine = get_binding(tx, key), get_machine(tx, name)
    if binding is None or machine is None or binding.machine != name or binding.is_settled:
        return False
    if binding.state is BindingState.TAKEN:
        return not binding.is_unwanted
    is_open = binding.state is BindingState.BOUND and binding.stop_grace_s is None
    if not is_open or machine.state is not MachineState.READY:
        return False
    tx.execute(
        "UPDATE bindings SET state = 'taken', taken_at = :now WHERE uid = :uid AND number = :number",
        now=tx.now,
        uid=key.uid,
        number=key.number,
    )
    tx.fire(f"job:{key.uid}")
    return True


def report_attempt(
    tx: Transaction,
    name: str,
    key: AttemptKey,
    *,
    phases: Mapping[str, float],
    outcome: Outcome | None,
    outputs: Mapping[str, str],
) -> Binding | None:
    row = tx.row(statements.BINDING, uid=key.uid, number=key.number)
    if row is None or row["machine"] != name or row["state"] not in (BindingState.TAKEN, BindingState.ENDED):
        return None
    if row["state"] == BindingState.TAKEN:
        tx.execute(
            "UPDATE bindings SET phases = :phases, outcome = :outcome, outputs = :outputs,"
            " state = CASE WHEN :outcome IS NULL THEN state ELSE 'ended' END WHERE uid = :uid AND number = :number",
            phases=rows.to_json(rows.merge_phases(rows.phases_of(row["phases"]), phases)),
            outcome=None if outcome is None else rows.to_json(outcome),
            outputs=rows.to_json({**rows.words_of(row["outputs"]), **outputs}),
            uid=key.uid,
            number=key.number,
        )
        tx.fire(f"job:{key.uid}")
    return get_binding(tx, key)


def drop_attempt(tx: Transaction, name: str, key: AttemptKey) -> None:
    row: sqlite3.Row | None = tx.row(statements.BINDING, uid=key.uid, number=key.number)
    if row is not None and row["machine"] == name and row["is_unwanted"]:
        _delete_binding(tx, rows.binding_of(row))


# -- retention ----------------------------------------------------------------------------------------------------
def delete_gone_machines(tx: Transaction, *, before: float, limit: int) -> int:
    return tx.execute(statements.DELETE_GONE_MACHINES, before=before, limit=limit)
