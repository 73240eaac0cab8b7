"""The API against its own description, with what schemathesis makes of it: no 5xx, and every answer as described.

The events are left out: their requests do not end by themselves. tests/api/test_events.py has them.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
import uvicorn
from fastapi import FastAPI
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from runyard.api.description import describe
from runyard.api.routes import ROUTERS
from tests.api.world import Service, a_document, a_service

pytestmark = pytest.mark.service

EXAMPLES = 10
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    unsupported_method,
]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The API on a port, on an event loop in a thread of its own: schemathesis calls it from outside."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    serving = _serve(tmp_path_factory.mktemp("schemathesis"))
    try:
        yield asyncio.run_coroutine_threadsafe(serving.__aenter__(), loop).result(30)
    finally:
        asyncio.run_coroutine_threadsafe(serving.__aexit__(None, None, None), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@contextlib.asynccontextmanager
async def _serve(folder: Path) -> AsyncIterator[dict[str, Any]]:
    async with a_service(folder) as service:
        sock = socket.socket(proto=socket.IPPROTO_TCP)  # else asyncio leaves Nagle on: 40 ms an answer
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        server = uvicorn.Server(uvicorn.Config(service.app, log_config=None, lifespan="off"))
        server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign]
        task = asyncio.create_task(server.serve(sockets=[sock]))
        secret = await _a_job_and_a_token(service)
        yield {
            "base_url": f"http://127.0.0.1:{sock.getsockname()[1]}",
            "headers": {"Authorization": f"Bearer {secret}"},
        }
        server.should_exit = True
        await task
        sock.close()


async def _a_job_and_a_token(service: Service) -> str:
    """A job with a log, so that not every answer is 404."""
    secret = await service.token()
    async with service.client(secret) as client:
        await client.put("/api/v1/jobs/a", json=a_document())
        claimed = await service.claim()
        service.write_log(claimed.attempt.key, b"hello\n")
    return secret


def _description() -> dict[str, Any]:
    """Needs the routes only, so it is there when the tests are collected."""
    app = FastAPI()
    for router in ROUTERS:
        app.include_router(router)
    return describe(app)


API = schemathesis.openapi.from_dict(_description()).exclude(path="/api/v1/events")


@API.parametrize()
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), deadline=None)
def test_every_answer_is_as_described_and_none_is_a_fault(case: Any, served: dict[str, Any]) -> None:
    case.headers.pop("accept", None)  # an event stream of a running job has no end
    point_at_what_is_there(case)
    query = case.query or {}
    if "wait" in query:
        query["wait"] = "10ms" if query["wait"] else query["wait"]
    response = case.call(base_url=served["base_url"], headers=served["headers"], timeout=20)
    case.validate_response(response, checks=CHECKS)


def point_at_what_is_there(case: Any) -> None:
    """Half of the reads ask for the job, queue or pool that exists: else every answer would be 404."""
    subject = case.path.split("/")[3] if case.path.count("/") > 2 else ""
    there = {"jobs": ("id", "a"), "queues": ("name", "default"), "pools": ("name", "local")}
    name, value = there.get(subject, ("", ""))
    given = (case.path_parameters or {}).get(name)
    if case.method.upper() == "GET" and isinstance(given, str) and len(given) % 2:
        case.path_parameters[name] = value
