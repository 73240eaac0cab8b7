"""What an operator sees in the terminal: `top`, `audit`, `link`."""

import httpx2
import pytest

from tests.journeys.conftest import RunningService

pytestmark = pytest.mark.service


def test_top_prints_once_where_there_is_no_terminal(service: RunningService):
    service.cli("run", "--id", "runs", "--detach", "--", "sleep", "100")
    shown = service.cli("top").stdout.decode()
    assert "local" in shown
    assert "default" in shown
    assert "runs" in shown
    assert "\x1b" not in shown


def test_an_operators_change_is_in_the_audit(service: RunningService):
    service.cli("queue", "pause", "default")
    service.cli("queue", "resume", "default")
    lines = service.cli("audit").stdout.decode().splitlines()
    assert "resume queue default" in lines[1]
    assert "pause queue default" in lines[2]


def test_a_link_opens_the_pages_once(service: RunningService):
    address = service.cli("link").stdout.decode().strip()
    with httpx2.Client() as browser:
        assert browser.get(address).status_code == 200
        assert browser.post(address, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 303
        assert "Overview" in browser.get(service.url).text
    with httpx2.Client() as other:
        assert other.post(address, headers={"Sec-Fetch-Site": "same-origin"}).status_code == 401
