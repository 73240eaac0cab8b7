"""The Job controller for Jobs of one pod: pod, conditions, suspension, deadline, time to live."""

import copy
from datetime import timedelta
from typing import Any

from tests.kubernetes.strict_server.clock import parse_time, seconds_text
from tests.kubernetes.strict_server.cluster import Cluster
from tests.kubernetes.strict_server.resources import EVENTS, JOBS, PODS
from tests.kubernetes.strict_server.status import Refusal
from tests.kubernetes.strict_server.store import Change

Json = dict[str, Any]
LAG_S = 0.01
TRACKING = "batch.kubernetes.io/job-tracking"
BACKOFF = ("BackoffLimitExceeded", "Job has reached the specified backoff limit")
DEADLINE = ("DeadlineExceeded", "Job was active longer than specified deadline")
COMPLETED = ("CompletionsReached", "Reached expected number of succeeded pods")


class JobController:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._refused: dict[str, int] = {}  # how often a Job's pod was refused
        cluster.store.listeners.append(self._on_change)

    def _on_change(self, change: Change) -> None:
        metadata = change.after["metadata"]
        if change.resource == JOBS:
            self._sync_later(metadata["namespace"], metadata["name"], LAG_S)
            if change.type == "DELETED" or "deletionTimestamp" in metadata:
                self._cluster.clock.call_later(LAG_S, lambda: self._release_all(metadata["uid"]))
        elif change.resource == PODS:
            for owner in metadata.get("ownerReferences") or []:
                # A deletion is looked at at once, a change of status with the next batch.
                delay = LAG_S if "deletionTimestamp" in metadata else self._cluster.features.pod_batch_s
                self._sync_later(metadata["namespace"], owner["name"], delay)

    def _sync_later(self, namespace: str, name: str, delay_s: float) -> None:
        self._cluster.clock.call_later(delay_s, lambda: self._sync(namespace, name))

    def _pods(self, uid: str) -> list[Json]:
        found = self._cluster.store.select(PODS)
        return [
            pod
            for pod in found
            if any(each["uid"] == uid for each in pod["metadata"].get("ownerReferences") or [])
        ]

    def _sync(self, namespace: str, name: str) -> None:
        job = self._cluster.store.get(JOBS, namespace, name)
        if job is None or "deletionTimestamp" in job["metadata"]:
            return
        if finished_at(job):
            self._expire(job)
            return
        status = copy.deepcopy(job.get("status") or {})
        pods = self._pods(job["metadata"]["uid"])
        target = condition(status, "FailureTarget")
        if target is None and job["spec"].get("suspend"):
            self._suspend(job, status, pods)
        elif target is not None:
            self._finish(job, status, pods, (target["reason"], target["message"]))
        else:
            self._run(job, status, pods)

    # --- running ------------------------------------------------------------------------------------------------

    def _run(self, job: Json, status: Json, pods: list[Json]) -> None:
        now = self._cluster.clock.now()
        if (suspended := condition(status, "Suspended")) and suspended["status"] == "True":
            self._set_condition(status, "Suspended", "False", ("JobResumed", "Job resumed"))
        if "startTime" not in status:
            status["startTime"] = seconds_text(now)
            if deadline_s := job["spec"].get("activeDeadlineSeconds"):
                self._sync_later(job["metadata"]["namespace"], job["metadata"]["name"], deadline_s)
        deadline_s = job["spec"].get("activeDeadlineSeconds")
        late = deadline_s is not None and now >= parse_time(status["startTime"]) + timedelta(
            seconds=deadline_s
        )
        failed = [pod for pod in pods if self._counts(pod) and has_failed(pod)]
        succeeded = [pod for pod in pods if self._counts(pod) and pod["status"].get("phase") == "Succeeded"]
        if status.get("failed", 0) + len(failed) > job["spec"]["backoffLimit"]:
            self._finish(job, status, pods, BACKOFF)
        elif late:
            self._finish(job, status, pods, DEADLINE)
        elif succeeded:
            self._complete(job, status, succeeded)
        else:
            self._count_failed(job, status, failed)
            if not any(is_active(pod) for pod in pods):
                pods += self._create_pod(job)
            self._write_counts(job, status, pods)

    def _counts(self, pod: Json) -> bool:
        """Whether the pod is not yet in the Job's numbers. Without tracking they are read off the pods each time."""
        return not self._cluster.features.tracking_finalizers or TRACKING in pod["metadata"].get(
            "finalizers", []
        )

    def _write_counts(self, job: Json, status: Json, pods: list[Json]) -> None:
        active = [pod for pod in pods if is_active(pod)]
        status["active"] = len(active)
        if not active:
            status.pop("active")
        status["ready"] = sum(is_ready(pod) for pod in active)
        self._write(job, status, pods)

    def _write(self, job: Json, status: Json, pods: list[Json]) -> None:
        if self._cluster.features.tracking_finalizers:
            status["terminating"] = sum("deletionTimestamp" in pod["metadata"] for pod in pods)
            status.setdefault("uncountedTerminatedPods", {})
        else:
            status.pop("ready", None)
        self._cluster.set_status(JOBS, job, status)

    def _create_pod(self, job: Json) -> list[Json]:
        metadata, template = job["metadata"], job["spec"]["template"]
        about = copy.deepcopy(template.get("metadata") or {})
        about |= {
            "generateName": f"{metadata['name']}-",
            "ownerReferences": [
                {
                    "apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"],
                    "controller": True, "blockOwnerDeletion": True,
                }
            ],
        }  # fmt: skip
        if self._cluster.features.tracking_finalizers:
            about["finalizers"] = [TRACKING]
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": copy.deepcopy(template["spec"])}
        try:
            return [self._cluster.create(PODS, metadata["namespace"], pod)[0]]
        except Refusal as refused:
            self._record_refusal(job, str(refused))
            return []

    def _record_refusal(self, job: Json, why: str) -> None:
        """An event, and another try after 1, 2, 4 … seconds."""
        metadata = job["metadata"]
        tries = self._refused[metadata["uid"]] = self._refused.get(metadata["uid"], 0) + 1
        self._sync_later(metadata["namespace"], metadata["name"], min(2 ** (tries - 1), 600))
        event = {
            "metadata": {"generateName": f"{metadata['name']}."},
            "involvedObject": {
                "apiVersion": "batch/v1",
                "kind": "Job",
                "name": metadata["name"],
                "uid": metadata["uid"],
            },
            "reason": "FailedCreate",
            "message": f"Error creating: {why}",
            "type": "Warning",
        }
        self._cluster.create(EVENTS, metadata["namespace"], event)

    # --- the ends -----------------------------------------------------------------------------------------------

    def _complete(self, job: Json, status: Json, succeeded: list[Json]) -> None:
        for pod in succeeded:
            self._release(pod)
        status["succeeded"] = status.get("succeeded", 0) + len(succeeded)
        status.pop("active", None)
        status["ready"] = 0
        if self._cluster.features.target_conditions:
            self._set_condition(status, "SuccessCriteriaMet", "True", COMPLETED)
        self._set_condition(status, "Complete", "True", COMPLETED)
        status["completionTime"] = self._cluster.now_text()
        self._write(job, status, self._pods(job["metadata"]["uid"]))

    def _finish(self, job: Json, status: Json, pods: list[Json], why: tuple[str, str]) -> None:
        """Failed. FailureTarget stands first, and Failed only when no pod is left that runs or goes."""
        for pod in pods:
            if is_active(pod):
                self._delete_pod(pod)
        pods = self._pods(job["metadata"]["uid"])
        status.pop("active", None)
        status["ready"] = 0
        if self._cluster.features.target_conditions and condition(status, "FailureTarget") is None:
            self._set_condition(status, "FailureTarget", "True", why)
            uncounted = [pod["metadata"]["uid"] for pod in pods if self._counts(pod)]
            status["uncountedTerminatedPods"] = {"failed": uncounted} if uncounted else {}
            self._write(job, status, pods)
        self._count_failed(job, status, [pod for pod in pods if self._counts(pod)])
        pods = self._pods(job["metadata"]["uid"])
        if not any("deletionTimestamp" in pod["metadata"] for pod in pods):
            self._set_condition(status, "Failed", "True", why)
        self._write(job, status, pods)

    def _count_failed(self, job: Json, status: Json, failed: list[Json]) -> None:
        if not self._cluster.features.tracking_finalizers:
            if failed:
                status["failed"] = len(failed)
            return
        if failed:
            status["failed"] = status.get("failed", 0) + len(failed)
        status["uncountedTerminatedPods"] = {}
        for pod in failed:
            self._release(pod)

    def _suspend(self, job: Json, status: Json, pods: list[Json]) -> None:
        for pod in pods:
            if is_active(pod):
                self._release(pod)
                self._delete_pod(pod)
        status.pop("startTime", None)
        status.pop("active", None)
        status["ready"] = 0
        self._set_condition(status, "Suspended", "True", ("JobSuspended", "Job suspended"))
        self._write(job, status, self._pods(job["metadata"]["uid"]))

    def _expire(self, job: Json) -> None:
        ttl_s, ended = job["spec"].get("ttlSecondsAfterFinished"), finished_at(job)
        if ttl_s is None or ended is None:
            return
        left = (parse_time(ended) + timedelta(seconds=ttl_s) - self._cluster.clock.now()).total_seconds()
        metadata = job["metadata"]
        if left > 0:
            self._sync_later(metadata["namespace"], metadata["name"], left)
        else:
            options = {"propagationPolicy": "Foreground", "preconditions": {"uid": metadata["uid"]}}
            self._cluster.delete(JOBS, metadata["namespace"], metadata["name"], options)

    # --- leaves -------------------------------------------------------------------------------------------------

    def _set_condition(self, status: Json, kind: str, value: str, why: tuple[str, str]) -> None:
        now = self._cluster.now_text()
        made = {"type": kind, "status": value, "lastProbeTime": now, "lastTransitionTime": now}
        made |= {"reason": why[0], "message": why[1]}
        found = condition(status, kind)
        if found is None:
            status.setdefault("conditions", []).append(made)
        elif found["status"] != value:
            found.update(made)

    def _delete_pod(self, pod: Json) -> None:
        self._cluster.delete(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"], {})

    def _release(self, pod: Json) -> None:
        current = self._cluster.store.get(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"])
        if current is not None and TRACKING in current["metadata"].get("finalizers", []):
            current["metadata"]["finalizers"].remove(TRACKING)
            self._cluster.save(PODS, current)

    def _release_all(self, uid: str) -> None:
        """A Job that is gone or going counts no more, so it holds none of its pods."""
        for pod in self._cluster.store.select(PODS):
            labels = pod["metadata"].get("labels") or {}
            if labels.get("batch.kubernetes.io/controller-uid") == uid:
                self._release(pod)


def condition(status: Json, kind: str) -> Json | None:
    return next((each for each in status.get("conditions") or [] if each["type"] == kind), None)


def finished_at(job: Json) -> str | None:
    for kind in ("Complete", "Failed"):
        found = condition(job.get("status") or {}, kind)
        if found and found["status"] == "True":
            return str(found["lastTransitionTime"])
    return None


def is_active(pod: Json) -> bool:
    return (
        pod["status"].get("phase") not in {"Succeeded", "Failed"}
        and "deletionTimestamp" not in pod["metadata"]
    )


def has_failed(pod: Json) -> bool:
    """A pod that somebody deleted while it ran has failed, whatever its containers still do."""
    phase = pod["status"].get("phase")
    return bool(phase == "Failed" or ("deletionTimestamp" in pod["metadata"] and phase != "Succeeded"))


def is_ready(pod: Json) -> bool:
    found = condition(pod["status"], "Ready")
    return bool(found and found["status"] == "True")
