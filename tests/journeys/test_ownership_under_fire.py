"""Two real services, one PostgreSQL, one far pool: whatever stops its owner, wherever it stands, the other takes the
pool when the lease ends, and the one that wakes changes nothing."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from runyard.testing.far import Point
from runyard.testing.postgres_server import PostgresServer
from tests.journeys.conftest import RunningService
from tests.journeys.tcp_proxy import TcpProxy
from tests.journeys.two_owners import LEASE_S, TwoOwners, two_owners
from tests.postgres_server import need_binaries, shared_server

pytestmark = pytest.mark.service

KILL, STOP = signal.SIGKILL, signal.SIGSTOP
BRIEFLY = {(Point.BEFORE_CREATE, STOP), (Point.CREATED, KILL), (Point.BEFORE_SETTLE, STOP)}
FIRES = [
    pytest.param(
        point, how, marks=() if (point, how) in BRIEFLY else pytest.mark.long, id=f"{point}-{how.name}"
    )
    for point in Point
    for how in (KILL, STOP)
]


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[TwoOwners]:
    url = shared_server().new_database()
    with two_owners(tmp_path, urls=(url, url), database=url) as started:
        yield started


@pytest.mark.parametrize(("point", "how"), FIRES)
def test_an_owner_stopped_anywhere_is_replaced_and_changes_nothing_after(
    pair: TwoOwners, point: Point, how: signal.Signals
):
    before = pair.epoch()
    pair.place.fuse.arm(point, how)
    with pair.client(pair.services[1]) as client:
        jobs = pair.submit(client, 10)
        pair.wait_for(lambda: pair.place.fuse.burnt_by() is not None)
        burnt = pair.place.fuse.burnt_by()
        assert burnt is not None
        stopped, other = pair.by_pid(burnt)
        assert other is pair.services[1]
        pair.wait_for(lambda: pair.epoch() > before)
        pair.finish(client, jobs)
        kept = pair.snapshot()

        if how is KILL:
            stopped.kill()  # it is dead: this only waits for it
            stopped.start()
        else:
            wake(pair, stopped)
        with pair.client(stopped) as woken:
            assert woken.get(jobs[0][1], tenant=jobs[0][0]).state == "succeeded"
        assert pair.snapshot() == kept
        assert pair.owner() is not None
        pair.finish(client, pair.submit(client, 4))
    pair.check()


@pytest.mark.long
@pytest.mark.timeout(400)
def test_what_a_killed_owner_settled_and_did_not_clear_is_cleared_by_the_other(pair: TwoOwners):
    pair.place.fuse.arm(Point.AFTER_SETTLE, KILL)
    with pair.client(pair.services[1]) as client:
        jobs = pair.submit(client, 10)
        pair.wait_for(lambda: pair.place.fuse.burnt_by() is not None)
        pair.finish(client, jobs)
        assert pair.place.names()
        pair.wait_for(
            lambda: not pair.place.names(), patience_s=360
        )  # tombstones, then two looks of the sweep
    pair.check()


def wake(pair: TwoOwners, stopped: RunningService) -> None:
    """Returns once it knows that it is no owner any more."""
    assert stopped.process is not None
    lost = pair.times_logged(stopped, "pool_lost")
    os.kill(stopped.process.pid, signal.SIGCONT)
    pair.wait_for(lambda: pair.times_logged(stopped, "pool_lost") > lost)


@pytest.fixture
def linked_pair(tmp_path: Path) -> Iterator[tuple[TwoOwners, TcpProxy]]:
    """The first one's way to the database can be cut."""
    url = shared_server().new_database()
    port = urlsplit(url).port
    assert port is not None
    with TcpProxy(port) as link:
        through = url.replace(f":{port}/", f":{link.port}/")
        with two_owners(tmp_path, urls=(through, url), database=url) as started:
            yield started, link
            link.heal()


@pytest.mark.parametrize("cut", ["halt", pytest.param("reset", marks=pytest.mark.long)])
def test_an_owner_cut_off_from_the_database_stops_acting_and_comes_back_as_no_owner(
    linked_pair: tuple[TwoOwners, TcpProxy], cut: str
):
    pair, link = linked_pair
    cut_off, other = pair.services
    assert cut_off.process is not None
    before = pair.epoch()
    with pair.client(other) as client:
        jobs = pair.submit(client, 6, command="sleep 1")
        pair.wait_for(pair.place.starts)
        getattr(link, cut)()
        pair.wait_for(lambda: pair.epoch() > before)
        known = len(pair.place.calls())
        jobs += pair.submit(client, 6)
        pair.finish(client, jobs)
        assert [call for call in pair.place.calls()[known:] if call[2] == cut_off.process.pid] == []

        pair.wait_for(lambda: pair.times_logged(cut_off, "pool_lost") > 0)  # without a word from the database
        kept = pair.snapshot()
        link.heal()
        with pair.client(cut_off) as back:
            assert back.get(jobs[-1][1], tenant=jobs[-1][0]).state == "succeeded"
            assert pair.snapshot() == kept
            pair.finish(back, pair.submit(back, 4))
    assert [call for call in pair.place.calls()[known:] if call[2] == cut_off.process.pid] == []
    pair.check()


@pytest.mark.parametrize(
    "seconds_down",
    [pytest.param(0.0, id="at once"), pytest.param(2 * LEASE_S, id="later", marks=pytest.mark.long)],
)
def test_a_database_that_stops_and_starts_under_load_loses_nothing(tmp_path: Path, seconds_down: float):
    server = PostgresServer(need_binaries())
    try:
        server.start()
        server.make_template()
        url = server.new_database()
        with two_owners(tmp_path, urls=(url, url), database=url) as pair:
            with pair.client(pair.services[0]) as one, pair.client(pair.services[1]) as two:
                jobs = pair.submit(one, 12) + pair.submit(two, 12)
                pair.wait_for(pair.place.starts)
                server.stop()
                threading.Event().wait(seconds_down)  # an outage longer than the lease
                server.start()
                pair.finish(one, jobs)
                pair.finish(two, pair.submit(two, 4))
                pair.finish(two, pair.submit(one, 4))
            pair.check()
    finally:
        server.remove()
