from __future__ import annotations

import re
from pathlib import Path

import pytest

from runyard.api.errors import PUBLISHED_CODES
from runyard.api.routes import ROUTERS
from runyard.model.outcome import ReasonCode
from runyard.model.pool import WaitCode

PAGE = (Path(__file__).parents[2] / "docs" / "api.md").read_text()


@pytest.mark.parametrize(
    ("name", "codes"),
    [
        ("error codes", PUBLISHED_CODES),
        ("reason codes", set(ReasonCode)),
        ("wait codes", set(WaitCode)),
    ],
)
def test_the_published_lists_are_those_of_the_code(name, codes):
    section = PAGE.split(f"<!-- {name} -->")[1].split("<!-- end -->")[0]

    assert sorted(re.findall(r"^\| `(\w+)`", section, re.MULTILINE)) == sorted(str(code) for code in codes)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        (method, route.path_format)
        for router in ROUTERS
        for route in router.routes
        for method in route.methods
    ],
)
def test_every_route_is_on_the_page(method, path):
    plain = path.replace("/artifacts/{path}", "/artifacts")

    assert f"{method} {plain}" in PAGE
