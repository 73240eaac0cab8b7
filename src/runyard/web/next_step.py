"""What the user of a waiting job, or the operator, can do about each reason why it waits: plain words. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from runyard.model.pool import WaitCode

NEXT_STEP: Mapping[WaitCode, str] = {
    WaitCode.BEHIND_OTHERS: "Nothing to do: it starts in its turn. A higher priority puts it before its tenant's.",
    WaitCode.POOL_FULL: "Nothing to do: it starts when something ends here. More slots make this shorter.",
    WaitCode.POOL_PAUSED: "An operator resumes the pool on its page.",
    WaitCode.POOL_UNHEALTHY: "An operator mends it: the check on the pool's page says what is missing.",
    WaitCode.PLACE_STARTING: "Nothing to do: a place for it is being made.",
    WaitCode.NO_OWNER: "An operator starts `runyard serve` on the pool's host, or gives the pool up on its page.",
    WaitCode.QUOTA: "An operator has the quota raised, or waits until something ends there.",
    WaitCode.THROTTLED: "Nothing to do: it is asked again, more slowly.",
    WaitCode.QUEUE_LIMIT: "Wait until a job of the queue ends, or an operator raises the queue's limit.",
    WaitCode.TENANT_LIMIT: "Wait until a job of the tenant ends, or an operator raises its limit.",
    WaitCode.QUEUE_PAUSED: "An operator resumes the queue on its page.",
    WaitCode.RETRY_BACKOFF: "Nothing to do: it is tried again by itself.",
    WaitCode.NO_POOL: "Change what the job asks for (then submit it anew), or an operator adds a pool that fits.",
}
