"""Real file systems that are full or read-only. Needs root, to mount a small one."""

import asyncio
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runyard.ledger.sqlite.ledger import SqliteLedger
from runyard.model.errors import LedgerUnavailable
from tests.contracts.ledger.world import ManualClock, new_job

pytestmark = pytest.mark.service


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=3m", "runyard-test", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {made.stderr.strip()}")
    yield tmp_path
    subprocess.run(["umount", str(tmp_path)], check=True)


def fill(path: Path) -> None:
    with path.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)


async def test_a_full_disk_loses_nothing_acknowledged_and_work_goes_on_after(small_disk: Path):
    filler = small_disk / "filler"
    filler.write_bytes(b"x" * 1_000_000)
    ledger = SqliteLedger(str(small_disk / "ledger.db"), clock=ManualClock())
    await ledger.open()
    accepted: list[int] = []

    async def submit_until_refused() -> None:
        while True:
            await ledger.submit([new_job(len(accepted), env={"A": "x" * 5000})])
            accepted.append(1)

    with pytest.raises(LedgerUnavailable) as caught:
        await submit_until_refused()
    acknowledged = len(accepted)
    assert "space" in (caught.value.cure or "")
    with pytest.raises(LedgerUnavailable):
        await ledger.submit([new_job(acknowledged, env={"A": "x" * 50_000})])
    assert (await ledger.list_queues())[0].queued == acknowledged > 10
    filler.unlink()
    await ledger.submit([new_job(acknowledged)])
    assert (await ledger.list_queues())[0].queued == acknowledged + 1
    await ledger.close()


async def test_a_full_disk_at_start_is_said_with_its_cure(small_disk: Path):
    filler = small_disk / "filler"
    with pytest.raises(OSError, match="No space left"):
        fill(filler)
    ledger = SqliteLedger(str(small_disk / "ledger.db"), clock=ManualClock())
    with pytest.raises(LedgerUnavailable, match=r"ledger\.db.*(full|space)"):
        await ledger.open()
    filler.unlink()
    await ledger.open()
    await ledger.close()


async def test_a_read_only_file_system_is_said_with_its_cure(small_disk: Path):
    ledger = SqliteLedger(str(small_disk / "ledger.db"), clock=ManualClock())
    await ledger.open()
    await ledger.close()
    await asyncio.to_thread(subprocess.run, ["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(LedgerUnavailable, match=r"(?i)ledger\.db.*read-only"):
        await ledger.open()
