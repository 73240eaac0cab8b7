"""`runyard serve`: the service itself, in the foreground."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from runyard.config import Settings


def serve(
    *,
    config: Path | None = None,
    data: Path | None = None,
    host: str | None = None,
    port: int | None = None,
    drain: bool = False,
) -> int:
    """Run the service until TERM or INT; jobs that run go on without it.

    Parameters
    ----------
    config
        The configuration file; else the one that RUNYARD_CONFIG names, else /etc/runyard/runyard.toml if it is there.
    data
        The data folder, instead of the configured one.
    host
        The address to listen on, instead of the configured one.
    port
        The port to listen on; 0 takes any free one.
    drain
        Take nothing new, wait for what runs, then stop.
    """
    from runyard.model.errors import OperatorError, ProviderError

    try:
        settings = _settings(config, data=data, host=host, port=port)
        _run(settings, drain=drain)
    except (OperatorError, ProviderError) as error:
        print(f"runyard: {error.message}", file=sys.stderr)
        if error.cure:
            print(f"  cure: {error.cure}", file=sys.stderr)
        return 1
    return 0


def _settings(config: Path | None, *, data: Path | None, host: str | None, port: int | None) -> Settings:
    """The loaded settings with what the command line says in place."""
    from runyard.config import load

    settings = load(config)
    server = settings.server
    if host is not None or port is not None:
        shown = host if host is not None else server.host
        shown = f"[{shown}]" if ":" in shown and not shown.startswith("[") else shown
        listen = f"{shown}:{port if port is not None else server.port}"
        server = server.model_copy(update={"listen": listen})
    changes = {"server": server} | ({"data": data.absolute()} if data is not None else {})
    return settings.model_copy(update=changes)


def _run(settings: Settings, *, drain: bool) -> None:
    import uvloop

    from runyard.app import Service, handle_signals
    from runyard.service_log import configure_log

    configure_log(is_terminal=sys.stderr.isatty())
    os.umask(0o022)

    async def main() -> None:
        service = Service(settings, announce=_print_link if sys.stdout.isatty() else None)
        handle_signals(service, asyncio.get_running_loop())
        if drain:
            service.drain()
        await service.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def _print_link(address: str) -> None:
    """On the terminal alone: whoever reads it is let in."""
    print(f"the pages, once and within ten minutes: {address}", flush=True)
