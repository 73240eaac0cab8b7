"""What /openapi.json says beyond what the framework reads off the routes: errors, bodies, the bearer token."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from runyard.wire.answers import ErrorAnswer
from runyard.wire.job_document import BatchDocument, JobDocument
from runyard.wire.requests import QueuePut, RetryPost, SecretPut, TenantPut, TokenPost

BODIES: tuple[type[BaseModel], ...] = (
    *(JobDocument, BatchDocument, QueuePut, TenantPut, TokenPost, RetryPost),
    SecretPut,
)
_ALWAYS = (401, 403, 422, 503)
_SAID_ONCE = """Runs jobs from queues, isolated, wherever there is room.

Each request carries `Authorization: Bearer ry_…`. Every refusal is `{"error": {"code", "message", "field", "cure"}}`.
"""


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """For `responses=` of a route: these, and those that every route can answer. Where a name stands in the path, it
    can end in a colon and a verb that another route has: 405."""
    verbs = (405,) if 404 in statuses else ()
    return {
        status: {"model": ErrorAnswer, "description": HTTPStatus(status).phrase}
        for status in sorted({*_ALWAYS, *statuses, *verbs})
    }


def body_of(model: type[BaseModel], *, is_required: bool = True) -> dict[str, Any]:
    """For `openapi_extra=` of a route that reads its body itself, as JSON or as YAML."""
    schema = {"$ref": f"#/components/schemas/{model.__name__}"}
    content = {"application/json": {"schema": schema}, "application/yaml": {"schema": schema}}
    return {"requestBody": {"required": is_required, "content": content}}


def bytes_answer(description: str, *others: str) -> dict[str, Any]:
    """For `responses=`: a body of bytes, or of the media types in `others`."""
    schema = {"type": "string", "format": "binary"}
    return {
        "description": description,
        "content": {kind: {"schema": schema} for kind in ("application/octet-stream", *others)},
    }


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, made once."""
    if app.openapi_schema is None:
        document = get_openapi(
            title="Runyard", version=app.version, description=_SAID_ONCE, routes=app.routes
        )
        _, definitions = models_json_schema(
            [(model, "validation") for model in BODIES], ref_template="#/components/schemas/{model}"
        )
        components = document.setdefault("components", {})
        components.setdefault("schemas", {}).update(definitions["$defs"])
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"token": []}]
        app.openapi_schema = document
    return app.openapi_schema
