"""What this host has, and whether it could take a class of jobs. `admit` is pure; its words are for users."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from runyard.model.pool import Availability, Budget, WaitCode, never, now, soon
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.local.options import LocalOptions
from runyard.providers.port import Capabilities, PoolShape

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostSupply:
    """Cores that we may run on, and the budget for attempts. `disk_bytes_total` is that of the data folder's disk."""

    cores: int
    budget: Budget
    disk_bytes_total: int


def measure_supply(options: LocalOptions, folder: Path) -> HostSupply:
    cores = len(os.sched_getaffinity(0))
    cpu = options.cpu_millis or max(100, cores * 1000 - options.cpu_reserve_millis)
    memory = options.memory_bytes or max(128 << 20, _host_memory() - options.memory_reserve_bytes)
    return HostSupply(
        cores=cores,
        budget=Budget(cpu_millis=cpu, memory_bytes=memory),
        disk_bytes_total=shutil.disk_usage(folder).total,
    )


def host_labels() -> dict[str, str]:
    """`arch` and `os` by the names that jobs use."""
    machine = platform.machine()
    return {"arch": _ARCHITECTURES.get(machine, machine), "os": "linux"}


def admit(
    requirements: Requirements,
    *,
    pool: str,
    capabilities: Capabilities,
    shape: PoolShape,
    supply: HostSupply,
    options: LocalOptions,
    disk_free_bytes: int,
) -> Availability:
    """Slots and what runs now are dispatch's to count: this is about what the host could ever, or just now not, do."""
    impossible = _impossible(requirements, capabilities, shape.budget) or _too_big(
        requirements, supply, options
    )
    if impossible:
        return never(f"pool '{pool}' {impossible}")
    wanted = options.disk_reserve_bytes + (requirements.disk_bytes or 0)
    if disk_free_bytes < wanted:
        free, need = _size(disk_free_bytes), _size(wanted)
        return soon(WaitCode.POOL_FULL, f"pool '{pool}': its disk has {free} free, {need} are needed")
    return now(shape.slots)


def _impossible(requirements: Requirements, capabilities: Capabilities, budget: Budget) -> str:
    if requirements.isolation > capabilities.isolation:
        gives, asked = capabilities.isolation.word, requirements.isolation.word
        return f"gives isolation {gives}, the job asks for {asked}"
    labels = capabilities.labels
    if requirements.arch is not None and not _is_same_arch(requirements.arch, labels["arch"]):
        return f"has arch {labels['arch']}, the job asks for {requirements.arch}"
    if requirements.os is not None and requirements.os != labels["os"]:
        return f"has os {labels['os']}, the job asks for {requirements.os}"
    missing = _missing_labels(requirements.labels, labels)
    if missing:
        return f"lacks the label {missing}"
    if requirements.needs_images and not capabilities.has_images:
        return "cannot run a step in an image (see runyard doctor)"
    if requirements.needs_services and not capabilities.has_services:
        return (
            "cannot run services beside a job (the service must run as root, with images; see runyard doctor)"
        )
    if requirements.network == "open" and not capabilities.has_network_open:
        return "cannot give network open (slirp4netns and /dev/net/tun are needed; see runyard doctor)"
    if requirements.network == "none" and capabilities.isolation is Isolation.NONE:
        return ""  # nothing is kept apart there, and the job accepted that
    if requirements.network == "allow" and not capabilities.has_network_allow:
        return (
            "cannot keep a job to network.allow (a sandbox, root, slirp4netns, /dev/net/tun and nft are needed; see"
            " runyard doctor)"
        )
    if requirements.network not in ("none", "open", "allow"):
        return f"cannot give network {requirements.network!r}"
    if requirements.cpu_millis > budget.cpu_millis:
        return f"has {budget.cpu_millis / 1000:g} cpu in all, the job asks for {requirements.cpu_millis / 1000:g}"
    return ""


def _too_big(requirements: Requirements, supply: HostSupply, options: LocalOptions) -> str:
    if requirements.memory_bytes > supply.budget.memory_bytes:
        has, asked = _size(supply.budget.memory_bytes), _size(requirements.memory_bytes)
        return f"has {has} of memory in all, the job asks for {asked}"
    usable = supply.disk_bytes_total - options.disk_reserve_bytes
    if (requirements.disk_bytes or 0) > usable:
        return f"has a disk of {_size(usable)}, the job asks for {_size(requirements.disk_bytes or 0)}"
    return ""


def _is_same_arch(asked: str, ours: str) -> bool:
    return _ARCHITECTURES.get(asked, asked) == ours


def _missing_labels(asked: Mapping[str, str], ours: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in asked.items() if ours.get(key) != value)


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f}Gi"


def _host_memory() -> int:
    """The machine's memory, or what our container leaves of it."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for path in _MEMORY_LIMITS:
        try:
            text = Path(path).read_text().strip()
        except OSError:
            continue
        if text.isdecimal():
            total = min(total, int(text))
    return total
