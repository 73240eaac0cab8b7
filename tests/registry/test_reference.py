import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.model.errors import Invalid
from runyard.registry.reference import Reference, is_loopback_host, parse_reference

DIGEST = f"sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("python", "registry-1.docker.io", "library/python", "latest", None),
        ("python:3.12", "registry-1.docker.io", "library/python", "3.12", None),
        ("team/app:1", "registry-1.docker.io", "team/app", "1", None),
        ("docker.io/python", "registry-1.docker.io", "library/python", "latest", None),
        ("index.docker.io/a/b", "registry-1.docker.io", "a/b", "latest", None),
        ("localhost/app", "localhost", "app", "latest", None),
        ("Registry/app", "registry", "app", "latest", None),
        ("registry.example:5000/a/b/c:v1.0_x", "registry.example:5000", "a/b/c", "v1.0_x", None),
        ("[::1]:5000/app", "[::1]:5000", "app", "latest", None),
        (f"app@{DIGEST}", "registry-1.docker.io", "library/app", None, DIGEST),
        (f"r.example/app:1@{DIGEST}", "r.example", "app", "1", DIGEST),
    ],
)
def test_a_name_is_read_as_every_client_reads_it(text, host, repository, tag, digest) -> None:
    assert parse_reference(text) == Reference(host, repository, tag, digest)


@pytest.mark.parametrize(
    "text",
    [
        "", "App", "r.example/App", "a//b", "/a", "a/", "a:", "a:b:c", "a@sha256:12", f"a@sha512:{'a' * 128}", "a b",
        "r.example:99999/a", "r.example:/a", "..example/a", "a..b.example/../x", "user@r.example/a", "r.example/a?x=1",
        "http://r.example/a", "r.example/a#b", "r.example\\x/a", "r.example/a\n", "ümlaut.example/a", "a" * 2000,
        "r.example/..%2fb", "-r.example/a",
    ],
)  # fmt: skip
def test_what_is_no_name_is_refused_with_field_value_and_cure(text: str) -> None:
    with pytest.raises(Invalid) as refused:
        parse_reference(text)
    assert refused.value.field == "image"
    assert refused.value.cure
    assert repr(text)[:50] in refused.value.message


@given(st.text(alphabet="ab.:/@-_0[]%#?\\ \n", max_size=40))
def test_whatever_is_accepted_stays_one_host_and_one_path(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except Invalid:
        return
    assert not set("/@#?\\ \n%") & set(parsed.host)
    assert not set("@#?\\ \n%:") & set(parsed.repository)
    assert ".." not in parsed.repository
    assert parse_reference(str(parsed)) == parsed


def test_only_a_loopback_host_s_own_text_makes_it_loopback() -> None:
    assert [
        is_loopback_host(host) for host in ("localhost:5000", "127.9.9.9:80", "[::1]:5000", "127.0.0.1")
    ] == [True] * 4
    assert not any(map(is_loopback_host, ("localhost.example", "10.0.0.1", "127.0.0.1.example:80")))
