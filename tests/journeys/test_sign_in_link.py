"""The address that `serve` prints where it runs on a terminal."""

from __future__ import annotations

import os
import pty
import re
import selectors
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

pytestmark = pytest.mark.service

PATIENCE_S = 30.0


def test_serve_on_a_terminal_prints_a_link_that_signs_in_once_and_logs_it_nowhere(tmp_path: Path):
    controller, terminal = pty.openpty()
    log = tmp_path / "service.log"
    with log.open("wb") as logged:
        service = subprocess.Popen(
            [sys.executable, "-m", "runyard", "serve", "--data", str(tmp_path / "data"), "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=terminal,
            stderr=logged,
        )
    os.close(terminal)
    try:
        address = _printed(controller, re.compile(rb"(http://\S+/sign-in\?code=\S+)"))
        assert _sign_in(address) == 200
        assert _sign_in(address) == 401
        assert address.partition("code=")[2] not in log.read_text()
    finally:
        service.terminate()
        service.wait(PATIENCE_S)
        os.close(controller)


def _printed(controller: int, wanted: re.Pattern[bytes]) -> str:
    seen, deadline = b"", time.monotonic() + PATIENCE_S
    with selectors.DefaultSelector() as selector:
        selector.register(controller, selectors.EVENT_READ)
        while time.monotonic() < deadline:
            if selector.select(deadline - time.monotonic()):
                seen += os.read(controller, 4096)
            if found := wanted.search(seen):
                return found[1].decode()
    pytest.fail(f"no link was printed: {seen!r}")


def _sign_in(address: str) -> int:
    """As the button of the link's page does; the pages then open with the cookie."""
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
    )
    asked = urllib.request.Request(address, data=b"", headers={"Sec-Fetch-Site": "same-origin"})
    try:
        with opener.open(asked) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
