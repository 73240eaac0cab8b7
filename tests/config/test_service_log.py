"""The service's own log: a line that cannot be written must not stop the work."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator

import pytest
import structlog

from runyard.service_log import configure_log


@pytest.fixture(autouse=True)
def _configured() -> Iterator[None]:
    configure_log(is_terminal=False)
    yield
    structlog.reset_defaults()


def test_a_line_is_one_json_document(monkeypatch: pytest.MonkeyPatch) -> None:
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    structlog.get_logger().info("attempt_claimed", job="a")
    assert '"job": "a", "event": "attempt_claimed"' in said.getvalue()


def test_a_closed_stderr_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = structlog.get_logger()
    logger.info("first")
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", closed)
    logger.info("second")


def test_a_broken_pipe_is_no_error(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())
    structlog.get_logger().info("third")
