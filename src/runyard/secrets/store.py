"""Setting, listing and re-sealing secrets, and handing them to attempts. Only here is a value ever open."""

from __future__ import annotations

import asyncio
import secrets as dice
from collections.abc import Mapping
from dataclasses import dataclass, field

from runyard.ledger.port import Ledger
from runyard.model.attempt import AttemptKey
from runyard.model.audit import AuditLine
from runyard.model.errors import Denied, Invalid, NotFound, SecretsUnavailable, UserError
from runyard.model.job import Job, JobSpec
from runyard.model.secret import ATTEMPT_BYTES_MAX, SecretUse, SecretValue, StoredSecret
from runyard.secrets.sealing import MAKE_KEY, KeyRing, Place

LIST_MAX = 10_000
_BATCH = 100
_DISPATCH = "dispatch"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rotation:
    """What a rotation did: `resealed` by the first key now; how many are left under each key that is not here."""

    key_id: str
    resealed: int
    unreadable: Mapping[str, int] = field(default_factory=dict)


class SecretStore:
    """Over the ledger. `ring` None: this service has no key, and says so to whoever sets or needs a secret. `realm` is
    the ledger's (`Ledger.secret_realm`)."""

    def __init__(self, ledger: Ledger, ring: KeyRing | None, *, realm: str) -> None:
        self._ledger = ledger
        self._ring = ring
        self._realm = realm

    def is_readable(self, secret: StoredSecret) -> bool:
        """Whether its key is here."""
        return self._ring is not None and secret.key_id in self._ring.ids

    # -- by people ------------------------------------------------------------------------------------------------
    async def put(
        self, tenant: str, name: str, value: bytes, *, queues: tuple[str, ...] | None, by: str
    ) -> StoredSecret:
        """Raises SecretsUnavailable where there is no key."""
        ring = self._keys()
        version = dice.token_hex(8)
        sealed = ring.seal(value, self._place(tenant, name, version))
        now = await self._ledger.now()
        secret = StoredSecret(
            tenant=tenant,
            name=name,
            version=version,
            key_id=ring.sealing_id,
            sealed=sealed,
            queues=queues,
            created_at=now,
            changed_at=now,
            changed_by=by,
        )
        await self._ledger.put_secret(secret)
        return await self._ledger.get_secret(tenant, name) or secret

    async def list(self, tenant: str | None) -> list[StoredSecret]:
        return await self._ledger.list_secrets(tenant, limit=LIST_MAX)

    async def delete(self, tenant: str, name: str) -> None:
        """Raises NotFound."""
        if not await self._ledger.delete_secret(tenant, name):
            raise NotFound(
                f"tenant '{tenant}' has no secret {name[:100]!r}",
                field="name",
                cure="`runyard secret list` lists them",
            )

    async def rotate(self) -> Rotation:
        """Seals each secret with the first key that is not yet. Row by row, so that a crash leaves good rows and the
        next call goes on. Raises SecretsUnavailable where there is no key."""
        ring = self._keys()
        resealed = 0
        for old in await self._ledger.count_secret_keys():
            if old != ring.sealing_id and old in ring.ids:
                resealed += await self._reseal_all(ring, old)
        left = await self._ledger.count_secret_keys()
        unreadable = {key: count for key, count in left.items() if key not in ring.ids}
        return Rotation(key_id=ring.sealing_id, resealed=resealed, unreadable=unreadable)

    async def unreadable(self) -> Mapping[str, int]:
        """How many secrets are sealed by each key that is not here."""
        known = () if self._ring is None else self._ring.ids
        return {
            key: count for key, count in (await self._ledger.count_secret_keys()).items() if key not in known
        }

    async def _reseal_all(self, ring: KeyRing, old: str) -> int:
        done = 0
        while rows := await self._ledger.list_secrets_of_key(old, limit=_BATCH):
            changed = [await self._reseal(ring, row) for row in rows]
            if not any(changed):
                break  # each was changed by others meanwhile; the next rotation looks again
            done += sum(changed)
        return done

    async def _reseal(self, ring: KeyRing, row: StoredSecret) -> bool:
        place = self._place(row.tenant, row.name, row.version)
        sealed = ring.seal(ring.open(row.sealed, place, sealed_by=row.key_id), place)
        return await self._ledger.reseal_secret(row, key_id=ring.sealing_id, sealed=sealed)

    # -- for jobs -------------------------------------------------------------------------------------------------
    async def check(self, spec: JobSpec) -> None:
        """Whether a job may have what it names, as far as is known now. Raises Invalid that names the field."""
        for place, _, use in _uses(spec):
            secret = await self._ledger.get_secret(spec.tenant, use.name)
            problem = _problem(secret, use, tenant=spec.tenant, queue=spec.queue)
            if problem is not None:
                raise Invalid(f"{place}: {problem.message}", field=place, cure=problem.cure)

    async def hand_out(self, job: Job, key: AttemptKey, *, pool: str) -> tuple[SecretValue, ...]:
        """What the job's attempt gets, each noted before. Raises UserError where it may not have it,
        SecretsUnavailable where it cannot be opened here."""
        uses = list(_uses(job.spec))
        if not uses:
            return ()
        ring = self._keys()
        names = list(dict.fromkeys(use.name for _, _, use in uses))
        found = await asyncio.gather(*(self._ledger.get_secret(job.tenant, name) for name in names))
        rows = dict(zip(names, found, strict=True))
        values: list[SecretValue] = []
        for _, step, use in uses:
            row = rows[use.name]
            problem = _problem(row, use, tenant=job.tenant, queue=job.queue)
            if problem is not None or row is None:
                raise problem or NotFound(use.name)
            opened = ring.open(
                row.sealed, self._place(row.tenant, row.name, row.version), sealed_by=row.key_id
            )
            values.append(SecretValue(name=use.name, value=opened, env=use.env, path=use.path, step=step))
        _check_values(job.spec, values)
        now = await self._ledger.now()
        noted = [(row, _line(row, job, key, pool, now)) for row in rows.values() if row is not None]
        await self._ledger.note_secrets_used(noted, attempt=key.resource_name)
        return tuple(values)

    def _keys(self) -> KeyRing:
        if self._ring is None:
            raise SecretsUnavailable(
                "this service has no key for secrets",
                field="secrets.keys",
                cure=f"make one with `{MAKE_KEY}`, the same for all services on this ledger; name its file in"
                " secrets.keys and restart",
            )
        return self._ring

    def _place(self, tenant: str, name: str, version: str) -> Place:
        return Place(self._realm, tenant, name, version)


def _uses(spec: JobSpec) -> list[tuple[str, str | None, SecretUse]]:
    """Where it is written, for which step (None: all), and what."""
    of_job = [(f"secrets.{index}", None, use) for index, use in enumerate(spec.secrets)]
    of_steps = [
        (f"steps.{number}.secrets.{index}", step.name, use)
        for number, step in enumerate(spec.steps)
        for index, use in enumerate(step.secrets)
    ]
    return [*of_job, *of_steps]


def _problem(secret: StoredSecret | None, use: SecretUse, *, tenant: str, queue: str) -> UserError | None:
    if secret is None:
        return NotFound(
            f"tenant '{tenant}' has no secret '{use.name}'",
            cure=f"set it with `runyard secret set {use.name}`",
        )
    if not secret.is_for(queue):
        return Denied(
            f"secret '{use.name}' of tenant '{tenant}' is not for jobs of queue '{queue}'",
            cure="use one of its queues, or set the secret for this one too",
        )
    return None


def _check_values(spec: JobSpec, values: list[SecretValue]) -> None:
    """Raises Invalid for what no step could be started with."""
    for value in values:
        if value.env is not None and b"\0" in value.value:
            raise Invalid(
                f"secret '{value.name}' holds a NUL byte, which no variable can carry",
                cure="let the job have it as a file: {name: …, file: …}",
            )
    for step in spec.steps:
        size = sum(len(value.value) for value in values if value.is_for(step.name))
        if size > ATTEMPT_BYTES_MAX:
            raise Invalid(
                f"the secrets of step '{step.name}' are {size} bytes together, more than {ATTEMPT_BYTES_MAX}",
                cure="give each step what it needs alone",
            )


def _line(row: StoredSecret, job: Job, key: AttemptKey, pool: str, now: float) -> AuditLine:
    return AuditLine(
        at=now,
        actor=_DISPATCH,
        actor_id="",
        origin="",
        action="hand out",
        subject=f"secret {row.tenant}/{row.name}",
        details={
            "job": job.id,
            "attempt": key.resource_name,
            "queue": job.queue,
            "pool": pool,
            "submitted_by": job.submitted_by,
        },
    )
