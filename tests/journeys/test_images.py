"""A job in an image, through the real command line, the real service and a real registry."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.journeys.conftest import RunningService
from tests.registry_server import Registry, busybox_entries, serving_registry

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with serving_registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.push("tools/base:1", busybox_entries("an image"))
        yield registry


@pytest.fixture
def service_with_images(tmp_path: Path, registry: Registry) -> Iterator[RunningService]:
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "runyard.toml").write_text(
        '[pools.local]\nprovider = "local"\n\n'
        f'[[pools.local.registries]]\nhost = "{registry.address}"\nprivate = true\n'
    )
    service = RunningService(data, environment={"RUNYARD_CONFIG": str(tmp_path / "runyard.toml")})
    service.start()
    try:
        yield service
    finally:
        service.close()


def test_run_with_an_image_shows_what_is_in_it(
    service_with_images: RunningService, registry: Registry, tmp_path: Path
) -> None:
    service, name = service_with_images, f"{registry.address}/tools/base:1"
    done = service.cli("run", "--image", name, "--id", "shown", "--", "cat", "/etc/os-release")
    assert done.stdout == b'NAME="an image"\n'
    job = json.loads(service.cli("job", "shown", "--json").stdout)
    assert job["attempts"][0]["placement"]["image"].startswith("sha256:")
    assert job["effective"]["image"] == name

    document = {
        "id": "two",
        "steps": [{"run": "test -e /etc/debian_version"}, {"run": "id -u", "image": name}],
    }
    (tmp_path / "job.json").write_text(json.dumps(document))
    service.cli("submit", str(tmp_path / "job.json"), "--wait")
    assert service.cli("logs", "two").stdout == b"0\n"

    missing = service.cli("run", "--image", f"{registry.address}/tools/none:1", "--", "true", check=None)
    assert missing.returncode == 125
    assert b"is not there" in missing.stderr
