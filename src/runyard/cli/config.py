"""`runyard config …`: reads the configuration as `serve` would, without a service."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from runyard.cli.exit_codes import DONE, FAILED
from runyard.cli.words import print_json, say

if TYPE_CHECKING:
    from runyard.config import Settings


def check(*, config: Path | None = None) -> int:
    """Check a configuration file and the RUNYARD_ variables as `serve` does, all problems at once.

    Parameters
    ----------
    config
        The file (default: where `serve` looks).
    """
    settings = _load(config)
    if settings is None or not _is_what_serve_takes(settings):
        return FAILED
    print("the configuration is valid")
    return DONE


def show(*, config: Path | None = None, json: bool = False) -> int:
    """Show the settings that hold, defaults filled in; the password in a URL is not shown.

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
        print_json(_in_force(settings))
    else:
        for name, value in _flat("", _in_force(settings)):
            print(f"{name} = {value!r}")
    return DONE


def _load(path: Path | None) -> Settings | None:
    """None after its problems were said."""
    from runyard.config import load
    from runyard.model.errors import ConfigError

    try:
        return load(path)
    except ConfigError as error:
        say(error.message)
        return None


def _is_what_serve_takes(settings: Settings) -> bool:
    """What only the composition root knows: providers, their options, the ledger's address, queues, keys."""
    from runyard.app import check_settings, settings_notes
    from runyard.model.errors import ConfigError

    try:
        check_settings(settings)
    except ConfigError as error:
        say(error.message)
        return False
    for note in settings_notes(settings):
        say(note)
    return True


def _in_force(settings: Settings) -> dict[str, Any]:
    """As `serve` acts on it: also what no file names, the ledger's address and the pool that is there by itself."""
    plain: dict[str, Any] = settings.model_dump(mode="json")
    for section in ("logs", "artifacts"):
        plain[section]["url"] = plain[section]["url"] and without_password(plain[section]["url"])
    plain["ledger"]["url"] = without_password(settings.ledger_url)
    plain["pools"] = {name: pool.model_dump(mode="json") for name, pool in settings.pools_in_force.items()}
    return plain


def without_password(url: str) -> str:
    """In the authority (`//user:password@`) and in the query (`?password=`), where libpq reads it too."""
    url = re.sub(r"(//[^/@:]*):[^/]*@", r"\1:…@", url)
    return re.sub(r"([?&](?:ssl)?password=)[^&]*", r"\1…", url)


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    """`server.listen = …`, one setting a line, in the file's own names."""
    if not isinstance(value, dict) or not value:
        return [(prefix, value)]
    return [pair for key, one in value.items() for pair in _flat(f"{prefix}.{key}" if prefix else key, one)]
