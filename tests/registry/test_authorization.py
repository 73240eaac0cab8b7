"""Who is shown which credentials: the challenge, the token server, redirects, and hosts that no image may reach."""

import json
from urllib.parse import parse_qs, urlsplit

import pytest

from runyard.model.errors import RegistryCorrupt, RegistryDenied, RegistryError, RegistryUnreachable
from runyard.registry.challenge import Basic, Bearer, parse_challenges
from runyard.registry.credentials import Credentials
from runyard.registry.images import OCI_MANIFEST, Platform
from runyard.registry.reference import Reference
from tests.registry.conftest import PRIVATE, PUBLIC
from tests.registry.scripted_registry import CONFIG, Answer, descriptor

SECRET = "s3cret-of-team"
MINE = Credentials("ci", SECRET)
BASIC = "Basic Y2k6czNjcmV0LW9mLXRlYW0="


def demand_token(registry, realm: str | None = None, lives_s: int = 300):
    """Answers 401 without the token of its token server, which is on the same port under another name."""
    realm = realm or f"{registry.url('auth.test')}/token"

    def before(asked):
        if asked.path.startswith("/token"):
            return Answer(body=json.dumps({"token": "the-token", "expires_in": lives_s}).encode())
        if asked.headers.get("authorization") == "Bearer the-token":
            return None
        return Answer(
            401, {"WWW-Authenticate": f'Bearer realm="{realm}",service="reg",scope="repository:x:pull"'}
        )

    registry.before = before


@pytest.mark.parametrize(
    ("headers", "parsed"),
    [
        (
            ['Bearer realm="https://a/t",service="s",scope="a:b:pull,push"'],
            Bearer("https://a/t", "s", "a:b:pull,push"),
        ),
        (["bearer realm=https://a/t"], Bearer("https://a/t")),
        (['Basic realm="x", Bearer realm="https://a/t"'], Bearer("https://a/t")),
        (['Basic realm="a \\"b\\""'], Basic()),
        (["Basic"], Basic()),
        (["Negotiate", 'Bearer service="no realm"'], None),
        (["", '="', "Bearer realm="], None),
    ],
)
def test_challenges_are_read(headers, parsed) -> None:
    assert parse_challenges(headers) == parsed


async def test_a_token_is_fetched_once_with_the_credentials_and_used_again(registry, client, image) -> None:
    demand_token(registry)
    registry.put_image()

    await client.resolve(image, credentials=MINE, platform=Platform("amd64"))
    await client.head(image, credentials=MINE)

    tokens = [one for one in registry.asked if one.path.startswith("/token")]
    assert len(tokens) == 1
    assert tokens[0].headers["authorization"] == BASIC
    assert parse_qs(urlsplit(tokens[0].path).query) == {"service": ["reg"], "scope": ["repository:x:pull"]}
    others = {one.headers.get("authorization") for one in registry.asked if not one.path.startswith("/token")}
    assert others == {None, "Bearer the-token"}


async def test_a_token_of_one_tenant_is_never_used_for_another(registry, client, image) -> None:
    demand_token(registry)
    registry.put_image()
    await client.head(image, credentials=MINE)

    await client.head(image, credentials=None)

    tokens = [one for one in registry.asked if one.path.startswith("/token")]
    assert [one.headers.get("authorization") for one in tokens] == [BASIC, None]


async def test_a_token_that_is_refused_is_fetched_anew_once(registry, client, image) -> None:
    registry.put_image()
    good = iter(("old", "new"))
    current = []

    def before(asked):
        if asked.path.startswith("/token"):
            current[:] = [next(good)]
            return Answer(body=json.dumps({"access_token": current[0]}).encode())
        if current and asked.headers.get("authorization") == f"Bearer {current[0]}":
            return None
        return Answer(401, {"WWW-Authenticate": f'Bearer realm="{registry.url("auth.test")}/token"'})

    registry.before = before
    await client.head(image)
    current[:] = ["expired at the registry"]
    await client.head(image)


async def test_an_identity_token_is_exchanged_by_post(registry, client, image) -> None:
    demand_token(registry)
    registry.put_image()
    await client.head(image, credentials=Credentials("<token>", identity_token="refresh-me"))
    (asked,) = [one for one in registry.asked if one.path.startswith("/token")]
    form = parse_qs(asked.headers["body"])
    assert (asked.method, form["grant_type"], form["refresh_token"]) == (
        "POST",
        ["refresh_token"],
        ["refresh-me"],
    )


async def test_basic_is_answered_only_when_it_was_asked_for(registry, client, image) -> None:
    registry.put_image()
    registry.before = lambda asked: (
        None
        if asked.headers.get("authorization") == BASIC
        else Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})
    )
    await client.head(image, credentials=MINE)
    await client.head(image, credentials=MINE)
    assert [one.headers.get("authorization") for one in registry.asked] == [None, BASIC, BASIC]


@pytest.mark.parametrize("credentials", [None, Credentials("ci", "wrong")])
async def test_a_refusal_names_the_user_and_never_the_password(registry, client, image, credentials) -> None:
    registry.before = lambda asked: Answer(
        401,
        {"WWW-Authenticate": 'Basic realm="r"'},
        body=json.dumps(asked.headers).encode(),
    )
    with pytest.raises(RegistryDenied) as refused:
        await client.head(image, credentials=credentials)
    assert "wrong" not in f"{refused.value} {refused.value.cure} {refused.value!r}"


def test_credentials_and_tokens_are_hidden_in_their_texts() -> None:
    assert SECRET not in repr(MINE)
    assert "refresh" not in repr(Credentials("<token>", identity_token="refresh"))


async def test_a_redirect_to_another_host_is_followed_without_credentials(registry, client, image) -> None:
    digest = registry.put_blob("team/app", b"stored elsewhere")
    demand_token(registry)
    authorised = registry.before

    def before(asked):
        if asked.path == "/stored?signature=x":
            return Answer(body=b"stored elsewhere")
        refused = authorised(asked)
        return refused or Answer(307, {"Location": f"{registry.url('other.test')}/stored?signature=x"})

    registry.before = before

    pieces = [piece async for piece in client.stream_blob(image, digest, credentials=MINE)]

    assert b"".join(pieces) == b"stored elsewhere"
    (stored,) = [one for one in registry.asked if one.path.startswith("/stored")]
    assert "authorization" not in stored.headers
    assert stored.headers["host"].startswith("other.test:")


async def test_a_redirect_that_comes_back_home_keeps_its_credentials(registry, client, image) -> None:
    registry.put_image()
    demand_token(registry)
    authorised = registry.before
    registry.before = lambda asked: (
        authorised(asked)
        or (Answer(302, {"Location": "/v2/team/app/manifests/1"}) if asked.path.endswith("/moved") else None)
    )
    await client.head(Reference(image.host, "team/app", tag="moved"), credentials=MINE)


async def test_redirects_end_somewhere(registry, client, image) -> None:
    registry.before = lambda asked: Answer(302, {"Location": asked.path})
    with pytest.raises(RegistryUnreachable, match="redirects more than"):
        await client.head(image)


LEADS_ASTRAY = (
    "{inner}/latest/meta-data",
    "http://127.0.0.2:{port}/x",
    "https://127.0.0.2:{port}/x",
    "http://plain.example/x",
    "https://user:secret@other.test:{port}/x",
    "ftp://other.test/x",
    "file:///etc/passwd",
    "gopher://x/",
    "https:///x",
    "http://[::ffff:127.0.0.2]:{port}/x",
)


def astray(registry, where: str) -> str:
    return where.format(inner=registry.url("inner.private"), port=registry.port)


@pytest.mark.parametrize("where", LEADS_ASTRAY)
async def test_a_redirect_reaches_no_address_that_is_not_allowed(registry, client, image, where) -> None:
    registry.before = lambda asked: Answer(307, {"Location": astray(registry, where)})
    with pytest.raises(RegistryError) as refused:
        await client.head(image, credentials=MINE)
    assert SECRET not in str(refused.value)
    assert [one.path for one in registry.asked if not one.path.startswith("/v2/")] == []


@pytest.mark.parametrize("where", LEADS_ASTRAY)
async def test_a_token_server_is_no_way_to_an_address_that_is_not_allowed(
    registry, client, image, where
) -> None:
    realm = astray(registry, where)
    registry.before = lambda asked: Answer(401, {"WWW-Authenticate": f'Bearer realm="{realm}"'})
    with pytest.raises(RegistryError):
        await client.head(image, credentials=MINE)
    assert [one.path for one in registry.asked if not one.path.startswith("/v2/")] == []


async def test_an_image_name_reaches_no_address_that_is_not_allowed(registry, client) -> None:
    with pytest.raises(RegistryDenied, match="which images may not be fetched from"):
        await client.head(Reference(f"inner.private:{registry.port}", "app", tag="1"))
    assert registry.asked == []


async def test_a_host_that_the_operator_named_may_be_at_a_private_address(registry, connect) -> None:
    digest = registry.put_image()
    client = connect(private=("inner.private",))
    assert await client.head(Reference(f"inner.private:{registry.port}", "team/app", tag="1")) == digest


async def test_an_image_of_elsewhere_does_not_reach_the_private_hosts_by_redirect(
    registry, connect, image
) -> None:
    registry.put_image()
    client = connect(private=("inner.private",))
    await client.head(Reference(f"inner.private:{registry.port}", "team/app", tag="1"))  # leaves a connection
    count = len(registry.asked)
    registry.before = lambda asked: Answer(307, {"Location": f"{registry.url('inner.private')}/v2/"})
    with pytest.raises(RegistryDenied):
        await client.head(image)
    assert len(registry.asked) == count + 1


async def test_one_address_of_several_that_is_not_allowed_closes_them_all(registry, connect, image) -> None:
    async def resolve(host, port):
        return [PUBLIC, PRIVATE]

    with pytest.raises(RegistryDenied):
        await connect(resolve=resolve).head(image)
    assert registry.asked == []


async def test_a_name_that_changes_its_mind_is_looked_at_for_each_connection(
    registry, connect, image
) -> None:
    answers = iter(([PUBLIC], [PRIVATE], [PRIVATE], [PRIVATE]))

    async def resolve(host, port):
        return next(answers)

    registry.put_image()
    registry.before = lambda asked: Answer(
        307, {"Location": f"{registry.url('other.test')}/v2/team/app/manifests/1"}
    )
    with pytest.raises(RegistryDenied):
        await connect(resolve=resolve).head(image)
    assert len(registry.asked) == 1


async def test_the_urls_of_a_layer_are_never_asked(registry, client, image) -> None:
    foreign = {
        **descriptor("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", f"sha256:{'0' * 64}", 5),
        "urls": [f"{registry.url('inner.private')}/layer", f"{registry.url('other.test')}/layer"],
    }
    config = b'{"os": "linux", "architecture": "amd64", "rootfs": {"diff_ids": ["sha256:%s"]}}' % (b"0" * 64)
    manifest = {
        "mediaType": OCI_MANIFEST,
        "config": descriptor(CONFIG, registry.put_blob("team/app", config), len(config)),
        "layers": [foreign],
    }
    registry.put_manifest("team/app", ["1"], manifest, OCI_MANIFEST)

    resolved = await client.resolve(image, platform=Platform("amd64"))
    with pytest.raises(RegistryError):
        [piece async for piece in client.stream_blob(image, resolved.layers[0].digest)]

    assert all(one.path.startswith("/v2/team/app/") for one in registry.asked)


async def test_a_token_server_that_answers_nonsense_is_told_without_its_answer(
    registry, client, image
) -> None:
    demand_token(registry)
    first = registry.before
    registry.before = lambda asked: (
        Answer(body=b'{"tok": "x-y-z"}') if "token" in asked.path else first(asked)
    )
    with pytest.raises(RegistryCorrupt) as raised:
        await client.head(image)
    assert "x-y-z" not in str(raised.value)
