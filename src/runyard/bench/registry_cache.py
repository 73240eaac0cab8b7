"""What the registry cache gives: a warm blob against the registry itself, and many cold pulls at once.

The registry is Debian's docker-registry on loopback, the cache runs in a process of its own, as with `serve`.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx2

from runyard.bench.comparing import Comparison, compare_ratio, in_turns
from runyard.model.errors import ConfigError

BLOB_BYTES = 50 << 20
REPOSITORY = "bench/blob"
START_S_MAX = 20.0


@dataclass(frozen=True, slots=True)
class _Pair:
    """Both addresses, the client that asks them, and the registry's access log."""

    upstream: str
    cache: str
    http: httpx2.AsyncClient
    log: Path

    async def push(self, body: bytes) -> str:
        digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
        begun = await self.http.post(f"{self.upstream}/v2/{REPOSITORY}/blobs/uploads/")
        put = await self.http.put(
            httpx2.URL(begun.headers["location"]).copy_merge_params({"digest": digest}), content=body
        )
        put.raise_for_status()
        return digest

    async def get(self, where: str, name: str, digest: str) -> float:
        """Seconds for one whole blob, thrown away as it comes."""
        started_at = time.perf_counter()
        async with self.http.stream("GET", f"{where}/v2/{name}/blobs/{digest}") as answer:
            answer.raise_for_status()
            count = 0
            async for piece in answer.aiter_raw():
                count += len(piece)
        if count != BLOB_BYTES:
            raise OSError(0, f"{count} bytes came of {BLOB_BYTES}")
        return time.perf_counter() - started_at

    async def asked(self, digest: str) -> int:
        """How often the registry was asked for a blob; its log is written just after an answer."""
        await self.http.get(f"{self.upstream}/v2/")
        return self.log.read_text().count(f'"GET /v2/{REPOSITORY}/blobs/{digest} ')


async def warm_blob(*, rounds: int) -> Comparison:
    async with _pair() as pair:
        digest = await pair.push(os.urandom(BLOB_BYTES))
        series = await in_turns(
            lambda: pair.get(pair.upstream, REPOSITORY, digest),
            lambda: pair.get(pair.cache, f"up/{REPOSITORY}", digest),
            rounds=rounds,
        )
    return compare_ratio(
        "a blob of 50 MiB from the warm registry cache",
        "the same blob from the registry itself",
        series,
        bound=1.0,
    )


async def cold_pulls(*, readers: int = 8) -> Comparison:
    async with _pair() as pair:
        digest = await pair.push(os.urandom(BLOB_BYTES))
        before = await pair.asked(digest)
        started_at = time.perf_counter()
        await asyncio.gather(*(pair.get(pair.cache, f"up/{REPOSITORY}", digest) for _ in range(readers)))
        took_s = time.perf_counter() - started_at
        count = await pair.asked(digest) - before
        alone_s = await pair.get(pair.upstream, REPOSITORY, digest)
    return Comparison(
        name=f"{readers} cold pulls of a blob of 50 MiB at once",
        reference_name="one pull from the registry itself",
        reference=(alone_s,),
        subject=(took_s,),
        goal="1 request to the registry for each blob",
        is_met=count == 1,
        measured=f"{count} request{'' if count == 1 else 's'}, {took_s * 1000:.0f} ms for all",
        note=f"one alone, from the registry: {alone_s * 1000:.0f} ms",
    )


@contextlib.asynccontextmanager
async def _pair() -> AsyncIterator[_Pair]:
    """A registry and a cache over it. Raises ConfigError without docker-registry."""
    registry = shutil.which("docker-registry")
    if registry is None:
        raise ConfigError("docker-registry is not here", cure="apt-get install docker-registry")
    with tempfile.TemporaryDirectory(prefix="runyard-bench-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        upstream, cache = _free_port(), _free_port()
        (folder / "registry.yml").write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/content}}}}\n"
            f'http: {{addr: "127.0.0.1:{upstream}"}}\n'
        )
        (folder / "runyard.toml").write_text(
            f'data = "{folder}/data"\n[registry_cache]\nlisten = "127.0.0.1:{cache}"\n'
            f'[registry_cache.upstreams.up]\nurl = "http://127.0.0.1:{upstream}"\n'
        )
        log = folder / "log"
        own = [sys.executable, "-m", "runyard", "registry-cache", "--config", str(folder / "runyard.toml")]
        for command in ([registry, "serve", str(folder / "registry.yml")], own):
            stack.enter_context(_started(command, log))
        async with httpx2.AsyncClient(trust_env=False, timeout=60) as http:
            for port in (upstream, cache):
                await _await_answer(http, f"http://127.0.0.1:{port}/v2/")
            yield _Pair(f"http://127.0.0.1:{upstream}", f"http://127.0.0.1:{cache}", http, log)


@contextlib.contextmanager
def _started(command: list[str], log: Path) -> Iterator[None]:
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


async def _await_answer(http: httpx2.AsyncClient, url: str) -> None:
    ends_at = time.monotonic() + START_S_MAX
    while True:
        try:
            await http.get(url)
            return
        except httpx2.TransportError:
            if time.monotonic() > ends_at:
                raise
            await asyncio.sleep(0.05)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
