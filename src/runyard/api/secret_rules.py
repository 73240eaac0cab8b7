"""Whether a submitted job may have the secrets that it names: said at the submit, and again at each attempt."""

from __future__ import annotations

from runyard.api.access import Call
from runyard.api.submission import Prepared
from runyard.model.errors import Invalid, RunyardError
from runyard.model.job import NewJob


async def check_secrets(call: Call, job: NewJob) -> None:
    """Raises Invalid that names the field. A job that is there already is answered as it is, whatever became of its
    secrets since."""
    if not job.spec.has_secrets:
        return
    try:
        await call.context.services.secrets.check(job.spec)
    except Invalid:
        present = await call.context.services.ledger.find_job(job.spec.tenant, job.id)
        if present is None or present.spec_hash != job.spec_hash:
            raise


async def refuse_without_secrets(
    call: Call, prepared: list[Prepared | RunyardError]
) -> list[Prepared | RunyardError]:
    """The same with an error in the place of each job that may not have what it names."""
    checked: list[Prepared | RunyardError] = []
    for item in prepared:
        try:
            if isinstance(item, Prepared):
                await check_secrets(call, item.job)
            checked.append(item)
        except Invalid as error:
            checked.append(error)
    return checked
