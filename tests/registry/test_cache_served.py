"""The cache over a real registry, pulled through by skopeo and by a real dockerd."""

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runyard.registry.cache.settings import Upstream as Behind
from runyard.registry.client import RegistryClient
from runyard.registry.credentials import Credentials, parse_registries
from runyard.registry.images import Platform
from runyard.registry.reference import parse_reference
from tests.docker_daemon import docker_daemon
from tests.registry.cache_world import HandClock, running_cache, settings_of
from tests.registry.upstream import PASSWORD, USER, Upstream, pack_image, skopeo_async

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_image(tmp_path_factory.mktemp("image") / "image.tar", megabytes=3)


@pytest.fixture
def upstream(tmp_path: Path, archive: Path) -> Iterator[Upstream]:
    real = Upstream(tmp_path / "upstream")
    real.start()
    real.push(archive, "library/app:1")
    yield real
    real.stop()


@pytest.fixture
def private(tmp_path: Path, archive: Path) -> Iterator[Upstream]:
    real = Upstream(tmp_path / "private", has_login=True)
    real.start()
    real.push(archive, "team/app:1")
    yield real
    real.stop()


def behind(upstream: Upstream, name: str = "up", **more) -> Behind:
    return Behind(name, upstream.host, is_plain_http=True, **more)


async def pull(port: int, name: str, folder: Path, *options: str) -> dict:
    """A whole image by skopeo, into a folder; its manifest."""
    await skopeo_async(
        "copy", "--src-tls-verify=false", *options, f"docker://127.0.0.1:{port}/{name}", f"dir:{folder}"
    )
    return json.loads((folder / "manifest.json").read_text())


async def test_eight_cold_pulls_are_one_download_of_each_blob(upstream: Upstream, tmp_path: Path) -> None:
    async with running_cache(settings_of(tmp_path / "cache", behind(upstream))) as cache:
        manifests = await asyncio.gather(
            *(pull(cache.port, "up/library/app:1", tmp_path / f"pull-{number}") for number in range(8))
        )
    upstream.stop()
    blobs = {manifests[0]["config"]["digest"], *(row["digest"] for row in manifests[0]["layers"])}
    asked = upstream.asked("GET", "blobs")
    assert sorted(path.rpartition("/")[2] for path in asked) == sorted(blobs)
    assert len(upstream.asked("GET", "manifests")) == 1


async def test_an_image_outlives_its_registry_and_a_restart_of_the_cache(
    upstream: Upstream, tmp_path: Path
) -> None:
    settings, clock = settings_of(tmp_path / "cache", behind(upstream)), HandClock()
    async with running_cache(settings, clock) as cache:
        first = await pull(cache.port, "up/library/app:1", tmp_path / "first")
    upstream.stop()
    clock.time += 3600
    async with running_cache(settings, clock) as cache:
        assert await pull(cache.port, "up/library/app:1", tmp_path / "second") == first


async def test_our_own_client_reads_through_the_cache_what_the_registry_has(
    upstream: Upstream, tmp_path: Path
) -> None:
    client = RegistryClient(allow_address=lambda address: True)
    async with running_cache(settings_of(tmp_path / "cache", behind(upstream))) as cache:
        direct = await client.resolve(
            parse_reference(f"{upstream.host}/library/app:1"), platform=Platform("amd64")
        )
        through = await client.resolve(
            parse_reference(f"127.0.0.1:{cache.port}/up/library/app:1"), platform=Platform("amd64")
        )
        pieces = [
            piece
            async for piece in client.stream_blob(
                parse_reference(f"127.0.0.1:{cache.port}/up/library/app:1"), through.layers[0].digest
            )
        ]
    await client.close()
    assert through == direct
    assert sum(map(len, pieces)) == through.layers[0].size
    assert through.config.cmd == ("/bin/sh",)


async def test_a_private_image_is_served_to_its_own_login_only(private: Upstream, tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "cache", behind(private, needs_login=True), asks_login=True)
    async with running_cache(settings) as cache:
        await pull(cache.port, "up/team/app:1", tmp_path / "own", "--src-creds", f"{USER}:{PASSWORD}")
        with pytest.raises(AssertionError, match=r"unauthorized|authentication required"):
            await pull(cache.port, "up/team/app:1", tmp_path / "wrong", "--src-creds", f"{USER}:guess")
        with pytest.raises(AssertionError, match=r"unauthorized|authentication required"):
            await pull(cache.port, "up/team/app:1", tmp_path / "none")


async def test_the_cache_s_own_credentials_open_a_private_registry_to_its_readers(
    private: Upstream, tmp_path: Path
) -> None:
    rules = parse_registries([{"host": private.host, "username": USER, "password": PASSWORD}]).rules
    async with running_cache(settings_of(tmp_path / "cache", behind(private), rules=rules)) as cache:
        await pull(cache.port, "up/team/app:1", tmp_path / "pull")


async def test_the_client_shows_its_credentials_to_a_registry_that_asks(private: Upstream) -> None:
    client = RegistryClient(allow_address=lambda address: True)
    reference = parse_reference(f"{private.host}/team/app:1")
    image = await client.resolve(
        reference, platform=Platform("amd64"), credentials=Credentials(USER, PASSWORD)
    )
    assert await client.head(reference, credentials=Credentials(USER, PASSWORD)) == image.digest
    await client.close()


@pytest.fixture
def dockerd() -> Iterator[Callable[[str], list[str]]]:
    """Starts a dockerd of its own with a mirror; gives the command line that talks to it."""
    with contextlib.ExitStack() as stack:
        yield lambda mirror: stack.enter_context(docker_daemon(f"--registry-mirror={mirror}")).command


async def test_a_dockerd_pulls_through_the_cache_as_its_mirror(
    upstream: Upstream, tmp_path: Path, dockerd
) -> None:
    hub = Behind("docker.io", upstream.host, is_plain_http=True)
    async with running_cache(settings_of(tmp_path / "cache", hub)) as cache:
        command = await asyncio.to_thread(dockerd, cache.url)
        for name in ("app:1", f"127.0.0.1:{cache.port}/docker.io/library/app:1"):
            done = await asyncio.to_thread(
                subprocess.run, [*command, "pull", name], check=False, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
        assert cache.counters.served_bytes > 3 << 20
