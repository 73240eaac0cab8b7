"""What every test shares: the event loop, Hypothesis profiles, replayable seeds, `--long`, the skip list."""

import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
import structlog
from blockbuster import BlockBuster, blockbuster_ctx

# No deadline: on a shared machine it only tells how busy the others are. Never derandomized: each run looks
# elsewhere, and a failure prints the blob that replays it.
hypothesis.settings.register_profile("fast", deadline=None, print_blob=True, max_examples=50)
hypothesis.settings.register_profile("ci", hypothesis.settings.get_profile("fast"), max_examples=100)
hypothesis.settings.register_profile("long", hypothesis.settings.get_profile("fast"), max_examples=2000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run what is marked long, with more examples")


def pytest_configure(config: pytest.Config) -> None:
    # A service within the test's own process must not write between what its command line prints.
    structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
    if config.getoption("--long"):
        hypothesis.settings.load_profile("long")
    else:
        hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "fast")


@pytest.hookimpl(tryfirst=True)
def pytest_itemcollected(item: pytest.Item) -> None:
    """Whoever asks for the fixture `served` talks to a real server on a port, and so belongs to the slower suite."""
    if "served" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.service)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What takes minutes is another suite, not a skip of this one: pytest counts it as deselected."""
    if config.getoption("--long"):
        return
    slow = [item for item in items if item.get_closest_marker("long")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Leaves the reasons of all skips to ./dev, which lists them again at its end."""
    path = os.environ.get("RUNYARD_TEST_SKIPS")
    if path is None or hasattr(terminalreporter.config, "workerinput"):
        return
    reasons = Counter(str(report.longrepr[2]) for report in terminalreporter.stats.get("skipped", ()))
    with Path(path).open("a") as file:
        for reason, count in sorted(reasons.items()):
            file.write(f"{count} x {reason.removeprefix('Skipped: ')}\n")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests run on asyncio, the only loop that the service runs on."""
    return "asyncio"


@pytest.fixture(autouse=True)
def _log_as_it_was() -> Iterator[None]:
    """A command that is run within a test may set the service's log up; what other tests capture must not notice."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """A number for this test in this run; `--randomly-seed=N`, N from the header, gives it again."""
    run = getattr(request.config.option, "randomly_seed", 0)
    return random.Random(f"{run} {request.node.nodeid}").getrandbits(32)


@pytest.fixture
def no_blocking() -> Iterator[BlockBuster]:
    """The test fails when Runyard's own code blocks the event loop."""
    with blockbuster_ctx(scanned_modules=["runyard"]) as blockbuster:
        yield blockbuster
