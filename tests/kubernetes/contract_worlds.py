"""The two servers that the contract of the Kubernetes API is proved on: the strict one, and any real cluster."""

import asyncio
import json
import os
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx2
from lightkube.config.client_adapter import AsyncClient, ConnectionParams, verify_cluster
from lightkube.config.kubeconfig import KubeConfig, SingleConfig
from lightkube.config.models import User
from websockets.asyncio.client import connect

from tests.kubernetes.strict_server import (
    ExecCall,
    ExecResult,
    Exit,
    Program,
    Say,
    StrictServer,
    Waiting,
    by_last_word,
)

Json = dict[str, Any]
KUBECONFIG_VARIABLE = "RUNYARD_TEST_KUBECONFIG"
IMAGE = os.environ.get("RUNYARD_TEST_KUBE_IMAGE", "busybox:1.37")
WITHIN_S = 40

# What the pods of this suite run: a shell's words for a real kubelet, and what comes of them for the scripted one.
SAY_AND_FAIL = "echo one; echo two; printf why > /dev/termination-log; printf part; exit 7"
STUBBORN = "while true; do sleep 0.2; done"  # a shell is deaf to TERM where it is process 1
OBEDIENT = "trap 'exit 3' TERM; echo up; while true; do sleep 0.1; done"
TALKATIVE = "for n in 0 1 2 3 4 5 6 7 8 9; do echo line $n; done; while true; do sleep 0.2; done"
SUCCEED = "exit 0"
LONG_MESSAGE = "dd if=/dev/zero bs=6000 count=1 2>/dev/null | tr '\\000' m > /dev/termination-log"
UNSTARTABLE = "unstartable"
UNPULLABLE = "unpullable"
PROGRAMS = {
    SAY_AND_FAIL: Program((Say(b"one\ntwo\npart"), Exit(7, message="why"))),
    STUBBORN: Program(),
    OBEDIENT: Program((Say(b"up\n"),), on_term=Exit(3)),
    TALKATIVE: Program((Say(b"".join(b"line %d\n" % n for n in range(10))),)),
    SUCCEED: Program((Exit(0),)),
    LONG_MESSAGE: Program((Exit(0, message="m" * 6000),)),
    UNSTARTABLE: Program((Exit(128, "StartError", "exec: no such file or directory"),)),
    UNPULLABLE: Program(
        waits=Waiting("ErrImageNeverPull", "Container image is not present with pull policy of Never")
    ),
}


def container(shell: str, name: str = "main", **more: Any) -> Json:
    command = ["/bin/busybox", "sh", "-c", shell]
    return {"name": name, "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": command, **more}


def job(name: str, *containers: Json, spec: Json | None = None, pod: Json | None = None) -> Json:
    """A Job of one pod that ends with its containers; `spec` and `pod` are added to the Job's and the pod's spec."""
    pod_spec = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 1,
        "containers": list(containers) or [container(SUCCEED)],
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": {"suite": "contract"}},
        "spec": {"backoffLimit": 0, "template": {"spec": pod_spec | (pod or {})}} | (spec or {}),
    }


@dataclass
class ExecAnswer:
    """What came over an exec's websocket, by channel; `refused` is the code of a refused upgrade."""

    protocol: str = ""
    stdout: bytes = b""
    stderr: bytes = b""
    status: Json = field(default_factory=dict)
    refused: int = 0


class Answer:
    def __init__(self, response: httpx2.Response) -> None:
        self.code, self.text, self.headers = response.status_code, response.text, response.headers
        is_json = response.headers.get("content-type", "").startswith("application/json")
        self.body: Any = response.json() if is_json else None

    @property
    def reason(self) -> str:
        return str(self.body.get("reason", ""))

    @property
    def message(self) -> str:
        return str(self.body.get("message", ""))

    def causes(self) -> list[tuple[str, str]]:
        """(field, reason) of a 422."""
        return [(each["field"], each["reason"]) for each in self.body["details"]["causes"]]


@dataclass
class World:
    """One namespace of one server. `tick` lets a little time pass there."""

    client: httpx2.AsyncClient
    namespace: str
    tick: Callable[[], Any]
    socket_options: Json
    is_real: bool
    anonymous: httpx2.AsyncClient
    server: StrictServer | None = None
    headers: Json = field(default_factory=dict)

    @property
    def core(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}"

    @property
    def jobs(self) -> str:
        return f"/apis/batch/v1/namespaces/{self.namespace}/jobs"

    async def call(
        self, method: str, path: str, body: Any = None, *, patch: str = "merge", **query: str
    ) -> Answer:
        media_type = f"application/{patch}-patch+json" if method == "PATCH" else "application/json"
        headers = {"content-type": media_type, **self.headers}
        content = b"" if body is None else json.dumps(body).encode()
        response = await self.client.request(method, path, content=content, headers=headers, params=query)
        return Answer(response)

    @asynccontextmanager
    async def as_user(self, user: str, rules: list[Json]) -> AsyncIterator["World"]:
        """The same namespace seen by somebody who holds a Role with these rules: by a token, or impersonated."""
        if self.server is not None:
            self.server.access.grant(
                "owner", "owner", [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]
            )
            self.server.access.grant("token-of-user", user, rules, self.namespace)
            yield replace(self, headers={"authorization": "Bearer token-of-user"})
            return
        path = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{self.namespace}"
        role = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "r"}
        subject = {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}
        made = await self.call("POST", f"{path}/roles", {"metadata": {"name": "r"}, "rules": rules})
        assert made.code == 201, made.text
        bound = {"metadata": {"name": "r"}, "roleRef": role, "subjects": [subject]}
        assert (await self.call("POST", f"{path}/rolebindings", bound)).code == 201
        # system:authenticated brings /version and the reviews, as for every real user.
        somebody = replace(
            self, headers={"impersonate-user": user, "impersonate-group": "system:authenticated"}
        )

        async def is_known() -> bool:
            """The authorizer learns of a new binding a moment later."""
            first = {
                "verb": rules[0]["verbs"][0],
                "group": rules[0]["apiGroups"][0],
                "resource": rules[0]["resources"][0],
            }
            wanted = {"spec": {"resourceAttributes": {"namespace": self.namespace, **first}}}
            answer = await somebody.call(
                "POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", wanted
            )
            return bool(answer.body["status"]["allowed"])

        if rules:
            await self.until(is_known, "the role to be known")
        yield somebody

    async def until(self, look: Callable[[], Any], what: str) -> Any:
        """The first true result of an async look; time passes between the looks."""
        for _ in range(WITHIN_S * 10):
            if found := await look():
                return found
            await self.tick()
        raise AssertionError(f"not within {WITHIN_S} s: {what}")

    async def pod_of(self, job_name: str, fits: Callable[[Json], Any] = bool, what: str = "a pod") -> Json:
        async def look() -> Json | None:
            answer = await self.call("GET", f"{self.core}/pods", labelSelector=f"job-name={job_name}")
            return next((pod for pod in answer.body["items"] if fits(pod)), None)

        found: Json = await self.until(look, f"{job_name}: {what}")
        return found

    async def running_pod(self, job_name: str) -> Json:
        return await self.pod_of(job_name, lambda pod: has_state(pod, "running"), "running")

    async def job_with(self, name: str, condition: str) -> Json:
        async def look() -> Json | None:
            found = (await self.call("GET", f"{self.jobs}/{name}")).body
            return found if condition_of(found, condition) else None

        result: Json = await self.until(look, f"{name}: {condition}")
        return result

    async def gone(self, path: str) -> None:
        async def look() -> bool:
            return (await self.call("GET", path)).code == 404

        await self.until(look, f"{path} gone")

    async def log_holds(self, pod: str, name: str, text: str) -> None:
        """The runtime writes what was printed a moment later."""

        async def look() -> bool:
            return text in (await self.call("GET", f"{self.core}/pods/{pod}/log", container=name)).text

        await self.until(look, f"{text!r} in the log")

    async def watch(self, path: str, **query: str) -> list[Json]:
        """All events of a watch that ends within a second or two."""
        asked = httpx2.QueryParams({"watch": "true", "timeoutSeconds": "1", **query})
        lines: list[str] = []

        async def read() -> None:
            async with self.client.stream("GET", path, params=asked) as response:
                lines.extend([line async for line in response.aiter_lines()])

        reading = asyncio.ensure_future(read())
        while not reading.done():
            await self.tick()
        await reading
        return [json.loads(line) for line in lines]

    async def exec(
        self,
        pod: str,
        name: str,
        *command: str,
        protocols: tuple[str, ...] = ("v5.channel.k8s.io",),
        stdin: bytes | None = None,
    ) -> ExecAnswer:
        pairs = [("command", word) for word in command] + [
            ("container", name),
            ("stdout", "true"),
            ("stderr", "true"),
        ]
        if stdin is not None:
            pairs.append(("stdin", "true"))
        base = str(self.client.base_url).rstrip("/").replace("http", "ws", 1)
        url = f"{base}{self.core}/pods/{pod}/exec?{urlencode(pairs)}"
        answer = ExecAnswer()
        options = {**self.socket_options}
        options["additional_headers"] = {**options.get("additional_headers", {}), **self.headers}
        async with connect(url, subprotocols=list(protocols), max_size=None, **options) as socket:  # type: ignore[arg-type]
            answer.protocol = str(socket.subprotocol)
            if stdin is not None:
                await socket.send(b"\x00" + stdin)
                await socket.send(b"\xff\x00")
            async for message in socket:
                assert isinstance(message, bytes)
                match message[:1]:
                    case b"\x01":
                        answer.stdout += message[1:]
                    case b"\x02":
                        answer.stderr += message[1:]
                    case _:
                        answer.status = json.loads(message[1:])
        return answer


def has_state(pod: Json, state: str) -> bool:
    return any(state in each for each in states(pod))


def states(pod: Json, listed: str = "containerStatuses") -> list[Json]:
    """The state of each container, in order; empty before the kubelet took the pod."""
    return [each["state"] for each in pod["status"].get(listed, [])]


def condition_of(obj: Json, kind: str) -> Json | None:
    found = (obj.get("status") or {}).get("conditions") or []
    return next((each for each in found if each["type"] == kind and each["status"] == "True"), None)


def play_exec(call: ExecCall) -> ExecResult:
    """What the few commands of this suite do."""
    match call.command[-1]:
        case "cat":
            return ExecResult(stdout=call.stdin)
        case "echo out; echo err >&2; exit 3":
            return ExecResult(b"out\n", b"err\n", 3)
        case "dd if=/dev/zero bs=1024 count=300 2>/dev/null":
            return ExecResult(bytes(300 << 10))
        case "/no/such/program":
            return ExecResult(refusal="no such file or directory")
        case _:
            return ExecResult()


@asynccontextmanager
async def strict_world(folder: Path) -> AsyncIterator[World]:
    async with StrictServer(namespace="contract") as server:
        server.kubelet.programs = by_last_word(PROGRAMS)
        server.kubelet.exec_handler = play_exec
        config = KubeConfig.from_file(server.write_kubeconfig(folder / "kubeconfig")).get()
        assert config is not None

        async def tick() -> None:
            await asyncio.sleep(0)
            server.clock.advance(0.05)

        async with AsyncClient(config, ConnectionParams(trust_env=False)) as client:
            yield World(client, server.namespace, tick, {}, is_real=False, anonymous=client, server=server)


@asynccontextmanager
async def real_world(kubeconfig: str) -> AsyncIterator[World]:
    """A namespace of its own, made before and deleted after."""
    config = KubeConfig.from_file(kubeconfig).get()
    assert config is not None
    namespace = f"runyard-contract-{uuid.uuid4().hex[:8]}"

    async def tick() -> None:
        await asyncio.sleep(0.05)

    nameless = config._replace(user=User())
    async with (
        AsyncClient(config, ConnectionParams(trust_env=False)) as client,
        AsyncClient(nameless, ConnectionParams(trust_env=False)) as anonymous,
    ):
        world = World(client, namespace, tick, socket_options(config), is_real=True, anonymous=anonymous)
        made = await world.call("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
        assert made.code == 201, made.text

        async def account() -> bool:
            return (await world.call("GET", f"{world.core}/serviceaccounts/default")).code == 200

        try:
            await world.until(account, "the namespace's service account")
            yield world
        finally:
            await world.call("DELETE", f"/api/v1/namespaces/{namespace}")


def socket_options(config: SingleConfig) -> Json:
    """TLS and token for a websocket, as of the kubeconfig."""
    user = config.user
    assert user is not None
    options: Json = {}
    if config.cluster.server.startswith("https"):
        options["ssl"] = verify_cluster(config.cluster, user, config.abs_file)
    if user.token:
        options["additional_headers"] = {"Authorization": f"Bearer {user.token}"}
    return options
