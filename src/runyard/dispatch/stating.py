"""What the owner of a pool last answered for each class that waits, written down where waiting users can read it."""

from __future__ import annotations

from collections.abc import Mapping

import structlog

from runyard.ledger.port import Ledger
from runyard.model.clock import Clock
from runyard.model.pool import Availability, AvailabilityKind, Fence, WaitCode

STATE_AVAILABILITY_EVERY_S = 1.0

log = structlog.get_logger()


class StatedAnswers:
    """Of one pool. At most once a second, because a busy pool is full and free many times in each."""

    def __init__(self, pool: str, *, ledger: Ledger, clock: Clock) -> None:
        self._ledger = ledger
        self._clock = clock
        self._stated: dict[str, Availability] = {}
        self._stated_at = float("-inf")
        self._log = log.bind(pool=pool)

    @property
    def is_due(self) -> bool:
        """Whether what changed may be written now."""
        return self._clock.boottime() - self._stated_at >= STATE_AVAILABILITY_EVERY_S

    def forget(self) -> None:
        """Another may have stated something else meanwhile."""
        self._stated = {}

    async def state(self, fence: Fence, answers: Mapping[str, Availability]) -> None:
        """Writes what changed of the answers, by class, if it is due. Raises Fenced, LedgerUnavailable."""
        changed = {key: answer for key, answer in answers.items() if self._stated.get(key) != answer}
        at = self._clock.boottime()
        if not changed or not self.is_due:
            return
        await self._ledger.set_availability(fence, changed)
        for key, answer in changed.items():
            self._log_turn(key, self._stated.get(key), answer)
        self._stated = dict(answers)
        self._stated_at = at

    def _log_turn(self, class_key: str, before: Availability | None, answer: Availability) -> None:
        if _trouble(before) != _trouble(answer):
            code = answer.code.value if answer.code else None
            self._log.info(
                "availability_changed", class_key=class_key, kind=answer.kind.value, code=code, why=answer.why
            )


def _trouble(answer: Availability | None) -> WaitCode | None:
    """What keeps a class waiting. That the pool is full, or has room again, is a busy pool's daily round: None."""
    if answer is None or answer.kind is AvailabilityKind.NOW or answer.code is WaitCode.POOL_FULL:
        return None
    return answer.code
