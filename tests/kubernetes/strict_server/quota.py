"""ResourceQuota: what is used of it, and whether one object more fits."""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from tests.kubernetes.strict_server.quantities import parse_quantity, quantity_text
from tests.kubernetes.strict_server.resources import JOBS, PODS, QUOTAS, SECRETS, Resource
from tests.kubernetes.strict_server.status import forbidden
from tests.kubernetes.strict_server.store import Store

Json = dict[str, Any]
COUNTED = {
    "pods": PODS,
    "secrets": SECRETS,
    "count/pods": PODS,
    "count/secrets": SECRETS,
    "count/jobs.batch": JOBS,
}


def charge(resource: Resource, obj: Json, hard: Iterable[str]) -> dict[str, Decimal]:
    """What the object takes of each name of a quota that concerns it."""
    charged = {name: Decimal(1) for name in hard if COUNTED.get(name) == resource}
    if resource == PODS:
        for name in hard:
            if name.startswith(("requests.", "limits.")) or name in {"cpu", "memory"}:
                charged[name] = compute_charge(obj["spec"], name)
    return charged


def compute_charge(spec: Json, name: str) -> Decimal:
    listed, _, resource = name.rpartition(".")
    containers = [
        (each.get("resources") or {}).get(listed or "requests") or {} for each in spec["containers"]
    ]
    return sum((parse_quantity(each.get(resource, 0)) for each in containers), Decimal(0))


def is_over(pod: Json) -> bool:
    """A finished pod takes nothing any more."""
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def used_of(store: Store, quota: Json) -> dict[str, Decimal]:
    hard, namespace = quota["spec"].get("hard") or {}, quota["metadata"]["namespace"]
    used = {name: Decimal(0) for name in hard}
    for resource in {PODS, *COUNTED.values()}:
        for obj in store.select(resource, namespace):
            if resource == PODS and is_over(obj):
                continue
            for name, taken in charge(resource, obj, hard).items():
                used[name] += taken
    return used


def admit(store: Store, resource: Resource, obj: Json) -> None:
    """403 in the server's words where a quota of the namespace does not bear the object."""
    name = obj["metadata"].get("name", "")
    for quota in store.select(QUOTAS, obj["metadata"].get("namespace", "")):
        hard = quota["spec"].get("hard") or {}
        charged = charge(resource, obj, hard)
        refuse_unsaid(resource, obj, quota["metadata"]["name"], list(charged))
        used = used_of(store, quota)
        over = {
            key: taken
            for key, taken in charged.items()
            if taken and used[key] + taken > parse_quantity(hard[key])
        }
        if over:
            asked = ",".join(f"{key}={quantity_text(taken)}" for key, taken in sorted(over.items()))
            had = ",".join(f"{key}={quantity_text(used[key])}" for key in sorted(over))
            limit = ",".join(f"{key}={hard[key]}" for key in sorted(over))
            where = quota["metadata"]["name"]
            raise forbidden(
                resource, name, f"exceeded quota: {where}, requested: {asked}, used: {had}, limited: {limit}"
            )


def refuse_unsaid(resource: Resource, obj: Json, quota: str, names: list[str]) -> None:
    """A quota on a computed resource asks each container to name it."""
    missing: list[str] = []
    for name in sorted(names):
        listed, _, key = name.rpartition(".")
        if name in COUNTED:
            continue
        lacking = [
            each["name"]
            for each in obj["spec"]["containers"]
            if key not in ((each.get("resources") or {}).get(listed or "requests") or {})
        ]
        if lacking:
            missing.append(f"{name} for: {','.join(lacking)}")
    if missing:
        raise forbidden(
            resource,
            obj["metadata"].get("name", ""),
            f"failed quota: {quota}: must specify {'; '.join(missing)}",
        )
