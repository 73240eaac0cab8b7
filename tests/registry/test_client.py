"""The client against a registry that answers as scripted: what it makes of answers, and what it does not believe."""

import hashlib
import json

import pytest

from runyard.model.errors import (
    ImageUnsupported,
    RegistryCorrupt,
    RegistryDenied,
    RegistryNotFound,
    RegistryThrottled,
    RegistryUnreachable,
)
from runyard.registry.images import OCI_MANIFEST, Platform
from tests.registry.scripted_registry import CONFIG, LAYER, Answer, descriptor, digest_of

AMD64 = Platform("amd64")


async def test_an_image_is_resolved_to_digests_layers_and_config(registry, client, image) -> None:
    digest = registry.put_image(
        layers=(b"one", b"two"),
        Env=["PATH=/bin", "EMPTY=", "A=b=c"],
        Entrypoint=["/run"],
        Cmd=None,
        WorkingDir="/src",
        User="1000:1000",
    )

    resolved = await client.resolve(image, platform=AMD64)

    assert (resolved.digest, resolved.named_digest, resolved.size) == (digest, digest, 6)
    assert [(one.digest, one.size, one.media_type) for one in resolved.layers] == [
        (digest_of(b"one"), 3, LAYER),
        (digest_of(b"two"), 3, LAYER),
    ]
    assert resolved.layers[0].diff_id == digest_of(b"unpacked one")
    assert resolved.config.env == {"PATH": "/bin", "EMPTY": "", "A": "b=c"}
    assert (resolved.config.entrypoint, resolved.config.cmd) == (("/run",), ())
    assert (resolved.config.working_dir, resolved.config.user) == ("/src", "1000:1000")


@pytest.mark.parametrize(
    "config",
    [
        {"WorkingDir": "/\0--bind\0/\0/mnt"},
        {"WorkingDir": "/\ud800"},
        {"User": "0\0"},
        {"Cmd": ["/bin/sh", "a\0b"]},
        {"Entrypoint": ["\udcff"]},
    ],
)
async def test_a_config_of_texts_that_no_program_can_be_given_is_refused(
    registry, client, image, config
) -> None:
    registry.put_image(**config)
    with pytest.raises(RegistryCorrupt, match="the config holds"):
        await client.resolve(image, platform=AMD64)


async def test_variables_that_none_can_carry_are_left_out(registry, client, image) -> None:
    registry.put_image(Env=["A=1", "B=\0", "C=\ud800", "D\0=1"])
    assert (await client.resolve(image, platform=AMD64)).config.env == {"A": "1"}


async def test_an_index_leads_to_the_platform_s_image(registry, client, image) -> None:
    amd = registry.put_image(tag="amd")
    arm = registry.put_image(tag="arm", layers=(b"arm",), architecture="arm64")
    index = registry.put_index(
        "team/app",
        "1",
        [
            (amd, {"os": "linux", "architecture": "amd64"}),
            (arm, {"os": "linux", "architecture": "arm64", "variant": "v8"}),
        ],
    )

    assert (await client.resolve(image, platform=AMD64)).digest == amd
    resolved = await client.resolve(image, platform=Platform("arm64"))
    assert (resolved.digest, resolved.named_digest) == (arm, index)
    with pytest.raises(ImageUnsupported, match="it is for linux/amd64, linux/arm64/v8"):
        await client.resolve(image, platform=Platform("s390x"))


async def test_a_single_image_for_another_platform_is_refused(registry, client, image) -> None:
    registry.put_image(architecture="arm64")
    with pytest.raises(ImageUnsupported, match="it is for linux/arm64"):
        await client.resolve(image, platform=AMD64)


async def test_head_gives_the_digest_that_a_tag_has(registry, client, image) -> None:
    digest = registry.put_image()
    assert await client.head(image) == digest
    assert registry.paths() == []


async def test_head_reads_the_manifest_where_the_registry_does_not_say_its_digest(
    registry, client, image
) -> None:
    digest = registry.put_image()
    del registry.content["/v2/team/app/manifests/1"].headers["Docker-Content-Digest"]
    assert await client.head(image) == digest


async def test_a_blob_comes_whole_and_from_an_offset(registry, client, image) -> None:
    digest = registry.put_blob("team/app", b"0123456789")

    assert b"".join([piece async for piece in client.stream_blob(image, digest, size=10)]) == b"0123456789"
    before = hashlib.sha256(b"0123")
    rest = [piece async for piece in client.stream_blob(image, digest, offset=4, before=before)]
    assert b"".join(rest) == b"456789"


async def test_a_dropped_connection_is_resumed_where_it_ended(registry, client, image) -> None:
    body = bytes(range(256)) * 40
    digest = registry.put_blob("team/app", body)
    cuts = iter((1000, 0, 3000))

    def drop(asked):
        answer = registry._answer(asked)
        return Answer(answer.status, answer.headers, answer.body, cut=next(cuts, None))

    registry.before = drop

    assert b"".join([piece async for piece in client.stream_blob(image, digest, size=len(body))]) == body
    assert [one.headers.get("range") for one in registry.asked] == [
        None,
        "bytes=1000-",
        "bytes=1000-",
        "bytes=4000-",
    ]


async def test_a_registry_without_ranges_sends_again_and_nothing_comes_twice(registry, client, image) -> None:
    body = b"abcdefgh" * 100
    digest = registry.put_blob("team/app", body)
    cuts = iter((300,))
    registry.before = lambda asked: Answer(200, {}, body, cut=next(cuts, None))

    assert b"".join([piece async for piece in client.stream_blob(image, digest)]) == body


async def test_a_registry_that_always_drops_is_given_up(registry, client, image) -> None:
    digest = registry.put_blob("team/app", b"x" * 100)
    registry.before = lambda asked: Answer(200, {}, b"x" * 100, cut=0)
    with pytest.raises(RegistryUnreachable):
        [piece async for piece in client.stream_blob(image, digest)]


@pytest.mark.parametrize(
    "sent", [b"0123456780", b"01234567890", b"012345678"], ids=["another byte", "one more", "one less"]
)
async def test_a_blob_that_is_not_what_its_digest_says_is_corrupt(registry, client, image, sent) -> None:
    digest = digest_of(b"0123456789")
    registry.before = lambda asked: Answer(body=sent)
    with pytest.raises(RegistryCorrupt):
        [piece async for piece in client.stream_blob(image, digest)]


async def test_a_blob_of_another_size_than_stated_is_not_even_begun(registry, client, image) -> None:
    digest = registry.put_blob("team/app", b"x" * 5000)
    with pytest.raises(RegistryCorrupt, match="5000"):
        [piece async for piece in client.stream_blob(image, digest, size=50)]


async def test_a_body_without_a_length_is_cut_at_the_stated_size(registry, client, image) -> None:
    registry.before = lambda asked: Answer(body=b"x" * 5000, cut=5000, length=-1)
    with pytest.raises(RegistryCorrupt):
        [piece async for piece in client.stream_blob(image, digest_of(b"x"), size=1)]


async def test_a_manifest_of_another_digest_is_corrupt(registry, client, image) -> None:
    digest = registry.put_image()
    registry.put_image(tag="2", layers=(b"other",))
    other = registry.content["/v2/team/app/manifests/2"]
    registry.content[f"/v2/team/app/manifests/{digest}"] = other
    registry.content["/v2/team/app/manifests/1"].body = other.body
    with pytest.raises(RegistryCorrupt):
        await client.resolve(image.at(digest), platform=AMD64)
    with pytest.raises(RegistryCorrupt):
        await client.resolve(image, platform=AMD64)


async def test_a_manifest_beyond_the_bound_is_refused_unread(registry, client, image) -> None:
    registry.before = lambda asked: Answer(body=b" " * (5 << 20))
    with pytest.raises(RegistryDenied, match="larger than"):
        await client.resolve(image, platform=AMD64)


@pytest.mark.parametrize(
    ("document", "error"),
    [
        (b"not json", RegistryCorrupt),
        (b"[1]", RegistryCorrupt),
        (b"[" * 100_000, RegistryCorrupt),
        (json.dumps({"schemaVersion": 1, "fsLayers": []}).encode(), ImageUnsupported),
        (json.dumps({"mediaType": OCI_MANIFEST}).encode(), ImageUnsupported),
        (json.dumps({"mediaType": OCI_MANIFEST, "config": {}, "layers": []}).encode(), RegistryCorrupt),
        (
            json.dumps(
                {"mediaType": OCI_MANIFEST, "config": descriptor(CONFIG, "sha256:../x", 1), "layers": []}
            ).encode(),
            RegistryCorrupt,
        ),
        (
            json.dumps(
                {
                    "mediaType": OCI_MANIFEST,
                    "config": descriptor("text/x-chart", digest_of(b""), 1),
                    "layers": [],
                }
            ).encode(),
            ImageUnsupported,
        ),
        (
            json.dumps(
                {
                    "mediaType": OCI_MANIFEST,
                    "config": descriptor(CONFIG, digest_of(b""), 1),
                    "layers": [descriptor(LAYER, digest_of(b""), 1)] * 600,
                }
            ).encode(),
            ImageUnsupported,
        ),
        (
            json.dumps(
                {
                    "mediaType": OCI_MANIFEST,
                    "config": descriptor(CONFIG, digest_of(b""), 1 << 40),
                    "layers": [],
                }
            ).encode(),
            ImageUnsupported,
        ),
    ],
)
async def test_hostile_documents_are_refused_by_class(registry, client, image, document, error) -> None:
    registry.before = lambda asked: Answer(body=document)
    with pytest.raises(error):
        await client.resolve(image, platform=AMD64)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (Answer(404), RegistryNotFound),
        (Answer(403), RegistryDenied),
        (Answer(401), RegistryDenied),
        (Answer(429, {"Retry-After": "7"}), RegistryThrottled),
        (Answer(503), RegistryUnreachable),
    ],
)
async def test_an_answer_that_is_none_is_told_by_class(registry, client, image, answer, error) -> None:
    registry.before = lambda asked: answer
    with pytest.raises(error) as raised:
        await client.resolve(image, platform=AMD64)
    if isinstance(raised.value, RegistryThrottled):
        assert raised.value.after_s == 7


async def test_a_fault_that_passes_is_not_seen(registry, client, image) -> None:
    digest = registry.put_image()
    faults = iter((Answer(503), Answer(502)))
    registry.before = lambda asked: next(faults, None)
    assert await client.head(image) == digest


async def test_a_registry_that_is_not_there_is_unreachable(connect, image) -> None:
    with pytest.raises(RegistryUnreachable):
        await connect().head(image.__class__("registry.test:1", "a", "1"))
