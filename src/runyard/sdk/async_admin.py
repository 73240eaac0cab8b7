"""The nouns that operators deal with, as groups of methods, awaited: `await client.queues.pause("nightly")`."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
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


class AsyncPerform(Protocol):
    def __call__(self, call: Call[T], /) -> Awaitable[T]: ...


class _AsyncGroup:
    def __init__(self, perform: AsyncPerform) -> None:
        self._perform = perform


class AsyncQueues(_AsyncGroup):
    async def list(self) -> Sequence[QueueAnswer]:
        return await self._perform(admin_calls.list_queues())

    async def get(self, name: str) -> QueueAnswer:
        return await self._perform(admin_calls.get_queue(name))

    async def put(self, name: str, **settings: Any) -> QueueAnswer:
        """Sets all of it, with the keys of wire.requests.QueuePut; what is not given falls to its default."""
        return await self._perform(admin_calls.put_queue(name, settings))

    async def pause(self, name: str) -> QueueAnswer:
        return await self._perform(admin_calls.pause_queue(name))

    async def resume(self, name: str) -> QueueAnswer:
        return await self._perform(admin_calls.resume_queue(name))

    async def delete(self, name: str) -> None:
        await self._perform(admin_calls.delete_queue(name))


class AsyncTenants(_AsyncGroup):
    async def list(self) -> Sequence[TenantAnswer]:
        return await self._perform(admin_calls.list_tenants())

    async def get(self, name: str) -> TenantAnswer:
        return await self._perform(admin_calls.get_tenant(name))

    async def put(self, name: str, **settings: Any) -> TenantAnswer:
        """Sets all of it, with the keys of wire.requests.TenantPut; what is not given falls to its default."""
        return await self._perform(admin_calls.put_tenant(name, settings))


class AsyncPools(_AsyncGroup):
    async def list(self) -> Sequence[PoolAnswer]:
        return await self._perform(admin_calls.list_pools())

    async def get(self, name: str) -> PoolAnswer:
        return await self._perform(admin_calls.get_pool(name))

    async def pause(self, name: str) -> PoolAnswer:
        return await self._perform(admin_calls.pause_pool(name))

    async def resume(self, name: str) -> PoolAnswer:
        return await self._perform(admin_calls.resume_pool(name))

    async def check(self, name: str) -> OperationAnswer:
        """Asks the pool's owner to try its provider; `result` holds the findings."""
        return await self._perform(admin_calls.check_pool(name))

    async def forget(self, name: str) -> OperationAnswer:
        """The operator's word that the pool's host is dead: its unfinished attempts are lost."""
        return await self._perform(admin_calls.forget_pool(name))

    async def prune(self, name: str, *, is_dry_run: bool = True) -> OperationAnswer:
        """Removes what no living attempt owns; a dry run only lists it."""
        return await self._perform(admin_calls.prune_pool(name, is_dry_run=is_dry_run))


class AsyncMachines(_AsyncGroup):
    async def list(self) -> Sequence[MachineAnswer]:
        return await self._perform(admin_calls.list_machines())

    async def get(self, name: str) -> MachineAnswer:
        return await self._perform(admin_calls.get_machine(name))

    async def drain(self, name: str) -> MachineAnswer:
        """It takes nothing new."""
        return await self._perform(admin_calls.drain_machine(name))

    async def undrain(self, name: str) -> MachineAnswer:
        return await self._perform(admin_calls.undrain_machine(name))


class AsyncTokens(_AsyncGroup):
    async def list(self) -> Sequence[TokenAnswer]:
        return await self._perform(admin_calls.list_tokens())

    async def create(self, name: str, **settings: Any) -> TokenAnswer:
        """With the keys of wire.requests.TokenPost. The secret is in `token`, this once."""
        return await self._perform(admin_calls.create_token({"name": name, **settings}))

    async def revoke(self, token_id: str) -> None:
        await self._perform(admin_calls.delete_token(token_id))

    async def link(self) -> LinkAnswer:
        """A path that signs a browser in to the pages, once, with this client's rights."""
        return await self._perform(admin_calls.create_link())

    async def audit(self, *, before: int | None = None, limit: int = 100) -> AuditPage:
        """Who changed what, newest first; `before` is the page before's `next`."""
        return await self._perform(admin_calls.list_audit(before=before, limit=limit))


class AsyncSecrets(_AsyncGroup):
    async def list(self, *, tenant: str | None = None) -> Sequence[SecretAnswer]:
        """What they are called, for which queues, when they were used. Values are told to nobody."""
        return await self._perform(admin_calls.list_secrets(tenant))

    async def put(
        self,
        name: str,
        value: str | bytes,
        *,
        tenant: str | None = None,
        queues: Sequence[str] | None = None,
    ) -> SecretAnswer:
        """Makes or replaces it. `queues` None lets the jobs of every queue use it."""
        return await self._perform(admin_calls.put_secret(name, value, tenant=tenant, queues=queues))

    async def delete(self, name: str, *, tenant: str | None = None) -> None:
        await self._perform(admin_calls.delete_secret(name, tenant=tenant))

    async def rotate(self) -> RotationAnswer:
        """Seals all with the first of the service's keys. One that was interrupted goes on."""
        return await self._perform(admin_calls.rotate_secrets())
