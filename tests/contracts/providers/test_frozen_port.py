"""The port is frozen: docs/providers.md lists every public name of it, with its signature, and nothing else."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from runyard.model import machine
from runyard.model.secret import SecretValue
from runyard.providers import port

PAGE = Path(__file__).parents[3] / "docs" / "providers.md"
BLOCK = re.compile(r"<!-- the surface -->\n```text\n(.*?)```", re.DOTALL)
RESERVED = {"RunContext": ("registry_credentials",), "Provider": ("exec", "attach")}


def surface_of(module: ModuleType) -> Iterator[str]:
    """One line for each public member of the module's own classes and functions, in the order of the source."""
    for name, value in vars(module).items():
        if name.startswith("_") or getattr(value, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(value):
            yield from members_of(value)
        elif inspect.isfunction(value):
            yield f"{name}{signature_of(value)}"


def members_of(kind: type) -> Iterator[str]:
    if issubclass(kind, enum.Enum):
        yield f"{kind.__name__}: {' | '.join(str(one.value) for one in kind)}"
    elif dataclasses.is_dataclass(kind):
        yield from (f"{kind.__name__}.{line_of(field)}" for field in dataclasses.fields(kind))
    for name, member in vars(kind).items():
        if name.startswith("_"):
            continue
        if isinstance(member, property):
            assert member.fget is not None
            yield f"{kind.__name__}.{name} -> {member.fget.__annotations__['return']}"
        elif inspect.isfunction(member):
            word = "async " if inspect.iscoroutinefunction(member) else ""
            yield f"{word}{kind.__name__}.{name}{signature_of(member)}"


def line_of(field: dataclasses.Field[object]) -> str:
    has_default = field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
    return f"{field.name}: {field.type}{' (has a default)' if has_default else ''}"


def signature_of(function: object) -> str:
    text = str(inspect.signature(function)).replace("'", "")  # type: ignore[arg-type]
    return text.replace("(self, ", "(").replace("(self)", "()")


def documented() -> list[str]:
    found = BLOCK.search(PAGE.read_text())
    assert found is not None, f"{PAGE.name} has lost its list of the surface"
    return found[1].splitlines()


def test_what_a_provider_may_use_is_listed_as_it_is() -> None:
    actual = [*surface_of(port), *surface_of(machine), *members_of(SecretValue)]
    missing = [line for line in actual if line not in documented()]
    stale = [line for line in documented() if line not in actual]
    assert (missing, stale) == ([], []), (
        "the port is frozen: what is there keeps its name, its signature and its meaning. An addition comes with a"
        f" default, a paragraph and its line in docs/providers.md. Not listed: {missing}; listed in vain: {stale}"
    )


def test_each_member_of_the_protocols_is_explained() -> None:
    prose = BLOCK.sub("", PAGE.read_text())
    for kind in (port.Provider, port.RunContext, port.Records, port.LogSink):
        for name in vars(kind):
            if not name.startswith("_"):
                assert re.search(rf"`(?:{kind.__name__}\.|log\.)?{name}[`(]", prose), (
                    f"{kind.__name__}.{name}"
                )


def test_what_is_reserved_is_named_and_not_there_yet() -> None:
    prose = PAGE.read_text()
    for kind, names in RESERVED.items():
        for name in names:
            assert f"`{name}`" in prose
            assert not hasattr(getattr(port, kind), name), (
                f"{name} is there: move it from the reserved to the surface"
            )
