"""Which keys a route's query may hold. An unknown one is refused: a filter with a typo would filter nothing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from fastapi import Request
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute

from runyard.model.errors import Invalid


def refuse_unknown_keys(request: Request) -> None:
    """Raises Invalid naming the key."""
    route = request.scope.get("route")
    if not request.scope["query_string"] or not isinstance(route, APIRoute):
        return
    known = sorted(set(_keys_of(route.dependant)))
    unknown = next((key for key in request.query_params if key not in known), None)
    if unknown is None:
        return
    near = difflib.get_close_matches(unknown[:50], known, n=1)
    all_known = f"it may hold {', '.join(known)}" if known else "leave it out: this takes none"
    raise Invalid(
        f"{unknown[:100]}: there is no such key in the query of {request.method} {route.path_format}",
        field=unknown[:100],
        cure=f"did you mean {near[0]!r}?" if near else all_known,
    )


def _keys_of(dependant: Dependant) -> Iterator[str]:
    """Of the route itself, and of what it depends on: `tenant` is read by the guard."""
    for field in dependant.query_params:
        yield field.alias
    for part in dependant.dependencies:
        yield from _keys_of(part)
