"""What the service counts of its work, and that no label of it can grow without bound."""

from __future__ import annotations

import asyncio
import shutil
import subprocess

import pytest
from prometheus_client.openmetrics.exposition import generate_latest as openmetrics_text
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from runyard.api.open_bounds import OpenBounds
from runyard.dispatch.telemetry import PHASES, EndedAttempt, phase_seconds, start_seconds
from runyard.ledger.opening import create_ledger
from runyard.metrics import render_metrics
from runyard.model.job import JobState
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, succeeded
from runyard.model.pool import WaitCode, now, soon
from runyard.model.queue import QueueSettings
from runyard.registry.cache.counters import Counters
from runyard.service_metrics import OTHER, POOLS_MAX, QUEUES_MAX, ServiceMetrics
from tests.contracts.ledger.world import ManualClock, World, pool_settings
from tests.journeys.holdings import metric


def an_end(pool: str = "local", queue: str = "default", **changes: object) -> EndedAttempt:
    phases = phase_seconds(10.0, {"preparing": 10.001, "running": 10.5, "step:one": 10.5}, 12.0)
    values = {
        "outcome": succeeded(),
        "state": JobState.SUCCEEDED,
        "phases": phases,
        "start_s": 0.5,
        "cache_uses": {("named", "restored"): 1},
    }
    return EndedAttempt(pool=pool, queue=queue, **(values | changes))


async def the_text(metrics: ServiceMetrics, *, queues: int = 0, pools: int = 0) -> str:
    """As it is scraped, over a ledger with that many queues and pools."""
    ledger = create_ledger("sqlite://:memory:", clock=ManualClock(), is_threaded=False)
    await ledger.open()
    for number in range(queues):
        await ledger.put_queue(QueueSettings(name=f"queue-{number}"))
    for number in range(pools):
        await ledger.put_pool(pool_settings(f"pool-{number}"))
    try:
        return (await render_metrics(ledger, Counters(), service=metrics, bounds=OpenBounds())).decode()
    finally:
        await ledger.close()


def labels_of(text: str, label: str) -> set[str]:
    samples = (sample for family in parse_text(text) for sample in family.samples)
    return {sample.labels[label] for sample in samples if label in sample.labels}


async def the_busy_text() -> str:
    """With every metric in it that there is."""
    metrics = ServiceMetrics()
    metrics.attempt_claimed("local", "default", waited_s=0.004)
    metrics.attempt_ended(an_end())
    metrics.pool_answered("local", [now(1)])
    metrics.resources_pruned("local", destroyed=1, kept=0)
    metrics.lease_lost("local")
    metrics.ledger_unavailable("local")
    return await the_text(metrics, pools=1)


# -- phases -------------------------------------------------------------------------------------------------------
def test_each_phase_lasts_until_the_next_and_all_steps_are_one() -> None:
    phases = {"preparing": 1.5, "image": 2.0, "running": 4.0, "step:a": 4.0, "step:b": 6.0, "collecting": 9.0}
    assert phase_seconds(1.0, phases, 9.5) == {
        "claimed": 0.5,
        "preparing": 0.5,
        "image": 2.0,
        "step": 5.0,
        "collecting": 0.5,
    }
    assert start_seconds(1.0, phases) == 3.0


def test_an_attempt_without_a_step_has_no_start_time() -> None:
    assert start_seconds(1.0, {"preparing": 1.5}) is None
    assert phase_seconds(1.0, {}, 3.0) == {"claimed": 2.0}


def test_clocks_that_disagree_make_no_negative_time() -> None:
    phases = phase_seconds(10.0, {"preparing": 9.0, "running": 11.0}, 10.5)
    assert all(seconds >= 0 for seconds in phases.values())
    assert start_seconds(10.0, {"running": 9.0}) == 0.0


def test_what_a_provider_makes_up_counts_as_other() -> None:
    assert set(phase_seconds(0.0, {f"made-up-{n}": float(n) for n in range(100)}, 100.0)) <= set(PHASES)


# -- counting -----------------------------------------------------------------------------------------------------
async def test_an_attempt_is_counted_by_its_end_and_timed_by_its_phases() -> None:
    metrics = ServiceMetrics()
    metrics.attempt_claimed("local", "default", waited_s=0.004)
    metrics.attempt_ended(an_end())
    exit_1 = Outcome(kind=OutcomeKind.FAILED, reason=Reason(code=ReasonCode.EXIT, message="exit code 1"))
    metrics.attempt_ended(an_end(outcome=exit_1, state=JobState.QUEUED))
    text = await the_text(metrics)
    for series, value in {
        'runyard_claims_total{pool="local"}': 1,
        'runyard_attempts_total{outcome="succeeded",pool="local",reason="none"}': 1,
        'runyard_attempts_total{outcome="failed",pool="local",reason="exit"}': 1,
        'runyard_jobs_settled_total{queue="default",state="queued"}': 1,
        'runyard_queue_wait_seconds_bucket{le="0.005",queue="default"}': 1,
        'runyard_queue_wait_seconds_bucket{le="0.001",queue="default"}': 0,
        'runyard_phase_seconds_count{phase="step",pool="local"}': 2,
        'runyard_phase_seconds_sum{phase="step",pool="local"}': 3,
        'runyard_start_seconds_count{pool="local"}': 2,
        'runyard_cache_uses_total{cache="named",pool="local",result="restored"}': 2,
    }.items():
        assert metric(text, series) == value, series


async def test_what_a_pool_answered_last_is_shown_by_code() -> None:
    metrics = ServiceMetrics()
    metrics.pool_answered("local", [now(3), soon(WaitCode.QUOTA, "no"), soon(WaitCode.QUOTA, "no")])
    text = await the_text(metrics)
    assert metric(text, 'runyard_pool_answers{code="quota",pool="local"}') == 2
    assert metric(text, 'runyard_pool_answers{code="now",pool="local"}') == 1
    metrics.pool_answered("local", [])
    assert metric(await the_text(metrics), 'runyard_pool_answers{code="quota",pool="local"}') == 0


async def test_a_stalled_queue_is_shown() -> None:
    clock = ManualClock()
    ledger = create_ledger("sqlite://:memory:", clock=clock, is_threaded=False)
    await ledger.open()
    await World(ledger, clock).submit()
    series = 'runyard_queue_stalled{queue="default"}'
    assert metric((await render_metrics(ledger)).decode(), series) == 0
    clock.advance(61)
    assert metric((await render_metrics(ledger)).decode(), series) == 1
    await ledger.close()


# -- bounds -------------------------------------------------------------------------------------------------------
async def test_no_label_grows_without_bound() -> None:
    metrics = ServiceMetrics()

    def work(round_: int) -> None:
        for number in range(round_ * 300, (round_ + 1) * 300):
            pool, queue = f"pool-{number}", f"q-{number}"
            metrics.attempt_claimed(pool, queue, waited_s=1.0)
            metrics.attempt_ended(an_end(pool, queue))
            metrics.pool_answered(pool, [soon(WaitCode.QUOTA, "no")])
            metrics.resources_pruned(pool, destroyed=1, kept=0)
            metrics.lease_lost(pool)
            metrics.ledger_unavailable(pool)

    work(0)
    first = await the_text(metrics, queues=300, pools=60)
    work(1)
    second = await the_text(metrics, queues=600, pools=90)
    for text in (first, second):
        assert len(labels_of(text, "queue")) == QUEUES_MAX + 1
        assert len(labels_of(text, "pool")) == POOLS_MAX + 1
    assert OTHER in labels_of(second, "queue")
    assert first.count("\n") == second.count("\n")
    assert metric(second, 'runyard_claims_total{pool="other"}') == 600 - POOLS_MAX


# -- the format ---------------------------------------------------------------------------------------------------
async def test_the_text_is_what_prometheus_reads() -> None:
    metrics = ServiceMetrics()
    metrics.attempt_claimed("local", "default", waited_s=0.004)
    metrics.attempt_ended(an_end())
    text = await the_busy_text()
    names = [family.name for family in parse_text(text)]
    assert len(names) == len(set(names)), "a family stands once"
    assert any(name == "runyard_phase_seconds" for name in names)
    assert not any(line.split("{")[0].endswith("_created") for line in text.splitlines())
    assert list(parse_openmetrics(openmetrics_text(metrics.registry).decode()))


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
async def test_promtool_finds_nothing_to_say() -> None:
    text = await the_busy_text()
    command = ["promtool", "check", "metrics"]
    found = await asyncio.to_thread(subprocess.run, command, input=text, text=True, capture_output=True)
    assert found.returncode == 0, found.stdout + found.stderr
