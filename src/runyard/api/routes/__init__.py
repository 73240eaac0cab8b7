"""The routes, one file per subject."""

import runyard.api.paths  # noqa: F401  what `{id:name}` means, before any route is made
from runyard.api.routes import (
    artifacts,
    audit,
    events,
    health,
    jobs,
    logs,
    machines,
    pools,
    queues,
    secrets,
    submitting,
    tenants,
    tokens,
)

ROUTERS = tuple(
    subject.router
    for subject in (
        submitting,
        jobs,
        logs,
        artifacts,
        queues,
        tenants,
        pools,
        machines,
        events,
        tokens,
        secrets,
        audit,
        health,
    )
)

__all__ = ["ROUTERS"]
