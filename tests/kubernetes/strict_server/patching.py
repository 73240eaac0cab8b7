"""Merge patch (RFC 7396) and JSON patch (RFC 6902), with the ways of the server's own library."""

import copy
import json
from typing import Any

from tests.kubernetes.strict_server.status import bad_request, rejected_patch, unsupported_media_type

Json = dict[str, Any]


def apply_patch(media_type: str, raw: bytes, target: Json) -> Json:
    try:
        patch = json.loads(raw)
    except ValueError as error:
        raise bad_request(f"error decoding patch: {error}") from None
    match media_type.split(";", maxsplit=1)[0].strip():
        case "application/merge-patch+json":
            return dict(merged(target, patch))
        case "application/strategic-merge-patch+json":
            # Maps merge as in a merge patch. Lists merge by keys, which nobody here needs: fail loudly, not wrongly.
            assert not holds_list(patch), "the strict server does not merge lists strategically"
            return dict(merged(target, patch))
        case "application/json-patch+json":
            return json_patched(target, patch)
        case _:
            raise unsupported_media_type()


def holds_list(patch: Any) -> bool:
    return isinstance(patch, list) or (isinstance(patch, dict) and any(map(holds_list, patch.values())))


def merged(target: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def json_patched(target: Json, operations: Any) -> Json:
    if not isinstance(operations, list):
        raise bad_request(
            "error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch"
        )
    result = copy.deepcopy(target)
    for operation in operations:
        try:
            step(result, operation)
        except (KeyError, IndexError, ValueError, TypeError):
            raise rejected_patch() from None
    return result


def step(root: Json, operation: Json) -> None:
    holder, key = resolve(root, operation["path"])
    match operation["op"]:
        case "test":
            found = holder[key]
            if found != operation["value"]:
                raise ValueError("test failed")
        case "remove":
            del holder[key]
        case "add" if isinstance(holder, list):
            holder.insert(len(holder) if key == "-" else key, operation["value"])
        # evanphx/json-patch adds where there was nothing to replace.
        case "add" | "replace":
            holder[key] = operation["value"]
        case other:
            raise ValueError(other)


def resolve(root: Any, pointer: str) -> tuple[Any, Any]:
    """The holder and the key of a JSON pointer (RFC 6901) that has at least one part."""
    parts = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]
    for part in parts[:-1]:
        root = root[int(part)] if isinstance(root, list) else root[part]
    last = parts[-1]
    if isinstance(root, list) and last != "-":
        return root, int(last)
    return root, last
