"""Every right that the provider uses, by verb: what deploy/kubernetes grants, and what a pool's check asks for."""

from __future__ import annotations

from dataclasses import dataclass

from runyard.providers.kubernetes.client import (
    EVENTS,
    JOBS,
    NODES,
    PODS,
    QUOTAS,
    RUNTIME_CLASSES,
    SECRETS,
    Kind,
)


@dataclass(frozen=True, slots=True)
class Right:
    """`why` says what does not work without it. An optional one costs an explanation, not the work."""

    verb: str
    kind: Kind
    why: str
    subresource: str = ""
    is_optional: bool = False

    @property
    def words(self) -> str:
        resource = f"{self.kind.plural}/{self.subresource}" if self.subresource else self.kind.plural
        return f"{self.verb} {resource}"


_JOBS = "attempts are Jobs"
_SECRETS = "each attempt's input and marks are a Secret"
_LOGS = "logs and artifacts come out of the pods"

RIGHTS = (
    *(Right(verb, JOBS, _JOBS) for verb in ("create", "get", "list", "watch", "patch", "delete")),
    *(Right(verb, SECRETS, _SECRETS) for verb in ("create", "get", "list", "patch", "delete")),
    *(
        Right(verb, PODS, "how an attempt does is its pod's state")
        for verb in ("get", "list", "watch", "delete")
    ),
    Right("get", PODS, _LOGS, "log"),
    Right("get", PODS, _LOGS, "exec"),
    Right("create", PODS, _LOGS, "exec"),
    Right("list", EVENTS, "why a Job has no pod is told by its events", is_optional=True),
    Right("list", QUOTAS, "a used-up quota is told before a job is taken", is_optional=True),
    Right("list", NODES, "the nodes' arch and os become the pool's labels", is_optional=True),
    Right("get", RUNTIME_CLASSES, "a runtime class that is missing is told at once", is_optional=True),
)
"""The last two are of the whole cluster, so a Role cannot grant them."""
