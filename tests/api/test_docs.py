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


@pytest.mark.parametrize("headers", [{"Content-Type": "application/x-www-form-urlencoded"}, {}])
async def test_every_body_on_the_page_is_taken_also_as_curl_sends_it_when_not_told_otherwise(admin, headers):
    examples = re.findall(r"curl -X (\w+) .*\$RUNYARD_URL([^\"]+)\" -d '(.+)'$", PAGE, re.MULTILINE)
    assert len(examples) >= 6
    for method, path, body in examples:
        if path.endswith(":retry"):
            await admin.post(path.replace(":retry", ":cancel"))
        answer = await admin.request(method, path, content=body, headers=headers)

        assert answer.status_code in (200, 201), (path, answer.text)


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
