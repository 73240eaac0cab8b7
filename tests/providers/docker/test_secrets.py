"""Secrets on their way into containers: what a step gets, and where they are looked for in vain."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runyard.dispatch.masked_log import MaskedLog
from runyard.logs.masking import Masks
from runyard.model.errors import Unreachable
from runyard.model.job import Step
from runyard.model.outcome import Outcome, OutcomeKind
from runyard.model.secret import SecretUse, SecretValue
from runyard.providers.port import AttemptRequest
from runyard.testing.memory_context import MemoryContext
from tests.docker_daemon import DockerDaemon
from tests.providers.docker.conftest import Pool

pytestmark = pytest.mark.service

VALUE = b"correct horse/battery+staple-42"
FORMS = (VALUE, base64.b64encode(VALUE)[:-4])
OTHER = "runyard-test/other:1"
EVERY_BYTE = bytes(range(1, 256)) + b"\n\n"


def step(name: str, script: str, *uses: SecretUse, image: str | None = None) -> Step:
    return Step(name=name, command=("/bin/sh", "-c", script), secrets=uses, image=image)


def variable(name: str) -> SecretUse:
    return SecretUse(name=name.lower(), env=name)


def file(path: str) -> SecretUse:
    return SecretUse(name=path, path=path)


def with_secrets(pool: Pool, values: dict[str, bytes], *steps: Step | str, **spec: Any) -> AttemptRequest:
    """The request as dispatch makes it: a value for each use, by the use's name."""
    request = pool.request(*steps, **spec)
    uses = [(use, None) for use in request.spec.secrets]
    uses += [(use, each.name) for each in request.spec.steps for use in each.secrets]
    secrets = tuple(
        SecretValue(name=use.name, value=values[use.name], env=use.env, path=use.path, step=name)
        for use, name in uses
    )
    return replace(request, secrets=secrets)


async def run(pool: Pool, request: AttemptRequest) -> tuple[Outcome, MemoryContext]:
    context = MemoryContext(pool.folder)
    async with asyncio.timeout(60):
        return await pool.provider.run_job(request, context), context


async def test_a_step_gets_variables_and_files_byte_for_byte_and_nothing_more(pool: Pool) -> None:
    script = (
        'printf "%s" "$KEY"; cat /run/secrets/deep/key; stat -c "%a %u" /run/secrets/deep/key >&2; env >&2'
    )
    values = {"key": EVERY_BYTE, "deep/key": bytes(range(256)) * 256}
    request = with_secrets(pool, values, script, secrets=(variable("KEY"), file("deep/key")))
    outcome, context = await run(pool, request)
    assert outcome.reason is None, outcome
    assert context.printed() == EVERY_BYTE + values["deep/key"]
    seen = context.printed(stream="stderr").splitlines()
    assert seen[0] == b"400 1000"
    names = {line.partition(b"=")[0] for line in seen[1:] if b"=" in line and line[:1].isalpha()}
    assert names - {b"SHLVL", b"PWD", b"KEY"} == {
        b"PATH", b"HOME", b"LANG", b"TZ", b"CI", b"RUNYARD_STEP", b"RUNYARD_WORKSPACE", b"RUNYARD_OUTPUTS",
    }  # fmt: skip


async def test_a_secret_of_one_step_is_not_where_another_step_runs(pool: Pool) -> None:
    look = 'echo "[$KEY]"; ls /run/secrets 2>/dev/null; for it in /proc/1/environ /.runyard/state/*; do'
    look += ' grep -l "correct"" horse/" $it; done; true'  # not as it is: the plan holds this very text
    has_it = step("has it", "echo ${#KEY}; cat /run/secrets/key | wc -c", variable("KEY"), file("key"))
    length = b"%d\n" % len(VALUE)
    tampers = step("before", look + "; echo 'echo $KEY; exit' > /.runyard/state/plan.sh")
    for steps, printed in (
        ((tampers, has_it), (b"[]\n", length * 2)),
        ((has_it, step("after", look)), (length * 2, b"[]\n")),
    ):
        outcome, context = await run(pool, with_secrets(pool, {"key": VALUE}, *steps))
        assert outcome.reason is None, outcome
        assert (context.printed("000"), context.printed("001")) == printed


async def test_files_go_with_the_step_whatever_it_made_of_them(pool: Pool) -> None:
    first = (
        "chmod 700 /run/secrets/d; mkdir /run/secrets/d/deep; cp /run/secrets/d/key /run/secrets/d/deep/copy"
    )
    first += "; chmod 0 /run/secrets/d /run/secrets"
    request = with_secrets(
        pool, {"d/key": VALUE}, first, "find /run/secrets -type f", secrets=(file("d/key"),)
    )
    outcome, context = await run(pool, request)
    assert outcome.reason is None, outcome
    assert context.printed("001") == b"/run/secrets/d/key\n"


class CommandLines:
    """Those of all processes of the host, looked at all the time."""

    def __init__(self) -> None:
        self.found: set[bytes] = set()
        self._is_over = threading.Event()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch)
        thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            thread.join()

    def _watch(self) -> None:
        while not self._is_over.is_set():
            for entry in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.found.add(entry.read_bytes())


def written_beneath(folder: Path) -> Iterator[tuple[Path, bytes]]:
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file() and not path.is_symlink():
                yield path, path.read_bytes()


def holds_it(data: bytes) -> bool:
    return any(form in data for form in FORMS)


async def test_a_secret_is_in_no_listing_volume_log_or_command_line(
    pool: Pool, dockerd: DockerDaemon
) -> None:
    script = (
        'test "$(cat /run/secrets/token)" = "$TOKEN" && echo has it; until test -e go; do sleep 0.05; done'
    )
    steps = (step("first", script), step("second", "rm go; " + script, image=OTHER))
    request = with_secrets(pool, {"token": VALUE}, *steps, secrets=(variable("TOKEN"), file("token")))
    context, lines = MemoryContext(pool.folder), CommandLines()
    with lines.watched():
        running = asyncio.create_task(pool.provider.run_job(request, context))
        for index in (0, 1):
            name = f"{request.key.resource_name}-s{index}"
            await context.reached(f"step:{steps[index].name}")
            while context.printed(f"00{index}") != b"has it\n":  # noqa: ASYNC110 -- the memory's log tells nobody
                await asyncio.sleep(0.02)
            ids = (await asyncio.to_thread(dockerd.run, "ps", "-aq")).stdout.decode().split()
            inspected = (await asyncio.to_thread(dockerd.run, "inspect", *ids)).stdout
            assert name.encode() in inspected
            assert not holds_it(inspected)
            written = dict(written_beneath(dockerd.folder))
            assert any(path.name == "plan.sh" for path in written)
            assert [path for path, data in written.items() if holds_it(data)] == []
            await asyncio.to_thread(dockerd.run, "exec", name, "/bin/touch", "/workspace/go")
        outcome = await running
    assert outcome.reason is None, outcome
    assert any(b"step.sh\0run\0" in line for line in lines.found)
    assert [line for line in lines.found if holds_it(line)] == []


async def test_who_adopts_needs_no_secret_again(pool: Pool) -> None:
    script = "until test -e go; do sleep 0.05; done; echo ${#KEY}"
    request = with_secrets(
        pool, {"key": VALUE}, script, step("second", "echo ${#KEY}", image=OTHER), secrets=(variable("KEY"),)
    )
    context = MemoryContext(pool.folder)
    running = asyncio.create_task(pool.provider.run_job(request, context))
    await context.reached("running")
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    adopting = asyncio.create_task(pool.provider.run_job(replace(request, secrets=()), context))
    await pool.provider.place.client.execute(
        f"{request.key.resource_name}-s0", ["/bin/touch", "/workspace/go"]
    )
    outcome = await adopting
    assert outcome.reason is None, outcome
    assert context.printed("000") == context.printed("001") == b"%d\n" % len(VALUE)


class DyingContext(MemoryContext):
    """Whose lease lasts for so many creates and starts."""

    def __init__(self, folder: Path, lasts: int) -> None:
        super().__init__(folder)
        self.left = lasts

    def may_create(self, within_s: float) -> bool:
        self.left -= 1
        return self.left >= 0


@pytest.mark.parametrize("is_killed", [False, True])
async def test_a_start_that_ended_between_two_containers_is_made_again(
    pool: Pool, dockerd: DockerDaemon, is_killed: bool
) -> None:
    steps = (step("first", "echo ${#KEY} >> ran"), step("second", "cat ran; echo ${#KEY}", image=OTHER))
    request = with_secrets(pool, {"key": VALUE}, *steps, secrets=(variable("KEY"),))
    with pytest.raises(Unreachable):  # three creates, the start of the one that waits
        await pool.provider.run_job(request, DyingContext(pool.folder, 4))
    waiting = f"{request.key.resource_name}-s1"
    state = dockerd.run("inspect", "--format", "{{.State.Status}}", waiting).stdout.strip()
    assert state == b"running"
    if is_killed:
        dockerd.run("kill", waiting)
    nothing, _ = await run(pool, replace(request, secrets=()))
    assert (nothing.kind, nothing.was_seen) == (OutcomeKind.LOST, False)
    outcome, context = await run(pool, request)
    assert outcome.reason is None, outcome
    length = b"%d\n" % len(VALUE)
    assert (context.printed("000"), context.printed("001")) == (b"", length * 2)


async def test_what_a_step_prints_of_a_secret_is_masked_in_the_log(pool: Pool) -> None:
    request = with_secrets(
        pool,
        {"key": VALUE},
        'echo "a $KEY"; printf "%s" "$KEY" | base64 >&2; printf "%s" "$KEY" | head -c 20; sleep 0.1; echo b',
        secrets=(variable("KEY"),),
    )
    context = MemoryContext(pool.folder)
    stored = context.log
    context.log = MaskedLog(stored, Masks([VALUE]))  # type: ignore[assignment]
    outcome = await pool.provider.run_job(request, context)
    await context.log.finish()  # type: ignore[attr-defined]
    assert outcome.reason is None, outcome
    printed = stored.streams["000", "stdout"]
    assert printed.splitlines()[0] == b"a " + b"*" * len(VALUE)
    assert not any(holds_it(data) for data in stored.streams.values())
    assert stored.streams["000", "stderr"].startswith(b"*" * 30)


WRAPPER = '#!/.runyard/bin/busybox-real sh\necho "$@" >>/workspace/arguments\nexec /.runyard/bin/busybox-real "$@"\n'


async def test_no_program_of_ours_gets_a_secret_as_an_argument(pool: Pool, dockerd: DockerDaemon) -> None:
    """A command line may be there for a moment only: so each call of our busybox is written down."""
    [tools] = (dockerd.folder / "data/volumes").glob("runyard-tools-*/_data")
    (tools / "busybox").rename(tools / "busybox-real")
    try:
        (tools / "busybox").write_text(WRAPPER)
        (tools / "busybox").chmod(0o755)
        uses = (variable("TOKEN"), file("deep/token"))
        request = with_secrets(
            pool,
            {"token": VALUE, "deep/token": VALUE},
            'test -n "$TOKEN"',
            secrets=uses,
            artifacts=("arguments",),
        )
        outcome, context = await run(pool, request)
    finally:
        (tools / "busybox-real").rename(tools / "busybox")
    assert outcome.reason is None, outcome
    lines = context.artifacts["arguments"]
    assert all(word in lines for word in (b"RUNYARD_STEP=", b"base64 -d", b"mkdir -p /run/secrets/deep"))
    assert not holds_it(lines)
