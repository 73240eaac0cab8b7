"""deploy/kubernetes in a real cluster, nothing configured: the service makes its pool, and its next pod adopts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.cluster_service import ClusterService
from tests.providers.kubernetes.real_cluster import IMAGE, WHY_NOT

SLOW = "echo before; until [ -e go ]; do sleep 0.1; done; echo after; echo kept > result.txt"

pytestmark = [
    pytest.mark.service,
    pytest.mark.timeout(240),
    pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT),
]


@pytest.fixture
def deployed(tmp_path: Path) -> Iterator[ClusterService]:
    service = ClusterService(tmp_path)
    try:
        service.apply()
        yield service
    finally:
        service.remove()


def test_an_applied_service_needs_no_configuration_and_its_next_pod_adopts_the_jobs(
    deployed: ClusterService, tmp_path: Path
) -> None:
    first = deployed.wait_until_ready()
    document = {
        "steps": [{"run": SLOW}],
        "requirements": {"cpu": "50m", "memory": "64Mi"},
        "artifacts": ["result.txt"],
    }
    with deployed.client(first) as client:
        client.submit(document, id="slow")
        for change in client.events(after="0"):
            if change.state == "running":
                break
    [pod] = deployed.pods("app.kubernetes.io/managed-by=runyard")
    assert {container["image"] for container in pod["spec"]["containers"]} == {IMAGE}

    second = deployed.replace(first)
    assert second != first
    deployed.kubectl("exec", pod["metadata"]["name"], "-c", "step-000", "--", "touch", "/workspace/go")
    with deployed.client(second) as client:
        job = client.wait("slow", timeout_s=90)
        assert (job.state, job.attempt_count) == ("succeeded", 1), (job, deployed.logs())
        assert client.read_log("slow") == b"before\nafter\n"
        client.download_artifacts("slow", tmp_path / "got")
    assert (tmp_path / "got" / "result.txt").read_text() == "kept\n"
