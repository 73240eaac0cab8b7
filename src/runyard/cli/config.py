"""`runyard config …`: reads the configuration as `serve` would, without a service."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from runyard.cli.exit_codes import DONE, FAILED
from runyard.cli.words import print_json, say


def check(*, config: Path | None = None) -> int:
    """Check a configuration file and the RUNYARD_ variables, all problems at once.

    Parameters
    ----------
    config
        The file (default: where `serve` looks).
    """
    settings = _load(config)
    if settings is None:
        return FAILED
    print("the configuration is valid")
    return DONE


def show(*, config: Path | None = None, json: bool = False) -> int:
    """Show the settings that hold, defaults filled in; secrets are not shown.

    Parameters
    ----------
    config
        The file (default: where `serve` looks).
    json
        Print JSON.
    """
    settings = _load(config)
    if settings is None:
        return FAILED
    if json:
        print_json(settings)
    else:
        for name, value in _flat("", _plain(settings)):
            print(f"{name} = {value!r}")
    return DONE


def _load(path: Path | None) -> Any:
    """None after its problems were said."""
    module = import_module("runyard.config")
    try:
        return module.load(path)
    except module.ConfigError as error:
        say(str(error))
        return None


def _plain(settings: Any) -> Any:
    return settings.model_dump(mode="json") if hasattr(settings, "model_dump") else settings


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    """`server.listen = …`, one setting a line, in the file's own names."""
    if not isinstance(value, dict) or not value:
        return [(prefix, value)]
    return [pair for key, one in value.items() for pair in _flat(f"{prefix}.{key}" if prefix else key, one)]
