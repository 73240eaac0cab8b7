"""The composition root: settings in, a running service out. The only file that knows every room."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog
import uvicorn
from fastapi import FastAPI
from pydantic import ValidationError

from runyard import registry_cache
from runyard.api.application import ApiServices, close_application, create_application
from runyard.api.links import new_link
from runyard.api.open_bounds import Bound, OpenBounds
from runyard.api.secret import hash_secret, new_secret, new_uid
from runyard.clock import SystemClock
from runyard.config import PoolSection, Settings
from runyard.dispatch.caretaker import Caretaker
from runyard.dispatch.context import AttemptContext
from runyard.dispatch.historian import Historian
from runyard.dispatch.operations import PoolOperations
from runyard.dispatch.ownership import PoolLease
from runyard.dispatch.pool_dispatcher import ContextOf, PoolDispatcher
from runyard.dispatch.progress import ProgressWatch
from runyard.dispatch.renewal import Renewal, ThreadRenewal
from runyard.dispatch.retention import Keep, Retention
from runyard.dispatch.service import Dispatcher
from runyard.dispatch.sweep import Sweep
from runyard.dispatch.telemetry import SharedTelemetry, Telemetry
from runyard.dispatch.timekeeper import Timekeeper
from runyard.installation import (
    Folders,
    data_folder_lock,
    installation_id,
    kept_text,
    prepare_data_folder,
    write_private,
)
from runyard.ledger.opening import create_ledger
from runyard.ledger.port import Claimed, Ledger
from runyard.logs.layout import attempt_directory
from runyard.metrics import render_metrics
from runyard.model.errors import ConfigError, IsolationUnavailable, RunyardError, Unreachable
from runyard.model.queue import TenantSettings
from runyard.model.token import Scope, Token, TokenKind
from runyard.pools import create_provider, pool_settings, refuse_foreign_pool, unusable_pool
from runyard.secret_keys import key_notes, key_problems, open_secrets
from runyard.secrets.store import SecretStore
from runyard.service_metrics import ServiceMetrics
from runyard.stores import Stores, open_stores, store_problems
from runyard.web.application import install_pages
from runyard.wire.job_document import JobDocument

STOP_GRACE_S = 5
KEEP_ALIVE_S = 75
CONNECTIONS_MAX = 5_000
START_AGAIN_S = 5.0

log = structlog.get_logger()

_PoolStart = Callable[[str, PoolSection], Awaitable[PoolDispatcher | None]]


class Service:
    """One control-plane process. `run` returns when it was told to stop; running attempts go on. `announce` is given
    an address that signs in once, as soon as it listens: for a terminal, never for a log."""

    def __init__(self, settings: Settings, *, announce: Callable[[str], None] | None = None) -> None:
        self._settings = settings
        self._announce = announce
        self._folders = Folders(settings.data, settings.logs.directory, settings.artifacts.directory)
        self._clock = SystemClock()
        self._stop = asyncio.Event()
        self._drain = asyncio.Event()

    def stop(self) -> None:
        self._stop.set()

    def drain(self) -> None:
        """Takes nothing new, waits for what runs, then stops."""
        self._drain.set()

    async def run(self) -> None:
        """Raises ConfigError, LedgerUnavailable and their kin before anything was started."""
        check_settings(self._settings)
        prepare_data_folder(self._folders.data)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(data_folder_lock(self._folders.data))
            ledger = create_ledger(self._settings.ledger_url, clock=self._clock)
            await ledger.open()
            stack.push_async_callback(ledger.close)
            await self._configure(ledger)
            stores = open_stores(self._settings, self._folders, ledger)
            stack.callback(stores.logs.close)
            secrets = await open_secrets(self._settings, self._folders, ledger)
            renewal = ThreadRenewal(ledger.renewer(), clock=self._clock)
            renewal.start()
            stack.push_async_callback(renewal.close)
            metrics = ServiceMetrics()
            historian = Historian(ledger=ledger, writer=new_uid())
            telemetry = SharedTelemetry([metrics, historian])
            providers = await stack.enter_async_context(contextlib.AsyncExitStack())
            start = self._pool_start(ledger, stores, secrets, renewal, telemetry, providers)
            pools, late = await self._start_pools(start, ledger)
            keep = retention_of(self._settings)
            dispatcher = Dispatcher(
                pools,
                timekeeper=Timekeeper(ledger=ledger, clock=self._clock),
                retention=Retention(keep, ledger=ledger, logs=stores.logs, artifacts=stores.artifacts),
                caretaker=Caretaker(
                    ledger=ledger,
                    owner=installation_id(self._folders.data),
                    own_pools=frozenset((*(pool.name for pool in pools), *late)),
                    lease_s=self._settings.ledger.lease,
                ),
                others=(
                    *stores.loops,
                    ("progress", ProgressWatch(ledger=ledger).run),
                    ("historian", historian.run),
                ),
            )
            cache_counters = await stack.enter_async_context(
                registry_cache.running(self._settings.registry_cache, self._folders.data)
            )
            bounds = bounds_of(self._settings)
            services = ApiServices(
                ledger=ledger,
                logs=stores.logs,
                artifacts=stores.artifacts,
                secrets=secrets,
                clock=self._clock,
                render_metrics=lambda: render_metrics(ledger, cache_counters, service=metrics, bounds=bounds),
                is_ready=dispatcher.not_ready,
                bounds=bounds,
            )
            listening = stack.enter_context(self._listen(services))
            dispatcher.start()
            stack.push_async_callback(dispatcher.stop)
            starting = asyncio.create_task(_start_late(late, start, dispatcher))
            stack.push_async_callback(_cancel, starting)
            await self._announce_link(ledger, listening)
            await self._serve(listening, dispatcher)

    async def _configure(self, ledger: Ledger) -> None:
        """Brings the ledger to what the config says, and makes the first credential."""
        for name, queue in self._settings.queues.items():
            await ledger.put_queue(queue.settings_of(name))
        for name, tenant in self._settings.tenants.items():
            await ledger.put_tenant(TenantSettings(name=name, is_configured=True, **tenant.model_dump()))
        await ensure_admin_token(ledger, self._folders.admin_token)

    async def _start_pools(
        self, start: _PoolStart, ledger: Ledger
    ) -> tuple[list[PoolDispatcher], Mapping[str, PoolSection]]:
        """Those that started, and the sections of those whose place does not answer: it may be started after us, and
        the others are of use all the same."""
        started: list[PoolDispatcher] = []
        late: dict[str, PoolSection] = {}
        for name, section in self._settings.pools_in_force.items():
            try:
                dispatcher = await start(name, section)
            except Unreachable as error:
                log.error("pool_unreachable", pool=name, error=error.message, cure=error.cure)
                late[name] = section
                if await ledger.get_pool(name) is None:
                    await ledger.put_pool(unusable_pool(name, section, error))
                continue
            if dispatcher is not None:
                started.append(dispatcher)
        return started, late

    def _pool_start(
        self,
        ledger: Ledger,
        stores: Stores,
        secrets: SecretStore,
        renewal: Renewal,
        telemetry: Telemetry,
        providers: contextlib.AsyncExitStack,
    ) -> _PoolStart:
        """What starts one pool. Its provider is closed with `providers`."""
        installation = installation_id(self._folders.data)

        async def start(name: str, section: PoolSection) -> PoolDispatcher | None:
            provider = create_provider(name, section, installation, self._folders.pool(name))
            try:
                await provider.start()
            except IsolationUnavailable as error:
                # Jobs are refused with this at submit, never run bare; the rest of the service is of use all the same.
                log.error("isolation_unavailable", pool=name, error=error.message, cure=error.cure)
                await ledger.put_pool(unusable_pool(name, section, error))
                return None
            providers.push_async_callback(provider.close)
            is_shared = self._settings.is_ledger_shared
            settings = pool_settings(
                name, section, provider, is_ledger_shared=is_shared, installation=installation
            )
            if is_shared:
                await refuse_foreign_pool(ledger, settings)
            log.info("pool_started", pool=settings.name, slots=settings.slots, isolation=settings.description)
            await ledger.put_pool(settings)
            sweep = Sweep(ledger=ledger, provider=provider, clock=self._clock, telemetry=telemetry)
            return PoolDispatcher(
                settings,
                ledger=ledger,
                provider=provider,
                owner=installation,
                clock=self._clock,
                context_of=self._context_of(ledger, stores),
                operations=PoolOperations(ledger=ledger, provider=provider, sweep=sweep),
                sweep=sweep,
                renewal=renewal,
                lease_s=self._settings.ledger.lease,
                before_settle=stores.before_settle,
                hand_out=secrets.hand_out,
                telemetry=telemetry,
            )

        return start

    def _context_of(self, ledger: Ledger, stores: Stores) -> ContextOf:
        def context_of(claimed: Claimed, lease: PoolLease) -> AttemptContext:
            key = claimed.attempt.key
            return AttemptContext(
                ledger=ledger,
                lease=lease,
                key=key,
                log_directory=attempt_directory(self._folders.logs, key.uid, key.number),
                log_bytes_max=self._settings.logs.attempt_bytes_max,
                artifact_directory=attempt_directory(self._folders.artifacts, key.uid, key.number),
                log_sink=lambda: stores.logs.sink(key),
                artifact_sink=lambda: stores.artifacts.sink(key),
            )

        return context_of

    @contextlib.contextmanager
    def _listen(self, services: ApiServices) -> Iterator[_Listening]:
        sock = bind(self._settings.server.host, self._settings.server.port)
        application = create_application(services)
        install_pages(application)
        config = uvicorn.Config(
            application,
            log_config=None,
            access_log=False,
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=STOP_GRACE_S,
            timeout_keep_alive=KEEP_ALIVE_S,
            limit_concurrency=CONNECTIONS_MAX,
        )
        listening = _Listening(application, _Server(config), sock, url_of(sock))
        try:
            yield listening
        finally:
            sock.close()
            self._folders.address.unlink(missing_ok=True)
            log.info("service_stopped", address=listening.url)

    async def _announce_link(self, ledger: Ledger, listening: _Listening) -> None:
        """With the rights of the oldest token that may do all; where every such token was revoked, none."""
        if self._announce is None:
            return
        rightful = [
            token
            for token in await ledger.list_tokens()
            if token.kind is TokenKind.TOKEN and token.scope is Scope.ADMIN and token.tenants is None
        ]
        if rightful:
            token = min(rightful, key=lambda one: one.created_at)
            self._announce(listening.url + (await new_link(ledger, token)).path)

    async def _serve(self, listening: _Listening, dispatcher: Dispatcher) -> None:
        serving = asyncio.create_task(listening.server.serve(sockets=[listening.sock]))
        write_private(self._folders.address, listening.url + "\n", mode=0o644)
        log.info("service_started", address=listening.url, data=str(self._folders.data))
        stopping = asyncio.create_task(self._stop.wait())
        draining = asyncio.create_task(self._drained(dispatcher))
        await asyncio.wait({serving, stopping, draining}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        draining.cancel()
        close_application(listening.application)
        listening.server.should_exit = True
        await serving

    async def _drained(self, dispatcher: Dispatcher) -> None:
        await self._drain.wait()
        log.info("service_draining")
        await dispatcher.drain()


async def _start_late(late: Mapping[str, PoolSection], start: _PoolStart, dispatcher: Dispatcher) -> None:
    """Until the place of each has answered."""
    waiting = dict(late)
    while waiting:
        await asyncio.sleep(START_AGAIN_S)
        for name, section in tuple(waiting.items()):
            try:
                found = await start(name, section)
            except Unreachable:
                continue
            except RunyardError as error:
                log.error("pool_not_started", pool=name, error=error.message, cure=error.cure)
                found = None
            del waiting[name]
            if found is not None:
                dispatcher.add(found)


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: stopping is the service's to decide."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@dataclass(frozen=True, slots=True)
class _Listening:
    """The HTTP side: the application, its server, the socket it listens on."""

    application: FastAPI
    server: _Server
    sock: socket.socket
    url: str


def url_of(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def handle_signals(service: Service, loop: asyncio.AbstractEventLoop) -> None:
    """TERM and INT stop the service and leave jobs running; USR1 drains it."""
    loop.add_signal_handler(signal.SIGTERM, service.stop)
    loop.add_signal_handler(signal.SIGINT, service.stop)
    loop.add_signal_handler(signal.SIGUSR1, service.drain)


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises ConfigError where the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, asyncio turns Nagle's algorithm off for what is accepted: 40 ms less for each answer.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise ConfigError(
            f"cannot listen on {host}:{port}: {error.strerror}",
            field="server.listen",
            cure="stop what listens there, or choose another port with --port",
        ) from None
    sock.listen(1024)
    return sock


async def ensure_admin_token(ledger: Ledger, file: Path) -> None:
    """At the first start makes the admin token and leaves it in `file`, readable by this user only.

    The file comes first: a crash between the two is mended by the next start, which finds it. An admin who revoked it
    later finds it gone for good, as long as any admin token is left.
    """
    if any(token.scope is Scope.ADMIN for token in await ledger.list_tokens()):
        return
    secret = kept_text(file, new_secret)
    await ledger.put_token(
        Token(
            id="admin",
            name="admin",
            secret_hash=hash_secret(secret),
            scope=Scope.ADMIN,
            tenants=None,
            created_at=await ledger.now(),
        )
    )


def check_settings(settings: Settings) -> None:
    """Everything that `serve` would refuse of the settings, without starting anything. Raises ConfigError that lists
    every problem."""
    problems = [*_queue_problems(settings), *store_problems(settings), *key_problems(settings)]
    try:
        registry_cache.cache_settings(settings.registry_cache, settings.data)
    except ConfigError as error:
        problems.append(error.message)
    try:
        create_ledger(settings.ledger_url, clock=SystemClock())
    except ConfigError as error:
        problems.append(error.message)
    for name, section in settings.pools_in_force.items():
        try:
            create_provider(name, section, "check", Folders(settings.data).pool(name))
        except ConfigError as error:
            problems.append(f"{error.message} ({error.cure})")
    if problems:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        lines = "\n  ".join(problems)
        raise ConfigError(f"the configuration has {count}:\n  {lines}", cure="correct it in the file")


def settings_notes(settings: Settings) -> Sequence[str]:
    """What `serve` takes, and somebody may have meant otherwise."""
    return key_notes(settings)


def _queue_problems(settings: Settings) -> Iterator[str]:
    """A queue's defaults must be a part of a job document."""
    smallest = {"steps": [{"run": "true"}]}
    for name, queue in settings.queues.items():
        try:
            JobDocument.model_validate({**smallest, **queue.defaults})
        except ValidationError as error:
            for problem in error.errors(include_url=False):
                key = ".".join(str(part) for part in problem["loc"])
                yield f"queues.{name}.defaults.{key}: {problem['msg']}"


def bounds_of(settings: Settings) -> OpenBounds:
    server = settings.server
    return OpenBounds(
        streams=Bound(name="streams", in_all=server.streams_max, per_token=server.streams_per_token_max),
        searches=Bound(name="searches", in_all=server.searches_max, per_token=server.searches_per_token_max),
    )


def retention_of(settings: Settings) -> Keep:
    keep = settings.retention
    return Keep(
        jobs_s=keep.jobs,
        logs_s=keep.logs,
        artifacts_s=keep.artifacts,
        logs_bytes_max=keep.logs_bytes_max,
        artifacts_bytes_max=keep.artifacts_bytes_max,
    )
