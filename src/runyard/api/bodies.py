"""From the bytes of a request to plain values: size before parsing, one way to read JSON and YAML, nothing exotic."""

from __future__ import annotations

import asyncio
import functools
import json
import math
from collections.abc import Callable
from typing import Any, NoReturn

import anyio
import anyio.to_thread
from fastapi import Request

from runyard.api.depth import DEPTH_MAX, is_too_deep, refuse_depth
from runyard.api.errors import Malformed, TooLarge, UnsupportedMediaType
from runyard.api.yaml_documents import parse_yaml
from runyard.model.errors import Invalid

OFF_LOOP_BYTES = 64 * 1024
BODY_TIMEOUT_S = 60.0
_JSON_TYPES = frozenset({"", "application/json", "text/json"})
_UNSAID_TYPE = "application/x-www-form-urlencoded"  # what `curl -d` sends unless it is told otherwise
_YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})
INTEGER_DIGITS_MAX = 18


async def read_body(request: Request, *, bytes_max: int) -> bytes:
    """The body, refused as soon as it is known to be too large. Raises TooLarge, Malformed where it does not come."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > bytes_max:
        _refuse_size(bytes_max)
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await _read_stream(request, bytes_max)
    except TimeoutError:
        raise Malformed(
            f"the body did not arrive within {BODY_TIMEOUT_S:g} s",
            field="body",
            cure="send it without pauses",
        ) from None


async def _read_stream(request: Request, bytes_max: int) -> bytes:
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > bytes_max:
            _refuse_size(bytes_max)
        chunks.append(chunk)
    return b"".join(chunks)


def _refuse_size(bytes_max: int) -> NoReturn:
    raise TooLarge(
        f"the body is larger than {bytes_max >> 20} MiB",
        field="body",
        cure="put large files where the job can fetch them, or split the batch",
    )


async def parse_body(request: Request, body: bytes) -> Any:
    """The value in the body, by its Content-Type. Raises Malformed, Invalid, UnsupportedMediaType."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type in _JSON_TYPES or media_type.endswith("+json"):
        parse: Callable[[str], Any] = parse_json
    elif media_type in _YAML_TYPES or media_type.endswith("+yaml"):
        parse = parse_yaml
    elif media_type == _UNSAID_TYPE:
        parse = _parse_unsaid
    else:
        raise UnsupportedMediaType(
            f"Content-Type {media_type[:100]!r} is not read here",
            field="Content-Type",
            cure="send application/json or application/yaml",
        )
    return await off_loop_if_large(len(body), lambda: parse(_text_of(body)))


async def off_loop_if_large(size: int, work: Callable[[], Any]) -> Any:
    """Runs `work`, in a thread where the body it works on is large enough to hold up everyone else; one such at a
    time, since several would share the interpreter with the loop."""
    return await anyio.to_thread.run_sync(work, limiter=_large_bodies()) if size > OFF_LOOP_BYTES else work()


@functools.cache
def _large_bodies() -> anyio.CapacityLimiter:
    return anyio.CapacityLimiter(1)


def _text_of(body: bytes) -> str:
    try:
        return body.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(
            f"the body is not UTF-8: byte {error.object[error.start]:#04x} at {error.start}",
            field="body",
            cure="send UTF-8; put binary files into the document as base64",
        ) from None


def parse_json(text: str) -> Any:
    """One JSON value: no key twice, no NaN, no integer beyond 18 digits, at most DEPTH_MAX deep."""
    if not text.strip():
        raise Malformed("the body is empty", field="body", cure="send a document")
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_refuse_constant,
        )
    except json.JSONDecodeError as error:
        raise Malformed(
            f"the body is no JSON: {error.msg} at line {error.lineno}, column {error.colno}",
            field="body",
            cure="send one JSON document, or YAML with Content-Type: application/yaml",
        ) from None
    except RecursionError:
        refuse_depth()
    if text.count("[") + text.count("{") > DEPTH_MAX and is_too_deep(value):
        refuse_depth()
    return value


def _parse_unsaid(text: str) -> Any:
    """JSON whose sender named no type. No page of another site gains by it: a token is never sent by itself."""
    try:
        return parse_json(text)
    except Malformed as error:
        raise UnsupportedMediaType(
            f"Content-Type '{_UNSAID_TYPE}' is read as JSON, but {error.message}",
            field="Content-Type",
            cure="send JSON; or YAML with `-H 'Content-Type: application/yaml' --data-binary @FILE`",
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise Invalid(
            f"the key {twice[:100]!r} stands there twice", field=twice[:100], cure="keep one of the two"
        )
    return document


def _integer(text: str) -> int:
    if len(text.lstrip("-")) > INTEGER_DIGITS_MAX:
        raise Invalid(
            f"the number {text[:40]} has more than {INTEGER_DIGITS_MAX} digits",
            field="body",
            cure="write a smaller number, or text in quotes",
        )
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse_constant(text)
    return value


def _refuse_constant(text: str) -> NoReturn:
    raise Invalid(f"{text[:40]} is no number that JSON knows", field="body", cure="write a finite number")
