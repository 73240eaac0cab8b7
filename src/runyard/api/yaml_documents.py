"""YAML as JSON with less punctuation: the C parser's events, and the few scalars that JSON knows.

YAML 1.2's core schema, so that `yes`, `12:30` and `2026-01-01` stay text. Anchors work; what they expand to is bounded
while it is built, so a billion laughs end at once. Tags, merge keys, two documents and keys that are no text are
refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import yaml

from runyard.api.depth import DEPTH_MAX, is_too_deep, refuse_depth
from runyard.api.errors import Malformed
from runyard.model.errors import Invalid

WEIGHT_MAX = 1_000_000
_WEIGHT_CHARACTERS = 16
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLEAN = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_STRING_TAGS = frozenset({None, "!", "tag:yaml.org,2002:str"})


def parse_yaml(text: str) -> Any:
    """The one document in `text`. Raises Malformed (no YAML), Invalid (YAML that is not taken here)."""
    try:
        value = _Builder(yaml.parse(text, Loader=_LOADER)).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise _malformed(f"{error.problem or error.context}{place}") from None
    except yaml.YAMLError as error:
        raise _malformed(str(error).splitlines()[0][:200]) from None
    if is_too_deep(value):  # aliases can stack what is not too deep by itself
        refuse_depth()
    if value is None:
        raise Malformed("the body is empty", field="body", cure="send a document")
    return value


def _malformed(detail: str) -> Malformed:
    return Malformed(
        f"the body is no YAML: {detail}", field="body", cure="check the indentation and the quotes"
    )


class _Builder:
    """Turns events into values. Each weighs one and a bit for its text, those that an alias repeats included."""

    def __init__(self, events: Any) -> None:
        self._events = events
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._weight = 0

    def document(self) -> Any:
        value = None
        documents = 0
        for event in self._events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise Invalid(
                        "the body holds several YAML documents",
                        field="body",
                        cure="send them one by one, or as {jobs: [..]} to /api/v1/jobs:batch",
                    )
                value = self._value(next(self._events), 0)
        return value

    def _value(self, event: Any, depth: int) -> Any:
        if depth > DEPTH_MAX:
            refuse_depth()
        if isinstance(event, yaml.AliasEvent):
            return self._repeated(event)
        before = self._weight
        if isinstance(event, yaml.ScalarEvent):
            self._count(1 + len(event.value) // _WEIGHT_CHARACTERS, event)
            value = _scalar(event)
        else:
            self._count(1, event)
            _check_tag(event)
            build: Callable[[int], Any] = (
                self._mapping if isinstance(event, yaml.MappingStartEvent) else self._sequence
            )
            value = build(depth)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, self._weight - before)
        return value

    def _repeated(self, event: Any) -> Any:
        """What stands at the anchor, which must be whole by now: an anchor inside itself is unknown there."""
        if event.anchor not in self._anchors:
            raise Invalid(
                f"*{event.anchor[:100]} stands for nothing that came before",
                field=_place(event),
                cure="write it out",
            )
        value, weight = self._anchors[event.anchor]
        self._count(weight, event)
        return value

    def _mapping(self, depth: int) -> dict[str, Any]:
        document: dict[str, Any] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            if not isinstance(event, yaml.ScalarEvent) or not isinstance(
                key := _scalar(event, is_key=True), str
            ):
                raise Invalid("a key is not text", field=_place(event), cure="write keys as text")
            if key == "<<":
                raise Invalid("merge keys (<<) are not read", field=_place(event), cure="write the keys out")
            if key in document:
                raise Invalid(
                    f"the key {key[:100]!r} stands there twice", field=key[:100], cure="keep one of the two"
                )
            self._count(1, event)
            document[key] = self._value(next(self._events), depth + 1)
        return document

    def _sequence(self, depth: int) -> list[Any]:
        items = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            items.append(self._value(event, depth + 1))
        return items

    def _count(self, weight: int, event: Any) -> None:
        self._weight += weight
        if self._weight > WEIGHT_MAX:
            raise Invalid(
                "the document is too large, what its aliases repeat included",
                field=_place(event),
                cure="write it without nested anchors",
            )


def _scalar(event: Any, *, is_key: bool = False) -> Any:
    """Text, unless it is plain and reads as null, a boolean or a number. A key is text whatever it reads as."""
    text: str = event.value
    if event.tag not in _STRING_TAGS:
        _check_tag(event)
    if is_key or event.tag is not None or not event.implicit[0]:
        return text
    if text in _NULL:
        return None
    if text in _BOOLEAN:
        return _BOOLEAN[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if _FLOAT.fullmatch(text):
        value = float(text)
        if not math.isfinite(value) or text.lstrip("+-").isdecimal():
            raise Invalid(
                f"the number {text[:40]} is too large", field=_place(event), cure="write text in quotes"
            )
        return value
    return text


def _check_tag(event: Any) -> None:
    if event.tag not in (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"):
        raise Invalid(
            f"the tag {str(event.tag)[:100]!r} is not read", field=_place(event), cure="leave the tag out"
        )


def _place(event: Any) -> str:
    return f"line {event.start_mark.line + 1}"
