"""`str.casefold` in PostgreSQL's words: its own lower() leaves the ß of "Grüße", and what it does depends on the locale
that a database was made with, while a search must find the same jobs on both databases."""

from __future__ import annotations

from functools import cache

FOLDED_BELOW = 0x20000
"""No character from here on has a case (a test looks at all of Unicode)."""

Sql = tuple[str, dict[str, str]]


def holds_folded(column: str, text: str) -> Sql:
    """The condition that the casefolded column holds `text`, which is casefolded itself.

    Only characters that fold to one of the text's are folded: no other can become a part of it, and none of the text
    is one of them, since folding what is folded changes nothing.
    """
    letters = frozenset(text)
    folds = [(unfolded, folded) for unfolded, folded in _folds() if not letters.isdisjoint(folded)]
    to_one = [(unfolded, folded) for unfolded, folded in folds if len(folded) == 1]
    to_more = [(unfolded, folded) for unfolded, folded in folds if len(folded) > 1]
    spelled, values = _spelled_out(f'{column} COLLATE "C"', to_more)
    values |= {
        "text": text,
        "unfolded": "".join(unfolded for unfolded, _ in to_one),
        "folded": "".join(folded for _, folded in to_one),
    }
    return f"strpos(translate({spelled}, :unfolded, :folded), :text) > 0", values


def _spelled_out(value: str, to_more: list[tuple[str, str]]) -> Sql:
    """The value with such as ß as ss. Few names have any: one look spares the others up to a hundred replaces."""
    if not to_more:
        return value, {}
    replaced, values = value, {"long": f"[{''.join(unfolded for unfolded, _ in to_more)}]"}
    for place, (unfolded, folded) in enumerate(to_more):
        replaced = f"replace({replaced}, :long_{place}, :spelled_{place})"
        values |= {f"long_{place}": unfolded, f"spelled_{place}": folded}
    return f"CASE WHEN {value} ~ :long THEN {replaced} ELSE {value} END", values


@cache
def _folds() -> tuple[tuple[str, str], ...]:
    """Each character that folding changes, and to what."""
    characters = ((one, one.casefold()) for one in map(chr, range(FOLDED_BELOW)))
    return tuple((one, folded) for one, folded in characters if folded != one)
