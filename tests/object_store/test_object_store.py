"""What an object store that does not do as it is asked looks like, and that no credentials are in any word of it."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator

import pytest

from runyard import object_store
from runyard.model.errors import ConfigError, StoreUnavailable
from runyard.object_store import ObjectMissing, ObjectStore, open_object_store

SECRET = "s3cret-Key"
OPTIONS = {"aws_access_key_id": "AKIAEXAMPLE", "aws_secret_access_key": SECRET, "aws_region": "us-east-1"}


@pytest.fixture
def quick(monkeypatch) -> None:
    """No retries, and a second for each request."""
    monkeypatch.setattr(object_store, "RETRIES_MAX", 0)
    monkeypatch.setattr(object_store, "REQUEST_TIMEOUT_S", 1)


@pytest.fixture
def answering(quick) -> Iterator[dict[str, int]]:
    """A server on a free port that answers each request with `status`; 0: never."""
    answer = {"status": 200}
    never = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            if not answer["status"]:
                never.wait(30)
                return
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(answer["status"])
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer

        def log_message(self, *words) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    answer["port"] = server.server_port
    yield answer
    never.set()
    server.shutdown()
    server.server_close()


def store_at(port: int) -> ObjectStore:
    options = {**OPTIONS, "aws_endpoint": f"http://127.0.0.1:{port}"}
    return open_object_store("s3://bucket/prefix", options, allow_http=True, field="logs.url")


async def failure(store: ObjectStore, verb: str) -> StoreUnavailable:
    calls = {
        "write": lambda: store.put("path", b"data"),
        "read": lambda: store.get("path"),
        "list": lambda: store.list("folder"),
        "delete": lambda: store.delete(["path"]),
    }
    with pytest.raises(StoreUnavailable) as caught:
        await calls[verb]()
    return caught.value


VERBS = ["write", "read", "list", "delete"]


@pytest.mark.service
@pytest.mark.parametrize("verb", VERBS)
async def test_a_refusal_says_what_was_not_allowed_and_the_cure(answering, verb):
    answering["status"] = 403
    error = await failure(store_at(answering["port"]), verb)

    assert f"not allowed to {verb}" in error.message
    assert "credentials" in error.cure


@pytest.mark.service
@pytest.mark.parametrize("status", [500, 503, 0], ids=["broken", "busy", "silent"])
async def test_a_store_that_is_broken_busy_or_silent_is_unavailable_in_time(answering, status):
    answering["status"] = status
    for verb in ("write", "list"):
        error = await failure(store_at(answering["port"]), verb)
        assert f"cannot {verb}" in error.message
        assert SECRET not in repr(error) + str(error) + error.message + str(error.__cause__)


@pytest.mark.parametrize("verb", VERBS)
async def test_a_store_that_cannot_be_reached_is_unavailable_and_no_word_holds_credentials(quick, verb):
    error = await failure(store_at(1), verb)

    assert "s3://bucket/prefix" in error.message
    for secret in (SECRET, "AKIAEXAMPLE", "Signature", "Authorization"):
        assert secret not in error.message


async def test_what_is_missing_is_told_apart_from_what_cannot_be_reached(tmp_path):
    store = open_object_store(f"file://{tmp_path}/objects", {}, field="logs.url")

    with pytest.raises(ObjectMissing):
        await store.get("absent")
    with pytest.raises(ObjectMissing):
        await store.get_range("absent", 0, 1)
    await store.put("there", b"x")
    await store.delete(["absent", "there", "absent too"])
    assert await store.list() == []


@pytest.mark.parametrize(
    "url", ["", "bucket", "s3://", "ftp://bucket", "/folder", "http://host/bucket", "memory:///", "s3:bucket"]
)
def test_an_address_that_is_none_is_refused_with_its_field(url):
    with pytest.raises(ConfigError) as caught:
        open_object_store(url, {}, field="logs.url")
    assert caught.value.field == "logs.url"


def test_an_option_that_is_none_is_refused_without_its_value():
    with pytest.raises(ConfigError) as caught:
        open_object_store("s3://bucket", {"aws_nonsense": SECRET}, field="logs.url")
    assert SECRET not in caught.value.message


def test_an_address_is_shown_without_credentials():
    assert object_store.without_credentials("s3://key:secret@bucket/prefix?x=secret") == "s3://bucket/prefix"
