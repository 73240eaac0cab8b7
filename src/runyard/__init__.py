"""Runyard takes jobs from queues and runs each of them, isolated, wherever there is room.

Each folder here is a room with one task; who may import whom is the table in pyproject.toml.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str


def __getattr__(name: str) -> str:
    """`__version__` is the installed version, read when asked for: reading it costs a command 20 ms."""
    if name == "__version__":
        from importlib.metadata import version

        return version("runyard")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
