"""A scheduler and a kubelet that do what a test scripts: place pods, run programs, stop, evict, lose nodes."""

from collections.abc import Sequence
from typing import Any

from tests.kubernetes.strict_server.cluster import Cluster
from tests.kubernetes.strict_server.pod_run import Container, PodRun
from tests.kubernetes.strict_server.programs import (
    ExecCall,
    ExecHandler,
    ExecResult,
    Exit,
    Pause,
    Programs,
    Say,
    Waiting,
    succeed_at_once,
)
from tests.kubernetes.strict_server.resources import NODES, PODS
from tests.kubernetes.strict_server.store import Change

Json = dict[str, Any]
SCHEDULING_S = 0.01
CREATING_S = 0.5  # sandbox and first container, measured
INIT_GAP_S = 0.9  # between one init container and the next, measured
KILLED = Exit(137, "Error")
TAINT_PATIENCE_S = 300


class Kubelet:
    """`programs` says what a container does; `places` False leaves pods without a node until `schedule`.

    With `runs` False a placed pod's containers wait until the test starts, prints and ends them by name.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.programs: Programs = succeed_at_once
        self.exec_handler: ExecHandler = lambda call: ExecResult()
        self.exec_calls: list[ExecCall] = []
        self.places, self.runs = True, True
        self._runs: dict[str, PodRun] = {}
        self._lost: set[str] = set()
        self._numbers = 1
        cluster.store.listeners.append(self._on_change)

    # --- what a test does by hand -------------------------------------------------------------------------------

    def run_of(self, pod_name: str) -> PodRun:
        return next(run for run in self._runs.values() if run.name == pod_name)

    def find_run(self, uid: str) -> PodRun | None:
        return self._runs.get(uid)

    def schedule(self, pod_name: str, node: str = "node-1") -> None:
        pod = self._pod(pod_name)
        if pod is None or "deletionTimestamp" in pod["metadata"] or pod["spec"].get("nodeName"):
            return
        status = with_condition(pod["status"], self._condition("PodScheduled", "True"))
        self._cluster.save(PODS, {**pod, "spec": {**pod["spec"], "nodeName": node}, "status": status})

    def mark_unschedulable(self, pod_name: str, message: str) -> None:
        """`message` in the scheduler's words: `0/1 nodes are available: 1 Insufficient cpu. …`"""
        pod = self._pod(pod_name)
        assert pod is not None
        made = self._condition("PodScheduled", "False", "Unschedulable", message)
        self._cluster.set_status(PODS, pod, with_condition(pod["status"], made))

    def wait_container(self, pod_name: str, name: str, reason: str, message: str = "") -> None:
        run = self.run_of(pod_name)
        run.container(name).state = waiting_state(Waiting(reason, message))
        self._publish(run)

    def start_container(self, pod_name: str, name: str) -> None:
        run = self.run_of(pod_name)
        run.start(run.container(name))
        run.phase = (
            "Running"
            if all(each.ended or each.is_sidecar for each in run.containers if each.is_init)
            else "Pending"
        )
        self._publish(run)

    def say(self, pod_name: str, name: str, data: bytes) -> None:
        self.run_of(pod_name).container(name).log.write(data)

    def end_container(self, pod_name: str, name: str, how: Exit) -> None:
        run = self.run_of(pod_name)
        self._end(run, run.container(name), how)

    def evict(self, pod_name: str, message: str) -> None:
        """By the kubelet under pressure: the pod stays, Failed and Evicted, its containers killed."""
        run = self.run_of(pod_name)
        run.more_status = {"reason": "Evicted", "message": message}
        run.more_conditions = [self._condition("DisruptionTarget", "True", "TerminationByKubelet", message)]
        run.phase = "Failed"
        self._kill(run)

    def preempt(self, pod_name: str) -> None:
        words = "default-scheduler: preempting to accommodate a higher priority pod"
        self._disrupt(pod_name, "PreemptionByScheduler", words)

    def lose_node(self, node: str = "node-1") -> None:
        """The kubelet falls silent; after the pods' patience they are deleted, which it never confirms."""
        self._lost.add(node)
        self._cluster.clock.call_later(TAINT_PATIENCE_S, lambda: self._taint(node))

    def remove_node(self, node: str = "node-1") -> None:
        """The Node object goes, and pod garbage collection with force what was on it."""
        self._lost.add(node)
        if self._cluster.store.get(NODES, "", node) is not None:
            self._cluster.delete(NODES, "", node, {})
        for run in [run for run in self._runs.values() if run.pod["spec"].get("nodeName") == node]:
            pod = self._pod(run.name)
            assert pod is not None
            made = self._condition(
                "DisruptionTarget", "True", "DeletionByPodGC", "PodGC: node no longer exists"
            )
            self._cluster.set_status(PODS, pod, {**with_condition(pod["status"], made), "phase": "Failed"})
            self._cluster.delete(PODS, pod["metadata"]["namespace"], run.name, {"gracePeriodSeconds": 0})

    def _taint(self, node: str) -> None:
        for run in list(self._runs.values()):
            if run.pod["spec"].get("nodeName") == node:
                self._disrupt(
                    run.name, "DeletionByTaintManager", "Taint manager: deleting due to NoExecute taint"
                )

    def _disrupt(self, pod_name: str, reason: str, message: str) -> None:
        pod = self._pod(pod_name)
        assert pod is not None
        made = self._condition("DisruptionTarget", "True", reason, message)
        self._cluster.set_status(PODS, pod, with_condition(pod["status"], made))
        self._cluster.delete(PODS, pod["metadata"]["namespace"], pod_name, {})

    # --- what it does by itself ---------------------------------------------------------------------------------

    def _on_change(self, change: Change) -> None:
        if change.resource != PODS:
            return
        pod, metadata = change.after, change.after["metadata"]
        if change.type == "DELETED":
            run = self._runs.pop(metadata["uid"], None)
            for container in run.containers if run else ():
                container.log.end()
        elif change.type == "ADDED" and self.places:
            self._cluster.clock.call_later(SCHEDULING_S, lambda: self.schedule(metadata["name"]))
        elif pod["spec"].get("nodeName") and metadata["uid"] not in self._runs:
            self._take(pod)
        run = self._runs.get(metadata["uid"])
        if run and "deletionTimestamp" in metadata and not run.is_terminating and not self._is_lost(run):
            self._cluster.clock.call_later(
                0.0, lambda: self._terminate(run, metadata["deletionGracePeriodSeconds"])
            )

    def _take(self, pod: Json) -> None:
        run = PodRun(pod, self._cluster.clock, self._numbers)
        self._numbers += len(run.containers)
        self._runs[pod["metadata"]["uid"]] = run
        self._cluster.clock.call_later(SCHEDULING_S, lambda: self._publish(run))
        if self.runs:
            self._cluster.clock.call_later(CREATING_S, lambda: self._continue(run))

    def _continue(self, run: PodRun) -> None:
        """Starts what may start now: the next init container, or all the others together."""
        if run.is_terminating or self._is_lost(run) or run.phase in {"Succeeded", "Failed"}:
            return
        for container in run.containers:
            if not container.is_init or container.ended:
                continue
            if container.is_sidecar and container.runs:
                continue
            if not container.runs:
                self._start(run, container)
            if not container.is_sidecar:
                return
        for container in run.main:
            if not container.runs and not container.ended:
                self._start(run, container)

    def _start(self, run: PodRun, container: Container) -> None:
        program = self.programs(run.pod, container.spec)
        if program.waits:
            container.state = waiting_state(program.waits)
        elif isinstance(first := (program.steps or (None,))[0], Exit) and first.reason == "StartError":
            self._end(run, container, first)
            return
        else:
            run.start(container)
            self._perform(run, container, program.steps)
        if any(each.runs for each in run.main):
            run.phase = "Running"
        self._publish(run)

    def _perform(self, run: PodRun, container: Container, steps: Sequence[Say | Pause | Exit]) -> None:
        for index, step in enumerate(steps):
            if not container.runs:
                return
            match step:
                case Say(data):
                    container.log.write(data)
                case Pause(seconds):
                    self._perform_later(seconds, run, container, steps[index + 1 :])
                    return
                case Exit():
                    # Not within the start itself: the running state is seen first, as the kubelet's relist does.
                    self._end_later(0.05, run, container, step)

    def _perform_later(
        self, delay_s: float, run: PodRun, container: Container, steps: Sequence[Say | Pause | Exit]
    ) -> None:
        self._cluster.clock.call_later(delay_s, lambda: self._perform(run, container, steps))

    def _end_later(self, delay_s: float, run: PodRun, container: Container, how: Exit) -> None:
        self._cluster.clock.call_later(delay_s, lambda: self._end_running(run, container, how))

    def _end_running(self, run: PodRun, container: Container, how: Exit) -> None:
        if container.runs and not self._is_lost(run):
            self._end(run, container, how)

    def _end(self, run: PodRun, container: Container, how: Exit) -> None:
        run.end(container, how)
        later = self._cluster.clock.call_later
        if container.is_init:
            if how.code == 0:
                later(INIT_GAP_S, lambda: self._continue(run))
            else:
                later(self._cluster.features.phase_lag_s, lambda: self._settle(run, "Failed"))
        elif all(each.ended for each in run.main):
            for sidecar in [each for each in run.containers if each.is_sidecar and each.runs]:
                run.end(sidecar, Exit(0))
            if not run.is_terminating:
                later(self._cluster.features.phase_lag_s, lambda: self._settle(run, run.outcome_phase()))
        self._publish(run)

    def _settle(self, run: PodRun, phase: str) -> None:
        if run.phase not in {"Succeeded", "Failed"}:
            run.phase = phase
            self._publish(run)

    # --- the end of a pod ---------------------------------------------------------------------------------------

    def _terminate(self, run: PodRun, grace_s: int) -> None:
        """TERM to all, KILL after the grace, then the status, then the object."""
        if run.is_terminating:
            return
        run.is_terminating = True
        for container in run.containers:
            on_term = self.programs(run.pod, container.spec).on_term
            if container.runs and on_term is not None:
                self._end(run, container, on_term)
        if any(each.runs for each in run.containers):
            self._cluster.clock.call_later(grace_s, lambda: self._after_grace(run))
        else:
            self._after_grace(run)

    def _after_grace(self, run: PodRun) -> None:
        if run.phase not in {"Succeeded", "Failed"}:
            run.phase = "Failed"
            self._kill(run)
        self._cluster.clock.call_later(0.3, lambda: self._forget(run))

    def _kill(self, run: PodRun) -> None:
        for container in run.containers:
            if container.runs:
                run.end(container, KILLED)
        self._publish(run)

    def _forget(self, run: PodRun) -> None:
        """The kubelet's own last delete, with grace 0; the object stays while it has a finalizer."""
        pod = self._pod(run.name)
        if pod is not None and pod["metadata"]["uid"] == run.pod["metadata"]["uid"]:
            pod["metadata"]["deletionGracePeriodSeconds"] = 0
            self._cluster.save(PODS, pod)

    # --- leaves -------------------------------------------------------------------------------------------------

    def _is_lost(self, run: PodRun) -> bool:
        return run.pod["spec"].get("nodeName") in self._lost

    def _pod(self, name: str) -> Json | None:
        return next(
            (pod for pod in self._cluster.store.select(PODS) if pod["metadata"]["name"] == name), None
        )

    def _publish(self, run: PodRun) -> None:
        pod = self._pod(run.name)
        if (
            pod is not None
            and not self._is_lost(run)
            and pod["metadata"]["uid"] == run.pod["metadata"]["uid"]
        ):
            self._cluster.set_status(PODS, pod, run.status(pod["status"]))

    def _condition(self, kind: str, value: str, reason: str = "", message: str = "") -> Json:
        made = {
            "type": kind,
            "status": value,
            "lastProbeTime": None,
            "lastTransitionTime": self._cluster.now_text(),
        }
        return made | ({"reason": reason} if reason else {}) | ({"message": message} if message else {})


def with_condition(status: Json, made: Json) -> Json:
    kept = [each for each in status.get("conditions") or [] if each["type"] != made["type"]]
    return {**status, "conditions": [*kept, made]}


def waiting_state(waiting: Waiting) -> Json:
    return {"waiting": {"reason": waiting.reason} | ({"message": waiting.message} if waiting.message else {})}
