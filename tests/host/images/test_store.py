"""The store of images, from a real registry: one download, one unpacking, rights, the disk budget, crashes."""

import asyncio
import contextlib
import json
import os
import urllib.request

import pytest

from runyard.bench.image_registry import image_registry
from runyard.host.images.disk import ImageDisk
from runyard.host.images.layer_stream import LayerRefused
from runyard.host.images.store import RIGHTS_S, ImageDiskFull, ImageStore, ImageTooLarge
from runyard.model.errors import (
    ImageUnsupported,
    Invalid,
    RegistryDenied,
    RegistryNotFound,
    RegistryUnreachable,
)
from runyard.registry.client import RegistryClient
from runyard.registry.credentials import CredentialStore, Rule
from tests.host.images.layers import entry, hard_link
from tests.host.world import until
from tests.registry_server import busybox_entries, free_port, serving_registry

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with serving_registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.push("base:1", busybox_entries(), config={"Env": ["A=b"], "User": "bob"})
        yield registry


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    with serving_registry(tmp_path_factory.mktemp("guarded"), passwords={"ann": "pw"}) as registry:
        yield registry


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def open_store(folder, *, rules=(), leases=None, **fields):
    client = RegistryClient(allow_address=lambda address: address == "127.0.0.1")
    store = ImageStore(folder, client, CredentialStore(rules), **{"bytes_max": 1 << 30, **fields})
    await store.start(leases)
    try:
        yield store
    finally:
        await store.close()
        await client.close()


def blobs(registry) -> int:
    return registry.count("GET", "/blobs/")


async def test_an_image_is_pulled_and_its_configuration_read(tmp_path, registry):
    heard = []
    async with open_store(tmp_path / "images") as store:
        image = await store.obtain(
            f"{registry.address}/base:1",
            tenant="t",
            lease="a",
            report=lambda done, total: heard.append((done, total)),
        )
    assert (image.user.user_id, image.user.group_id) == (1234, 1235)
    assert dict(image.env) == {"A": "b"}
    assert os.readlink(f"{image.layers[0]}/bin/sh") == "busybox"
    assert heard[-1][0] == heard[-1][1] > 100_000
    assert os.stat(tmp_path / "images").st_mode & 0o777 == 0o700


async def test_32_at_once_are_one_download_of_each_blob(tmp_path, registry):
    registry.push("many:1", busybox_entries("many"), [entry("b", os.urandom(1 << 20))], [entry("c", "x")])
    before, heads = blobs(registry), registry.count("HEAD", "many/manifests")
    async with open_store(tmp_path / "images") as store:
        images = await asyncio.gather(
            *(
                store.obtain(f"{registry.address}/many:1", tenant="t", lease=f"a{number}")
                for number in range(32)
            )
        )
    assert len({image.layers for image in images}) == 1
    assert blobs(registry) - before == 4  # three layers and the configuration
    assert registry.count("HEAD", "many/manifests") - heads == 1


async def test_layers_that_images_share_are_there_once(tmp_path, registry):
    registry.push("base:2", busybox_entries(), [entry("more", "x")])
    async with open_store(tmp_path / "images") as store:
        base = await store.obtain(f"{registry.address}/base:1", tenant="t", lease="a")
        before = blobs(registry)
        child = await store.obtain(f"{registry.address}/base:2", tenant="t", lease="b")
    assert child.layers[1:] == base.layers
    assert blobs(registry) - before == 2


async def test_after_a_restart_it_is_a_hit_with_one_question_to_the_registry(tmp_path, registry):
    async with open_store(tmp_path / "images") as store:
        first = await store.obtain(f"{registry.address}/base:1", tenant="t", lease="a")
    counts = blobs(registry), registry.count("GET", "/manifests/"), registry.count("HEAD", "/manifests/")
    async with open_store(tmp_path / "images") as store:
        assert (
            await store.obtain(f"{registry.address}/base:1", tenant="t", lease="a")
        ).layers == first.layers
        await store.obtain(f"{registry.address}/base:1", tenant="t", lease="b")
    now = blobs(registry), registry.count("GET", "/manifests/"), registry.count("HEAD", "/manifests/")
    assert now == (counts[0], counts[1], counts[2] + 1)


async def test_a_moved_tag_is_seen_once_the_last_answer_is_old(tmp_path, registry):
    clock = Clock()
    registry.push("moving:1", busybox_entries("one"))
    async with open_store(tmp_path / "images", clock=clock) as store:
        first = await store.obtain(f"{registry.address}/moving:1", tenant="t", lease="a")
        moved = registry.push("moving:1", busybox_entries("two"))
        assert (
            await store.obtain(f"{registry.address}/moving:1", tenant="t", lease="a")
        ).digest == first.digest
        clock.now += RIGHTS_S + 1
        assert (await store.obtain(f"{registry.address}/moving:1", tenant="t", lease="a")).digest == moved
        pinned = f"{registry.address}/moving@{first.digest}"
        assert (await store.obtain(pinned, tenant="t", lease="a")).digest == first.digest


# -- rights ------------------------------------------------------------------------------------------------------


async def test_a_tenant_without_rights_gets_no_hit_that_another_one_made(tmp_path, guarded):
    push_guarded(guarded)
    rule = Rule(guarded.address, username="ann", password="pw", tenants=frozenset(["allowed"]))
    async with open_store(tmp_path / "images", rules=[rule]) as store:
        image = await store.obtain(f"{guarded.address}/secret:1", tenant="allowed", lease="a")
        for name in ("secret:1", f"secret@{image.digest}"):
            with pytest.raises(RegistryDenied):
                await store.obtain(f"{guarded.address}/{name}", tenant="other", lease="b")


async def test_a_registry_that_claims_another_ones_image_must_give_it_whole(tmp_path, registry):
    """Its word that a tag of its own has that digest, and the manifest, are no proof that it has the content."""
    async with open_store(tmp_path / "images") as store:
        image = await store.obtain(f"{registry.address}/base:1", tenant="victim", lease="a")
        accept = {"Accept": "application/vnd.oci.image.manifest.v1+json"}
        url = f"http://{registry.address}/v2/base"
        asked = urllib.request.Request(f"{url}/manifests/{image.digest}", headers=accept)
        manifest = await asyncio.to_thread(read, asked)
        config = json.loads(manifest)["config"]["digest"]
        with image_registry() as evil:
            evil.manifests["mine"] = evil.manifests[image.digest] = manifest
            evil.blobs[config] = await asyncio.to_thread(read, f"{url}/blobs/{config}")
            for name in ("mine", f"mine@{image.digest}"):
                with pytest.raises(RegistryNotFound):
                    await store.obtain(f"{evil.address}/x:{name}", tenant="thief", lease="b")
            for layer in json.loads(manifest)["layers"]:
                evil.blobs[layer["digest"]] = await asyncio.to_thread(read, f"{url}/blobs/{layer['digest']}")
            shared = await store.obtain(f"{evil.address}/x:mine", tenant="thief", lease="b")
            assert shared.layers == image.layers


async def test_rights_that_were_taken_back_count_soon(tmp_path, guarded):
    push_guarded(guarded)
    password, clock = tmp_path / "password", Clock()
    password.write_text("pw")
    rule = Rule(guarded.address, username="ann", password_file=password)
    async with open_store(tmp_path / "images", rules=[rule], clock=clock) as store:
        await store.obtain(f"{guarded.address}/secret:1", tenant="t", lease="a")
        password.write_text("wrong")
        with pytest.raises(RegistryDenied):
            await store.obtain(f"{guarded.address}/secret:1", tenant="t", lease="a")


def read(url) -> bytes:
    with urllib.request.urlopen(url) as answer:
        return answer.read()


def push_guarded(guarded) -> None:
    import subprocess

    from tests.registry_server import write_layout

    layout = guarded.folder / "layout"
    write_layout(layout, [busybox_entries()], {})
    subprocess.run(
        ["skopeo", "copy", "-q", "--dest-tls-verify=false", "--dest-creds", "ann:pw", f"oci:{layout}:it",
         f"docker://{guarded.address}/secret:1"], check=True, capture_output=True,
    )  # fmt: skip


# -- what is wrong with an image -----------------------------------------------------------------------------------


async def test_what_is_wrong_is_said(tmp_path, registry):
    registry.push("arch:1", busybox_entries(), architecture="s390x")
    registry.push("user:1", busybox_entries(), config={"User": "nobody-knows"})
    registry.push("number:1", busybox_entries(), config={"User": "9" * 5000})
    registry.push("hostile:1", [hard_link("x", "../../etc/passwd")])
    closed = f"127.0.0.1:{free_port()}"
    async with open_store(tmp_path / "images") as store:
        for name, error, words in (
            (f"{registry.address}/missing:1", RegistryNotFound, "is not there"),
            (f"{registry.address}/arch:1", ImageUnsupported, "s390x"),
            (f"{registry.address}/user:1", LayerRefused, "nobody-knows"),
            (f"{registry.address}/number:1", LayerRefused, "beyond the 65536 ids"),
            (f"{registry.address}/hostile:1", LayerRefused, "leads out"),
            (f"{closed}/x:1", RegistryUnreachable, "cannot be reached"),
            ("No Such", Invalid, "no image name"),
        ):
            with pytest.raises(error, match=words):
                await store.obtain(name, tenant="t", lease="a")
    assert os.listdir(tmp_path / "images/tmp") == []


async def test_who_stops_waiting_does_not_end_the_pull_of_others(tmp_path, registry):
    registry.push("shared:1", busybox_entries("shared"), [entry("b", os.urandom(4 << 20))])
    async with open_store(tmp_path / "images") as store:
        first = asyncio.create_task(store.obtain(f"{registry.address}/shared:1", tenant="t", lease="a"))
        second = asyncio.create_task(store.obtain(f"{registry.address}/shared:1", tenant="t", lease="b"))
        await asyncio.sleep(0)
        first.cancel()
        with pytest.raises(asyncio.CancelledError):
            await first
        assert (await second).layers


async def test_a_pull_that_was_cut_leaves_nothing_half(tmp_path, registry):
    registry.push("cut:1", busybox_entries("cut"), [entry("b", os.urandom(8 << 20))])
    began = asyncio.Event()
    async with open_store(tmp_path / "images") as store:
        pull = asyncio.create_task(
            store.obtain(f"{registry.address}/cut:1", tenant="t", lease="a", report=lambda *_: began.set())
        )
        await began.wait()
    with pytest.raises(asyncio.CancelledError):
        await pull
    (tmp_path / "images/tmp/leftover/deep").mkdir(parents=True)
    (tmp_path / "images/layers/torn").mkdir()
    async with open_store(tmp_path / "images") as store:
        assert (await store.obtain(f"{registry.address}/cut:1", tenant="t", lease="a")).layers
        await until(
            lambda: os.listdir(tmp_path / "images/tmp") == []
        )  # beside the pull, and cut off by a close
    assert "torn" not in os.listdir(tmp_path / "images/layers")


async def test_a_layer_that_may_not_have_reached_the_disk_is_fetched_again_after_a_reboot(tmp_path, registry):
    async with open_store(tmp_path / "images") as store:
        image = await store.obtain(f"{registry.address}/base:1", tenant="t", lease="a")
    facts = tmp_path / "images/layers" / image.layers[0].split("/")[-2] / "layer.json"
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "boot_id": "another boot"}))
    before = blobs(registry)
    async with open_store(tmp_path / "images") as store:
        await store.obtain(f"{registry.address}/base:1", tenant="t", lease="a")
    assert blobs(registry) > before


# -- the disk budget -----------------------------------------------------------------------------------------------


async def test_the_longest_unused_goes_and_what_is_in_use_stays(tmp_path, registry):
    for number in range(4):
        registry.push(f"big{number}:1", [entry("data", os.urandom(2 << 20))])

    async def obtain(store, number, lease):
        return await store.obtain(f"{registry.address}/big{number}:1", tenant="t", lease=lease)

    async with open_store(tmp_path / "images", bytes_max=5 << 20) as store:
        used = await obtain(store, 0, "running")
        idle = await obtain(store, 1, "done")
        store.release("done")
        new = await obtain(store, 2, "new")
        assert [os.access(image.layers[0], os.F_OK) for image in (used, idle, new)] == [True, False, True]
        with pytest.raises(ImageDiskFull):
            await obtain(store, 3, "fourth")
        store.release("fourth")
        store.release("running")
        assert (await obtain(store, 3, "fourth")).layers
        assert store.bytes <= 5 << 20


async def test_what_an_attempts_plan_names_stays_over_a_restart(tmp_path, registry):
    async with open_store(tmp_path / "images") as store:
        base = await store.obtain(f"{registry.address}/base:1", tenant="t", lease="a")
    registry.push("big:1", [entry("data", os.urandom(1 << 20))])
    async with open_store(tmp_path / "images", leases={"a": base.layers}, bytes_max=3 << 20) as store:
        with contextlib.suppress(ImageDiskFull):
            await store.obtain(f"{registry.address}/big:1", tenant="t", lease="b")
        assert os.access(base.layers[0], os.F_OK)


async def test_an_image_beyond_the_whole_budget_is_refused(tmp_path, registry):
    registry.push("zeros:1", [entry("data", bytes(8 << 20))])
    async with open_store(tmp_path / "images", bytes_max=4 << 20) as store:
        with pytest.raises(ImageTooLarge, match="image_disk_max"):
            await store.obtain(f"{registry.address}/zeros:1", tenant="t", lease="a")
        store.release("a")
        assert (await store.obtain(f"{registry.address}/base:1", tenant="t", lease="b")).layers


async def test_a_layer_that_was_dropped_while_it_was_written_out_does_not_come_back(tmp_path, registry):
    async with open_store(tmp_path / "images") as store:
        image = await store.obtain(f"{registry.address}/base:1", tenant="t", lease="a")
        assert image.layers
    disk = ImageDisk(tmp_path / "images")
    disk.load()
    [(chain, layer), *_] = disk.layers.items()
    disk.drop_layer(chain)
    with pytest.raises(FileNotFoundError):
        disk.write_facts(layer)
    disk.exchange_layer(layer, layer)
    assert chain not in disk.layers
