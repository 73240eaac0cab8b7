"""LIST: selectors, revisions, pages that stay consistent, and the continue tokens that expire."""

import base64
import binascii
import json
from typing import Any

from tests.kubernetes.strict_server.exchange import Request
from tests.kubernetes.strict_server.resources import Resource
from tests.kubernetes.strict_server.selectors import Matcher, matcher
from tests.kubernetes.strict_server.status import bad_request, expired, too_large_resource_version
from tests.kubernetes.strict_server.store import Store

Json = dict[str, Any]
EXPIRED_CONTINUE = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


def matcher_of(resource: Resource, request: Request) -> Matcher:
    return matcher(resource, request.first("labelSelector"), request.first("fieldSelector"))


def list_objects(store: Store, resource: Resource, namespace: str | None, request: Request) -> Json:
    match, limit = matcher_of(resource, request), request.number("limit") or 0
    if token := request.first("continue"):
        revision, after = decode_token(token)
        if revision < store.floor:
            raise continue_expired(store, after)
        found = store.at(revision, resource, namespace)
    else:
        revision, after = asked_revision(store, request), ("", "")
        found = (
            store.select(resource, namespace)
            if revision == store.revision
            else store.at(revision, resource, namespace)
        )
    rest = [obj for obj in found if key_text(obj) > after and match(obj)]
    page = rest[:limit] if limit else rest
    metadata: Json = {"resourceVersion": str(revision)}
    if len(page) < len(rest):
        metadata["continue"] = encode_token(revision, key_text(page[-1]))
        if not request.first("labelSelector") and not request.first("fieldSelector"):
            metadata["remainingItemCount"] = len(rest) - len(page)
    # Items of a typed list carry neither kind nor apiVersion.
    items = [{key: value for key, value in obj.items() if key not in {"kind", "apiVersion"}} for obj in page]
    return {
        "kind": f"{resource.kind}List",
        "apiVersion": resource.api_version,
        "metadata": metadata,
        "items": items,
    }


def asked_revision(store: Store, request: Request) -> int:
    text = request.first("resourceVersion")
    if text and not text.isdecimal():
        raise bad_request(
            f'invalid resource version: resourceVersion: Invalid value: "{text}": strconv.ParseUint: parsing "{text}": '
            "invalid syntax"
        )
    asked = int(text or 0)
    if asked > store.revision:
        raise too_large_resource_version(asked, store.revision)
    if request.first("resourceVersionMatch") == "Exact":
        if asked < store.floor:
            raise expired("The resourceVersion for the provided list is too old.")
        return asked
    return store.revision


def key_text(obj: Json) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def encode_token(revision: int, last: tuple[str, str]) -> str:
    raw = json.dumps({"v": "meta.k8s.io/v1", "rv": revision, "start": "/".join(last) + "\0"})
    return base64.urlsafe_b64encode(raw.encode()).decode().rstrip("=")


def decode_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        found = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, _, name = str(found["start"]).rstrip("\0").rpartition("/")
        return int(found["rv"]), (namespace, name)
    except (ValueError, KeyError, TypeError, binascii.Error) as error:
        raise bad_request(f"invalid continue token: continue key is not valid: {error}") from None


def continue_expired(store: Store, after: tuple[str, str]) -> Exception:
    """410 with a token in its metadata for who would rather go on inconsistently."""
    refused = expired(EXPIRED_CONTINUE)
    refused.body["metadata"] = {"continue": encode_token(store.revision, after)}
    return refused
