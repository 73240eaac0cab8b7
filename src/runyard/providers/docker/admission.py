"""Whether the daemon's host could ever take a class of jobs. Pure; its words are for users."""

from __future__ import annotations

from runyard.model.pool import Availability, never, now
from runyard.model.requirements import Requirements
from runyard.providers.port import Capabilities, PoolShape

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def admit(
    requirements: Requirements, *, pool: str, capabilities: Capabilities, shape: PoolShape
) -> Availability:
    """Slots and what runs now are dispatch's to count."""
    impossible = _impossible(requirements, capabilities) or _too_big(requirements, shape)
    return never(f"pool '{pool}' {impossible}") if impossible else now(shape.slots)


def _impossible(requirements: Requirements, capabilities: Capabilities) -> str:
    if requirements.isolation > capabilities.isolation:
        gives, asked = capabilities.isolation.word, requirements.isolation.word
        return f"gives isolation {gives}, the job asks for {asked}"
    labels = capabilities.labels
    arch = requirements.arch
    if arch is not None and _ARCHITECTURES.get(arch, arch) != labels["arch"]:
        return f"has arch {labels['arch']}, the job asks for {arch}"
    if requirements.os is not None and requirements.os != labels["os"]:
        return f"has os {labels['os']}, the job asks for {requirements.os}"
    missing = [f"{key}={value}" for key, value in requirements.labels.items() if labels.get(key) != value]
    if missing:
        return f"lacks the label {', '.join(missing)}"
    if requirements.network == "open" and not capabilities.has_network_open:
        return "gives no network open (its operator can allow it with `open_network = true`)"
    if requirements.needs_services and not capabilities.has_services:
        return "runs no services beside a job (a local pool does)"
    if requirements.network == "allow":
        return "cannot keep a job to network.allow (a local pool can)"
    if requirements.network not in ("none", "open"):
        return f"cannot give network {requirements.network!r}"
    return ""


def _too_big(requirements: Requirements, shape: PoolShape) -> str:
    budget = shape.budget
    if requirements.cpu_millis > budget.cpu_millis:
        return f"has {budget.cpu_millis / 1000:g} cpu in all, the job asks for {requirements.cpu_millis / 1000:g}"
    if requirements.memory_bytes > budget.memory_bytes:
        has, asked = budget.memory_bytes / (1 << 30), requirements.memory_bytes / (1 << 30)
        return f"has {has:.1f}Gi of memory in all, the job asks for {asked:.1f}Gi"
    return ""
