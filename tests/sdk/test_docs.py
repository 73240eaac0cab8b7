"""The Python on the pages runs as it stands there, and docs/sdk.md names every method there is."""

import contextlib
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

import runyard.sdk
from runyard.sdk import Client, RunyardApiError, admin
from tests.sdk.served import TOKEN

DOCS = Path(__file__).parents[2] / "docs"
DOCUMENT = {"steps": [{"name": "test", "run": "true"}]}
GROUPS = {"queues": admin.Queues, "tenants": admin.Tenants, "pools": admin.Pools, "machines": admin.Machines,
          "tokens": admin.Tokens, "secrets": admin.Secrets}  # fmt: skip


def snippets(page):
    return re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text(), re.MULTILINE | re.DOTALL)


def public(kind):
    return [name for name, one in vars(kind).items() if callable(one) and not name.startswith("_")]


def run(snippet, namespace, page):
    exec(compile(snippet, page, "exec"), namespace)


@pytest.fixture
def found(served, monkeypatch):
    """The service is found as a program of the reader's would find it."""
    for name, value in served.environ.items():
        monkeypatch.setenv(name, value)
    return served


# -- calling-from-your-product.md -------------------------------------------------------------------------------------
class Outbox:
    def __init__(self, *rows):
        self.rows = list(rows)

    def pending(self):
        return list(self.rows)

    def delete(self, row):
        self.rows.remove(row)


class Enough(Exception):
    """The snippet follows for ever; the reader's store ends it."""


class Store:
    def __init__(self, cursor, unfinished, stop_after):
        self.kept, self.jobs, self.finished, self.stop_after = cursor, set(unfinished), [], stop_after

    def cursor(self):
        return self.kept

    def transaction(self):
        return contextlib.nullcontext()

    def unfinished(self):
        return sorted(self.jobs)

    def finish(self, job, state):
        self.finished.append((job, state))

    def save_cursor(self, cursor):
        self.kept = cursor
        if self.stop_after in self.finished:
            raise Enough


SUBMIT, FOLLOW = snippets("calling-from-your-product.md")


def test_the_outbox_is_emptied_into_one_job_for_each_row_however_often(found, client):
    row = SimpleNamespace(job_id="index-repo-4711", document=DOCUMENT)
    for _ in range(2):  # a crash between the answer and the delete leaves the row there
        outbox = Outbox(row)
        run(SUBMIT, {"outbox": outbox}, "calling-from-your-product.md")
        assert outbox.rows == []
    assert [job.id for job in client.list()] == ["index-repo-4711"]


@pytest.mark.parametrize("cursor", [None, "999999"], ids=["a first start", "a cursor that is not kept"])
def test_the_end_of_a_job_reaches_the_readers_store(found, client, cursor):
    for job_id in ("one", "two"):
        client.submit(DOCUMENT, job_id)
    client.cancel("one")
    client.cancel("two")
    store = Store(cursor, ["one", "two"], stop_after=("two", "canceled"))
    with pytest.raises(Enough):
        run(FOLLOW, {"store": store}, "calling-from-your-product.md")
    assert set(store.finished) == {("one", "canceled"), ("two", "canceled")}
    assert store.kept not in (None, "0", "999999")


# -- sdk.md -----------------------------------------------------------------------------------------------------------
SDK_SNIPPETS = snippets("sdk.md")
PAGE = (DOCS / "sdk.md").read_text()


@pytest.mark.parametrize("snippet", SDK_SNIPPETS, ids=range(len(SDK_SNIPPETS)))
def test_each_example_of_the_sdks_page_runs(found, client, monkeypatch, tmp_path, capsys, snippet):
    monkeypatch.chdir(tmp_path)
    client.queues.put("ci")
    client.submit(DOCUMENT, "finished")
    found.claim().prints(b"out\n").prints(b"err\n", "stderr").leaves("report.txt", b"well").ends()
    if "echo hello" not in snippet:
        run(snippet, {"client": client}, "sdk.md")
    else:
        with ThreadPoolExecutor(1) as pool:
            example = pool.submit(run, snippet, {}, "sdk.md")
            found.claim().prints(b"hello\n").ends()
            example.result(30)
        said = capsys.readouterr().out
        assert "hello" in said
        assert "succeeded" in said


def test_every_method_is_named_on_the_page_and_none_that_is_not_there():
    rows = set(re.findall(r"^\| `([a-z_.]+)\(", PAGE, re.MULTILINE))
    assert rows == {
        *public(Client),
        *(f"{group}.{name}" for group, kind in GROUPS.items() for name in public(kind)),
    }


def test_every_group_of_the_client_is_known_to_this_test():
    with Client("http://127.0.0.1:1", TOKEN) as client:
        groups = {name: type(one) for name, one in vars(client).items() if not name.startswith("_")}
    assert groups == GROUPS


def test_every_error_is_named_on_the_page():
    kinds = [getattr(runyard.sdk, name) for name in runyard.sdk.__all__]
    errors = {kind.__name__ for kind in kinds if isinstance(kind, type) and issubclass(kind, RunyardApiError)}
    rows = set(re.findall(r"^\| `([A-Z]\w+)` \|", PAGE, re.MULTILINE))
    assert rows == errors - {"RunyardApiError"}


def test_every_public_name_is_on_the_page():
    assert [name for name in runyard.sdk.__all__ if name not in PAGE] == []
