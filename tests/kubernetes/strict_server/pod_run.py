"""One pod on its node: its containers' states, in order, and the status that is written of them."""

from dataclasses import dataclass
from typing import Any

from tests.kubernetes.strict_server.clock import Clock, seconds_text
from tests.kubernetes.strict_server.container_log import ContainerLog
from tests.kubernetes.strict_server.programs import Exit

Json = dict[str, Any]
IMAGE_ID = "sha256:" + "9e" * 32
MESSAGE_BYTES_MAX = 4096
POD_MESSAGE_BYTES_MAX = 12 << 10


@dataclass
class Container:
    """`state` is as in containerStatuses. A sidecar is an init container that restarts always."""

    spec: Json
    is_init: bool
    state: Json
    log: ContainerLog
    number: int

    @property
    def name(self) -> str:
        return str(self.spec["name"])

    @property
    def is_sidecar(self) -> bool:
        return self.is_init and self.spec.get("restartPolicy") == "Always"

    @property
    def runs(self) -> bool:
        return "running" in self.state

    @property
    def ended(self) -> bool:
        return "terminated" in self.state

    @property
    def container_id(self) -> str:
        return f"containerd://{self.number:064x}"

    def status(self) -> Json:
        started = self.runs or self.ended
        ready = self.runs or (self.is_init and self.ended and self.state["terminated"]["exitCode"] == 0)
        made = {
            "name": self.name, "state": self.state, "lastState": {}, "ready": ready, "restartCount": 0,
            "image": self.spec["image"], "imageID": IMAGE_ID if started else "", "started": self.runs,
        }  # fmt: skip
        return made | ({"containerID": self.container_id} if started else {})


class PodRun:
    def __init__(self, pod: Json, clock: Clock, numbers_from: int) -> None:
        self.pod = pod
        self._clock = clock
        spec = pod["spec"]
        listed = [(each, True) for each in spec.get("initContainers") or []]
        listed += [(each, False) for each in spec["containers"]]
        first = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
        self.containers = [
            Container(
                each, is_init, {"waiting": {"reason": first}}, ContainerLog(clock), numbers_from + index
            )
            for index, (each, is_init) in enumerate(listed)
        ]
        self.phase = "Pending"
        self.more_status: Json = {}
        self.more_conditions: list[Json] = []
        self.is_terminating = False
        self.started_at = seconds_text(clock.now())

    @property
    def name(self) -> str:
        return str(self.pod["metadata"]["name"])

    @property
    def main(self) -> list[Container]:
        return [each for each in self.containers if not each.is_init]

    def container(self, name: str) -> Container:
        return next(each for each in self.containers if each.name == name)

    def start(self, container: Container) -> None:
        container.state = {"running": {"startedAt": seconds_text(self._clock.now())}}

    def end(self, container: Container, how: Exit) -> None:
        """The terminated state; the message is bounded for itself and by its share of the pod's 12 KiB."""
        bytes_max = min(MESSAGE_BYTES_MAX, POD_MESSAGE_BYTES_MAX // len(self.containers))
        now = seconds_text(self._clock.now())
        begun = container.state.get("running", {}).get("startedAt", "1970-01-01T00:00:00Z")
        ended = {"exitCode": how.code, "reason": how.reason or ("Completed" if how.code == 0 else "Error")}
        if how.message:
            ended["message"] = how.message.encode()[:bytes_max].decode(errors="ignore")
        ended |= {"startedAt": begun, "finishedAt": now, "containerID": container.container_id}
        container.state = {"terminated": ended}
        container.log.end()

    def outcome_phase(self) -> str:
        """The phase once nothing runs any more (restartPolicy Never)."""
        counted = [each for each in self.containers if not each.is_sidecar]
        good = all(each.ended and each.state["terminated"]["exitCode"] == 0 for each in counted)
        return "Succeeded" if good else "Failed"

    def status(self, before: Json) -> Json:
        conditions = [*self._conditions(before), *self.more_conditions]
        made = {
            "phase": self.phase, "conditions": conditions, "hostIP": "10.123.0.1", "podIP": "10.244.0.9",
            "startTime": self.started_at, "qosClass": before.get("qosClass", "BestEffort"),
            "containerStatuses": [each.status() for each in self.main],
        }  # fmt: skip
        initial = [each.status() for each in self.containers if each.is_init]
        return made | ({"initContainerStatuses": initial} if initial else {}) | self.more_status

    def _conditions(self, before: Json) -> list[Json]:
        """Those of others (PodScheduled, DisruptionTarget) stay; the kubelet's own are made anew."""
        own = {"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady"}
        kept = [each for each in before.get("conditions") or [] if each["type"] not in own]
        unready = [each.name for each in self.main if not each.runs]
        initialized = all(each.ended or each.is_sidecar for each in self.containers if each.is_init)
        over = self.phase in {"Succeeded", "Failed"}
        reason = {"reason": "PodCompleted"} if self.phase == "Succeeded" else {}
        if unready and not over:
            reason = {
                "reason": "ContainersNotReady",
                "message": f"containers with unready status: [{' '.join(unready)}]",
            }
        now = seconds_text(self._clock.now())

        def condition(kind: str, holds: bool, why: Json) -> Json:
            old = next((each for each in before.get("conditions") or [] if each["type"] == kind), None)
            value = "True" if holds else "False"
            since = old["lastTransitionTime"] if old and old["status"] == value else now
            return {"type": kind, "status": value, "lastProbeTime": None, "lastTransitionTime": since, **why}

        return [
            condition("Initialized", initialized, {}),
            condition("Ready", not unready and not over, reason),
            condition("ContainersReady", not unready and not over, reason),
            *kept,
        ]
