"""What a step prints, however much, and that it cannot take it back."""

import os
import re
from pathlib import Path

import pytest

from runyard.host import journal
from runyard.host.attempt_directory import AttemptDirectory
from runyard.host.linux import mount, unmount
from runyard.host.plan import PlanStep
from runyard.logs.layout import read_cut, stream_file
from runyard.model.outcome import OutcomeKind
from tests.host.world import ENV, open_world, sh

pytestmark = pytest.mark.service
MIB = 1 << 20


def memory_peak(pid: int) -> list[int]:
    """The most memory that the process held, in bytes; nothing where it is gone already."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return []
    return [int(value) * 1024 for value in re.findall(r"VmHWM:\s+(\d+)", status)]


async def test_any_byte_is_kept_as_it_is(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(
            sh('i=0; while [ $i -lt 256 ]; do printf "\\\\$(printf %o $i)"; i=$((i+1)); done')
        )
        assert ran.log() == bytes(range(256))


async def test_a_job_cannot_take_back_what_it_printed(tmp_path):
    script = "import os; print('said', flush=True); os.ftruncate(1, 0)"
    async with open_world(tmp_path) as world:
        ran = await world.run(PlanStep(name="s", command=("python3", "-c", script), env=ENV))
        assert ran.text == "said\n"
        assert ran.outcome.kind is OutcomeKind.FAILED


async def test_a_long_log_costs_little_memory_and_bounded_disk_and_keeps_head_and_tail(tmp_path):
    size = 300 * MIB
    peak: list[int] = []
    async with open_world(tmp_path) as world:
        plan = world.plan(
            sh(f"echo first; head -c {size} /dev/zero | tr '\\0' x; echo last"), log_bytes_max=8 * MIB
        )

        async def note_peak(record):
            if record["what"] == journal.STEP_ENDED:
                peak.extend(memory_peak(AttemptDirectory(tmp_path / plan.name).shim_pid()))

        ran = await world.run_plan(plan, note_peak)
        file = stream_file(ran.directory.path / "log", "000", "stdout")
        begin, end = read_cut(file)
        assert file.stat().st_size == size + len("first\nlast\n")
        assert file.stat().st_blocks * 512 <= 8 * MIB
        assert begin == 4 * MIB
        with file.open("rb") as stream:
            assert stream.read(7) == b"first\nx"
            stream.seek(end)
            tail = stream.read()
        assert tail.endswith(b"xlast\n")
        assert tail.count(b"\0") == 0
        assert all(value < 40 * MIB for value in peak)


async def test_an_endless_log_ends_with_its_time_and_within_its_bound(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh("yes", timeout_s=0.7), log_bytes_max=2 * MIB, kill_grace_s=0.0)
        assert ran.code == "step_timeout"
        blocks = sum(os.stat(file).st_blocks for file in (ran.directory.path / "log").iterdir())
        assert blocks * 512 <= 2.1 * MIB


async def test_later_steps_still_have_a_head_or_a_tail_of_their_own(tmp_path):
    async with open_world(tmp_path) as world:
        ran = await world.run(sh(f"head -c {MIB} /dev/zero"), sh("echo the end"), log_bytes_max=256 * 1024)
        assert ran.log("001") == b"the end\n"
        assert read_cut(stream_file(ran.directory.path / "log", "001", "stdout")) is None


async def test_a_full_disk_under_the_logs_ends_the_job_with_that_reason(tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    mount("tmpfs", str(small), "tmpfs", 0, "size=1m")
    try:
        async with open_world(tmp_path) as world:
            ran = await world.run(sh("yes"), log_directory=str(small), log_bytes_max=64 * MIB)
            assert (ran.outcome.kind, ran.code) == (OutcomeKind.FAILED, "disk")
    finally:
        unmount(str(small))
