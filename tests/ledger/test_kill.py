import os
import signal
import subprocess
import sys
from pathlib import Path

from runyard.ledger.port import JobFilter
from runyard.ledger.sqlite.ledger import SqliteLedger
from tests.contracts.ledger.world import ManualClock


def killed_after(acknowledged: int, path: Path, *, first: int) -> set[str]:
    """What a submitting process had acknowledged when it was killed in the middle of its writes."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    command = [sys.executable, "-m", "tests.ledger.submitting", str(path), str(first)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(acknowledged)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    return {line.strip() for line in lines if line.endswith("\n")} - {""}


async def test_kill_9_in_the_middle_of_writes_loses_nothing_acknowledged(tmp_path: Path):
    path = tmp_path / "ledger.db"
    acknowledged: set[str] = set()
    for turn in range(3):
        acknowledged |= killed_after(100 + 37 * turn, path, first=1_000_000 * (turn + 1))
        ledger = SqliteLedger(str(path), clock=ManualClock())
        await ledger.open()
        found, cursor, is_more = set(), None, True
        while is_more:
            page = await ledger.list_jobs(JobFilter(), limit=1000, cursor=cursor)
            found |= {job.uid for job in page.jobs}
            cursor, is_more = page.next_cursor, page.next_cursor is not None
        assert acknowledged <= found
        [queue] = await ledger.list_queues()
        assert queue.queued == len(found)
        await ledger.close()
    assert len(acknowledged) >= 300
