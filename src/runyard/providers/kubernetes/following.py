"""run_job's loop: from what the watches see of an attempt to its phases, its logs, its artifacts and its outcome."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from runyard.model.errors import ProviderError
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode
from runyard.providers.kubernetes import verdict
from runyard.providers.kubernetes.attempt_logs import AttemptLogs
from runyard.providers.kubernetes.attempt_place import AttemptPlaces, Place
from runyard.providers.kubernetes.attempt_views import AttemptView
from runyard.providers.kubernetes.client import KubernetesClient
from runyard.providers.kubernetes.collecting import Collected, CollectFailed, collect, release
from runyard.providers.kubernetes.marks import STOP, EndMark
from runyard.providers.kubernetes.options import KubernetesOptions
from runyard.providers.kubernetes.sighting import Ended, Running, Sighting, Waiting, read_sighting
from runyard.providers.kubernetes.telling import phases_of, placement_of
from runyard.providers.port import AttemptRequest, RunContext

TIMER_S = 1.0
"""Behind the watches: the limits are looked at so often."""

COLLECT_START_S = 60.0
_COLLECTED = (OutcomeKind.SUCCEEDED, OutcomeKind.FAILED, OutcomeKind.TIMED_OUT)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a follower works with: the same for all attempts of a pool."""

    client: KubernetesClient
    places: AttemptPlaces
    options: KubernetesOptions


class AttemptFollower:
    """Follows one attempt that was started or found. Cancelling `follow` leaves it as it is."""

    def __init__(
        self,
        attempt: AttemptRequest,
        context: RunContext,
        *,
        cluster: Cluster,
        place: Place,
        view: AttemptView,
    ) -> None:
        self._attempt = attempt
        self._context = context
        self._cluster = cluster
        self._place = place
        self._view = view
        self._name = attempt.key.resource_name
        self._logs = AttemptLogs(cluster.client, context)
        self._was_seen = place.marks.stop is not None and place.marks.stop.was_seen
        self._phases: dict[str, float] = {}
        self._progress: str | None = None

    async def follow(self, changed: asyncio.Event) -> Outcome:
        """Until it ended and all it left is kept. `changed` is set whenever the view has news. Raises ProviderError."""
        try:
            if self._place.marks.end is not None:
                return await self._tell_again(self._place.marks.end)
            while True:
                changed.clear()
                sighting = self.sighting()
                await self._tell(sighting)
                self._logs.follow(sighting)
                self._logs.need_kept()
                outcome = self._judge(sighting)
                if outcome is not None and not self._must_wait(sighting, outcome):
                    if sighting.has_pod or not await self._cluster.places.look_again(self._name):
                        return await self._end(outcome, sighting)
                    continue  # there is a pod after all
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(TIMER_S):
                        await changed.wait()
        finally:
            await self._logs.close()

    def sighting(self) -> Sighting:
        """A pod that is gone counts in the state that was seen last, if that was its end; else it is just not there."""
        view = self._view
        job = None if view.is_job_gone else view.job
        sighting = read_sighting(job, view.pod)
        if view.is_pod_gone and sighting.is_alive:
            sighting = read_sighting(job, None)
        return sighting

    @property
    def _is_stopped(self) -> bool:
        annotations = (self._view.job or {}).get("metadata", {}).get("annotations") or {}
        return self._place.marks.stop is not None or STOP in annotations

    def _judge(self, sighting: Sighting) -> Outcome | None:
        marks = verdict.Marks(
            is_stopped=self._is_stopped,
            was_created=True,
            was_seen=self._was_seen,
            grace_s=self._cluster.options.kill_grace_s,
        )
        self._was_seen = verdict.was_seen(sighting, marks=marks)
        now, suspended_s = self._cluster.client.now(), self._cluster.options.suspended_s
        return verdict.judge(sighting, self._attempt.spec, marks=marks, now=now, suspended_s=suspended_s)

    def _must_wait(self, sighting: Sighting, outcome: Outcome) -> bool:
        """The steps may end before the container that collects has started, or is told to have: not for long."""
        if not isinstance(sighting.collect, Waiting) or not sighting.have_steps_ended:
            return False
        if self._view.is_pod_gone or outcome.kind not in _COLLECTED:
            return False
        ended_at = max((state.at or 0.0 for state in sighting.steps if isinstance(state, Ended)), default=0.0)
        return self._cluster.client.now() - ended_at < COLLECT_START_S

    # -- telling --------------------------------------------------------------------------------------------------
    async def _tell(self, sighting: Sighting) -> None:
        spec, context = self._attempt.spec, self._context
        for name, at in phases_of(sighting, spec):
            if name not in self._phases:
                self._phases[name] = at
                await context.record_phase(name, at)
        placement = placement_of(sighting, spec, namespace=self._cluster.client.namespace)
        if placement:
            await context.record_placement(placement)
        if "running" not in self._phases:
            await self._tell_progress(self._view.words or verdict.why_waiting(sighting, spec))

    async def _tell_progress(self, words: str | None) -> None:
        if words != self._progress:
            self._progress = words
            await self._context.record_progress(words)

    async def _tell_again(self, end: EndMark) -> Outcome:
        """It was told before, perhaps by one who died before all of its log was kept."""
        for name, at in end.phases.items():
            await self._context.record_phase(name, at)
        await self._context.record_outputs(end.outputs)
        sighting = self.sighting()
        placement = placement_of(sighting, self._attempt.spec, namespace=self._cluster.client.namespace)
        if placement:
            await self._context.record_placement(placement)
        self._logs.follow(sighting)
        await self._logs.drain()
        await self._let_go(sighting)
        return end.outcome

    # -- the end --------------------------------------------------------------------------------------------------
    async def _end(self, outcome: Outcome, sighting: Sighting) -> Outcome:
        """Keeps what it left, writes down how it ended, and only then lets the place go."""
        outputs: Mapping[str, str] = {}
        if sighting.collect is not None and sighting.have_steps_ended and outcome.kind in _COLLECTED:
            try:
                outputs = await self._collect(sighting)
            except CollectFailed as error:
                outcome = self._without_artifacts(outcome, str(error))
        must_end = sighting.is_alive and not sighting.have_steps_ended
        if not must_end:
            await self._logs.drain()
        told = EndMark(outcome=outcome, phases=self._phases, outputs=outputs)
        version = self._place.marks.version
        end = await self._cluster.places.record_end(self._name, told, version=version)
        if must_end:
            await self._cluster.places.end(self._name)
            await self._logs.drain()
        await self._context.record_outputs(end.outputs)
        await self._let_go(sighting)
        return end.outcome

    async def _collect(self, sighting: Sighting) -> Mapping[str, str]:
        if not isinstance(sighting.collect, Running):
            raise CollectFailed("the container that holds them is not running any more")
        collected: Collected = await collect(self._cluster.client, self._context, pod=sighting.pod_name)
        await self._logs.say(collected.words)
        return collected.outputs

    async def _let_go(self, sighting: Sighting) -> None:
        """Nothing of it runs any more: the collecting container is told that all is kept. What does not obey, or has
        not started at all, is ended."""
        if isinstance(sighting.collect, Running) and sighting.have_steps_ended:
            try:
                await release(self._cluster.client, pod=sighting.pod_name)
            except ProviderError as error:
                log.info("kubernetes_collect_not_released", pod=sighting.pod_name, error=error.message)
                await self._cluster.places.end(self._name)
            return
        is_over = sighting.has_pod and (
            sighting.have_steps_ended or sighting.pod_phase in ("Failed", "Succeeded")
        )
        if sighting.has_job and not is_over:
            await self._cluster.places.end(self._name)

    def _without_artifacts(self, outcome: Outcome, why: str) -> Outcome:
        """Its artifacts could not be had: a success is none then, and a stop in between has ended it. A failure stays
        what it is."""
        if outcome.kind is not OutcomeKind.SUCCEEDED:
            return outcome
        if self._is_stopped:
            reason = Reason(
                code=ReasonCode.CANCELED, message="canceled on request, before its artifacts were kept"
            )
            return Outcome(kind=OutcomeKind.CANCELED, reason=reason, usage=outcome.usage)
        reason = Reason(code=ReasonCode.ARTIFACTS, message=f"its artifacts could not be collected: {why}")
        return Outcome(kind=OutcomeKind.FAILED, reason=reason, usage=outcome.usage)
