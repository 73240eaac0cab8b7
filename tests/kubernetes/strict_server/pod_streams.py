"""pods/log, pods/exec and pods/eviction: the subresources that reach through to the kubelet."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from tests.kubernetes.strict_server.causes import Cause, forbidden_field, wrong
from tests.kubernetes.strict_server.clock import parse_time
from tests.kubernetes.strict_server.cluster import Cluster
from tests.kubernetes.strict_server.container_log import LogOptions, seconds_ago, whole_seconds
from tests.kubernetes.strict_server.exchange import Answer, CutConnection, Request, Stream, Upgrade
from tests.kubernetes.strict_server.faults import Faults
from tests.kubernetes.strict_server.kubelet import Kubelet, with_condition
from tests.kubernetes.strict_server.pod_run import Container
from tests.kubernetes.strict_server.programs import ExecCall, ExecResult
from tests.kubernetes.strict_server.resources import PODS
from tests.kubernetes.strict_server.status import bad_request, invalid

Json = dict[str, Any]
# The newest first; base64.channel.k8s.io and channel.k8s.io have no status channel and nobody here speaks them.
EXEC_PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDOUT, STDERR, STATUS = b"\x01", b"\x02", b"\x03"
FRAME_BYTES = 32 << 10


class PodStreams:
    def __init__(self, cluster: Cluster, kubelet: Kubelet, faults: Faults) -> None:
        self._cluster, self._kubelet, self._faults = cluster, kubelet, faults

    # --- log ----------------------------------------------------------------------------------------------------

    def log(self, namespace: str, name: str, request: Request) -> Answer | Stream:
        options = self._log_options(name, request)
        pod = self._cluster.require(PODS, namespace, name)
        container_name = chosen_container(pod, request.first("container"))
        if not pod["spec"].get("nodeName"):
            return Answer(204, b"")
        if request.flag("previous"):
            raise bad_request(f'previous terminated container "{container_name}" in pod "{name}" not found')
        container = self._container(pod, container_name)
        if container is None or "waiting" in container.state:
            raise bad_request(
                f'container "{container_name}" in pod "{name}" is waiting to start: {self._why(container)}'
            )
        return Stream(self._log_chunks(container, options), "text/plain")

    def _log_options(self, name: str, request: Request) -> LogOptions:
        tail, limit, since_s = (
            request.number("tailLines"),
            request.number("limitBytes"),
            request.number("sinceSeconds"),
        )
        since_text = request.first("sinceTime")
        causes: list[Cause] = []
        if tail is not None and tail < 0:
            causes.append(wrong("tailLines", tail, "must be greater than or equal to 0"))
        for key, value in (("limitBytes", limit), ("sinceSeconds", since_s)):
            if value is not None and value < 1:
                causes.append(wrong(key, value, "must be greater than 0"))
        if since_text and since_s is not None:
            causes.append(
                forbidden_field("[]", "at most one of `sinceTime` or `sinceSeconds` may be specified")
            )
        if request.first("stream"):
            causes.append(forbidden_field("stream", "may not be specified"))
        if causes:
            raise invalid("PodLogOptions", {"name": name, "kind": "PodLogOptions"}, causes)
        since = seconds_ago(self._cluster.clock, since_s) if since_s else None
        if since_text:
            try:
                since = whole_seconds(parse_time(since_text))
            except ValueError:
                layout = "2006-01-02T15:04:05Z07:00"
                raise bad_request(
                    f'parsing time "{since_text}" as "{layout}": cannot parse "{since_text}" as "2006"'
                ) from None
        return LogOptions(request.flag("follow"), request.flag("timestamps"), since, tail, limit)

    def _container(self, pod: Json, name: str) -> Container | None:
        run = self._kubelet.find_run(pod["metadata"]["uid"])
        return run.container(name) if run else None

    def _why(self, container: Container | None) -> str:
        if container is None:
            return "ContainerCreating"
        reason = container.state["waiting"]["reason"]
        pulling = {
            "ErrImagePull": "image can't be pulled",
            "ImagePullBackOff": "trying and failing to pull image",
        }
        return str(pulling.get(reason, reason))

    async def _log_chunks(self, container: Container, options: LogOptions) -> AsyncIterator[bytes]:
        sent = 0
        async for chunk in container.log.read(options):
            most = self._faults.log_bytes_max
            if most is not None and sent + len(chunk) > most:
                yield chunk[: most - sent]
                raise CutConnection
            sent += len(chunk)
            yield chunk

    # --- exec ---------------------------------------------------------------------------------------------------

    def exec(self, namespace: str, name: str, request: Request) -> Answer | Upgrade:
        pod = self._cluster.require(PODS, namespace, name)
        container_name = chosen_container(pod, request.first("container"))
        offered = [each.strip() for each in request.headers.get("sec-websocket-protocol", "").split(",")]
        if request.headers.get("upgrade", "").lower() != "websocket":
            raise bad_request("Upgrade request required")
        container = self._container(pod, container_name)
        if container is None or not container.runs:
            body = f'container not found ("{container_name}")'.encode()
            return Answer(500, body, {"Content-Type": "text/plain; charset=utf-8"})
        if not set(offered) & set(EXEC_PROTOCOLS):
            return Answer(403, b"")
        stdin = Stdin(request.flag("stdin"))
        command = tuple(request.every("command"))

        async def serve(protocol: str) -> AsyncIterator[bytes]:
            call = ExecCall(pod, container_name, command, await stdin.whole())
            self._kubelet.exec_calls.append(call)
            async for frame in exec_frames(call, self._kubelet.exec_handler(call), request, protocol):
                yield frame

        return Upgrade(serve, EXEC_PROTOCOLS, request.flag("stdin"), stdin.feed)

    # --- eviction -----------------------------------------------------------------------------------------------

    def evict(self, namespace: str, name: str) -> Json:
        pod = self._cluster.require(PODS, namespace, name)
        made = {
            "type": "DisruptionTarget", "status": "True", "lastProbeTime": None,
            "lastTransitionTime": self._cluster.now_text(), "reason": "EvictionByEvictionAPI",
            "message": "Eviction API: evicting",
        }  # fmt: skip
        self._cluster.set_status(PODS, pod, with_condition(pod["status"], made))
        self._cluster.delete(PODS, namespace, name, {})
        return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class Stdin:
    """What the client sent on channel 0, whole once it said by channel 255 that no more comes (v5)."""

    def __init__(self, wanted: bool) -> None:
        self._data = b""
        self._closed = asyncio.Event()
        if not wanted:
            self._closed.set()

    def feed(self, message: bytes) -> None:
        if message[:1] == b"\x00":
            self._data += message[1:]
        elif message == b"\xff\x00":
            self._closed.set()

    async def whole(self) -> bytes:
        await self._closed.wait()
        return self._data


def chosen_container(pod: Json, asked: str) -> str:
    spec, name = pod["spec"], pod["metadata"]["name"]
    known = [each["name"] for each in [*(spec.get("initContainers") or []), *spec["containers"]]]
    if not asked and len(known) > 1:
        raise bad_request(
            f"a container name must be specified for pod {name}, choose one of: [{' '.join(known)}]"
        )
    if asked and asked not in known:
        raise bad_request(f"container {asked} is not valid for pod {name}")
    return asked or str(known[0])


async def exec_frames(
    call: ExecCall, result: ExecResult, request: Request, protocol: str
) -> AsyncIterator[bytes]:
    """Channel bytes in front of the output, the status on channel 3 at the end."""
    yield STDOUT  # the real server opens with an empty message
    sent = 0
    for channel, key, data in ((STDOUT, "stdout", result.stdout), (STDERR, "stderr", result.stderr)):
        for at in range(0, len(data) if request.flag(key) else 0, FRAME_BYTES):
            piece = data[at : at + FRAME_BYTES]
            if result.cut_after is not None and sent + len(piece) > result.cut_after:
                yield channel + piece[: result.cut_after - sent]
                raise CutConnection
            sent += len(piece)
            yield channel + piece
    if result.hangs:
        await asyncio.Event().wait()
    yield STATUS + json.dumps(exec_status(call, result, protocol), separators=(",", ":")).encode()


def exec_status(call: ExecCall, result: ExecResult, protocol: str) -> Json:
    if result.refusal:
        words = f"Internal error occurred: error executing command in container: {result.refusal}"
        details = {"causes": [{"message": words}]}
        message = f"Internal error occurred: {words}"
        return {
            "metadata": {},
            "status": "Failure",
            "message": message,
            "reason": "InternalError",
            "details": details,
        }
    if result.code == 0:
        return {"metadata": {}, "status": "Success"}
    why = f"command terminated with exit code {result.code}"
    if protocol.startswith("v4"):
        why = f"error executing command [{' '.join(call.command)}], exit code {result.code}"
    return {
        "metadata": {},
        "status": "Failure",
        "message": f"command terminated with non-zero exit code: {why}",
        "reason": "NonZeroExitCode",
        "details": {"causes": [{"reason": "ExitCode", "message": str(result.code)}]},
    }
