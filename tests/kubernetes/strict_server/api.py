"""From a request to its answer: discovery, who may, and the verbs on resources and subresources."""

import copy
import json
from dataclasses import dataclass
from typing import Any

from tests.kubernetes.strict_server.access import AccessTable, Account
from tests.kubernetes.strict_server.cluster import Cluster
from tests.kubernetes.strict_server.exchange import Answer, Request, Stream, Upgrade, json_answer
from tests.kubernetes.strict_server.listing import list_objects, matcher_of
from tests.kubernetes.strict_server.openapi import openapi_document
from tests.kubernetes.strict_server.patching import apply_patch
from tests.kubernetes.strict_server.pod_streams import PodStreams
from tests.kubernetes.strict_server.resources import (
    ACCESS_REVIEWS,
    PODS,
    RULES_REVIEWS,
    Resource,
    core_versions,
    find_resource,
    group_document,
    group_list,
    resource_list,
    version_document,
)
from tests.kubernetes.strict_server.schema import cannot_be_handled, decode_object, parse_body
from tests.kubernetes.strict_server.status import method_not_allowed, no_such_resource, refusal
from tests.kubernetes.strict_server.watching import Watch, Watches, revision_of

Json = dict[str, Any]
Reply = Answer | Stream | Upgrade
ACCEPTED = (
    "the body of the request was in an unknown format - accepted media types include: application/json, "
    "application/yaml, application/vnd.kubernetes.protobuf"
)


@dataclass(frozen=True)
class Target:
    """What a path names; `namespace` None is every one."""

    resource: Resource
    namespace: str | None
    name: str
    subresource: str

    def verb(self, request: Request) -> str:
        match request.method:
            case "GET" if self.name:
                return "get"
            case "GET":
                return "watch" if request.flag("watch") else "list"
            case "POST":
                return "create"
            case "PUT":
                return "update"
            case "PATCH":
                return "patch"
            case "DELETE":
                return "delete" if self.name else "deletecollection"
            case _:
                raise method_not_allowed()


class Api:
    def __init__(self, cluster: Cluster, access: AccessTable, watches: Watches, streams: PodStreams) -> None:
        self._cluster, self._access, self._watches, self._streams = cluster, access, watches, streams

    def answer(self, request: Request) -> Reply:
        """Raises Refusal for everything that is not done."""
        account = self._access.account_of(request.headers)
        if (document := self._discover(request.path)) is not None:
            return json_answer(document)
        target = find_target(request.path)
        if target is None:
            if not is_served(request.path):
                return Answer(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})
            raise no_such_resource()
        verb = target.verb(request)
        served = (
            target.resource.subresources.get(target.subresource, ("", ()))[1]
            if target.subresource
            else target.resource.verbs
        )
        if verb not in served or (verb in {"update", "patch"} and not target.name):
            raise method_not_allowed()
        has_two = target.subresource == "exec" and verb == "get" and self._cluster.features.exec_needs_create
        for needed in (verb, "create") if has_two else (verb,):
            self._access.check(
                account, needed, target.resource,
                subresource=target.subresource, namespace=target.namespace, name=target.name,
            )  # fmt: skip
        if target.subresource not in {"", "status"}:
            return self._pod_stream(target, request)
        return self._verb(verb, target, request, account)

    def _discover(self, path: str) -> Json | None:
        features = self._cluster.features
        match path.strip("/").split("/"):
            case ["version"]:
                return version_document(features.major, features.minor)
            case ["api"]:
                return core_versions()
            case ["apis"]:
                return group_list()
            case ["api", "v1"]:
                return resource_list("", "v1")
            case ["apis", group]:
                document = group_document(group)
                return document and {"kind": "APIGroup", "apiVersion": "v1", **document}
            case ["apis", group, version]:
                return resource_list(group, version)
            case ["openapi", "v3", "apis", group, version]:
                return openapi_document(features, group, version)
            case ["openapi", "v3", "api", version]:
                return openapi_document(features, "", version)
            case _:
                return None

    def _pod_stream(self, target: Target, request: Request) -> Reply:
        assert target.namespace is not None
        match target.subresource:
            case "log":
                return self._streams.log(target.namespace, target.name, request)
            case "exec":
                return self._streams.exec(target.namespace, target.name, request)
            case _:
                return json_answer(self._streams.evict(target.namespace, target.name), 201)

    def _verb(self, verb: str, target: Target, request: Request, account: Account | None) -> Reply:
        resource, place = target.resource, target.namespace or ""
        match verb:
            case "get":
                return json_answer(self._cluster.require(resource, place, target.name))
            case "list":
                return json_answer(list_objects(self._cluster.store, resource, target.namespace, request))
            case "watch":
                return self._watch(target, request)
            case "create":
                return self._create(target, request, account)
            case "update":
                before = self._cluster.require(resource, place, target.name)
                after, warnings = self._decode(resource, request)
                return self._replace(target, request, before, after, warnings)
            case "patch":
                before = self._cluster.require(resource, place, target.name)
                patched = apply_patch(
                    request.headers.get("content-type", ""), request.body, copy.deepcopy(before)
                )
                after, warnings = self._check_fields(resource, patched, [], request)
                return self._replace(target, request, before, after, warnings)
            case "delete":
                options = json.loads(request.body or b"{}") | query_options(request)
                body, warnings = self._cluster.delete(resource, place, target.name, options)
                return json_answer(body, warnings=warnings)
            case _:
                return self._delete_all(target, request)

    def _watch(self, target: Target, request: Request) -> Stream:
        revision_of(request)
        request.number("timeoutSeconds")
        watch = Watch(target.resource, target.namespace, matcher_of(target.resource, request), request)
        return Stream(self._watches.stream(watch), "application/json")

    def _create(self, target: Target, request: Request, account: Account | None) -> Answer:
        obj, warnings = self._decode(target.resource, request)
        if target.resource == ACCESS_REVIEWS:
            wanted = (obj.get("spec") or {}).get("resourceAttributes") or {}
            return json_answer({**obj, "status": {"allowed": self._access.review(account, wanted)}}, 201)
        if target.resource == RULES_REVIEWS:
            rules = account.rules if account else [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}]
            status = {"resourceRules": rules, "nonResourceRules": [], "incomplete": False}
            return json_answer({**obj, "status": status}, 201)
        stored, more = self._cluster.create(
            target.resource, target.namespace or "", obj, dry_run=is_dry(request)
        )
        return json_answer(stored, 201, warnings=warnings + more)

    def _replace(
        self, target: Target, request: Request, before: Json, after: Json, warnings: list[str]
    ) -> Answer:
        stored = self._cluster.replace(
            target.resource, before, after, subresource=target.subresource, dry_run=is_dry(request)
        )
        return json_answer(stored, warnings=warnings)

    def _delete_all(self, target: Target, request: Request) -> Answer:
        listed = list_objects(self._cluster.store, target.resource, target.namespace, request)
        options = json.loads(request.body or b"{}") | query_options(request)
        for item in listed["items"]:
            metadata = item["metadata"]
            self._cluster.delete(target.resource, metadata.get("namespace", ""), metadata["name"], options)
        return json_answer(listed)

    def _decode(self, resource: Resource, request: Request) -> tuple[Json, list[str]]:
        media_type = request.headers.get("content-type", "application/json").split(";")[0]
        if media_type != "application/json":
            raise refusal(415, ACCEPTED, reason="UnsupportedMediaType")
        body, twice = parse_body(resource, request.body)
        return self._check_fields(resource, body, twice, request)

    def _check_fields(
        self, resource: Resource, body: Json, twice: list[str], request: Request
    ) -> tuple[Json, list[str]]:
        """Unknown fields are dropped; told of by default, refused where the request asks for strictness."""
        decoded, decoding = decode_object(resource, body)
        told = [f'unknown field "{path}"' for path in decoding.unknown] + [
            f'duplicate field "{key}"' for key in twice
        ]
        if not self._cluster.features.field_warnings:
            return decoded, []
        wanted = request.first("fieldValidation") or "Warn"
        if told and wanted == "Strict":
            raise cannot_be_handled(resource, f"strict decoding error: {', '.join(told)}")
        return decoded, told if wanted == "Warn" else []


def is_served(path: str) -> bool:
    """Whether the path lies in the core or in a group that is there: elsewhere not even a Status answers."""
    parts = path.strip("/").split("/")
    return parts[0] == "api" or (
        parts[0] == "apis" and len(parts) > 1 and group_document(parts[1]) is not None
    )


def find_target(path: str) -> Target | None:
    parts = path.strip("/").split("/")
    if parts[:1] == ["api"]:
        group, version, rest = "", parts[1] if len(parts) > 1 else "", parts[2:]
    elif parts[:1] == ["apis"] and len(parts) > 2:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace: str | None = None
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] != "status":
        namespace, rest = rest[1], rest[2:]
    resource = find_resource(group, version, rest[0]) if rest else None
    if resource is None or len(rest) > 3 or (namespace is not None and not resource.namespaced):
        return None
    name, subresource = (rest[1:2] or [""])[0], (rest[2:3] or [""])[0]
    if subresource and subresource not in resource.subresources:
        return None
    if (resource.namespaced and namespace is None and name) or (
        subresource and resource != PODS and subresource != "status"
    ):
        return None
    return Target(resource, namespace, name, subresource)


def is_dry(request: Request) -> bool:
    return request.first("dryRun") == "All"


def query_options(request: Request) -> Json:
    """DeleteOptions may also stand in the query."""
    found: Json = {}
    if policy := request.first("propagationPolicy"):
        found["propagationPolicy"] = policy
    if (grace := request.number("gracePeriodSeconds")) is not None:
        found["gracePeriodSeconds"] = grace
    return found
