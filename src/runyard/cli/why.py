"""`runyard why`: the reasons a job waits, in plain words, pool by pool."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runyard.cli.connection import open_client
from runyard.cli.words import print_json, print_table, printable, span

if TYPE_CHECKING:
    from runyard.wire.answers import WaitReasonAnswer, WhyAnswer


def why(id: str, /, *, tenant: str | None = None, json: bool = False) -> None:
    """Say why a job waits, pool by pool.

    Parameters
    ----------
    id
        The job.
    tenant
        Its tenant, if the token is for several.
    json
        Print JSON.
    """
    with open_client(tenant) as client:
        answer = client.why(id)
    if json:
        print_json(answer)
        return
    print(headline(answer))
    general = [reason for reason in answer.reasons if reason.pool is None]
    for reason in general:
        print(printable(f"  {reason.code}: {reason.message}{_times(reason)}"))
    by_pool = [reason for reason in answer.reasons if reason.pool is not None]
    if by_pool:
        print()
        rows = ((r.pool, r.code, _eta(r), _since(r), r.message) for r in by_pool)
        print_table(("POOL", "WHY", "READY", "SINCE", "IN WORDS"), rows)


def headline(answer: WhyAnswer) -> str:
    """`job 'a' is queued in 'default'; about 3 jobs go before it`."""
    if answer.state != "queued":
        return f"job '{answer.id}' does not wait: it is {answer.state}"
    place = {None: "", 0: "; it is next in its order"}.get(
        answer.ahead, f"; about {answer.ahead} job{'' if answer.ahead == 1 else 's'} go before it"
    )
    return f"job '{answer.id}' is queued in '{answer.queue}'{place}"


def _times(reason: WaitReasonAnswer) -> str:
    words = [
        f"since {_since(reason)}" if reason.age_s is not None else "",
        f"over in about {span(reason.eta_s)}" if reason.eta_s is not None else "",
    ]
    said = ", ".join(word for word in words if word)
    return f" ({said})" if said else ""


def _eta(reason: WaitReasonAnswer) -> str:
    return "unknown" if reason.eta_s is None else f"in about {span(reason.eta_s)}"


def _since(reason: WaitReasonAnswer) -> str | None:
    return None if reason.age_s is None else f"{span(reason.age_s)} ago"
