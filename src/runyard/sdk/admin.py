"""The nouns that operators deal with, as groups of methods: `client.queues.pause("nightly")`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

from runyard.sdk import admin_calls
from runyard.sdk.call import Call, T

if TYPE_CHECKING:
    from runyard.wire.answers import (
        AuditPage,
        LinkAnswer,
        MachineAnswer,
        OperationAnswer,
        PoolAnswer,
        QueueAnswer,
        RotationAnswer,
        SecretAnswer,
        TenantAnswer,
        TokenAnswer,
    )


class Perform(Protocol):
    def __call__(self, call: Call[T], /) -> T: ...


class _Group:
    def __init__(self, perform: Perform) -> None:
        self._perform = perform


class Queues(_Group):
    def list(self) -> Sequence[QueueAnswer]:
        return self._perform(admin_calls.list_queues())

    def get(self, name: str) -> QueueAnswer:
        return self._perform(admin_calls.get_queue(name))

    def put(self, name: str, **settings: Any) -> QueueAnswer:
        """Sets all of it, with the keys of wire.requests.QueuePut; what is not given falls to its default."""
        return self._perform(admin_calls.put_queue(name, settings))

    def pause(self, name: str) -> QueueAnswer:
        return self._perform(admin_calls.pause_queue(name))

    def resume(self, name: str) -> QueueAnswer:
        return self._perform(admin_calls.resume_queue(name))

    def delete(self, name: str) -> None:
        self._perform(admin_calls.delete_queue(name))


class Tenants(_Group):
    def list(self) -> Sequence[TenantAnswer]:
        return self._perform(admin_calls.list_tenants())

    def get(self, name: str) -> TenantAnswer:
        return self._perform(admin_calls.get_tenant(name))

    def put(self, name: str, **settings: Any) -> TenantAnswer:
        """Sets all of it, with the keys of wire.requests.TenantPut; what is not given falls to its default."""
        return self._perform(admin_calls.put_tenant(name, settings))


class Pools(_Group):
    def list(self) -> Sequence[PoolAnswer]:
        return self._perform(admin_calls.list_pools())

    def get(self, name: str) -> PoolAnswer:
        return self._perform(admin_calls.get_pool(name))

    def pause(self, name: str) -> PoolAnswer:
        return self._perform(admin_calls.pause_pool(name))

    def resume(self, name: str) -> PoolAnswer:
        return self._perform(admin_calls.resume_pool(name))

    def check(self, name: str) -> OperationAnswer:
        """Asks the pool's owner to try its provider; `result` holds the findings."""
        return self._perform(admin_calls.check_pool(name))

    def forget(self, name: str) -> OperationAnswer:
        """The operator's word that the pool's host is dead: its unfinished attempts are lost."""
        return self._perform(admin_calls.forget_pool(name))

    def prune(self, name: str, *, is_dry_run: bool = True) -> OperationAnswer:
        """Removes what no living attempt owns; a dry run only lists it."""
        return self._perform(admin_calls.prune_pool(name, is_dry_run=is_dry_run))


class Machines(_Group):
    def list(self) -> Sequence[MachineAnswer]:
        return self._perform(admin_calls.list_machines())

    def get(self, name: str) -> MachineAnswer:
        return self._perform(admin_calls.get_machine(name))

    def drain(self, name: str) -> MachineAnswer:
        """It takes nothing new."""
        return self._perform(admin_calls.drain_machine(name))

    def undrain(self, name: str) -> MachineAnswer:
        return self._perform(admin_calls.undrain_machine(name))


class Tokens(_Group):
    def list(self) -> Sequence[TokenAnswer]:
        return self._perform(admin_calls.list_tokens())

    def create(self, name: str, **settings: Any) -> TokenAnswer:
        """With the keys of wire.requests.TokenPost. The secret is in `token`, this once."""
        return self._perform(admin_calls.create_token({"name": name, **settings}))

    def revoke(self, token_id: str) -> None:
        self._perform(admin_calls.delete_token(token_id))

    def link(self) -> LinkAnswer:
        """A path that signs a browser in to the pages, once, with this client's rights."""
        return self._perform(admin_calls.create_link())

    def audit(self, *, before: int | None = None, limit: int = 100) -> AuditPage:
        """Who changed what, newest first; `before` is the page before's `next`."""
        return self._perform(admin_calls.list_audit(before=before, limit=limit))


class Secrets(_Group):
    def list(self, *, tenant: str | None = None) -> Sequence[SecretAnswer]:
        """What they are called, for which queues, when they were used. Values are told to nobody."""
        return self._perform(admin_calls.list_secrets(tenant))

    def put(
        self,
        name: str,
        value: str | bytes,
        *,
        tenant: str | None = None,
        queues: Sequence[str] | None = None,
    ) -> SecretAnswer:
        """Makes or replaces it. `queues` None lets the jobs of every queue use it."""
        return self._perform(admin_calls.put_secret(name, value, tenant=tenant, queues=queues))

    def delete(self, name: str, *, tenant: str | None = None) -> None:
        self._perform(admin_calls.delete_secret(name, tenant=tenant))

    def rotate(self) -> RotationAnswer:
        """Seals all with the first of the service's keys. One that was interrupted goes on."""
        return self._perform(admin_calls.rotate_secrets())
