"""The plan of an attempt: everything the shim needs, resolved, as the one document in the attempt's directory.

Written once by the service and never changed; the shim reads nothing else of Runyard's, so that a step goes on the
same way whatever becomes of the service or its configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from runyard.host.cgroups import CgroupTree, Limits
from runyard.host.disk_watch import DiskLimits

CONTAINER, NONE = "container", "none"
NETWORK_NONE, NETWORK_OPEN, NETWORK_ALLOW = "none", "open", "allow"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanImage:
    """An unpacked image: its layers' folders from the top down; whom its steps run as, in ids of the image; how many of
    its layers were had in which way (`present`, …), to be counted."""

    layers: tuple[str, ...]
    user_id: int = 0
    group_id: int = 0
    groups: tuple[int, ...] = ()
    layer_uses: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One step: the whole environment, `directory` as the step sees it, `condition` success | failure | always;
    `image` numbers one of the plan's, None is the host's allow-list."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/workspace"
    timeout_s: float | None = None
    condition: str = "success"
    image: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanFile:
    """A file's bytes, or with `url` where they are, and their `sha256`."""

    path: str
    content_base64: str = ""
    url: str | None = None
    sha256: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchRules:
    """Whence a workspace may come: `protocols` are git's names, `file_roots` folders whose repositories may be read by
    `file`. `user_id` is who fetches (None: the attempt's own user), `ca_file` whom https is believed besides the host's
    own authorities."""

    protocols: tuple[str, ...] = ("https", "ssh")
    allow_private_addresses: bool = False
    file_roots: tuple[str, ...] = ()
    user_id: int | None = None
    ca_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCredential:
    """With what to fetch from addresses that begin with `url`. The files are read by the shim and seen by the fetch."""

    url: str
    username: str = ""
    password_file: str | None = None
    ssh_key_file: str | None = None
    known_hosts_file: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanGit:
    """A checkout. `store` is where the pool keeps repositories (None: the attempt keeps its own), `store_bytes_max` how
    much of them; what is kept there belongs to `tenant`."""

    url: str
    ref: str | None = None
    depth: int | None = None
    fetch_tags: bool = False
    sparse: tuple[str, ...] = ()
    submodules: bool = False
    lfs: bool = False
    tenant: str = ""
    store: str | None = None
    store_bytes_max: int | None = None
    credentials: tuple[PlanCredential, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCache:
    """A named cache: `path` beneath `root` (the workspace or HOME, as the job sees them). `key` and the prefixes in
    `restore` may hold `{sha256:PATTERN}`."""

    key: str
    restore: tuple[str, ...] = ()
    root: str = "/workspace"
    path: str

    @property
    def shown(self) -> str:
        return self.path if self.root == "/workspace" else f"~/{self.path}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanCaches:
    """Where caches lie, whose they are, and how much may lie there: in all (0: caches are off), and in one."""

    directory: str
    tenant: str
    queue: str
    bytes_max: int
    entry_bytes_max: int
    entries: tuple[PlanCache, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HostTree:
    """What an unstaged sandbox sees of the host: read-only binds (source, target) and links (text, path)."""

    binds: tuple[tuple[str, str], ...] = ()
    links: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanService:
    """A program beside the steps, in `image` (a number of the plan's, and no step's), with its whole environment. It is
    ready once its `ready_ports` accept and, where there is one, `ready_command` succeeds in `ready_image` (another
    number of the plan's: nothing is ever mounted into a root in which something of the job lives). `memory_bytes` and
    `cpu_millis` are of the attempt's; None: all that the attempt has."""

    name: str
    image: int
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    directory: str = "/"
    ready_ports: tuple[int, ...] = ()
    ready_command: tuple[str, ...] = ()
    ready_image: int = -1
    ready_timeout_s: float = 60.0
    memory_bytes: int | None = None
    cpu_millis: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanEgress:
    """Where a program may go. `allow` is the job's list (network `allow`), `opened` the private networks that the
    operator lets jobs reach; `nameservers` are asked for listed names, none: those of the host."""

    allow: tuple[str, ...] = ()
    opened: tuple[str, ...] = ()
    nameservers: tuple[str, ...] = ()
    nft: str = "nft"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`user_id` None: the attempt runs as the service's own user. `root_directory` None: the host's allow-list.
    `id_base` is the first host id of the slot's range, which images run in; None: there is one id only.
    `start_limit_s` counts from `created_boottime` (CLOCK_BOOTTIME of the boot `boot_id`). `has_secrets`: the shim gets
    them beside the plan, and runs nothing without them."""

    name: str
    boot_id: str
    created_at: float
    created_boottime: float
    steps: tuple[PlanStep, ...]
    log_directory: str
    artifact_directory: str
    log_bytes_max: int = 64 << 20
    isolation: str = CONTAINER
    user_id: int | None = None
    bwrap: str = "bwrap"
    root_directory: str | None = None
    images: tuple[PlanImage, ...] = ()
    id_base: int | None = None
    host_tree: HostTree = field(default_factory=HostTree)
    network: str = NETWORK_NONE
    slirp: str = "slirp4netns"
    resolv_conf: str = ""
    allow_private_addresses: bool = False
    egress: PlanEgress = field(default_factory=PlanEgress)
    cgroups: CgroupTree = field(default_factory=CgroupTree)
    limits: Limits = field(default_factory=Limits)
    disk: DiskLimits = field(default_factory=DiskLimits)
    start_limit_s: float = 600.0
    run_limit_s: float = 3600.0
    kill_grace_s: float = 10.0
    collect_limit_s: float = 300.0
    files: tuple[PlanFile, ...] = ()
    git: PlanGit | None = None
    fetch: FetchRules = field(default_factory=FetchRules)
    caches: PlanCaches | None = None
    services: tuple[PlanService, ...] = ()
    artifacts: tuple[str, ...] = ()
    artifact_bytes_max: int = 10 << 30
    outputs: Mapping[str, str] = field(default_factory=dict)
    has_secrets: bool = False

    def to_json(self) -> str:
        return json.dumps(_shallow(self), default=_shallow, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        document: dict[str, Any] = json.loads(text)
        git = document.pop("git")
        tree = document.pop("host_tree")
        caches = document.pop("caches", None)
        return cls(
            steps=tuple(_step(step) for step in document.pop("steps")),
            files=tuple(PlanFile(**file) for file in document.pop("files")),
            git=None if git is None else _git(git),
            images=tuple(_image(image) for image in document.pop("images", ())),
            fetch=_fetch_rules(document.pop("fetch")),
            egress=_egress(document.pop("egress", {})),
            caches=None if caches is None else _caches(caches),
            services=tuple(_service(each) for each in document.pop("services", ())),
            host_tree=HostTree(binds=_pairs(tree["binds"]), links=_pairs(tree["links"])),
            cgroups=CgroupTree(**document.pop("cgroups")),
            limits=Limits(**document.pop("limits")),
            disk=DiskLimits(**document.pop("disk", {})),
            artifacts=tuple(document.pop("artifacts")),
            **document,
        )


def _shallow(value: Any) -> dict[str, Any]:
    """One level of a dataclass; the encoder comes back for the next. `asdict` would copy every text in it first."""
    return {name: getattr(value, name) for name in value.__dataclass_fields__}


def _step(document: dict[str, Any]) -> PlanStep:
    return PlanStep(command=tuple(document.pop("command")), **document)


def _image(document: dict[str, Any]) -> PlanImage:
    return PlanImage(layers=tuple(document.pop("layers")), groups=tuple(document.pop("groups")), **document)


def _git(document: dict[str, Any]) -> PlanGit:
    credentials = tuple(PlanCredential(**each) for each in document.pop("credentials", ()))
    return PlanGit(sparse=tuple(document.pop("sparse", ())), credentials=credentials, **document)


def _fetch_rules(document: dict[str, Any]) -> FetchRules:
    for name in ("protocols", "file_roots"):
        document[name] = tuple(document.get(name, ()))
    return FetchRules(**document)


def _service(document: dict[str, Any]) -> PlanService:
    for name in ("command", "ready_ports", "ready_command"):
        document[name] = tuple(document[name])
    return PlanService(**document)


def _egress(document: dict[str, Any]) -> PlanEgress:
    for name in ("allow", "opened", "nameservers"):
        document[name] = tuple(document.get(name, ()))
    return PlanEgress(**document)


def _caches(document: dict[str, Any]) -> PlanCaches:
    entries = (PlanCache(restore=tuple(entry.pop("restore")), **entry) for entry in document.pop("entries"))
    return PlanCaches(entries=tuple(entries), **document)


def _pairs(rows: list[list[str]]) -> tuple[tuple[str, str], ...]:
    return tuple((first, second) for first, second in rows)
