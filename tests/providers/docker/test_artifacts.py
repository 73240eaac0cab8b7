"""Which files of a workspace are kept, read from a tar that streams in."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncGenerator

import pytest

from runyard.model.errors import ConfigError
from runyard.providers.docker.artifacts import TarReader, matches
from runyard.providers.docker.checks import MEMORY_BYTES, judge_container
from runyard.providers.docker.options import parse_options


@pytest.mark.parametrize(
    ("pattern", "path", "is_matched"),
    [
        ("out", "out/a/b", True),
        ("*.txt", "a.txt", True),
        ("*.txt", "b/a.txt", False),
        ("**/*.txt", "b/c/a.txt", True),
        ("**/*.txt", "a.txt", True),
        ("out/**", "out/x", True),
        ("out/*/c", "out/b/d", False),
    ],
)
def test_a_glob_matches_as_on_a_local_pool(pattern: str, path: str, is_matched: bool) -> None:
    assert matches(pattern.split("/"), path.split("/")) is is_matched


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
async def test_a_tar_is_read_wherever_it_is_cut(form: int) -> None:
    out = io.BytesIO()
    files = {"short": b"1" * 700, "deep/" * 40 + "long": b"", "ünïcode": b"x" * 512}
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))

    async def chunks() -> AsyncGenerator[bytes, None]:
        data = out.getvalue()
        for at in range(0, len(data), 333):
            yield data[at : at + 333]

    reader, found = TarReader(chunks()), {}
    async for entry in reader.entries():
        found[entry.name] = b"".join([piece async for piece in reader.content()])
    assert found == files


def test_wrong_options_are_all_named_with_their_cure() -> None:
    with pytest.raises(ConfigError) as error:
        parse_options("c", {"host": "docker", "user": 0, "colour": 1, "tls_key": "/k", "memory": "lots"})
    for word in ("host = 'docker'", "user = 0", "colour is not known", "tls_certificate", "memory = 'lots'"):
        assert word in error.value.message


def test_what_a_daemon_does_not_enforce_is_complained_of_with_a_cure() -> None:
    seen = {
        "CapEff": "00000000a80425fb",
        "NoNewPrivs": "0",
        "Seccomp": "0",
        "root": "writable",
        "links": "eth0 lo",
    }
    wrong = {
        finding.name for finding in judge_container(seen, 0.1, pids_max=5) if not finding.ok and finding.cure
    }
    assert wrong == {"isolation", "seccomp", "limits"}
    good = {
        "CapEff": "0", "NoNewPrivs": "1", "Seccomp": "2", "root": "read-only", "links": "lo",
        "memory": str(MEMORY_BYTES), "pids": "5",
    }  # fmt: skip
    assert all(finding.ok for finding in judge_container(good, 0.1, pids_max=5))
