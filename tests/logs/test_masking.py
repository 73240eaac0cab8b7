"""The streaming masker against a whole-text oracle, and the forms against the programs that make them."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runyard.logs.masking import LINE_BYTES_MIN, Masks, StreamMasker, forms_of

SECRET = "p@ss w0rd/+ü~(!)*'\"\\"
PEM = b"-----BEGIN KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASC\nBKcwggSjAgEAAoIBAQC7\nab=\n-----END KEY-----\n"


class Bare(Masks):
    """These forms and no others, so that a short alphabet finds every overlap."""

    def __init__(self, forms) -> None:
        self._know(set(forms))


def oracle(forms, text: bytes, *, keeps_length: bool = False) -> bytes:
    """Byte by byte: is it covered? A cut form at the end counts, where it is too long to be shown."""
    hidden = [False] * len(text)
    for form in forms:
        for at in range(len(text)):
            if text[at : at + len(form)] == form:
                hidden[at : at + len(form)] = [True] * len(form)
            cut = text[at:]
            if len(cut) < len(form) and form.startswith(cut) and len(cut) > max(1, min(7, len(form) // 4)):
                hidden[at:] = [True] * len(cut)
    out = bytearray()
    for at, byte in enumerate(text):
        if not hidden[at]:
            out.append(byte)
        elif keeps_length:
            out += b"*"
        elif at == 0 or not hidden[at - 1]:
            out += b"***"
    return bytes(out)


letters = st.binary(min_size=1, max_size=12).map(lambda data: bytes(b"ab"[byte % 2] for byte in data))
some_forms = st.lists(letters.filter(lambda form: len(form) > 1), min_size=1, max_size=5)


@st.composite
def texts(draw, forms):
    """Noise, whole forms and parts of them, one after the other."""
    pieces = draw(
        st.lists(
            st.one_of(
                letters,
                st.just(b"c"),
                st.sampled_from(forms),
                st.sampled_from(forms).map(lambda form: form[: len(form) // 2 + 1]),
            ),
            max_size=12,
        )
    )
    return b"".join(pieces)


@st.composite
def histories(draw):
    forms = draw(some_forms)
    text = draw(texts(forms))
    cuts = sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))
    chunks = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    return forms, text, chunks


@settings(max_examples=400, deadline=None)
@given(histories(), st.booleans())
def test_a_stream_is_masked_as_its_whole_text_is_however_it_was_cut(history, keeps_length):
    forms, text, chunks = history
    masker = StreamMasker(Bare(forms), keeps_length=keeps_length)
    out = b"".join(masker.feed(chunk) for chunk in chunks) + masker.end()
    assert out == oracle(forms, text, keeps_length=keeps_length)


@settings(max_examples=400, deadline=None)
@given(histories(), st.data())
def test_a_stream_that_falls_silent_now_and_then_still_shows_no_form(history, data):
    forms, _, chunks = history
    masker = StreamMasker(Bare(forms))
    out = b""
    for chunk in chunks:
        out += masker.feed(chunk)
        if data.draw(st.booleans()):
            out += masker.idle()
    out += masker.end()
    assert not [form for form in forms if form in out and len(form) > 1 and form.strip(b"*")]


@settings(max_examples=200, deadline=None)
@given(histories())
def test_a_form_that_goes_on_in_the_next_stream_is_masked_in_both(history):
    forms, text, chunks = history
    masker = StreamMasker(Bare(forms))
    outs = [masker.feed(chunk) + masker.end() for chunk in chunks]
    assert not [form for form in forms if form in b"".join(outs)]
    assert len(text) == 0 or masker.held_bytes == 0


def test_what_is_held_back_is_bounded_by_the_longest_form():
    masks = Masks([b"hunter2-hunter2"])
    masker = StreamMasker(masks)
    for _ in range(1000):
        masker.feed(b"hunter2-")
        assert masker.held_bytes < len(masks.forms[0])


def test_a_prompt_appears_when_the_stream_falls_silent_and_the_rest_of_the_secret_is_masked():
    masker = StreamMasker(Masks([b"word-of-the-day-and-night"]))
    assert masker.feed(b"Pass wo") == b"Pass "
    assert masker.idle() == b"wo"
    assert masker.feed(b"rd-of-the-day-and-night!") == b"***!"


def test_half_a_secret_is_not_shown_however_long_the_stream_is_silent():
    masker = StreamMasker(Masks([b"word-of-the-day-and-night"]))
    assert masker.feed(b"it is word-of-the-day") == b"it is "
    assert masker.idle() == b""
    assert masker.end() == b"***"


PRINTED = {
    "raw": SECRET.encode(),
    "quote": urllib.parse.quote(SECRET).encode(),
    "quote_plus": urllib.parse.quote_plus(SECRET).encode(),
    "quote, all": urllib.parse.quote(SECRET, safe="").encode(),
    "JavaScript": urllib.parse.quote(SECRET, safe="!'()*").encode(),
    "json": json.dumps(SECRET).encode(),
    "json, as text": json.dumps(SECRET, ensure_ascii=False).encode(),
    "json, slashes": json.dumps(SECRET).replace("/", "\\/").encode(),
}


@pytest.mark.parametrize("name", PRINTED)
def test_each_form_is_masked(name):
    out = Masks([SECRET.encode()]).mask(b"<" + PRINTED[name] + b">")
    assert out in (b"<***>", b'<"***">')


@pytest.mark.parametrize("encode", [base64.b64encode, base64.urlsafe_b64encode])
@pytest.mark.parametrize("before", range(6))
def test_base64_is_masked_wherever_the_secret_lies_in_what_was_encoded(encode, before):
    """All but the characters that its neighbours have a part in: the first and the last."""
    value = bytes(range(200, 240))
    printed = encode(b"u" * before + value + b"tail")
    out = Masks([value]).mask(printed)
    assert b"***" in out
    assert len(out) <= len(printed) - len(value) * 8 // 6 + 2 + len(b"***")


@pytest.mark.parametrize("width", [64, 76])
def test_base64_in_lines_is_masked(width):
    value = bytes(range(256))
    whole = base64.b64encode(value)
    lines = b"\n".join(whole[at : at + width] for at in range(0, len(whole), width))
    assert set(Masks([value]).mask(lines)) <= set(b"*\n=")


def test_each_line_of_a_secret_is_masked_but_a_short_one():
    lines = [line for line in PEM.splitlines() if len(line) >= LINE_BYTES_MIN]
    masks = Masks([PEM])
    assert [masks.mask(b"> " + line) for line in lines] == [b"> ***"] * len(lines)
    assert masks.mask(b"ab=") == b"ab="
    assert masks.mask(PEM) == b"***"


def test_a_secret_without_its_last_newline_is_masked_in_every_form():
    out = Masks([b"hunter2hunter2\n"]).mask(base64.b64encode(b"hunter2hunter2"))
    assert out in (b"***=", b"***")


def test_lower_case_hex_is_masked():
    assert forms_of(b"a/b?c d") >= {b"a%2fb%3fc%20d", b"a%2Fb%3Fc%20d", b"a%2Fb%3Fc+d"}


def test_knowing_forms_compares_each_with_one_other():
    """A value of 64 KiB has up to nine thousand lines, and the service learns them on its event loop."""

    class Counted(bytes):
        compared = 0

        def startswith(self, *arguments) -> bool:
            Counted.compared += 1
            return super().startswith(*arguments)

    forms = [Counted(b"%05d" % number) for number in range(2000)]
    assert len(Bare(forms).forms) == 2000
    assert Counted.compared <= 2 * len(forms)


@settings(max_examples=300, deadline=None)
@given(letters, st.integers(2, 9), st.just(b"") | letters, st.data())
def test_forms_that_repeat_themselves_are_covered_as_by_looking_at_each_place(unit, times, rest, data):
    form = unit * times + rest
    pieces = st.one_of(st.just(unit), st.just(form), st.just(form[:-1]), st.just(rest), st.just(b"\xff"))
    text = b"".join(data.draw(st.lists(pieces, max_size=20)))
    forms = [form, form + b"\xff", form[:-1] + b"\xff"]
    assert StreamMasker(Bare(forms)).feed(text + b"\xfe") == oracle(forms, text + b"\xfe")


def test_a_form_that_repeats_itself_is_found_in_few_looks():
    """Each look costs the length of the form: 65,000 of them held a log for 4 seconds per 64 KiB."""

    class Counted(bytes):
        looks = 0

        def find(self, *arguments) -> int:
            Counted.looks += 1
            return super().find(*arguments)

        def startswith(self, *arguments) -> bool:
            Counted.looks += 1
            return super().startswith(*arguments)

    text = Counted(b"a" * 20_000)
    assert Bare([b"a" * 10_000, b"a" * 10_000 + b"\n"]).covered(text) == [(0, 20_000)]
    assert Counted.looks < 100
