"""From a job document to a job for the ledger: defaults, validation, whether any pool could run
it. Pure: what it needs to know of the world is handed in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from runyard.api.document_rules import check_bounds
from runyard.api.errors import InvalidDocument
from runyard.api.job_specs import spec_of
from runyard.api.phrases import shortened
from runyard.api.secret import new_uid
from runyard.api.validation import validate
from runyard.model.errors import Invalid, RunyardError
from runyard.model.job import JobSpec, NewJob
from runyard.model.pool import Pool
from runyard.policy.explain import could_ever_run
from runyard.wire.job_document import JobDocument

SENTENCES_LENGTH_MAX = 4000
_FIXED_BY_JOB = ("id", "tenant", "queue")


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a document is judged against: each queue's defaults, and the pools there are."""

    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    pools: Sequence[Pool] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitter:
    """For whom: the tenant a document without one gets, and who is written down as having sent it."""

    tenant: str
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A job that may be stored, and what its owner should know all the same."""

    job: NewJob
    warnings: tuple[str, ...] = ()


class NoPoolFits(Invalid):
    """No pool could ever run it, as far as the pools were known when it was judged."""


def prepare_job(
    document: object, submitter: Submitter, surroundings: Surroundings, *, job_id: str | None = None
) -> Prepared:
    """Raises Invalid (InvalidDocument, NoPoolFits). `job_id` is the one in the path, if the path has one."""
    given = _mapping(document)
    if job_id is not None and given.get("id", job_id) != job_id:
        raise Invalid(
            f"id: {shortened(given['id'])} is not the {job_id!r} of the path",
            field="id",
            cure="leave the id out of the document, or write the same one",
        )
    defaults = surroundings.defaults.get(queue_named(given), {})
    merged = merge_defaults(defaults, {"tenant": submitter.tenant, **given})
    parsed = validate(JobDocument, merged)
    check_bounds(parsed)
    spec = spec_of(parsed)
    uid = new_uid()
    job = NewJob(
        uid=uid,
        id=job_id or parsed.id or uid,
        spec=spec,
        spec_hash=spec_hash(given),
        submitted_by=submitter.name,
    )
    return Prepared(job=job, warnings=_check_pools(spec, given, surroundings.pools))


def prepare_each(
    documents: Sequence[object],
    submitter_of: Callable[[object], Submitter],
    surroundings: Surroundings,
) -> list[Prepared | RunyardError]:
    """One answer per document: a wrong one does not hold back the others. `submitter_of` may raise too."""
    prepared: list[Prepared | RunyardError] = []
    for document in documents:
        try:
            prepared.append(prepare_job(document, submitter_of(document), surroundings))
        except RunyardError as error:
            prepared.append(error)
    return prepared


def queue_named(document: object) -> str:
    """The queue a document asks for; whatever stands there is judged later."""
    name = document.get("queue", "default") if isinstance(document, Mapping) else "default"
    return name if isinstance(name, str) else "default"


def spec_hash(document: Mapping[str, Any]) -> str:
    """SHA-256 of the document as it was sent, without its id, as canonical JSON: equal documents have equal hashes."""
    rest = {key: value for key, value in document.items() if key != "id"}
    canonical = json.dumps(rest, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def merge_defaults(defaults: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """`defaults` under `document`: mappings key by key, anything else as a whole."""
    merged = dict(defaults)
    for key, value in document.items():
        below = merged.get(key)
        both_map = isinstance(value, Mapping) and isinstance(below, Mapping)
        merged[key] = merge_defaults(below, value) if both_map else value  # type: ignore[arg-type]
    return merged


def check_queue_defaults(defaults: Mapping[str, Any]) -> None:
    """Refuses defaults with which no job of the queue could be valid. Fields are named beneath `defaults`."""
    fixed = next((key for key in _FIXED_BY_JOB if key in defaults), None)
    if fixed is not None:
        raise Invalid(
            f"defaults.{fixed}: it is each job's own",
            field=f"defaults.{fixed}",
            cure="remove it from the defaults",
        )
    try:
        parsed = validate(JobDocument, {"steps": [{"run": "true"}], **defaults})
        check_bounds(parsed)
    except Invalid as error:
        problems = [error, *(error.more if isinstance(error, InvalidDocument) else ())]
        raise InvalidDocument([_beneath_defaults(problem) for problem in problems]) from None


def _beneath_defaults(problem: Invalid) -> Invalid:
    field_ = f"defaults.{problem.field}" if problem.field else "defaults"
    moved = Invalid(f"defaults.{problem.message}", field=field_, cure=problem.cure)
    moved.code = problem.code
    return moved


def _mapping(document: object) -> Mapping[str, Any]:
    if not isinstance(document, Mapping):
        raise Invalid(
            f"a job is a mapping of keys to values, not {shortened(document)}",
            field="body",
            cure="see docs/job-file.md for a first job",
        )
    return document


def _check_pools(spec: JobSpec, given: Mapping[str, Any], pools: Sequence[Pool]) -> tuple[str, ...]:
    """What is wrong with every pool, as a warning where the job itself says how long it is willing to wait."""
    sentences = could_ever_run(spec.requirements, spec.queue, pools)
    if sentences is None:
        return ()
    message = f"no pool could ever run this job: {_joined(sentences)}"
    limits = given.get("limits")
    if isinstance(limits, Mapping) and limits.get("queue") is not None:
        return (f"{message}; it waits for one until its limits.queue is over",)
    cure = "change the requirements or the queue; or set limits.queue, to wait for a pool that may come"
    if any(pool.settings.slots == 0 for pool in pools):
        cure = f"run `runyard doctor` on the pool's host, which says how to mend what is unusable; or {cure}"
    raise NoPoolFits(message, field="requirements", cure=cure)


def _joined(sentences: Sequence[str]) -> str:
    """Whole sentences, as many as a person reads; a half one could hide the cure that it ends with."""
    shown = list(sentences[:1])
    for sentence in sentences[1:]:
        if sum(map(len, shown)) + len(sentence) > SENTENCES_LENGTH_MAX:
            break
        shown.append(sentence)
    rest = len(sentences) - len(shown)
    return "; ".join(shown) + (f"; nor could {rest} more pools" if rest else "")
