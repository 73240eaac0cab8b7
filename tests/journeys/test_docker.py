"""The real service with a pool of a real dockerd, also one that is not there yet."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest

from tests.docker_daemon import IMAGE, DockerDaemon, why_missing
from tests.journeys.conftest import RunningService

pytestmark = [
    pytest.mark.service,
    pytest.mark.skipif(why_missing() is not None, reason=why_missing() or ""),
]
CONFIG = """
[pools.local]
provider = "local"
queues = ["default"]

[pools.containers]
provider = "docker"
host = "{host}"
image = "{image}"
local_images = ["{image}"]
queues = ["docker"]

[queues.docker]
"""


def test_a_daemon_that_is_not_there_keeps_its_own_pool_waiting_and_no_other(tmp_path: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="rd-", ignore_cleanup_errors=True) as folder:
        daemon = DockerDaemon(Path(folder))
        config = tmp_path / "runyard.toml"
        config.write_text(CONFIG.format(host=daemon.address, image=IMAGE))
        service = RunningService(tmp_path / "data", environment={"RUNYARD_CONFIG": str(config)})
        service.start()
        try:
            with service.client() as client:
                client.submit({"steps": [{"run": "true"}]}, id="here")
                assert client.wait("here", timeout_s=60).state == "succeeded"
                pool = client.pools.get("containers")
                assert pool.slots == 0
                assert "does not answer" in pool.description
                daemon.start()
                daemon.import_busybox()
                ends_at = time.monotonic() + 60
                while client.pools.get("containers").slots == 0:
                    assert time.monotonic() < ends_at, service.log.read_text()[-4000:]
                    time.sleep(0.2)
                client.submit({"queue": "docker", "steps": [{"run": "echo hello"}]}, id="there")
                assert client.wait("there", timeout_s=60).state == "succeeded"
        finally:
            service.close()
            daemon.stop()
