"""`runyard registry-cache`: the pull-through cache alone, for a machine or Deployment of its own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path


def registry_cache(*, config: Path | None = None) -> int:
    """Run the registry cache of `[registry_cache]` alone, without the service, until TERM or INT.

    Parameters
    ----------
    config
        The configuration file; else where `serve` looks.
    """
    import uvloop

    from runyard.config import load
    from runyard.model.errors import OperatorError
    from runyard.registry_cache import run_alone
    from runyard.service_log import configure_log

    try:
        settings = load(config)
        configure_log(is_terminal=sys.stderr.isatty())
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_alone(settings))
    except OperatorError as error:
        print(f"runyard: {error.message}", file=sys.stderr)
        if error.cure:
            print(f"  cure: {error.cure}", file=sys.stderr)
        return 1
    return 0
