"""The `local` provider keeps repositories, from one service to the next, and never takes one from a running job."""

import asyncio
import secrets
from dataclasses import dataclass, field, replace

import pytest

from runyard.host.repositories.eviction import evict
from runyard.model.attempt import AttemptKey
from runyard.model.job import GitSource, JobSpec, Step, Workspace
from runyard.model.outcome import OutcomeKind
from tests.host.repositories.places import make_upstream
from tests.host.world import until
from tests.providers.local.test_local_provider import Context, open_provider, request

pytestmark = pytest.mark.service


@dataclass
class Watching(Context):
    said: list = field(default_factory=list)

    async def record_progress(self, text, *, fraction=None, done_bytes=None, total_bytes=None):
        self.said.append((text, fraction))


def wants(upstream, script, *, number=1, **git):
    step = Step(name="main", command=("/bin/sh", "-ec", script))
    workspace = Workspace(git=GitSource(url=f"file://{upstream.folder}", **git))
    asked = request(number=number, slot=number % 2, spec=JobSpec(steps=(step,), workspace=workspace))
    return replace(
        asked, key=AttemptKey(secrets.token_hex(8), number)
    )  # its group's name is this host's, not a folder's


async def test_what_was_fetched_is_there_for_the_next_service_and_progress_is_told(tmp_path):
    upstream = make_upstream(tmp_path / "upstream")
    upstream.commit({"a/file": "1\n", "b/file": "2\n"})
    options = {"git_protocols": ["file"], "git_file_roots": [str(tmp_path)]}
    first, second = Watching(tmp_path / "1"), Watching(tmp_path / "2")
    async with open_provider(tmp_path, **options) as provider:
        await provider.run_job(wants(upstream, "cat a/file", sparse=("a",)), first)
    async with open_provider(tmp_path, **options) as provider:
        outcome = await provider.run_job(wants(upstream, "cat a/file; ls", number=2, sparse=("a",)), second)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    assert (first.log(), second.log()) == ("1\n", "1\na\n")
    assert first.said
    assert all(0 <= fraction <= 1 for _, fraction in first.said)
    assert second.said == []


async def test_a_tree_stays_in_use_over_a_restart_of_the_service(tmp_path):
    upstream = make_upstream(tmp_path / "upstream")
    upstream.commit({"file": "1\n", "go": "no\n"})
    options = {"git_protocols": ["file"], "git_file_roots": [str(tmp_path)]}
    asked, context = (
        wants(upstream, "until [ -e /tmp/go ]; do sleep 0.02; done; cat file"),
        Watching(tmp_path / "1"),
    )
    async with open_provider(tmp_path, **options) as provider:
        running = asyncio.create_task(provider.run_job(asked, context))
        await until(lambda: "running" in context.phases)
        running.cancel()
        await provider.close()  # the service is gone; the job runs on
        store = tmp_path / "pool/repositories"
        assert evict(str(store), 0) > 0
        assert len(list(store.glob("*/trees/*/tree"))) == 1
        await provider.start()
        (tmp_path / f"pool/attempts/{asked.key.resource_name}/tmp/go").write_text("")
        outcome = await provider.run_job(asked, context)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    assert context.log() == "1\n"
