"""Named caches through the real service: the second job of a tenant finds what the first left, another's does not."""

from __future__ import annotations

import pytest

from tests.journeys.conftest import RunningService

pytestmark = pytest.mark.service


def document(script: str, lock: str = "v1") -> dict[str, object]:
    return {
        "steps": [{"run": script}],
        "workspace": {"files": {"lock": lock}},
        "cache": [{"key": "dep-{sha256:lock}", "restore": ["dep-"], "path": "~/.cache/dep"}],
    }


def test_a_cache_is_found_by_its_tenant_by_key_and_by_prefix_and_by_nobody_else(
    service: RunningService,
) -> None:
    read = "cat ~/.cache/dep/made 2>/dev/null || echo nothing"
    with service.client() as client:
        client.submit(document(f"{read}; mkdir -p ~/.cache/dep; echo v1 > ~/.cache/dep/made"), id="first")
        assert client.wait("first", timeout_s=30).state == "succeeded"
        client.submit(document(read), id="second")
        client.submit(document(read, lock="v2"), id="changed")
        client.submit(document(read), id="foreign", tenant="other")
        for id, tenant in (("second", None), ("changed", None), ("foreign", "other")):
            assert client.wait(id, timeout_s=30, tenant=tenant).state == "succeeded"
        assert client.read_log("first") == b"nothing\n"
        assert client.read_log("second") == client.read_log("changed") == b"v1\n"
        assert client.read_log("foreign", tenant="other") == b"nothing\n"
        said = client.read_log("second", step="setup", stream="stderr")
        assert b"~/.cache/dep: restored 'dep-" in said
        assert "cache" in client.get("second").attempts[0].phases
