"""Decodes JSON as the server's Go structs do: field names and types from lightkube's models, unknown fields noticed."""

import json
import types
import typing
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from typing import Any

from tests.kubernetes.strict_server.resources import Resource
from tests.kubernetes.strict_server.status import Refusal, bad_request

Json = dict[str, Any]
GO_TYPES = {str: "string", int: "int32", bool: "bool"}
JSON_WORDS = {str: "string", bool: "bool", int: "number", float: "number", dict: "object", list: "array"}


@cache
def fields_of(model: type) -> dict[str, Any]:
    """Name -> type of a model's fields. Python's reserved words have an underscore in front of them there."""
    return {name.rstrip("_").removeprefix("_"): hint for name, hint in typing.get_type_hints(model).items()}


@dataclass
class Decoding:
    """`unknown` are the paths that were dropped; `duplicates` the keys that stood twice."""

    resource: Resource
    unknown: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)

    def decode(self, value: Any, hint: Any, path: str, owner: str) -> Any:
        """The value without what the model does not know; raises 400 for a wrong JSON type."""
        if value is None:
            return None
        hint = without_none(hint)
        origin = typing.get_origin(hint)
        if origin is list:
            self._expect(value, list, path, owner, "[]")
            (inner,) = typing.get_args(hint)
            return [self.decode(item, inner, f"{path}[{index}]", owner) for index, item in enumerate(value)]
        if hint is dict or origin is dict:
            self._expect(value, dict, path, owner, "map[string]string")
            return value
        if hint in GO_TYPES:
            self._expect(value, hint, path, owner, GO_TYPES[hint])
            return value
        if hint in (datetime, Any, float, object) or not isinstance(hint, type) or not fields_of(hint):
            return value
        self._expect(value, dict, path, owner, f"v1.{hint.__name__}")
        return self._struct(value, hint, path)

    def _struct(self, value: Json, model: type, path: str) -> Json:
        known = fields_of(model)
        decoded: Json = {}
        for key, item in value.items():
            inner = f"{path}.{key}" if path else key
            if key not in known:
                self.unknown.append(inner)
                continue
            item = self.decode(item, known[key], inner, model.__name__)
            if item is not None:
                decoded[key] = item
        return decoded

    def _expect(self, value: Any, wanted: type, path: str, owner: str, go_type: str) -> None:
        if isinstance(value, wanted) and not (wanted is int and isinstance(value, bool)):
            return
        word = JSON_WORDS.get(type(value), "object")
        plain = ".".join(part.split("[")[0] for part in path.split("."))
        raise cannot_be_handled(
            self.resource,
            f"json: cannot unmarshal {word} into Go struct field {owner}.{plain} of type {go_type}",
        )


def without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        inner = [each for each in typing.get_args(hint) if each is not type(None)]
        return inner[0] if len(inner) == 1 else Any
    return hint


def cannot_be_handled(resource: Resource, why: str) -> Refusal:
    return bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {why}'
    )


def decode_object(resource: Resource, body: Json) -> tuple[Json, Decoding]:
    """The object as the server would hold it, and what it dropped; 400 for another kind or version."""
    kind, api_version = body.get("kind", resource.kind), body.get("apiVersion", resource.api_version)
    if api_version != resource.api_version:
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if kind != resource.kind:
        raise bad_request(
            f'{kind} in version "{resource.version}" cannot be handled as a {resource.kind}: converting '
            f"({resource.version}.{kind}) to (core.{resource.kind}): unknown conversion"
        )
    decoding = Decoding(resource)
    decoded = decoding.decode(body, resource.model, "", resource.kind)
    return {"kind": resource.kind, "apiVersion": resource.api_version, **decoded}, decoding


def parse_body(resource: Resource, raw: bytes) -> tuple[Json, list[str]]:
    """JSON and the names of its keys that stand twice."""
    twice: list[str] = []

    def pairs(found: list[tuple[str, Any]]) -> Json:
        keys = [key for key, _ in found]
        twice.extend(sorted({key for key in keys if keys.count(key) > 1}))
        return dict(found)

    try:
        body = json.loads(raw or b"{}", object_pairs_hook=pairs)
    except ValueError as error:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): couldn't get version/kind; "
            f"json parse error: {error}"
        ) from None
    if not isinstance(body, dict):
        raise cannot_be_handled(
            resource, "json: cannot unmarshal array into Go value of type map[string]interface {}"
        )
    return body, twice
