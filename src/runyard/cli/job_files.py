"""Job documents out of files: YAML (one or several documents) or JSON, `-` for stdin."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runyard.cli.exit_codes import UsageError

FILE_BYTES_MAX = 256 << 20
STDIN = "stdin"
EXPANDED_CHARS_MAX = 8 << 20
"""Of one document, aliases written out: a billion laughs is refused before it is expanded; the API takes 4 MiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileJob:
    """A document and where it stands, for messages: `jobs.yaml, job 3`."""

    file: str
    index: int
    document: dict[str, Any]

    @property
    def place(self) -> str:
        return f"{self.file}, job {self.index}"


def read_job_file(name: str) -> list[FileJob]:
    """All jobs of the file, counted from 1. Raises UsageError that names the file and the place."""
    text = _read_text(name)
    name = STDIN if name == "-" else name
    jobs = []
    for index, document in enumerate(_documents(name, text), start=1):
        if not isinstance(document, dict):
            kind = type(document).__name__
            raise UsageError(f"{name}, job {index}: is {kind}, not an object with `steps`")
        jobs.append(FileJob(file=name, index=index, document=document))
    if not jobs:
        raise UsageError(f"{name}: holds no job")
    return jobs


def _read_text(name: str) -> str:
    try:
        if name == "-":
            content = sys.stdin.buffer.read(FILE_BYTES_MAX + 1)
        else:
            with Path(name).open("rb") as file:
                content = file.read(FILE_BYTES_MAX + 1)
    except OSError as error:
        raise UsageError(f"{name}: cannot be read ({error.strerror})") from None
    if len(content) > FILE_BYTES_MAX:
        raise UsageError(f"{name}: is above {FILE_BYTES_MAX >> 20} MiB; split it")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{name}: byte {error.start} is not UTF-8; save it as UTF-8") from None


def _documents(name: str, text: str) -> Iterator[Any]:
    for document in _parse(name, text):
        if isinstance(document, list):
            yield from document
        elif isinstance(document, dict) and set(document) == {"jobs"} and isinstance(document["jobs"], list):
            yield from document["jobs"]
        elif document is not None:
            yield document


def _parse(name: str, text: str) -> list[Any]:
    """JSON is tried first where it looks like it, for it is a hundred times faster."""
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [json.loads(text)]
        except RecursionError:
            raise UsageError(f"{name}: is nested too deeply") from None
        except ValueError as error:
            if name.endswith(".json"):
                raise UsageError(f"{name}: is no JSON: {error}") from None
    return _parse_yaml(name, text)


def _parse_yaml(name: str, text: str) -> list[Any]:
    import yaml

    try:
        documents = list(yaml.load_all(text, Loader=_loader()))
        for index, document in enumerate(documents, start=1):
            _check_expanded(name, index, document)
    except RecursionError:
        raise UsageError(f"{name}: is nested too deeply") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{name}: is no YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise UsageError(f"{name}: {error}") from None
    return documents


def _loader() -> Any:
    """Values as JSON has them: a date stays text, and only true and false are booleans (`on`, `no` are text)."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        pass

    unwanted = ("tag:yaml.org,2002:timestamp", "tag:yaml.org,2002:bool")
    Loader.yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in unwanted]
        for first, resolvers in Loader.yaml_implicit_resolvers.items()
    }
    Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|false)$"), list("tf"))
    return Loader


def _check_expanded(name: str, index: int, document: Any) -> None:
    """Counts without expanding: a part that is shared by aliases is measured once and counted each time."""
    sizes: dict[int, int] = {}

    def measure(value: Any) -> int:
        if not isinstance(value, dict | list):
            return len(value) if isinstance(value, str) else 8
        known = sizes.get(id(value))
        if known is None:
            sizes[id(value)] = EXPANDED_CHARS_MAX + 1  # what holds itself is endless
            parts = [*value, *value.values()] if isinstance(value, dict) else value
            known = sizes[id(value)] = 2 + sum(measure(part) for part in parts)
        return known

    whole = document if isinstance(document, list) else [document]
    for one in whole:
        if measure(one) > EXPANDED_CHARS_MAX:
            raise UsageError(
                f"{name}, document {index}: is above {EXPANDED_CHARS_MAX >> 20} MiB with its aliases written out"
            )
