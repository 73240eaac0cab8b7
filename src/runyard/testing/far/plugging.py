"""How a real service gets the far provider: an entry point in a folder on its PYTHONPATH; and the place to run it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runyard.testing.far.fuse import Fuse

START_TIMEOUT_S = 20.0
NAME = "far"
_ENTRY_POINT = "[runyard.providers]\nfar = runyard.testing.far.provider:create_provider\n"
_METADATA = "Metadata-Version: 2.1\nName: runyard-far-place\nVersion: 1\n"


class FarPlace:
    """The place's process, and all in one folder: socket, fuse, entry point."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket = folder / "place.sock"
        self._process: subprocess.Popen[bytes] | None = None
        self.fuse = Fuse(folder / "fuse")

    def __enter__(self) -> FarPlace:
        self._plug_in()
        command = [sys.executable, "-m", "runyard.testing.far.server", str(self.socket)]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError("the far place did not start")
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(timeout=START_TIMEOUT_S)

    @property
    def environment(self) -> dict[str, str]:
        """What a service needs to find the provider."""
        paths = [str(self._folder / "plug"), os.environ.get("PYTHONPATH", "")]
        return {"PYTHONPATH": os.pathsep.join(path for path in paths if path)}

    def section(self, *, slots: int, is_fused: bool = True) -> str:
        """The pool's keys in the config."""
        keys = f'provider = "{NAME}"\nslots = {slots}\nsocket = "{self.socket}"\n'
        return keys + (f'fuse = "{self._folder / "fuse"}"\n' if is_fused else "")

    def starts(self) -> dict[str, int]:
        """How often each name was started."""
        return dict(self._ask("history")["starts"])

    def calls(self) -> list[tuple[str, str, int, float]]:
        """(verb, name, pid of the service, when by CLOCK_BOOTTIME) of each create, stop and destroy."""
        return [(verb, name, pid, at) for verb, name, pid, at in self._ask("history")["calls"]]

    def kill(self, name: str) -> None:
        """The place dies without a word."""
        self._ask("kill", name=name)

    def refuse_next(self) -> None:
        self._ask("fault", fault="refuse")

    def lose_next_reply(self) -> None:
        self._ask("fault", fault="lose_reply")

    @contextlib.contextmanager
    def unreachable(self) -> Iterator[None]:
        """Within, no new call gets through."""
        hidden = self.socket.with_suffix(".hidden")
        self.socket.rename(hidden)
        try:
            yield
        finally:
            hidden.rename(self.socket)

    def running(self) -> list[str]:
        return [place["name"] for place in self._ask("list")["places"] if place["is_running"]]

    def names(self) -> list[str]:
        return [place["name"] for place in self._ask("list")["places"]]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            self._ask("list")
            return True
        return False

    def _plug_in(self) -> None:
        info = self._folder / "plug" / "runyard_far_place-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(_METADATA)
        (info / "entry_points.txt").write_text(_ENTRY_POINT)

    def _ask(self, verb: str, **arguments: str) -> dict[str, Any]:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.connect(str(self.socket))
            sock.sendall(json.dumps({"verb": verb, "caller": os.getpid(), **arguments}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(sock.makefile().readline())
            return answer
