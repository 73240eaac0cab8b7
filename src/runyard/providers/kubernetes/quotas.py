"""What a namespace's ResourceQuotas leave for one more attempt. Pure; the words are for users."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from runyard.model.requirements import Requirements

_QUANTITY = re.compile(r"([+-]?\d+(?:\.\d*)?|[+-]?\.\d+)(?:[eE]([+-]?\d{1,2})|([KMGTPE]i|[numkMGTPE]))?")
_BINARY = {f"{letter}i": Fraction(1024) ** (power + 1) for power, letter in enumerate("KMGTPE")}
_DECIMAL = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    **{letter: Fraction(1000) ** (power + 1) for power, letter in enumerate("kMGTPE")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaRoom:
    """`room` is how many more attempts fit (None: no quota says anything), `words` names the quota that says so, and
    `is_never` that even an empty namespace could not take one."""

    room: int | None = None
    words: str = ""
    is_never: bool = False


def quota_room(
    quotas: Iterable[Mapping[str, Any]], requirements: Requirements, *, priority_class: str | None = None
) -> QuotaRoom:
    """The tightest of the quotas that count an attempt of ours."""
    needs, tightest = _needs(requirements), QuotaRoom()
    for name, resource, hard, used in _limits(quotas, priority_class):
        need = needs.get(resource)
        if need is None or need == 0:
            continue
        left = max(0, (hard - used) // need)
        if tightest.room is None or left < tightest.room or hard < need:
            words = (
                f"ResourceQuota '{name}' has {resource} {_text(used)} of {_text(hard)} used, "
                f"the job needs {_text(need)}"
            )
            tightest = QuotaRoom(room=int(left), words=words, is_never=hard < need)
            if tightest.is_never:
                return tightest
    return tightest


def parse_quantity(text: object) -> Fraction:
    """`2`, `500m`, `4Gi`, `1e3`: as Kubernetes writes amounts. Raises ValueError."""
    match = _QUANTITY.fullmatch(str(text).strip())
    if match is None:
        raise ValueError(f"{text!r} is no quantity of Kubernetes")
    number, exponent, suffix = match.groups()
    factor = Fraction(1)
    if exponent:
        factor = Fraction(10) ** int(exponent)
    elif suffix:
        factor = {**_BINARY, **_DECIMAL}[suffix]
    return Fraction(number.rstrip(".")) * factor


def _needs(requirements: Requirements) -> Mapping[str, Fraction]:
    """Of one attempt: a Job, its pod and its Secret."""
    cpu, memory = Fraction(requirements.cpu_millis, 1000), Fraction(requirements.memory_bytes)
    disk = Fraction(requirements.disk_bytes or 0)
    one = Fraction(1)
    return {
        "pods": one,
        "count/pods": one,
        "count/jobs.batch": one,
        "secrets": one,
        "count/secrets": one,
        "cpu": cpu,
        "requests.cpu": cpu,
        "limits.cpu": cpu,
        "memory": memory,
        "requests.memory": memory,
        "limits.memory": memory,
        "requests.ephemeral-storage": disk,
        "limits.ephemeral-storage": disk,
    }


def _limits(
    quotas: Iterable[Mapping[str, Any]], priority_class: str | None
) -> Iterator[tuple[str, str, Fraction, Fraction]]:
    for quota in quotas:
        status = quota.get("status") or {}
        if not _counts_ours(quota.get("spec") or {}, priority_class):
            continue
        used = status.get("used") or {}
        for resource, hard in (status.get("hard") or {}).items():
            try:
                yield (
                    quota["metadata"]["name"],
                    resource,
                    parse_quantity(hard),
                    parse_quantity(used.get(resource, 0)),
                )
            except ValueError:
                continue  # a resource in a form of its own: not one that we ask for


def _counts_ours(spec: Mapping[str, Any], priority_class: str | None) -> bool:
    """A quota may count some pods only. Ours have requests and no deadline of their own."""
    if not set(spec.get("scopes") or ()) <= {"NotTerminating", "NotBestEffort"}:
        return False
    for rule in (spec.get("scopeSelector") or {}).get("matchExpressions") or ():
        match rule.get("scopeName"), rule.get("operator"):
            case (("NotTerminating" | "NotBestEffort"), _):
                continue
            case "PriorityClass", "In" if priority_class in (rule.get("values") or ()):
                continue
            case "PriorityClass", "NotIn" if priority_class not in (rule.get("values") or ()):
                continue
            case "PriorityClass", "Exists" if priority_class is not None:
                continue
            case _:
                return False
    return True


def _text(amount: Fraction) -> str:
    if amount >= 1 << 20 and amount.denominator == 1:
        return f"{float(amount / (1 << 30)):g}Gi"
    return f"{float(amount):g}"
