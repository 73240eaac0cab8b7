"""From the query of a listing to the ledger's filter."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.ledger.port import JobFilter
from runyard.model.errors import Invalid
from runyard.model.job import JobState

LABELS_MAX = 20


def job_filter(
    tenants: tuple[str, ...] | None,
    *,
    queue: str | None,
    states: Sequence[str] | None,
    labels: Sequence[str] | None,
    pool: str | None,
    text: str | None,
) -> JobFilter:
    return JobFilter(
        queue=queue,
        states=tuple(JobState(state) for state in states or ()),
        tenants=tenants,
        labels=_label_map(labels or ()),
        pool=pool,
        text=text,
    )


def _label_map(labels: Sequence[str]) -> dict[str, str]:
    if len(labels) > LABELS_MAX:
        raise Invalid(
            f"label: {len(labels)} are more than {LABELS_MAX}", field="label", cure="ask for fewer labels"
        )
    pairs = [label.partition("=") for label in labels]
    wrong = next((key for key, separator, _ in pairs if not separator or not key), None)
    if wrong is not None:
        raise Invalid(
            f"label: {wrong[:100]!r} is no key=value", field="label", cure="write it like team=search"
        )
    return {key: value for key, _, value in pairs}
