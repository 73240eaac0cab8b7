"""A whole Debian as an image: its own package manager installs a package, and its own users are made and used."""

import base64
import shutil
import subprocess

import pytest

from runyard.model.job import FileSource, Limits, Workspace
from runyard.model.outcome import OutcomeKind
from runyard.testing.memory_context import MemoryContext
from tests.providers.local.test_images import job, pool, printed, request
from tests.registry_server import serving_registry

pytestmark = [pytest.mark.service, pytest.mark.long, pytest.mark.timeout(600)]
SCRIPT = """
dpkg -i hello.deb
hello
useradd --create-home alice
su alice -c 'id -un; touch ~/mine; stat -c %U ~/mine'
chown alice: hello.deb
stat -c %U hello.deb
"""


@pytest.fixture
def debian(tmp_path):
    """The root of a small Debian, as a layer; and a package that is not in it."""
    if shutil.which("debootstrap") is None:
        pytest.skip("debootstrap is not installed")
    root, package = tmp_path / "debian", tmp_path / "package"
    package.mkdir()
    release = subprocess.check_output(
        ["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"], text=True
    ).strip()
    subprocess.run(["debootstrap", "--variant=minbase", release, root], check=True, capture_output=True)
    subprocess.run(["apt-get", "download", "-qq", "hello"], cwd=package, check=True, capture_output=True)
    [file] = package.iterdir()
    return subprocess.check_output(["tar", "-C", root, "--xattrs", "-cf", "-", "."]), file.read_bytes()


async def test_root_of_a_debian_image_installs_a_package_and_becomes_another_user(tmp_path, debian):
    layer, package = debian
    context = MemoryContext(tmp_path)
    files = (FileSource(path="hello.deb", content_base64=base64.b64encode(package).decode()),)
    with serving_registry(tmp_path / "registry") as registry:
        registry.push("debian:1", layer)
        async with pool(tmp_path, registry) as provider:
            spec = job(
                registry,
                SCRIPT,
                image="debian:1",
                workspace=Workspace(files=files),
                limits=Limits(start_s=300.0),
            )
            outcome = await provider.run_job(request(spec=spec), context)
    assert outcome.kind is OutcomeKind.SUCCEEDED, (outcome, printed(context, stream="stderr"))
    assert printed(context).splitlines()[-4:] == ["Hello, world!", "alice", "alice", "alice"]
