"""The Kubernetes API in plain documents: requests, lists, watches, logs, and the socket of an exec."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, TypeAlias

import httpx2
from httpx2.websockets import HTTPXWSException, WebSocketUpgradeError

from runyard.model.errors import ProviderDenied, Unreachable
from runyard.providers.kubernetes.cluster_access import CONNECT_S, CredentialsError
from runyard.providers.kubernetes.refusals import Refusal, error_of, parse_refusal

Document: TypeAlias = dict[str, Any]

CALL_S = 20.0
"""Of a short call, repeats of a throttled one included: dispatch gives up at 30 s."""

CREATE_S = 5.0
"""Of a create, which must end within its owner's lease; the server is told so too."""

IDLE_S = 90.0
"""Of a watch: bookmarks come each minute, so a silent connection is a dead one."""

PAGE_ITEMS = 500
MERGE_PATCH = "application/merge-patch+json"
JSON = "application/json"
METADATA_ONLY = f"{JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
METADATA_LIST = f"{JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: where the API serves it."""

    api: str
    plural: str
    name: str
    is_namespaced: bool = True
    is_private: bool = False
    """Only its metadata is ever read: what is in a Secret does not come back to us."""

    @property
    def accepts(self) -> str:
        return METADATA_ONLY if self.is_private else JSON

    @property
    def group(self) -> str:
        """As a Role names it: empty for the core group."""
        return self.api.split("/")[1] if self.api.startswith("apis/") else ""


JOBS = Kind("apis/batch/v1", "jobs", "Job")
PODS = Kind("api/v1", "pods", "Pod")
SECRETS = Kind("api/v1", "secrets", "Secret", is_private=True)
EVENTS = Kind("api/v1", "events", "Event")
QUOTAS = Kind("api/v1", "resourcequotas", "ResourceQuota")
NODES = Kind("api/v1", "nodes", "Node", is_namespaced=False)
RUNTIME_CLASSES = Kind("apis/node.k8s.io/v1", "runtimeclasses", "RuntimeClass", is_namespaced=False)
ACCESS_REVIEWS = Kind(
    "apis/authorization.k8s.io/v1", "selfsubjectaccessreviews", "review", is_namespaced=False
)


@dataclass(frozen=True, slots=True)
class Answer:
    """`document` is empty where it was refused; `warnings` are what the server had to say about it."""

    document: Document
    refusal: Refusal | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """All objects of a kind, and the place in the history (`version`) from which a watch goes on."""

    items: tuple[Document, ...]
    version: str


class KubernetesClient:
    """Bound to one namespace. Every method fails with a ProviderError: Unreachable where the fate of a call is not
    known, anything else where nothing was changed. Throttled calls are repeated for as long as a call may last."""

    def __init__(self, http: httpx2.AsyncClient, *, namespace: str) -> None:
        self._http = http
        self._skew_s = 0.0
        self.namespace = namespace
        self.server = str(http.base_url)

    async def close(self) -> None:
        await self._http.aclose()

    def now(self) -> float:
        """The cluster's clock (epoch seconds, to about a second), by which its objects are dated."""
        return time.time() + self._skew_s

    # -- verbs ----------------------------------------------------------------------------------------------------
    async def create(self, kind: Kind, body: Document) -> Document | None:
        """The object that was made; None where the name is taken. Ends within CREATE_S, on the server too."""
        answer, what = await self._create(kind, body)
        if answer.refusal is not None and answer.refusal.reason == "AlreadyExists":
            return None
        return _granted(answer, what).document

    async def try_create(self, kind: Kind, body: Document) -> Answer:
        """What a create would answer, its warnings and a refusal included; nothing is made."""
        answer, _ = await self._create(kind, body, dryRun="All")
        return answer

    async def _create(self, kind: Kind, body: Document, **params: str) -> tuple[Answer, str]:
        name = body.get("metadata", {}).get("name", "")
        what = f"create {kind.name} {name}".rstrip()
        params["timeout"] = f"{int(CREATE_S)}s"
        path, accept = self._path(kind), kind.accepts
        return await self._ask(
            "POST", path, what, params=params, body=body, accept=accept, within_s=CREATE_S
        ), what

    async def read(self, kind: Kind, name: str) -> Document | None:
        """None where it is not there."""
        what = f"get {kind.name} {name}"
        answer = await self._ask("GET", self._path(kind, name), what, accept=kind.accepts)
        return _found(answer, what)

    async def patch(self, kind: Kind, name: str, changes: Document) -> Document | None:
        """A merge patch, whatever was written meanwhile; None where it is not there."""
        what = f"patch {kind.name} {name}"
        return _found(await self._patch(kind, name, what, changes), what)

    async def compare_and_patch(
        self, kind: Kind, name: str, changes: Document, *, version: str
    ) -> Document | None:
        """As `patch`; None also where another writer came first since `version`."""
        what = f"patch {kind.name} {name}"
        metadata = {**changes.get("metadata", {}), "resourceVersion": version}
        answer = await self._patch(kind, name, what, {**changes, "metadata": metadata})
        if answer.refusal is not None and answer.refusal.code == 409:
            return None
        return _found(answer, what)

    async def _patch(self, kind: Kind, name: str, what: str, changes: Document) -> Answer:
        path, accept = self._path(kind, name), kind.accepts
        return await self._ask("PATCH", path, what, body=changes, content_type=MERGE_PATCH, accept=accept)

    async def delete(
        self, kind: Kind, name: str, *, uid: str | None = None, grace_s: int | None = None
    ) -> bool:
        """False where it was not there, or is another object by now. Always with a propagation policy: a raw delete of
        a Job orphans its pod, which runs on."""
        what = f"delete {kind.name} {name}"
        body: Document = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        answer = await self._ask("DELETE", self._path(kind, name), what, body=body)
        if answer.refusal is not None and (answer.refusal.is_missing or answer.refusal.code == 409):
            return False
        _granted(answer, what)
        return True

    async def list(
        self, kind: Kind, *, labels: str = "", fields: str = "", names_only: bool = False
    ) -> Listing:
        """Every object that fits, page by page. A listing that was cut short by a 410 is begun anew."""
        for _ in range(3):
            listing = await self._list_pages(kind, labels=labels, fields=fields, names_only=names_only)
            if listing is not None:
                return listing
        raise Unreachable(f"Kubernetes: list {kind.plural}: the listing expired again and again")

    async def _list_pages(self, kind: Kind, *, labels: str, fields: str, names_only: bool) -> Listing | None:
        items: list[Document] = []
        params = {"limit": str(PAGE_ITEMS), "labelSelector": labels, "fieldSelector": fields}
        params = {key: value for key, value in params.items() if value}
        what = f"list {kind.plural}"
        while True:
            accept = METADATA_LIST if names_only or kind.is_private else JSON
            answer = await self._ask("GET", self._path(kind), what, params=params, accept=accept)
            if answer.refusal is not None and answer.refusal.is_expired:
                return None
            page = _granted(answer, what).document
            items += page.get("items") or ()
            metadata = page.get("metadata") or {}
            if not metadata.get("continue"):
                return Listing(tuple(items), str(metadata.get("resourceVersion", "")))
            params["continue"] = metadata["continue"]

    @contextlib.asynccontextmanager
    async def watching(
        self, kind: Kind, *, labels: str, version: str
    ) -> AsyncIterator[AsyncIterator[Document]]:
        """The events from `version` on, bookmarks among them, until the connection ends for whatever reason. Raises a
        ProviderError where it cannot be had; an expired version shows as an ERROR event or as `Expired`."""
        params = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "labelSelector": labels,
            "resourceVersion": version,
        }
        what = f"watch {kind.plural}"
        async with self._streaming(self._path(kind), what, params=params, idle_s=IDLE_S) as response:
            yield _events(response, what)

    @contextlib.asynccontextmanager
    async def reading_log(
        self, pod: str, container: str, *, follow: bool, since: str | None = None, idle_s: float | None = None
    ) -> AsyncIterator[AsyncIterator[bytes]]:
        """A container's log, each line with its time before it, from the line of `since` on (whole seconds). Raises
        InvalidRequest where the container has not started, NoSuchPod where the pod is gone."""
        params = {"container": container, "timestamps": "true"}
        if follow:
            params["follow"] = "true"
        if since is not None:
            params["sinceTime"] = since
        what = f"get the log of {pod}/{container}"
        path = f"{self._path(PODS, pod)}/log"
        async with self._streaming(path, what, params=params, idle_s=idle_s) as response:
            yield _chunks(response, what)

    @contextlib.asynccontextmanager
    async def opening_exec(
        self, pod: str, container: str, command: Sequence[str], *, protocols: Sequence[str]
    ) -> AsyncIterator[Any]:
        """A websocket on which the command's streams are channels (exec_stream.py speaks it)."""
        params = {"container": container, "stdout": "true", "stderr": "true", "command": list(command)}
        what = f"exec in {pod}/{container}"
        url = f"{self._path(PODS, pod)}/exec"
        try:
            async with self._http.websocket(
                url,
                subprotocols=list(protocols),
                params=params,
                keepalive_ping_timeout_seconds=120.0,  # a slow store holds back what we read, pongs among it
                timeout=httpx2.Timeout(CONNECT_S, read=CALL_S),
            ) as socket:
                yield socket
        except BaseExceptionGroup as group:
            raise _of_websocket(_first_of(group), what) from None
        except (httpx2.HTTPError, HTTPXWSException) as error:
            raise _of_websocket(error, what) from None

    async def may(self, verb: str, kind: Kind, subresource: str = "") -> bool:
        """Whether our account has the right, as the server's own authorizer answers it."""
        attributes = {
            "namespace": self.namespace if kind.is_namespaced else "",
            "verb": verb,
            "group": kind.group,
            "resource": kind.plural,
            "subresource": subresource,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        answer = await self.create(ACCESS_REVIEWS, review)
        return answer is not None and bool(answer.get("status", {}).get("allowed"))

    async def read_path(self, path: str) -> Document | None:
        """Any document of the API (discovery, OpenAPI); None where the server does not have it."""
        what = f"get /{path}"
        return _found(await self._ask("GET", path, what), what)

    # -- inside ---------------------------------------------------------------------------------------------------
    def _path(self, kind: Kind, name: str = "") -> str:
        within = f"/namespaces/{self.namespace}" if kind.is_namespaced else ""
        return f"{kind.api}{within}/{kind.plural}" + (f"/{name}" if name else "")

    async def _ask(
        self,
        method: str,
        path: str,
        what: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Document | None = None,
        content_type: str = JSON,
        accept: str = JSON,
        within_s: float = CALL_S,
    ) -> Answer:
        """One call, repeated while the server turns it away unseen (429) and time is left. Raises Unreachable."""
        headers = {"Accept": accept}
        content = None
        if body is not None:
            content, headers["Content-Type"] = json.dumps(body).encode(), content_type
        ends_at = time.monotonic() + within_s
        try:
            async with asyncio.timeout(within_s):
                while True:
                    response = await self._http.request(
                        method, path, params=params, content=content, headers=headers
                    )
                    self._learn_clock(response)
                    answer = _answer_of(response)
                    refusal = answer.refusal
                    wait_s = (refusal.retry_after_s or 1.0) if refusal is not None else 0.0
                    if refusal is None or not refusal.is_throttled or time.monotonic() + wait_s > ends_at:
                        return answer
                    await asyncio.sleep(wait_s)
        except TimeoutError:
            raise Unreachable(f"Kubernetes: {what}: no answer within {within_s:g} s") from None
        except httpx2.HTTPError as error:
            raise Unreachable(f"Kubernetes: {what}: {_words(error)}") from None
        except CredentialsError as error:  # a credential plugin failed, a token's file is gone
            raise ProviderDenied(f"Kubernetes: {what}: {error}", cure="see the kubeconfig's user") from None

    @contextlib.asynccontextmanager
    async def _streaming(
        self, path: str, what: str, *, params: Mapping[str, str], idle_s: float | None
    ) -> AsyncIterator[httpx2.Response]:
        timeout = httpx2.Timeout(CONNECT_S, read=idle_s)
        request = self._http.build_request("GET", path, params=dict(params), timeout=timeout)
        try:
            async with asyncio.timeout(CALL_S):
                response = await self._http.send(request, stream=True)
        except TimeoutError:
            raise Unreachable(f"Kubernetes: {what}: no answer within {CALL_S:g} s") from None
        except httpx2.HTTPError as error:
            raise Unreachable(f"Kubernetes: {what}: {_words(error)}") from None
        except CredentialsError as error:
            raise ProviderDenied(f"Kubernetes: {what}: {error}", cure="see the kubeconfig's user") from None
        try:
            self._learn_clock(response)
            if not response.is_success:
                with _told_as_unreachable(what):
                    content = await response.aread()
                refusal = parse_refusal(response.status_code, content, response.headers)
                raise RefusedStream(refusal, what)
            yield response
        finally:
            await response.aclose()

    def _learn_clock(self, response: httpx2.Response) -> None:
        """The Date header has whole seconds: the middle of the second is half a second off at most."""
        with contextlib.suppress(KeyError, ValueError, TypeError):
            told = parsedate_to_datetime(response.headers["date"]).timestamp() + 0.5
            skew_s = told - time.time()
            self._skew_s = skew_s if abs(skew_s) > 1.0 else 0.0


class RefusedStream(Unreachable):
    """A stream that was not given; `refusal` says why, for who can act on it. As it is, it proves nothing."""

    def __init__(self, refusal: Refusal, what: str) -> None:
        error = error_of(refusal, what)
        super().__init__(error.message, cure=error.cure)
        self.refusal = refusal


def _answer_of(response: httpx2.Response) -> Answer:
    if not response.is_success:
        return Answer({}, parse_refusal(response.status_code, response.content, response.headers))
    try:
        document = json.loads(response.content)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        return Answer({}, Refusal(code=502, message="the answer is no JSON object"))
    return Answer(document, warnings=tuple(response.headers.get_list("warning")))


def _granted(answer: Answer, what: str) -> Answer:
    if answer.refusal is not None:
        raise error_of(answer.refusal, what)
    return answer


def _found(answer: Answer, what: str) -> Document | None:
    if answer.refusal is not None and answer.refusal.is_missing:
        return None
    return _granted(answer, what).document


async def _events(response: httpx2.Response, what: str) -> AsyncIterator[Document]:
    with _told_as_unreachable(what):
        async for line in response.aiter_lines():
            if line:
                yield json.loads(line)


async def _chunks(response: httpx2.Response, what: str) -> AsyncIterator[bytes]:
    with _told_as_unreachable(what):
        async for chunk in response.aiter_bytes():
            yield chunk


@contextlib.contextmanager
def _told_as_unreachable(what: str) -> Iterator[None]:
    try:
        yield
    except httpx2.HTTPError as error:
        raise Unreachable(f"Kubernetes: {what}: {_words(error)}") from None
    except ValueError as error:  # a line that was cut off is no JSON
        raise Unreachable(f"Kubernetes: {what}: what came is torn: {error}") from None


def _of_websocket(error: BaseException, what: str) -> BaseException:
    """Errors of the socket as ours; whatever else came up within is nobody's to change."""
    if isinstance(error, WebSocketUpgradeError):
        return RefusedStream(parse_refusal(error.response.status_code, b"", error.response.headers), what)
    if isinstance(error, httpx2.HTTPError | HTTPXWSException):
        return Unreachable(f"Kubernetes: {what}: {_words(error)}")
    return error


def _first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """Task groups of the socket wrap what ended them; the first that is not a cancellation is what happened."""
    leaves = list(_leaves(group))
    return next((one for one in leaves if not isinstance(one, asyncio.CancelledError)), leaves[0])


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from _leaves(one)
    else:
        yield error


def _words(error: BaseException) -> str:
    return str(error) or type(error).__name__
