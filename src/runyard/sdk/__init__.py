"""The typed client: `Client` for threads, `AsyncClient` for an event loop, the same methods in both.

    from runyard.sdk import Client

    with Client() as client:
        job = client.submit({"steps": [{"run": "echo hello"}]})
        job = client.wait(job.id)

Names are imported when they are first used: a command that only prints its usage pays for none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from runyard.sdk.artifact_paths import UnsafeArtifact
    from runyard.sdk.async_client import AsyncClient
    from runyard.sdk.client import Client
    from runyard.sdk.discovery import Service, find_service
    from runyard.sdk.errors import (
        Conflict,
        Forbidden,
        Gone,
        NotConfigured,
        NotFound,
        Problem,
        Refused,
        RunyardApiError,
        ServerFault,
        TooMany,
        Unauthorized,
        Unreachable,
    )
    from runyard.sdk.following import Interruption, JobChange, LogChunk, LogEnd, LogGap
    from runyard.sdk.job_ids import choose_job_id
    from runyard.sdk.retrying import RetryPolicy

_HOME = {
    "AsyncClient": "async_client",
    "Client": "client",
    "Conflict": "errors",
    "Forbidden": "errors",
    "Gone": "errors",
    "Interruption": "following",
    "JobChange": "following",
    "LogChunk": "following",
    "LogEnd": "following",
    "LogGap": "following",
    "NotConfigured": "errors",
    "NotFound": "errors",
    "Problem": "errors",
    "Refused": "errors",
    "RetryPolicy": "retrying",
    "RunyardApiError": "errors",
    "ServerFault": "errors",
    "Service": "discovery",
    "TooMany": "errors",
    "Unauthorized": "errors",
    "Unreachable": "errors",
    "UnsafeArtifact": "artifact_paths",
    "choose_job_id": "job_ids",
    "find_service": "discovery",
}
__all__ = [
    "AsyncClient",
    "Client",
    "Conflict",
    "Forbidden",
    "Gone",
    "Interruption",
    "JobChange",
    "LogChunk",
    "LogEnd",
    "LogGap",
    "NotConfigured",
    "NotFound",
    "Problem",
    "Refused",
    "RetryPolicy",
    "RunyardApiError",
    "ServerFault",
    "Service",
    "TooMany",
    "Unauthorized",
    "Unreachable",
    "UnsafeArtifact",
    "choose_job_id",
    "find_service",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"runyard.sdk.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
