from __future__ import annotations

import pytest

from tests.api.world import a_document


@pytest.fixture
async def key(service, admin):
    await admin.put("/api/v1/jobs/a", json=a_document())
    key = (await service.claim()).attempt.key
    folder = service.artifacts.directory(key)
    (folder / "out").mkdir(parents=True)
    (folder / "out" / "page.html").write_bytes(b"<script>0123456789</script>")
    (folder / "große datei").write_bytes(b"x")
    return key


async def test_artifacts_are_listed_with_size_and_attempt(key, admin):
    listed = (await admin.get("/api/v1/jobs/a/artifacts")).json()["artifacts"]

    assert listed == [
        {"path": "große datei", "size": 1, "attempt": 1},
        {"path": "out/page.html", "size": 27, "attempt": 1},
    ]


async def test_an_artifact_is_a_download_that_no_browser_runs(key, admin):
    answer = await admin.get("/api/v1/jobs/a/artifacts/out/page.html")
    named = await admin.get("/api/v1/jobs/a/artifacts/gro%C3%9Fe%20datei")

    assert answer.content == b"<script>0123456789</script>"
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''page.html"
    assert named.headers["Content-Disposition"] == "attachment; filename*=UTF-8''gro%C3%9Fe%20datei"


async def test_an_artifact_is_resumed_by_range(key, admin):
    answer = await admin.get("/api/v1/jobs/a/artifacts/out/page.html", headers={"Range": "bytes=8-17"})
    behind = await admin.get("/api/v1/jobs/a/artifacts/out/page.html", headers={"Range": "bytes=27-"})

    assert (answer.status_code, answer.content) == (206, b"0123456789")
    assert answer.headers["Content-Range"] == "bytes 8-17/27"
    assert behind.status_code == 416


@pytest.mark.parametrize(
    "path",
    ["nothing", "out", "out/", "../a", "%2e%2e/%2e%2e/secret", "..%2f..%2fsecret", "/etc/passwd", "%2fetc%2fpasswd",
     "link", "folder/secret", "out/../link", "%00", "out/page.html%00", "%ff"],
)  # fmt: skip
async def test_nothing_outside_the_attempt_is_ever_opened(service, key, admin, path, tmp_path):
    (tmp_path / "secret").write_text("secret")
    folder = service.artifacts.directory(key)
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "folder").symlink_to(tmp_path)
    answer = await admin.get(f"/api/v1/jobs/a/artifacts/{path}")

    assert answer.status_code in (404, 422)
    assert "secret" not in answer.json()["error"]["code"]


async def test_a_name_with_a_line_break_is_listed_and_downloaded(service, key, admin):
    (service.artifacts.directory(key) / "two\nlines").write_bytes(b"both")
    answer = await admin.get("/api/v1/jobs/a/artifacts/two%0Alines")

    assert answer.content == b"both"
    assert answer.headers["Content-Disposition"] == "attachment; filename*=UTF-8''two%0Alines"
