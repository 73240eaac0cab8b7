"""The busy ledger is one that the service could have: every counter in it says what counting says."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from pathlib import Path

from runyard.bench.busy_ledger import SEEDS, fill_busy_ledger
from runyard.testing.simulation.snapshot import Reader

TIMES = 3


def test_each_counter_is_what_counting_says_and_every_copy_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "busy.sqlite"
    asyncio.run(fill_busy_ledger(path, jobs=SEEDS * TIMES))
    connection = sqlite3.connect(path)
    reader = Reader(connection)
    seen = reader.snapshot()
    assert len(seen.jobs) == SEEDS * TIMES
    states = Counter(job.state for job in seen.jobs.values())
    assert states["running"] == states["queued"] == SEEDS * TIMES // 10
    assert states["failed"] > 0 < states["canceled"]
    assert reader.miscounts(seen) == []
    [unfit] = reader.rows(
        "SELECT count(*) FROM jobs WHERE serial NOT IN (SELECT serial FROM job_specs)"
        " OR uid NOT IN (SELECT uid FROM job_labels) OR uid NOT IN (SELECT uid FROM events)"
        " OR (attempts > 0 AND uid NOT IN (SELECT uid FROM attempts))"
    )
    assert unfit[0] == 0
    connection.close()
