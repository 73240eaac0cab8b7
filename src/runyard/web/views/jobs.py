"""All jobs, filtered; everything that was chosen stands in the address."""

from __future__ import annotations

from urllib.parse import urlencode

from runyard.api.access import Call
from runyard.api.listing import exit_codes_of, job_filter, moment_of
from runyard.model.errors import Invalid
from runyard.model.job import JobState
from runyard.web.page import Address, Page

ROWS = 50
_KEYS = ("queue", "pool", "text", "tenant", "since", "until")


async def jobs(call: Call, address: Address) -> Page:
    query = address.query
    chosen = {key: query.get(key, "").strip() for key in _KEYS}
    states = [state for state in query.getlist("state") if state]
    labels = [label for label in query.getlist("label") if label]
    _refuse_unknown_states(states)
    ledger = call.context.services.ledger
    now = await ledger.now()
    filter_ = job_filter(
        call.tenants,
        queue=chosen["queue"] or None,
        states=states,
        labels=labels,
        pool=chosen["pool"] or None,
        text=chosen["text"] or None,
        since=moment_of(chosen["since"], field="since", now=now),
        until=moment_of(chosen["until"], field="until", now=now),
    )
    page = await ledger.list_jobs(filter_, limit=ROWS, cursor=query.get("cursor") or None)
    values = {
        "jobs": page.jobs,
        "exit_codes": await exit_codes_of(ledger, page.jobs),
        "chosen": chosen,
        "states": states,
        "labels": labels,
        "all_states": [state.value for state in JobState],
        "is_first_page": not query.get("cursor"),
        "is_filtered": bool(states or labels or any(chosen.values())),
        "is_cut_short": page.next_cursor is not None and len(page.jobs) < ROWS,
        "next": _address_with(address, page.next_cursor) if page.next_cursor else None,
        "first": _address_with(address, None),
    }
    return Page(title="Jobs", template="jobs.html", values=values)


def _refuse_unknown_states(states: list[str]) -> None:
    known = {state.value for state in JobState}
    for state in states:
        if state not in known:
            raise Invalid(
                f"state: {state[:40]!r} is none", field="state", cure=f"choose of: {', '.join(sorted(known))}"
            )


def _address_with(address: Address, cursor: str | None) -> str:
    pairs = [(key, value) for key, value in address.query.multi_items() if key != "cursor" and value]
    if cursor:
        pairs.append(("cursor", cursor))
    return f"/jobs?{urlencode(pairs)}" if pairs else "/jobs"
