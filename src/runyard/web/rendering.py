"""Templates to bytes: the environment, its filters, and the headers that every page carries."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from runyard.web.page import Page

SECURITY_HEADERS = {
    # Nothing but our own files; no inline script or style, so that what a job printed can never run.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self';"
        " connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_KIB = 1024


@cache
def environment() -> Environment:
    made = Environment(
        loader=PackageLoader("runyard.web"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "time": time_tag,
        "size": size_text,
        "duration": duration_text,
        "count": count_text,
        "part": part_text,
        "words": words_html,
    }
    made.globals["asset"] = asset
    return made


@cache
def asset(path: str) -> str:
    """The address of a file in static/, which changes with its content: browsers keep it for ever."""
    content = files("runyard.web").joinpath("static", path).read_bytes()
    return f"/static/{path}?v={hashlib.sha256(content).hexdigest()[:12]}"


def whole(page: Page, values: Mapping[str, Any], status: int = 200) -> HTMLResponse:
    """The page in its frame. `values` are the frame's: who is signed in, where the page lies."""
    text = environment().get_template(page.template).render({**page.values, **values, "title": page.title})
    return HTMLResponse(text, status, SECURITY_HEADERS)


def inner(page: Page, values: Mapping[str, Any]) -> str:
    """What moves: the `main` block alone."""
    template = environment().get_template(page.template)
    context = template.new_context({**page.values, **values, "title": page.title})
    return "".join(template.blocks["main"](context))


# -- filters ------------------------------------------------------------------------------------------------------
def words_html(text: str) -> Markup:
    """A message or a cure: what stands between backticks is something to type."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:  # one of them stands alone
        return escape(text)
    marked = (
        Markup("<code>{}</code>").format(part) if at % 2 else escape(part) for at, part in enumerate(parts)
    )
    return Markup("").join(marked)


def time_tag(seconds: float | None, kind: str = "ago") -> Markup:
    """A moment. The page's script writes it in the viewer's zone (`at`), or as an age that goes on (`ago`, `for`)."""
    if seconds is None:
        return Markup('<span class="none">–</span>')
    exact = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shown = exact[:19].replace("T", " ") + " UTC"
    return Markup('<time datetime="{}" data-show="{}">{}</time>').format(exact, kind, shown)


def size_text(number: float | None) -> str:
    """Bytes as people say them."""
    if number is None:
        return "–"
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(number) < _KIB:
            return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"
        number /= _KIB
    return f"{number:.1f} TiB"


def duration_text(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 48:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours} h {minutes:02} min" if hours else f"{minutes} min {rest:02} s"


def part_text(part: float | None) -> Markup:
    """A part of 1 in per cent; what is little is not said to be nothing."""
    if part is None:
        return Markup('<span class="none">–</span>')
    return Markup("&lt;1 %") if 0 < part < 0.005 else Markup(f"{part * 100:.0f} %")


def count_text(number: int) -> str:
    return f"{number:,}"
