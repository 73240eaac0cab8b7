"""The store of secrets over a real ledger: setting, handing out, sealing anew."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from runyard.clock import SystemClock
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.errors import Denied, Invalid, NotFound, SecretsUnavailable
from runyard.model.job import Job, JobSpec, JobState, Step
from runyard.model.secret import SecretUse
from runyard.secrets.sealing import KeyRing, key_id
from runyard.secrets.store import SecretStore

OLD, NEW = b"o" * 32, b"n" * 32
KEY = AttemptKey("0123456789abcdef", 2)


@pytest.fixture
async def ledger() -> AsyncIterator[Ledger]:
    ledger = create_ledger("sqlite://:memory:", clock=SystemClock())
    await ledger.open()
    yield ledger
    await ledger.close()


@pytest.fixture
def store(ledger: Ledger) -> SecretStore:
    return SecretStore(ledger, KeyRing([OLD]), realm="r")


def a_job(*uses: SecretUse, queue: str = "default", **fields: Any) -> Job:
    spec = JobSpec(
        steps=(Step(name="main", command=("true",)),), tenant="acme", queue=queue, secrets=uses, **fields
    )
    return Job(
        uid=KEY.uid,
        id="build",
        spec=spec,
        spec_hash="h",
        state=JobState.STARTING,
        submitted_at=1.0,
        queued_at=1.0,
        submitted_by="ci",
    )


async def put(store: SecretStore, name: str, value: bytes = b"hunter2", **fields: Any) -> None:
    await store.put("acme", name, value, queues=fields.pop("queues", None), by="admin")


async def test_an_attempt_gets_what_its_job_names_and_it_is_written_down(ledger: Ledger, store: SecretStore):
    await put(store, "A", b"value-a")
    await put(store, "B", b"value-b")
    job = a_job(SecretUse(name="A", env="A"), SecretUse(name="B", path="b"), SecretUse(name="A", env="AGAIN"))
    values = await store.hand_out(job, KEY, pool="local")
    assert [(one.name, one.env, one.path, one.value) for one in values] == [
        ("A", "A", None, b"value-a"),
        ("B", None, "b", b"value-b"),
        ("A", "AGAIN", None, b"value-a"),
    ]
    lines = await ledger.list_audit(limit=10)
    assert {line.subject for line in lines} == {"secret acme/A", "secret acme/B"}
    assert lines[0].details == {
        "job": "build",
        "attempt": KEY.resource_name,
        "queue": "default",
        "pool": "local",
        "submitted_by": "ci",
    }
    assert {one.last_used_by for one in await store.list("acme")} == {KEY.resource_name}
    assert "value-a" not in repr(values) + repr(lines)


async def test_a_step_of_its_own_gets_its_secret_alone(store: SecretStore):
    await put(store, "A")
    steps = (
        Step(name="one", command=("true",)),
        Step(name="two", command=("true",), secrets=(SecretUse(name="A", env="A"),)),
    )
    job = a_job()
    job = Job(
        **{
            **{name: getattr(job, name) for name in job.__slots__},
            "spec": JobSpec(steps=steps, tenant="acme"),
        }
    )
    [value] = await store.hand_out(job, KEY, pool="local")
    assert (value.is_for("one"), value.is_for("two")) == (False, True)


async def test_what_is_missing_or_for_other_queues_is_refused_and_nothing_is_written_down(
    ledger: Ledger, store: SecretStore
):
    await put(store, "NIGHTLY", queues=("nightly",))
    with pytest.raises(NotFound, match="no secret 'GONE'"):
        await store.hand_out(a_job(SecretUse(name="GONE", env="X")), KEY, pool="local")
    with pytest.raises(Denied, match="queue 'default'"):
        await store.hand_out(a_job(SecretUse(name="NIGHTLY", env="X")), KEY, pool="local")
    assert await ledger.list_audit(limit=10) == []
    assert await store.hand_out(a_job(SecretUse(name="NIGHTLY", env="X"), queue="nightly"), KEY, pool="local")


async def test_a_nul_does_not_fit_into_a_variable_and_does_into_a_file(store: SecretStore):
    await put(store, "A", b"nul\0nul")
    with pytest.raises(Invalid, match="NUL"):
        await store.hand_out(a_job(SecretUse(name="A", env="A")), KEY, pool="local")
    assert await store.hand_out(a_job(SecretUse(name="A", path="a")), KEY, pool="local")


async def test_what_no_step_could_be_started_with_is_refused(store: SecretStore):
    for number in range(9):
        await put(store, f"A{number}", b"x" * 65536)
    uses = [SecretUse(name=f"A{number}", env=f"A{number}") for number in range(9)]
    assert len(await store.hand_out(a_job(*uses[:8]), KEY, pool="local")) == 8
    with pytest.raises(Invalid, match="more than"):
        await store.hand_out(a_job(*uses), KEY, pool="local")


async def test_a_service_without_a_key_says_so_and_gives_the_cure(ledger: Ledger, store: SecretStore):
    await put(store, "A")
    keyless = SecretStore(ledger, None, realm="r")
    for asking in (
        keyless.put("acme", "B", b"hunter2", queues=None, by="x"),
        keyless.rotate(),
        keyless.hand_out(a_job(SecretUse(name="A", env="A")), KEY, pool="local"),
    ):
        with pytest.raises(SecretsUnavailable) as error:
            await asking
        assert "secrets.keys" in (error.value.cure or "")
    assert await keyless.unreadable() == {key_id(OLD): 1}


async def test_a_rotation_seals_all_with_the_new_key_and_the_old_one_may_go(
    ledger: Ledger, store: SecretStore
):
    for number in range(250):
        await put(store, f"A{number}", b"value %d" % number)
    done = await SecretStore(ledger, KeyRing([NEW, OLD]), realm="r").rotate()
    assert (done.resealed, done.unreadable, done.key_id) == (250, {}, key_id(NEW))
    alone = SecretStore(ledger, KeyRing([NEW]), realm="r")
    [value] = await alone.hand_out(a_job(SecretUse(name="A249", env="A")), KEY, pool="local")
    assert value.value == b"value 249"
    assert (await alone.rotate()).resealed == 0


async def test_a_rotation_that_died_half_way_left_good_rows_and_goes_on(ledger: Ledger, store: SecretStore):
    for name in ("A", "B", "C"):
        await put(store, name, name.encode() * 8)
    both = KeyRing([NEW, OLD])

    class Dying:
        """The ledger of a service that is killed after its first row."""

        def __init__(self) -> None:
            self.left = 1

        def __getattr__(self, name: str) -> Any:
            return getattr(ledger, name)

        async def reseal_secret(self, *args: Any, **options: Any) -> bool:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return await ledger.reseal_secret(*args, **options)

    with pytest.raises(KeyboardInterrupt):
        await SecretStore(Dying(), both, realm="r").rotate()  # type: ignore[arg-type]
    assert await ledger.count_secret_keys() == {key_id(NEW): 1, key_id(OLD): 2}
    again = SecretStore(ledger, both, realm="r")
    uses = [SecretUse(name=name, env=name) for name in ("A", "B", "C")]
    assert len(await again.hand_out(a_job(*uses), KEY, pool="local")) == 3
    assert (await again.rotate()).resealed == 2


async def test_a_rotation_tells_of_keys_that_are_not_there_and_leaves_their_rows(
    ledger: Ledger, store: SecretStore
):
    await put(store, "A")
    done = await SecretStore(ledger, KeyRing([NEW]), realm="r").rotate()
    assert (done.resealed, done.unreadable) == (0, {key_id(OLD): 1})
    assert len(await store.hand_out(a_job(SecretUse(name="A", env="A")), KEY, pool="local")) == 1


async def test_a_row_copied_to_another_name_does_not_open(ledger: Ledger, store: SecretStore):
    """Whoever can write the ledger cannot let a job of one tenant have the secret of another."""
    await put(store, "A")
    row = await ledger.get_secret("acme", "A")
    assert row is not None
    await ledger.put_secret(replace(row, name="B"))
    with pytest.raises(SecretsUnavailable, match="'B'"):
        await store.hand_out(a_job(SecretUse(name="B", env="B")), KEY, pool="local")
