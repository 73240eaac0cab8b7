"""How much of what lasts one service keeps open at once: streams, and searches through logs; for one token, and in all.

A token counts together with the sessions that were made from it, so that signing in again and again opens no more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from enum import StrEnum

from runyard.model.errors import TooMany
from runyard.model.token import Token

RETRY_AFTER_S = 5.0


class OpenKind(StrEnum):
    """What is open: the moving part of a page, a log that is followed, the feed of events, a search through a log."""

    PAGE = "page"
    LOG = "log"
    EVENTS = "events"
    SEARCH = "search"


class RefusedBy(StrEnum):
    """Whose bound was reached."""

    TOKEN = "token"
    SERVICE = "service"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """`name` is that of the settings: `server.<name>_max` in all, `server.<name>_per_token_max` for one token."""

    name: str
    in_all: int
    per_token: int


STREAMS = Bound(name="streams", in_all=4_000, per_token=1_000)
SEARCHES = Bound(name="searches", in_all=16, per_token=4)


class OpenBounds:
    """What is open in this process. Everything here is a dictionary look-up in the loop's own thread."""

    def __init__(self, *, streams: Bound = STREAMS, searches: Bound = SEARCHES) -> None:
        self._bounds = dict.fromkeys(OpenKind, streams) | {OpenKind.SEARCH: searches}
        self._of_tokens: Counter[tuple[str, str]] = Counter()
        self.open: Counter[OpenKind] = Counter()
        self.refused: Counter[tuple[OpenKind, RefusedBy]] = Counter()

    def take(self, token: Token, kind: OpenKind) -> Permit:
        """One more of that kind until the permit is released. Raises TooMany."""
        bound = self._bounds[kind]
        owner = bound.name, token.parent or token.id
        if self._of_tokens[owner] >= bound.per_token:
            raise self._refused(kind, RefusedBy.TOKEN, bound)
        if sum(self.open[each] for each in OpenKind if self._bounds[each] is bound) >= bound.in_all:
            raise self._refused(kind, RefusedBy.SERVICE, bound)
        self._of_tokens[owner] += 1
        self.open[kind] += 1
        return Permit(self, kind, owner)

    def give_back(self, kind: OpenKind, owner: tuple[str, str]) -> None:
        self.open[kind] -= 1
        self._of_tokens[owner] -= 1
        if not self._of_tokens[owner]:
            del self._of_tokens[owner]

    def _refused(self, kind: OpenKind, by: RefusedBy, bound: Bound) -> TooMany:
        self.refused[kind, by] += 1
        if by is RefusedBy.TOKEN:
            return TooMany(
                f"this token and its sessions have {bound.per_token} {bound.name} open, as many as one token may",
                cure=f"close some, or raise `server.{bound.name}_per_token_max`",
                retry_after_s=RETRY_AFTER_S,
            )
        return TooMany(
            f"{bound.in_all} {bound.name} are open, as many as this service keeps at once",
            cure=f"try again later, ask another service on the same ledger, or raise `server.{bound.name}_max`",
            retry_after_s=RETRY_AFTER_S,
        )


class Permit:
    """What was taken. Releasing it again changes nothing."""

    def __init__(self, bounds: OpenBounds, kind: OpenKind, owner: tuple[str, str]) -> None:
        self._bounds = bounds
        self._kind = kind
        self._owner = owner
        self._is_held = True

    def release(self) -> None:
        if self._is_held:
            self._is_held = False
            self._bounds.give_back(self._kind, self._owner)

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        self.release()
