"""What a repository costs the second job that wants it, against a `git clone` of it from a mirror on the same disk."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from runyard.bench.comparing import Comparison, compare_ratio, in_turns
from runyard.bench.direct import DirectSandbox
from runyard.model.job import GitSource, Workspace

FILES, FILE_BYTES, COMMITS, CHANGED = 2440, 24_000, 20, 5
_REFERENCE = "`git clone` over file:// from a local mirror"


async def second_workspace(*, rounds: int) -> Comparison:
    """One job at a time."""
    return await _measure(1, rounds=rounds, bound=0.02)


async def workspaces_at_once(*, rounds: int) -> Comparison:
    """Eight jobs, or eight clones, started together: from the first's begin to the last's end."""
    return await _measure(8, rounds=rounds, bound=0.05)


async def _measure(at_once: int, *, rounds: int, bound: float) -> Comparison:
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as name:
        folder = Path(name)
        mirror = folder / "mirror.git"
        await asyncio.to_thread(make_repository, mirror)
        options = {"git_protocols": ["file"], "git_file_roots": [str(folder)]}
        workspace = Workspace(git=GitSource(url=f"file://{mirror}"))
        async with DirectSandbox(options) as direct:
            await direct.workspace_phase(workspace)  # the first job, which fetches and prepares

            async def subject() -> float:
                phases = await asyncio.gather(*(direct.workspace_phase(workspace, n) for n in range(at_once)))
                return max(end for _, end in phases) - min(begin for begin, _ in phases)

            async def reference() -> float:
                return await asyncio.to_thread(_clone_s, mirror, folder, at_once)

            series = await in_turns(reference, subject, rounds=rounds)
    many = "" if at_once == 1 else f", {at_once} at once"
    note = f"{FILES} files, {FILES * FILE_BYTES >> 20} MiB"
    return compare_ratio(
        f"git workspace of a second job{many}", f"{_REFERENCE}{many}", series, bound=bound, note=note
    )


def _clone_s(mirror: Path, folder: Path, at_once: int) -> float:
    targets = [folder / f"clone-{number}" for number in range(at_once)]
    began = time.perf_counter()
    running = [subprocess.Popen(["git", "clone", "-q", f"file://{mirror}", str(each)]) for each in targets]
    failed = [target for target, process in zip(targets, running, strict=True) if process.wait() != 0]
    took = time.perf_counter() - began
    for each in targets:
        shutil.rmtree(each)
    if failed:
        raise RuntimeError(f"the reference did not succeed: {failed[0]}")
    return took


def make_repository(path: Path) -> None:
    """The same one each time: content that does not compress, and some history. Its folder is opened to all."""
    path.parent.chmod(0o755)
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(path)], check=True)
    argv = ["git", "-C", str(path), "-c", "core.compression=0", "fast-import", "--quiet", "--done"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        assert process.stdin is not None
        for part in _history():
            process.stdin.write(part)
        process.stdin.close()
    if process.returncode != 0:
        raise RuntimeError("git could not make the repository to measure with")


def _history() -> Iterator[bytes]:
    dice = random.Random(1)
    for commit in range(COMMITS):
        yield b"commit refs/heads/main\n"
        yield b"committer bench <bench@localhost> %d +0000\ndata 1\nx\n" % (1_700_000_000 + commit)
        numbers = range(FILES) if commit == 0 else sorted(dice.sample(range(FILES), CHANGED))
        for number in numbers:
            yield b"M 100644 inline d%02d/f%04d\ndata %d\n" % (number % 60, number, FILE_BYTES)
            yield dice.randbytes(FILE_BYTES) + b"\n"
    yield b"done\n"
