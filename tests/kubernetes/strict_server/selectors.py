"""labelSelector and fieldSelector, parsed and matched as the server does."""

import re
from collections.abc import Callable
from typing import Any

from tests.kubernetes.strict_server.resources import Resource
from tests.kubernetes.strict_server.status import bad_request

Json = dict[str, Any]
Matcher = Callable[[Json], bool]

IN_SET = re.compile(r"^([^\s!=()]+)\s+(in|notin)\s+\(([^()]*)\)$")
EQUALS = re.compile(r"^([^\s!=()]+)\s*(==|=|!=)\s*([^\s!=()]*)$")
EXISTS = re.compile(r"^(!?)\s*([^\s!=()]+)$")
# What is selectable beside metadata.name and metadata.namespace.
FIELDS = {
    "pods": {
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.serviceAccountName",
        "status.phase",
        "status.podIP",
    },
    "jobs": {"status.successful"},
    "secrets": {"type"},
    "events": {"involvedObject.kind", "involvedObject.name", "involvedObject.uid", "reason", "type"},
    "namespaces": {"status.phase"},
}


def label_matcher(text: str) -> Matcher:
    """A function of the object's labels; 400 for what cannot be parsed."""
    terms = [label_term(part.strip()) for part in re.split(r",(?![^()]*\))", text) if part.strip()]
    return lambda obj: all(term(obj["metadata"].get("labels") or {}) for term in terms)


def label_term(term: str) -> Callable[[dict[str, str]], bool]:
    if found := IN_SET.match(term):
        key, verb, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        return lambda labels: (labels.get(key) in values) == (verb == "in")
    if found := EQUALS.match(term):
        key, sign, value = found.groups()
        return lambda labels: (labels.get(key) == value) != (sign == "!=")
    if found := EXISTS.match(term):
        negated, key = found.groups()
        return lambda labels: (key in labels) != bool(negated)
    if term.count("=") > 1 and "(" not in term:
        raise bad_request("found '=', expected: ',' or 'end of string'")
    raise bad_request(f"unable to parse requirement: {term}")


def field_matcher(resource: Resource, text: str) -> Matcher:
    terms: list[tuple[str, bool, str]] = []
    for part in filter(None, text.split(",")):
        found = re.match(r"^([\w.]+)(==|=|!=)(.*)$", part)
        if not found:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        path, sign, value = found.groups()
        if path not in {"metadata.name", "metadata.namespace"} | FIELDS.get(resource.plural, set()):
            raise bad_request(f"field label not supported: {path}")
        terms.append((path, sign != "!=", value))
    return lambda obj: all((field_text(obj, path) == value) == wanted for path, wanted, value in terms)


def field_text(obj: Json, path: str) -> str:
    found: Any = obj
    for part in path.split("."):
        found = (found or {}).get(part)
    return "" if found is None else str(found)


def matcher(resource: Resource, labels: str, fields: str) -> Matcher:
    by_label, by_field = label_matcher(labels), field_matcher(resource, fields)
    return lambda obj: by_label(obj) and by_field(obj)
