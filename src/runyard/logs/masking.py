"""Takes secrets out of what attempts print: in every form that programs commonly print them in, however it was cut.

Standard library only: the shim imports this. `Masks` knows the forms of an attempt's secrets; a `StreamMasker` applies
them to one stream, chunk by chunk. The bytes that any form covers, as one run, become MASK. What may be the beginning
of a form is held back until the next bytes decide it. Of a stream that falls silent (`idle`, so that prompts appear) at
most a quarter of a form, 7 bytes at most, is let through, and the rest of it is masked when it comes; at the end of a
stream, a beginning longer than that is masked too: most of a secret is a secret.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator

MASK = b"***"
VALUE_BYTES_MIN = 4
"""Whoever takes a secret refuses a shorter one: masking it would take the log apart and hide nothing."""

LINE_BYTES_MIN = 8
"""Of a value of several lines each line is masked by itself too, but no shorter one (`}`, `EOF`)."""

SHOWN_BYTES_MAX = 7
_WRAPPED_AT = (64, 76)  # openssl's base64 and coreutils'
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_LEFT_ALONE = (b"", b"/", b"!'()*")  # by the strict, by Python's quote, by JavaScript's encodeURIComponent
_URL_SAFE = bytes.maketrans(b"+/", b"-_")
_PROBE_BYTES = 16

Span = tuple[int, int]


def forms_of(value: bytes) -> frozenset[bytes]:
    """What is looked for instead of `value`: itself, percent-encoded, in base64 wherever it lies in what was encoded,
    as a JSON string, and each of its lines."""
    forms = {value, *_percent_encoded(value), *_base64_forms(value), *_json_forms(value)}
    lines = {line.strip() for line in value.splitlines()}
    forms |= {line for line in lines if len(line) >= LINE_BYTES_MIN}
    if value.endswith((b"\n", b"\r")):  # `$(cat file)` drops them
        forms |= forms_of(value.rstrip(b"\r\n"))
    return frozenset(form for form in forms if len(form) >= VALUE_BYTES_MIN)


class Masks:
    """The forms of some secrets. Shared by the streams of an attempt."""

    def __init__(self, values: Iterable[bytes]) -> None:
        self._know({form for value in values for form in forms_of(value)})

    def _know(self, forms: Iterable[bytes]) -> None:
        """Of forms that begin alike the shortest is looked for, and the others where it was found: a pass less each."""
        self.forms: tuple[bytes, ...] = tuple(sorted(forms, key=len, reverse=True))
        self._longer: dict[bytes, list[bytes]] = {}
        self._periods: dict[bytes, int] = {}
        root = None
        for form in sorted(self.forms):  # what begins with a form comes right after it
            if root is None or self._periods[root] or not form.startswith(root):
                root = form
                self._longer[root], self._periods[root] = [], _period(root)
            else:
                self._longer[root].append(form)
        for longer in self._longer.values():
            longer.sort(key=len, reverse=True)

    def mask(self, text: bytes) -> bytes:
        """Of a text that is there as a whole."""
        return _render(text, 0, len(text), self.covered(text), in_run=False)

    def covered(self, text: bytes) -> list[Span]:
        """The runs of bytes that forms cover, in order; runs that touch are one."""
        return _merged(
            span
            for root, longer in self._longer.items()
            for span in _occurrences(text, root, longer, self._periods[root])
        )

    def undecided(self, text: bytes) -> int:
        """Where the longest end of `text` begins that is the beginning of a form; its length where none is."""
        first = len(text)
        for form in self.forms:
            begin = max(0, len(text) - len(form) + 1)
            found = text.find(form[:1], begin, first)
            while found >= 0:
                probe = text[found : found + _PROBE_BYTES]
                if form.startswith(probe) and form.startswith(text[found:]):
                    first = found
                    break
                found = text.find(form[:1], found + 1, first)
        return first

    def most_of_one(self, text: bytes) -> int:
        """As `undecided`, of those that are too long to be shown."""
        for begin in range(self.undecided(text), len(text)):
            end = text[begin:]
            if any(len(end) > _shown_max(form) and form.startswith(end) for form in self.forms):
                return begin
        return len(text)


class StreamMasker:
    """One stream, from its first byte to its last. `keeps_length` writes a `*` for each masked byte, for a log whose
    offsets count what the job printed."""

    def __init__(self, masks: Masks, *, keeps_length: bool = False) -> None:
        self._masks = masks
        self._keeps_length = keeps_length
        self._held = b""  # begins where a form may begin
        self._told = 0  # how much of it was given out
        self._masked = 0  # how much of its beginning is masked by a form that began before
        self._in_run = False  # what was given out last is masked

    @property
    def held_bytes(self) -> int:
        """How much waits to be decided."""
        return len(self._held) - self._told

    def feed(self, data: bytes) -> bytes:
        """What can be given out now that `data` came."""
        text = self._held + data if self._held else data
        spans = self._masks.covered(text)
        if self._masked:
            spans = _merged([(0, self._masked), *spans])
        keep = self._masks.undecided(text)
        end = max([keep, *(stop for start, stop in spans if start <= keep)])
        if not spans and not self._told:
            self._held, self._in_run = text[keep:], self._in_run and not keep
            return text[:keep]
        told = self._give_out(text, end, spans)
        self._held, self._told = text[keep:], max(end, self._told) - keep
        self._masked = end - keep if self._in_run else 0
        return told

    def idle(self) -> bytes:
        """Nothing came for a while: what may be shown of what is held back. Its rest is still known when it comes."""
        if not self.held_bytes or self._masks.most_of_one(self._held) < len(self._held):
            return b""
        told = self._give_out(self._held, len(self._held), self._spans_held())
        self._told = len(self._held)
        return told

    def end(self) -> bytes:
        """The rest of the stream. One that goes on where it ended (a step's, after the last one's) may be fed after."""
        spans = self._spans_held()
        cut = self._masks.most_of_one(self._held)
        if cut < len(self._held):
            spans = _merged([*spans, (cut, len(self._held))])
        told = self._give_out(self._held, len(self._held), spans)
        self._told, self._in_run = len(self._held), False
        return told

    def _spans_held(self) -> list[Span]:
        spans = self._masks.covered(self._held)
        return _merged([(0, self._masked), *spans]) if self._masked else spans

    def _give_out(self, text: bytes, end: int, spans: list[Span]) -> bytes:
        """Up to `end`, from where it was given out."""
        begin = self._told
        if end <= begin:
            return b""
        told = _render(text, begin, end, spans, in_run=self._in_run, keeps_length=self._keeps_length)
        self._in_run = any(start < end <= stop for start, stop in spans)
        return told


def _render(
    text: bytes, begin: int, end: int, spans: list[Span], *, in_run: bool, keeps_length: bool = False
) -> bytes:
    """`text` from `begin` to `end`, its spans masked; `in_run`: one that goes on at `begin` is masked already."""
    parts: list[bytes] = []
    at = begin
    for start, stop in spans:
        if stop <= begin or start >= end:
            continue
        start, stop = max(start, begin), min(stop, end)
        parts.append(text[at:start])
        if keeps_length:
            parts.append(b"*" * (stop - start))
        elif not (in_run and start == begin):
            parts.append(MASK)
        at = stop
    return b"".join([*parts, text[at:end]])


def _occurrences(text: bytes, root: bytes, longer: list[bytes], period: int) -> Iterator[Span]:
    """Of a form, or, where one that goes on is there, of the longest such. Of a form with a `period` the occurrences
    may lie so close that to find each of them takes the square of the time."""
    found = text.find(root)
    while found >= 0:
        last = _last_in_row(text, root, found, period) if period else found
        yield found, last + len(next((form for form in longer if text.startswith(form, last)), root))
        found = text.find(root, last + 1)


def _period(form: bytes) -> int:
    """After how many bytes `form` repeats itself to its end, at most half of it; 0: it does not. (Where its first
    half comes again first is the only place: Fine and Wilf, 1965.)"""
    period = form.find(form[: len(form) - len(form) // 2], 1)
    return period if 0 < period <= len(form) // 2 and form.startswith(form[period:]) else 0


def _last_in_row(text: bytes, form: bytes, found: int, period: int) -> int:
    """Of the occurrences that follow the one at `found`, each a period later, the last."""
    periods = len(form) // period
    while periods:
        if text.startswith(form, found + periods * period):
            found += periods * period
        else:
            periods //= 2
    return found


def _merged(spans: Iterable[Span]) -> list[Span]:
    merged: list[Span] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(stop, merged[-1][1])
        else:
            merged.append((start, stop))
    return merged


def _shown_max(form: bytes) -> int:
    return max(1, min(SHOWN_BYTES_MAX, len(form) // 4))


def _percent_encoded(value: bytes) -> Iterator[bytes]:
    for left_alone in _LEFT_ALONE:
        for digits in ("%{:02X}", "%{:02x}"):
            encoded = b"".join(
                bytes([byte]) if byte in _UNRESERVED or byte in left_alone else digits.format(byte).encode()
                for byte in value
            )
            yield encoded
            yield encoded.replace(b"%20", b"+")


def _base64_forms(value: bytes) -> Iterator[bytes]:
    """The characters that `value` alone decides, for each place that it may have in a group of three bytes."""
    for before in range(3):
        encoded = base64.b64encode(b"\0" * before + value)
        decided = encoded[(0, 2, 3)[before] : (before + len(value)) * 8 // 6]
        yield decided
        yield decided.translate(_URL_SAFE)
    alone = base64.b64encode(value).rstrip(b"=")
    yield alone
    yield alone.translate(_URL_SAFE)
    for width in _WRAPPED_AT:
        lines = (alone[begin : begin + width] for begin in range(0, len(alone), width))
        yield from (line for line in lines if len(line) >= LINE_BYTES_MIN)


def _json_forms(value: bytes) -> Iterator[bytes]:
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return
    for is_ascii in (False, True):
        escaped = json.dumps(text, ensure_ascii=is_ascii)[1:-1]
        for form in (escaped, _upper_hex(escaped)):
            yield form.encode()
            yield form.replace("/", "\\/").encode()


def _upper_hex(escaped: str) -> str:
    head, *parts = escaped.split("\\u")
    return head + "".join("\\u" + part[:4].upper() + part[4:] for part in parts)
