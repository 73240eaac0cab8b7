"""The `docker` provider: attempts in containers of one daemon, which may be on this host or another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from runyard.host.egress import host_addresses
from runyard.model.attempt import AttemptKey
from runyard.model.errors import ProviderDenied, ProviderError, RunyardError, Unreachable
from runyard.model.finding import Finding
from runyard.model.outcome import Outcome
from runyard.model.pool import Availability, Budget, Demand, Supply, WaitCode, soon
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.docker import containers, names
from runyard.providers.docker.admission import admit
from runyard.providers.docker.attempt import AttemptRun, Place
from runyard.providers.docker.checks import check_daemon
from runyard.providers.docker.client import (
    DockerClient,
    Document,
    Missing,
    NameTaken,
    Refused,
    daemon_address,
)
from runyard.providers.docker.containers import Facts
from runyard.providers.docker.health import Health
from runyard.providers.docker.images import DaemonImages
from runyard.providers.docker.markers import parse_time
from runyard.providers.docker.options import parse_options
from runyard.providers.docker.parts import find_parts, stop_running
from runyard.providers.docker.pauses import Pauses
from runyard.providers.docker.tools import ToolMaker
from runyard.providers.docker.workspace import Workspaces
from runyard.providers.port import (
    AttemptRequest,
    Capabilities,
    PoolShape,
    ProviderConfig,
    Records,
    Resource,
    ResourceListing,
    RunContext,
)

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm"}
_ENDED = ("exited", "created", "dead", "removing", "stopped", "configured")

T = TypeVar("T")


class DockerProvider:
    """Owns, in the daemon, what carries its installation's and pool's labels; here, `data_directory` for workspaces."""

    def __init__(self, config: ProviderConfig) -> None:
        self._config = config
        self._pool = config.pool
        self._options = parse_options(config.pool, config.options)
        self._address = daemon_address(self._options.address)
        self._place: Place | None = None
        self._info: Document = {}
        self._health: Health | None = None
        self._chores: set[asyncio.Task[None]] = set()

    @property
    def capabilities(self) -> Capabilities:
        info = self._info
        return Capabilities(
            isolation=Isolation.CONTAINER,
            has_network_open=self._options.open_network,
            has_images=True,
            has_services=True,
            can_lose_log_lines=True,
            labels={"arch": self._architecture, "os": "linux", **self._options.host.labels},
            description=_describe(info, self._options.runtime),
        )

    @property
    def shape(self) -> PoolShape:
        info, host = self._info, self._options.host
        cores = int(info["NCPU"])
        cpu = host.cpu_millis or max(100, cores * 1000 - host.cpu_reserve_millis)
        memory = host.memory_bytes or max(128 << 20, int(info["MemTotal"]) - host.memory_reserve_bytes)
        return PoolShape(
            slots=self._config.slots or cores, budget=Budget(cpu_millis=cpu, memory_bytes=memory)
        )

    async def start(self) -> None:
        client = DockerClient(self._address, self._options.tls)
        try:
            self._info = await client.info()
            place = await asyncio.to_thread(self._make_place, client)
            user = self._options.user
            tools = await place.tools.get(f"{user}:{user}")
        except Refused as error:
            await client.close()
            raise ProviderDenied(f"pool '{self._pool}': {error.message}") from None
        except Unreachable as error:
            await client.close()
            raise Unreachable(
                f"pool '{self._pool}': the daemon at {self._address} does not answer: {error.message}",
                cure="start it, or correct the pool's `host`; jobs that run there go on",
            ) from None
        except BaseException:
            await client.close()
            raise
        self._place = place
        self._health = Health(client)
        self._chores.add(asyncio.create_task(place.pauses.prepare(self.shape.slots, tools)))

    async def close(self) -> None:
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        if self._health is not None:
            await self._health.close()
        if self._place is not None:
            await self._place.images.close()
            await self._place.workspaces.close()
            await self._place.client.close()

    async def can_dequeue(self, requirements: Requirements) -> Availability:
        answer = admit(requirements, pool=self._pool, capabilities=self.capabilities, shape=self.shape)
        wrong = _started(self._health).complaint
        if wrong and answer.room:
            return soon(WaitCode.POOL_UNHEALTHY, f"pool '{self._pool}': {wrong}")
        return answer

    async def run_job(self, attempt: AttemptRequest, context: RunContext) -> Outcome:
        place = _started(self._place)
        with self._translated():
            return await AttemptRun(place, attempt, context).run()

    async def stop_job(self, key: AttemptKey, *, grace_s: float) -> None:
        place, name = _started(self._place), key.resource_name
        with self._translated():
            parts = await self._find(name)
            begun = [part for role, part in parts.items() if role == "s0" and part.state != "created"]
            steps = [part.state for role, part in parts.items() if names.is_steps(role)]
            if begun and not {"running", "paused"} & set(steps):
                return  # it has ended
            tools = await place.tools.get(f"{self._options.user}:{self._options.user}")
            with contextlib.suppress(NameTaken):
                await place.client.create_container(
                    names.stop_mark(name), containers.mark(place.facts, name, tools, grace_s=grace_s)
                )
            await stop_running(place.client, await self._find(name), grace_s)

    async def handle_queue_size(self, demand: Demand, records: Records) -> Supply:
        slots = self.shape.slots
        return Supply(slots=slots, idle=max(0, slots - demand.starting - demand.running))

    async def check(self) -> Sequence[Finding]:
        place = _started(self._place)
        return await check_daemon(place)

    async def list_resources(self) -> ResourceListing:
        place = _started(self._place)
        labels = containers.pool_labels(place.facts)
        with self._translated():
            listed = await place.client.list_containers(labels=labels)
            volumes = await place.client.list_volumes(labels)
            networks = await place.client.list_networks(labels)
        found: dict[str, Resource] = {}
        for each in listed:
            _add(found, each.name, each.created_at, each.state not in _ENDED)
        for name, created in (*volumes, *networks):
            _add(found, name, parse_time(created), False)
        return ResourceListing(resources=tuple(found.values()), is_complete=True)

    async def destroy_resource(self, name: str) -> None:
        if AttemptKey.from_resource_name(name) is None:
            return
        place = _started(self._place)
        with self._translated():
            for part in sorted((await self._find(name)).values(), key=lambda part: part.name, reverse=True):
                await place.client.remove_container(part.name)
            for volume in (names.workspace_volume(name), names.state_volume(name)):
                await place.client.remove_volume(volume)
            await place.workspaces.destroy(name)
        place.locks.pop(name, None)

    @property
    def place(self) -> Place:
        """Valid once started."""
        return _started(self._place)

    async def remove_shared(self) -> None:
        """Removes what the pool keeps in the daemon for all attempts; it is made again on need."""
        place = self.place
        for chore in self._chores:
            chore.cancel()
        await asyncio.gather(*self._chores, return_exceptions=True)
        labels = containers.pool_labels(place.facts)
        with self._translated():
            for each in await place.client.list_containers(labels=labels):
                await place.client.remove_container(each.name)
            for network, _ in await place.client.list_networks(labels):
                await place.client.remove_network(network)
            for volume, _ in await place.client.list_volumes(labels):
                await place.client.remove_volume(volume)

    # -- inside -------------------------------------------------------------------------------------------------------

    def _make_place(self, client: DockerClient) -> Place:
        options = self._options
        drivers = (self._info.get("Plugins") or {}).get("Log") or ()
        facts = Facts(
            installation=self._config.installation,
            pool=self._pool,
            log_driver="local" if "local" in drivers else "json-file",
            pids_max=options.host.pids_max,
            runtime=options.runtime,
        )
        return Place(
            client=client,
            facts=facts,
            options=options,
            tools=ToolMaker(client, facts, options.busybox),
            pauses=Pauses(client, facts, closed=self._host_networks(), dns=options.dns),
            images=DaemonImages(client, options, self._architecture),
            workspaces=Workspaces(self._config, self._fetch_options()),
            machine=str(self._info.get("Name") or ""),
        )

    def _host_networks(self) -> Sequence[str]:
        """The service's own host is closed to `network: open` where the daemon is on it."""
        return list(host_addresses()) if self._address.startswith("unix://") else []

    def _fetch_options(self) -> Mapping[str, Any]:
        """What an embedded local pool needs to fetch workspaces as this one is told to."""
        keys = (
            "git_protocols", "git_file_roots", "git_credentials", "git_ca_file", "repository_disk_max",
            "allow_private_addresses", "disk_max", "disk_reserve", "uid_base", "kill_grace",
        )  # fmt: skip
        return {key: self._config.options[key] for key in keys if key in self._config.options}

    async def _find(self, name: str) -> dict[str, Any]:
        return dict(await find_parts(_started(self._place).client, self._config.installation, name))

    @property
    def _architecture(self) -> str:
        machine = str(self._info["Architecture"])
        return _ARCHITECTURES.get(machine, machine)

    @contextlib.contextmanager
    def _translated(self) -> Any:
        """Only errors of the port leave us; silence is noted."""
        try:
            yield
        except Unreachable as error:
            _started(self._health).note(error.message)
            raise
        except ProviderError:
            raise
        except (Missing, Refused) as error:
            raise Unreachable(f"the daemon at {self._address}: {error.message}") from None
        except RunyardError as error:
            raise Unreachable(error.message, cure=error.cure) from None


def create_provider(config: ProviderConfig) -> DockerProvider:
    """The entry point `docker`. Raises ConfigError for options that are wrong."""
    return DockerProvider(config)


def _started(value: T | None) -> T:
    assert value is not None, "start() comes first"
    return value


def _add(found: dict[str, Resource], name: str, created_at: float, is_running: bool) -> None:
    """An attempt's parts are one resource: as old as its oldest part, running while one of them is."""
    part = names.Part.parse(name)
    name, is_running = (
        (name, False) if part is None else (part.attempt, is_running)
    )  # a pause is nobody's work
    known = found.get(name)
    if known is not None:
        ages = [each for each in (known.created_at, created_at) if each]
        created_at, is_running = min(ages, default=0.0), is_running or bool(known.is_running)
    found[name] = Resource(name=name, created_at=created_at, is_running=is_running)


def _describe(info: Document, runtime: str | None) -> str:
    version = info.get("ServerVersion", "?")
    used = runtime or info.get("DefaultRuntime") or "its runtime"
    security = ", ".join(
        str(each).removeprefix("name=").partition(",")[0] for each in info.get("SecurityOptions") or ()
    )
    return (
        f"containers of a daemon (version {version}, runtime {used}; {security or 'no security options'}):"
        " no capability, no new privileges, the daemon's seccomp profile, a read-only root, a user that is not root,"
        " limits of memory, cpu and processes; a disk has no limit of its own. Steps and their time-outs go on without"
        " the service; what is beyond the bounds of the daemon's log is lost while nobody follows"
    )
