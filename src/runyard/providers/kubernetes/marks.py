"""What is remembered of an attempt in the cluster: annotations of its Secret, the one object that is there from before
the start to the very end. Pure: from the Secret to what they say, and to the patches that write them.

`stop` was asked for. `job` is the uid of the Job that was created: one that is gone later was deleted, and is not made
again. `end` is how it ended, written once: a pod may be gone before the outcome is told a second time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, Usage

STOP = "runyard.dev/stop"
JOB = "runyard.dev/job-uid"
END = "runyard.dev/end"
END_BYTES_MAX = 200_000
"""Annotations may take 256 KiB in all. Outputs above it are left out of what is told again."""

Document = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class StopMark:
    """`at` is by the cluster's clock (epoch seconds); `was_seen`: its command ran when it was asked to stop."""

    grace_s: float
    at: float
    was_seen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EndMark:
    outcome: Outcome
    phases: Mapping[str, float] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Marks:
    """`version` is the Secret's, for a compare-and-set; `made_at` is when it was created."""

    version: str
    made_at: float
    stop: StopMark | None = None
    job_uid: str | None = None
    end: EndMark | None = None


def read_marks(secret: Mapping[str, Any], *, made_at: float) -> Marks:
    """Raises ValueError where somebody else wrote into them."""
    metadata = secret["metadata"]
    notes = metadata.get("annotations") or {}
    return Marks(
        version=metadata["resourceVersion"],
        made_at=made_at,
        stop=StopMark(**json.loads(notes[STOP])) if STOP in notes else None,
        job_uid=notes.get(JOB),
        end=_parse_end(notes[END]) if END in notes else None,
    )


def stop_patch(mark: StopMark) -> Document:
    return _annotate(STOP, _dump(asdict(mark)))


def job_patch(job_uid: str) -> Document:
    return _annotate(JOB, job_uid)


def end_patch(end: EndMark) -> Document:
    """Outputs that are too large to be kept beside the outcome are left out, the largest first."""
    outputs = dict(end.outputs)
    while True:
        text = _dump({"outcome": _of_outcome(end.outcome), "phases": dict(end.phases), "outputs": outputs})
        if len(text.encode()) <= END_BYTES_MAX or not outputs:
            return _annotate(END, text)
        del outputs[max(outputs, key=lambda name: len(outputs[name]))]


def _annotate(key: str, value: str) -> Document:
    return {"metadata": {"annotations": {key: value}}}


def _of_outcome(outcome: Outcome) -> Document:
    reason = asdict(outcome.reason) if outcome.reason else None
    return {**asdict(outcome), "reason": reason}


def _parse_end(text: str) -> EndMark:
    try:
        document = json.loads(text)
        told = document["outcome"]
        reason = told["reason"]
        outcome = Outcome(
            kind=OutcomeKind(told["kind"]),
            reason=Reason(**{**reason, "code": ReasonCode(reason["code"])}) if reason else None,
            exit_code=told["exit_code"],
            signal=told["signal"],
            usage=Usage(**told["usage"]),
            was_seen=told["was_seen"],
        )
        return EndMark(outcome=outcome, phases=document["phases"], outputs=document["outputs"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"{END}: {error}") from None


def _dump(document: Document) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))
