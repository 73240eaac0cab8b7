"""The cache over a registry that does as scripted: what is asked once, what is believed, who may read what."""

import asyncio
import contextlib
from pathlib import Path

import httpx2
import pytest

from runyard.model.errors import RegistryDenied
from runyard.registry.cache.application import parse_login, parse_range
from runyard.registry.cache.counters import Counters
from runyard.registry.cache.disk import Disk
from runyard.registry.cache.settings import Upstream, parse_path
from runyard.registry.cache.store import BlobStore, blob_key
from tests.registry.cache_world import CacheWorld, HandClock, running_cache, settings_of
from tests.registry.scripted_registry import Answer, ScriptedRegistry, digest_of

BODY = bytes(range(256)) * 4000  # about a megabyte: several pieces
A_LOGIN, B_LOGIN = ("tenant-a", "secret a"), ("tenant-b", "secret b")


@pytest.fixture
def upstream(registry: ScriptedRegistry) -> Upstream:
    return Upstream("up", f"127.0.0.1:{registry.port}", is_plain_http=True)


@pytest.fixture
async def cache(upstream: Upstream, tmp_path: Path):
    async with running_cache(settings_of(tmp_path / "cache", upstream)) as world:
        yield world


def gets(registry: ScriptedRegistry, digest: str) -> int:
    return sum(path.endswith(f"/blobs/{digest}") for path in registry.paths())


async def test_a_blob_is_fetched_once_and_served_from_disk(registry, cache: CacheWorld) -> None:
    digest = registry.put_blob("team/app", BODY)
    answers = [await cache.blob("up/team/app", digest) for _ in range(3)]
    assert all(answer.content == BODY for answer in answers)
    assert gets(registry, digest) == 1
    assert (cache.counters.misses, cache.counters.hits, cache.counters.stored_bytes) == (1, 2, len(BODY))


async def test_many_cold_readers_share_one_download(registry, cache: CacheWorld) -> None:
    digest = registry.put_blob("team/app", BODY)
    answers = await asyncio.gather(*(cache.blob("up/team/app", digest) for _ in range(30)))
    assert all(answer.content == BODY for answer in answers)
    assert gets(registry, digest) == 1
    assert len(registry.asked) == 1


async def test_a_reader_who_leaves_costs_the_others_nothing(registry, cache: CacheWorld) -> None:
    digest = registry.put_blob("team/app", BODY)
    cuts = iter((300_000,))
    registry.before = lambda asked: (
        Answer(200, {}, BODY, cut=next(cuts, None)) if "range" not in asked.headers else None
    )
    reader, writer = await asyncio.open_connection("127.0.0.1", cache.port)
    writer.write(f"GET /v2/up/team/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.close()

    assert (await cache.blob("up/team/app", digest)).content == BODY
    ranges = [asked.headers.get("range") for asked in registry.asked if asked.method == "GET"]
    assert ranges == [None, "bytes=300000-"]


async def test_bytes_that_are_not_their_digest_s_never_come_whole_and_are_not_kept(
    registry, cache: CacheWorld, tmp_path: Path
) -> None:
    digest = digest_of(BODY)
    wrong = BODY[:-1] + b"!"
    registry.before = lambda asked: Answer(body=wrong)
    answers = await asyncio.gather(
        *(cache.blob("up/team/app", digest) for _ in range(5)), return_exceptions=True
    )
    assert all(isinstance(answer, httpx2.RemoteProtocolError) for answer in answers)
    assert cache.counters.stored_blobs == 0
    for folder in ("blobs", "partial"):
        assert not [path for path in (tmp_path / "cache" / folder).rglob("*") if path.is_file()]

    registry.put_blob("team/app", BODY)
    registry.before = lambda asked: None
    assert (await cache.blob("up/team/app", digest)).content == BODY


async def test_ranges_are_served_warm_and_while_it_comes(registry, cache: CacheWorld) -> None:
    digest = registry.put_blob("team/app", BODY)

    async def ask(text: str) -> httpx2.Response:
        return await cache.blob("up/team/app", digest, headers={"Range": text})

    for _ in range(2):
        middle, tail, last, none = await asyncio.gather(
            ask("bytes=1000-1999"), ask("bytes=1000000-"), ask("bytes=-10"), ask(f"bytes={len(BODY)}-")
        )
        assert (middle.status_code, middle.content) == (206, BODY[1000:2000])
        assert middle.headers["content-range"] == f"bytes 1000-1999/{len(BODY)}"
        assert tail.content == BODY[1_000_000:]
        assert last.content == BODY[-10:]
        assert none.status_code == 416
    assert gets(registry, digest) == 1


async def test_a_head_tells_the_size_without_fetching(registry, cache: CacheWorld) -> None:
    digest = registry.put_blob("team/app", BODY)
    answer = await cache.http.head(f"{cache.url}/v2/up/team/app/blobs/{digest}")
    assert (answer.status_code, answer.headers["content-length"]) == (200, str(len(BODY)))
    assert registry.paths() == []


async def test_a_tag_is_believed_for_its_time_then_looked_at_and_read_only_if_it_moved(
    registry, cache
) -> None:
    first = registry.put_image(tag="1")
    for _ in range(3):
        assert (await cache.manifest("up/team/app", "1")).headers["docker-content-digest"] == first
    assert (len(registry.paths("GET")), len(registry.paths("HEAD"))) == (1, 0)

    cache.clock.time += 301
    await cache.manifest("up/team/app", "1")
    assert (len(registry.paths("GET")), len(registry.paths("HEAD"))) == (1, 1)

    second = registry.put_image(tag="1", layers=(b"other",))
    cache.clock.time += 301
    assert (await cache.manifest("up/team/app", "1")).headers["docker-content-digest"] == second
    assert (len(registry.paths("GET")), len(registry.paths("HEAD"))) == (2, 2)


async def test_nothing_of_it_blocks_the_loop(registry, cache, no_blocking) -> None:
    registry.put_image(tag="1", layers=(BODY,))
    for _ in range(2):
        await cache.manifest("up/team/app", "1")
        assert (await cache.blob("up/team/app", digest_of(BODY))).content == BODY


async def test_many_cold_readers_of_a_tag_ask_once(registry, cache) -> None:
    registry.put_image(tag="1")
    await asyncio.gather(*(cache.manifest("up/team/app", "1") for _ in range(20)))
    assert len(registry.asked) == 1


async def test_a_failing_upstream_is_covered_for_a_while_and_not_asked_at_each_request(
    registry, cache
) -> None:
    digest = registry.put_image(tag="1")
    await cache.manifest("up/team/app", "1")
    registry.before = lambda asked: Answer(429, {"Retry-After": "600"})
    cache.clock.time += 301
    asked = len(registry.asked)
    for _ in range(5):
        assert (await cache.manifest("up/team/app", "1")).headers["docker-content-digest"] == digest
    assert len(registry.asked) == asked + 1
    assert cache.counters.stale == 5

    cache.clock.time += 8 * 86400
    late = await cache.manifest("up/team/app", "1")
    assert (late.status_code, late.headers["retry-after"]) == (429, "600")


async def test_a_tag_that_is_gone_is_gone(registry, cache) -> None:
    registry.put_image(tag="1")
    await cache.manifest("up/team/app", "1")
    del registry.content["/v2/team/app/manifests/1"]
    cache.clock.time += 301
    assert (await cache.manifest("up/team/app", "1")).status_code == 404


async def test_rights_taken_from_the_cache_close_the_whole_repository(registry, cache) -> None:
    digest = registry.put_blob("team/app", BODY)
    registry.put_image(tag="1")
    await cache.manifest("up/team/app", "1")
    await cache.blob("up/team/app", digest)
    registry.before = lambda asked: Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})
    cache.clock.time += 301
    assert (await cache.manifest("up/team/app", "1")).status_code == 401
    assert (await cache.blob("up/team/app", digest)).status_code == 401


async def test_a_restart_with_the_upstream_down_serves_what_was_read(
    registry, upstream, tmp_path: Path
) -> None:
    settings, clock = settings_of(tmp_path, upstream), HandClock()
    image = registry.put_image(tag="1", layers=(BODY,))
    async with running_cache(settings, clock) as cache:
        await cache.manifest("up/team/app", "1")
        await cache.blob("up/team/app", digest_of(BODY))
    registry.before = lambda asked: Answer(503)
    (tmp_path / "partial" / "left").write_bytes(b"half")
    clock.time += 3600
    async with running_cache(settings, clock) as cache:
        assert (await cache.manifest("up/team/app", "1")).headers["docker-content-digest"] == image
        assert (await cache.blob("up/team/app", digest_of(BODY))).content == BODY
        assert (await cache.manifest("up/team/app", "unknown")).status_code == 502
    assert list((tmp_path / "partial").iterdir()) == []


async def test_the_least_recently_used_goes(registry, upstream, tmp_path: Path) -> None:
    bodies = [bytes([number]) * 1000 for number in range(4)]
    digests = [registry.put_blob("team/app", body) for body in bodies]
    async with running_cache(settings_of(tmp_path, upstream, bytes_max=3000)) as cache:
        for digest in digests[:3]:
            await cache.blob("up/team/app", digest)
        await cache.blob("up/team/app", digests[0])
        await cache.blob("up/team/app", digests[3])
        assert (cache.counters.evictions, cache.counters.stored_bytes) == (1, 3000)
        for digest in digests:
            await cache.blob("up/team/app", digest)
    assert [gets(registry, digest) for digest in digests][:2] == [1, 2]


async def test_what_is_being_read_is_not_evicted(tmp_path: Path) -> None:
    disk, counters = Disk(), Counters()
    store = BlobStore(tmp_path, bytes_max=1500, counters=counters, disk=disk)
    await store.open()
    read, other = (blob_key("r.example", digest_of(body)) for body in (b"a" * 1000, b"b" * 1000))
    await store.put(b"a" * 1000, read)
    async with store.reading(read) as blob:
        await store.put(b"b" * 1000, other)
        assert store.size_of(read) == 1000
        assert store.size_of(other) is None
        assert b"".join([piece async for piece in blob.pieces(0, None)]) == b"a" * 1000
    await store.put(b"b" * 1000, other)
    assert store.size_of(read) is None
    disk.close()


async def test_a_client_that_takes_nothing_stalls_nobody(registry, cache) -> None:
    body = BODY * 8  # more than the sockets' buffers hold
    digest = registry.put_blob("team/app", body)
    _, writer = await asyncio.open_connection("127.0.0.1", cache.port, limit=1024)
    writer.transport.pause_reading()
    writer.write(f"GET /v2/up/team/app/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    await writer.drain()
    assert (await cache.blob("up/team/app", digest)).content == body
    writer.close()


async def test_a_blob_larger_than_the_cache_is_refused(registry, upstream, tmp_path: Path) -> None:
    digest = registry.put_blob("team/app", BODY)
    async with running_cache(settings_of(tmp_path, upstream, bytes_max=1000)) as cache:
        assert (await cache.blob("up/team/app", digest)).status_code == 403
        assert cache.counters.stored_bytes == 0


async def test_a_file_that_somebody_removed_is_fetched_again(registry, cache, tmp_path: Path) -> None:
    digest = registry.put_blob("team/app", BODY)
    await cache.blob("up/team/app", digest)
    for path in (tmp_path / "cache" / "blobs").glob("*/*/*"):
        path.unlink()
    assert (await cache.blob("up/team/app", digest)).content == BODY
    assert gets(registry, digest) == 2


# --- rights -------------------------------------------------------------------------------------------------------


def private_to(registry: ScriptedRegistry, rights: dict[str, tuple[tuple[str, str], ...]]) -> None:
    """Repositories that only some logins may read."""

    def before(asked):
        repository = "/".join(asked.path.split("/")[2:4])
        allowed = {httpx2.BasicAuth(*login)._auth_header for login in rights.get(repository, ())}
        if repository not in rights or asked.headers.get("authorization") in allowed:
            return None
        return Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})

    registry.before = before


async def test_a_tenant_reads_its_private_image_and_another_reads_nothing_of_it(registry, cache) -> None:
    private_to(registry, {"team/app": (A_LOGIN,), "other/app": (A_LOGIN, B_LOGIN)})
    manifest = registry.put_image(tag="1", layers=(BODY,))
    blob = digest_of(BODY)
    assert (await cache.manifest("up/team/app", "1", auth=A_LOGIN)).status_code == 200
    assert (await cache.blob("up/team/app", blob, auth=A_LOGIN)).content == BODY

    for login in (B_LOGIN, None):
        statuses = [
            (await cache.manifest("up/team/app", "1", auth=login)).status_code,
            (await cache.manifest("up/team/app", manifest, auth=login)).status_code,
            (await cache.blob("up/team/app", blob, auth=login)).status_code,
            (await cache.blob("up/other/app", blob, auth=login)).status_code,
            (await cache.http.head(f"{cache.url}/v2/up/other/app/blobs/{blob}", auth=login)).status_code,
        ]
        assert statuses == [401, 401, 401, 404 if login else 401, 404 if login else 401]


async def test_a_manifest_that_names_a_stranger_s_blob_does_not_open_it(registry, cache) -> None:
    private_to(registry, {"team/app": (A_LOGIN,)})
    registry.put_image(tag="1", layers=(BODY,))
    await cache.blob("up/team/app", digest_of(BODY), auth=A_LOGIN)
    registry.put_image("evil/app", "1", layers=(BODY,))
    del registry.content[f"/v2/evil/app/blobs/{digest_of(BODY)}"]

    for login in (B_LOGIN, None):
        assert (await cache.manifest("up/evil/app", "1", auth=login)).status_code == 200
        assert (await cache.blob("up/evil/app", digest_of(BODY), auth=login)).status_code == 404


async def test_a_registry_that_claims_another_s_blob_does_not_open_it(registry, tmp_path: Path) -> None:
    private_to(registry, {"team/app": (A_LOGIN,)})
    registry.put_image(tag="1", layers=(BODY,))
    good = Upstream("good", f"127.0.0.1:{registry.port}", is_plain_http=True)
    evil = ScriptedRegistry()
    evil.before = lambda asked: Answer(
        headers={"Docker-Content-Digest": asked.path.rpartition("/")[2]}, body=b"x" * len(BODY)
    )
    async with evil.serving():
        liar = Upstream("liar", f"127.0.0.1:{evil.port}", is_plain_http=True)
        async with running_cache(settings_of(tmp_path, good, liar)) as cache:
            await cache.blob("good/team/app", digest_of(BODY), auth=A_LOGIN)
            for login in (B_LOGIN, None):
                with contextlib.suppress(httpx2.RemoteProtocolError):
                    answer = await cache.blob("liar/team/app", digest_of(BODY), auth=login)
                    assert answer.content != BODY


async def test_a_blob_that_is_coming_for_one_tenant_is_not_shared_with_who_may_not(registry, cache) -> None:
    private_to(registry, {"team/app": (A_LOGIN,)})
    digest = registry.put_blob("team/app", BODY)
    allowed, refused = await asyncio.gather(
        cache.blob("up/team/app", digest, auth=A_LOGIN), cache.blob("up/team/app", digest, auth=B_LOGIN)
    )
    assert allowed.content == BODY
    assert refused.status_code == 401


async def test_a_login_s_rights_hold_for_the_stated_time_only(registry, cache) -> None:
    private_to(registry, {"team/app": (A_LOGIN,)})
    registry.put_image(tag="1", layers=(BODY,))

    async def read() -> list[int]:
        return [
            (await cache.manifest("up/team/app", "1", auth=A_LOGIN)).status_code,
            (await cache.blob("up/team/app", digest_of(BODY), auth=A_LOGIN)).status_code,
        ]

    assert await read() == [200, 200]
    private_to(registry, {"team/app": ()})
    cache.clock.time += 59
    assert await read() == [200, 200]
    cache.clock.time += 2
    assert await read() == [401, 401]


async def test_a_login_is_not_served_past_its_rights_while_the_upstream_is_down(registry, cache) -> None:
    registry.put_image(tag="1")
    await cache.manifest("up/team/app", "1", auth=A_LOGIN)
    registry.before = lambda asked: Answer(503)
    cache.clock.time += 61
    assert (await cache.manifest("up/team/app", "1", auth=A_LOGIN)).status_code == 502


async def test_an_upstream_for_logins_only_gives_nothing_to_anybody(registry, tmp_path: Path) -> None:
    registry.put_image(tag="1")
    closed = Upstream("up", f"127.0.0.1:{registry.port}", is_plain_http=True, needs_login=True)
    async with running_cache(settings_of(tmp_path, closed, asks_login=True)) as cache:
        refused = await cache.manifest("up/team/app", "1")
        assert (refused.status_code, refused.headers["www-authenticate"][:5]) == (401, "Basic")
        assert (await cache.get("")).status_code == 401
        assert (await cache.get("", auth=A_LOGIN)).status_code == 200
        assert (await cache.manifest("up/team/app", "1", auth=A_LOGIN)).status_code == 200


@pytest.mark.parametrize("header", ["Bearer x", "Basic", "Basic !!", "Basic eA==", "Basic eDo="])
def test_a_login_that_cannot_be_read_is_refused_not_ignored(header: str) -> None:
    with pytest.raises(RegistryDenied):
        parse_login(header)


# --- paths --------------------------------------------------------------------------------------------------------

HUB = Upstream("docker.io", "registry-1.docker.io")
INNER = Upstream("inner", "registry.inner:5000")
DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("path", "ns", "host", "repository"),
    [
        ("python/manifests/3", None, "registry-1.docker.io", "library/python"),
        ("library/python/manifests/3", None, "registry-1.docker.io", "library/python"),
        ("docker.io/python/manifests/3", None, "registry-1.docker.io", "library/python"),
        (f"inner/team/app/blobs/{DIGEST}", None, "registry.inner:5000", "team/app"),
        ("team/app/manifests/1", "registry.inner:5000", "registry.inner:5000", "team/app"),
        ("library/python/manifests/3", "docker.io", "registry-1.docker.io", "library/python"),
        ("inner/manifests/manifests/manifests/1", None, "registry.inner:5000", "manifests/manifests"),
    ],
)
def test_a_path_means_an_upstream_and_a_repository(path, ns, host, repository, tmp_path) -> None:
    wanted = parse_path(settings_of(tmp_path, HUB, INNER), path, ns)
    assert wanted is not None
    assert (wanted.reference.host, wanted.reference.repository) == (host, repository)


@pytest.mark.parametrize(
    ("path", "ns"),
    [
        ("team/app/manifests/1", "evil.example"),
        ("quay.example/team/app/manifests/../1", None),
        ("inner/../x/manifests/1", None),
        ("inner/team/app/blobs/latest", None),
        ("inner/team/app/tags/list", None),
        ("manifests/1", None),
        ("inner/Team/manifests/1", None),
    ],
)
def test_what_means_nothing_is_not_asked_of_anybody(path, ns, tmp_path) -> None:
    assert parse_path(settings_of(tmp_path, HUB, INNER), path, ns) is None


def test_an_open_cache_takes_further_hosts_by_path(tmp_path) -> None:
    wanted = parse_path(settings_of(tmp_path, HUB, is_open=True), "quay.example/team/app/manifests/1", None)
    assert wanted is not None
    assert wanted.upstream.host == "quay.example"


@pytest.mark.parametrize(
    ("header", "extent"),
    [
        ("", (0, 100)),
        ("bytes=0-0", (0, 1)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-200", (0, 100)),
        ("bytes=100-", None),
        ("bytes=-0", None),
        ("bytes=5-4", None),
        ("bytes=-", (0, 100)),
        ("bytes=0-1,5-6", (0, 100)),
        ("lines=1-2", (0, 100)),
    ],
)
def test_ranges_are_read(header, extent) -> None:
    assert parse_range(header, 100) == extent
