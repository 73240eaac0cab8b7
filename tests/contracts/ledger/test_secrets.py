"""Secrets as the ledger keeps them: sealed rows, compare-and-set re-sealing, a line for each hand-out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from runyard.model.audit import AuditLine
from runyard.model.secret import StoredSecret
from tests.contracts.ledger.world import World


def a_secret(name: str = "TOKEN", **changes: Any) -> StoredSecret:
    fields: dict[str, Any] = {
        "tenant": "acme",
        "version": "v1",
        "key_id": "k1",
        "sealed": b"\x00\xff sealed",
        "created_at": 10.0,
        "changed_at": 10.0,
        "changed_by": "admin",
    }
    return StoredSecret(name=name, **(fields | changes))


def a_line(secret: StoredSecret, at: float = 50.0) -> AuditLine:
    return AuditLine(
        at=at, actor="dispatch", actor_id="", origin="", action="hand out", subject=f"secret {secret.name}"
    )


async def test_a_secret_is_found_by_tenant_and_name(world: World):
    secret = a_secret(queues=("nightly", "ci"))
    await world.ledger.put_secret(secret)
    await world.ledger.put_secret(a_secret("OTHER"))
    await world.ledger.put_secret(a_secret(tenant="umbrella"))
    assert await world.ledger.get_secret("acme", "TOKEN") == secret
    assert await world.ledger.get_secret("acme", "NONE") is None
    assert [one.name for one in await world.ledger.list_secrets("acme", limit=10)] == ["OTHER", "TOKEN"]
    assert [one.tenant for one in await world.ledger.list_secrets(None, limit=2)] == ["acme", "acme"]


async def test_a_new_value_keeps_when_the_secret_was_made_and_used(world: World):
    await world.ledger.put_secret(a_secret())
    await world.ledger.note_secrets_used([(a_secret(), a_line(a_secret()))], attempt="runyard-x-1")
    await world.ledger.put_secret(a_secret(version="v2", sealed=b"new", created_at=99.0, changed_at=99.0))
    kept = await world.ledger.get_secret("acme", "TOKEN")
    assert kept is not None
    assert (kept.version, kept.sealed, kept.created_at, kept.changed_at) == ("v2", b"new", 10.0, 99.0)
    assert (kept.last_used_at, kept.last_used_by) == (50.0, "runyard-x-1")


async def test_each_hand_out_is_noted_with_its_line(world: World):
    secrets = [a_secret("A"), a_secret("B")]
    for secret in secrets:
        await world.ledger.put_secret(secret)
    await world.ledger.note_secrets_used([(one, a_line(one)) for one in secrets], attempt="runyard-x-1")
    lines = await world.ledger.list_audit(limit=10)
    assert [line.subject for line in lines] == ["secret B", "secret A"]
    assert [one.last_used_by for one in await world.ledger.list_secrets("acme", limit=10)] == [
        "runyard-x-1"
    ] * 2


async def test_a_secret_is_deleted_once(world: World):
    await world.ledger.put_secret(a_secret())
    assert await world.ledger.delete_secret("acme", "TOKEN")
    assert not await world.ledger.delete_secret("acme", "TOKEN")
    assert await world.ledger.get_secret("acme", "TOKEN") is None


async def test_resealing_changes_only_what_was_seen(world: World):
    seen = a_secret()
    await world.ledger.put_secret(seen)
    assert await world.ledger.reseal_secret(seen, key_id="k2", sealed=b"again")
    assert not await world.ledger.reseal_secret(seen, key_id="k3", sealed=b"late")
    kept = await world.ledger.get_secret("acme", "TOKEN")
    assert kept == replace(seen, key_id="k2", sealed=b"again")
    await world.ledger.put_secret(replace(seen, version="v2", sealed=b"new value"))
    assert not await world.ledger.reseal_secret(seen, key_id="k2", sealed=b"the old value")


async def test_secrets_are_counted_and_listed_by_their_key(world: World):
    for name, key in (("A", "k1"), ("B", "k2"), ("C", "k1")):
        await world.ledger.put_secret(a_secret(name, key_id=key))
    assert await world.ledger.count_secret_keys() == {"k1": 2, "k2": 1}
    assert [one.name for one in await world.ledger.list_secrets_of_key("k1", limit=10)] == ["A", "C"]


async def test_the_first_name_of_the_realm_stays(world: World):
    assert await world.ledger.secret_realm("one") == "one"
    assert await world.ledger.secret_realm("two") == "one"
