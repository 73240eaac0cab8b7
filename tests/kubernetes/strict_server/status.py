"""Status objects as a 1.36 server writes them: one function for each refusal."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tests.kubernetes.strict_server.causes import Cause
from tests.kubernetes.strict_server.resources import Resource

Json = dict[str, Any]


class Refusal(Exception):
    """An answer that is not the object that was asked for."""

    def __init__(self, code: int, body: Json, headers: dict[str, str] | None = None) -> None:
        super().__init__(body.get("message", ""))
        self.code, self.body, self.headers = code, body, headers or {}


@dataclass(frozen=True)
class Named:
    """What `details` says of the object. Errors of the storage name the plural, those of validation the kind."""

    resource: Resource
    name: str = ""

    def details(self, *, by_kind: bool = False) -> Json:
        resource = self.resource
        found = {
            "name": self.name,
            "group": resource.group,
            "kind": resource.kind if by_kind else resource.plural,
        }
        return {key: value for key, value in found.items() if value}


def refusal(
    code: int,
    message: str,
    *,
    reason: str = "",
    details: Json | None = None,
    headers: dict[str, str] | None = None,
) -> Refusal:
    body: Json = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
    }
    if reason:
        body["reason"] = reason
    if details is not None:
        body["details"] = details
    return Refusal(code, {**body, "code": code}, headers)


def success(details: Json) -> Json:
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def bad_request(message: str) -> Refusal:
    return refusal(400, message, reason="BadRequest")


def unauthorized() -> Refusal:
    return refusal(401, "Unauthorized", reason="Unauthorized")


def not_found(resource: Resource, name: str) -> Refusal:
    message = f'{resource.qualified} "{name}" not found'
    return refusal(404, message, reason="NotFound", details=Named(resource, name).details())


def no_such_resource() -> Refusal:
    return refusal(404, "the server could not find the requested resource", reason="NotFound", details={})


def method_not_allowed() -> Refusal:
    message = "the server does not allow this method on the requested resource"
    return refusal(405, message, reason="MethodNotAllowed", details={})


def already_exists(resource: Resource, name: str) -> Refusal:
    message = f'{resource.qualified} "{name}" already exists'
    return refusal(409, message, reason="AlreadyExists", details=Named(resource, name).details())


def conflict(resource: Resource, name: str, why: str, *, by_kind: bool = False) -> Refusal:
    what = resource.qualified_kind if by_kind else resource.qualified
    message = f'Operation cannot be fulfilled on {what} "{name}": {why}'
    return refusal(409, message, reason="Conflict", details=Named(resource, name).details(by_kind=by_kind))


def modified(resource: Resource, name: str) -> Refusal:
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(resource, name, why)


def forbidden(resource: Resource, name: str, why: str) -> Refusal:
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    return refusal(
        403, f"{subject} is forbidden: {why}", reason="Forbidden", details=Named(resource, name).details()
    )


def invalid(qualified_kind: str, details: Json, causes: Sequence[Cause]) -> Refusal:
    """422. One cause stands by itself; several stand in brackets, without repetition."""
    said = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    words = said[0] if len(said) == 1 else f"[{', '.join(said)}]"
    message = f'{qualified_kind} "{details.get("name", "")}" is invalid: {words}'
    listed = [{"reason": cause.reason, "message": cause.message, "field": cause.field} for cause in causes]
    return refusal(422, message, reason="Invalid", details={**details, "causes": listed})


def invalid_object(resource: Resource, name: str, causes: Sequence[Cause]) -> Refusal:
    return invalid(resource.qualified_kind, Named(resource, name).details(by_kind=True), causes)


def rejected_patch() -> Refusal:
    """All that the server says of a JSON patch whose `test` fails."""
    message = "the server rejected our request due to an error in our request"
    return refusal(422, message, reason="Invalid", details={})


def unsupported_media_type() -> Refusal:
    return refusal(415, "415: Unsupported Media Type", reason="UnsupportedMediaType", details={})


def expired(message: str) -> Refusal:
    return refusal(410, message, reason="Expired")


def too_many_requests(retry_after_s: int) -> Refusal:
    return refusal(
        429,
        "the server has received too many requests and has asked us to try again later",
        reason="TooManyRequests",
        details={"retryAfterSeconds": retry_after_s},
        headers={"Retry-After": str(retry_after_s)},
    )


def too_large_resource_version(asked: int, current: int) -> Refusal:
    causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
    return refusal(
        504,
        f"Timeout: Too large resource version: {asked}, current: {current}",
        reason="Timeout",
        details={"causes": causes, "retryAfterSeconds": 1},
        headers={"Retry-After": "1"},
    )
