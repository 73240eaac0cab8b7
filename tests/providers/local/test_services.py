"""Services and egress lists as the `local` provider gives them: images as they are run, and what the pool says."""

import secrets

import pytest

from runyard.host.images.disk import ImageDisk, StoredImage
from runyard.model.attempt import AttemptKey
from runyard.model.job import JobSpec, Service, Step
from runyard.model.outcome import OutcomeKind
from runyard.model.pool import AvailabilityKind
from runyard.model.requirements import Isolation, Requirements
from runyard.providers.port import AttemptRequest
from runyard.testing.memory_context import MemoryContext
from tests.host.far_network import HTTP, NAME_SERVER, far_network
from tests.host.images.layers import link
from tests.providers.local.test_local_provider import open_provider
from tests.registry_server import busybox_entries, serving_registry

pytestmark = pytest.mark.service
PYTHON_GET = "import urllib.request, sys; print(urllib.request.urlopen(sys.argv[1], timeout=9).read().decode().strip())"
EVERYTHING = Requirements(needs_images=True, needs_services=True)


def request(spec: JobSpec) -> AttemptRequest:
    return AttemptRequest(key=AttemptKey(secrets.token_hex(8), 1), job_id="j", spec=spec, slot=0, epoch=1)


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    with serving_registry(tmp_path_factory.mktemp("registry")) as registry:
        registry.push(
            "web:1",
            [*busybox_entries("web"), link("bin/httpd", "busybox"), link("bin/pwd", "busybox")],
            config={
                "Entrypoint": ["/bin/sh", "-c"],
                "Cmd": [
                    "id -u; pwd; echo $A $B; echo served > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"
                ],
                "Env": ["A=image", "B=image"],
                "User": "bob",
                "WorkingDir": "/etc",
                "ExposedPorts": {"8080/tcp": {}, "53/udp": {}},
            },
        )
        yield registry


async def test_a_service_is_its_image_as_it_is_run_and_ready_by_the_ports_that_it_exposes(tmp_path, registry):
    context = MemoryContext(tmp_path)
    web = Service(name="web", image=f"{registry.address}/web:1", env={"B": "job"})
    step = Step(name="get", command=("python3", "-c", PYTHON_GET, "http://web:8080/"))
    async with open_provider(tmp_path, registries=[{"host": registry.address, "private": True}]) as provider:
        assert provider.capabilities.has_services
        assert (await provider.can_dequeue(EVERYTHING)).kind is AvailabilityKind.NOW
        spec = JobSpec(steps=(step,), services=(web,), requirements=EVERYTHING)
        outcome = await provider.run_job(request(spec), context)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    assert (context.log_directory / "000.stdout").read_text() == "served\n"
    assert (context.log_directory / "s000.stdout").read_text().split() == ["1234", "/etc", "image", "job"]
    assert set(context.placement) == {"service:web"}
    assert "services" in context.phases


async def test_a_pool_keeps_a_job_to_its_list_and_asks_its_own_name_servers(tmp_path):
    listed = JobSpec(
        steps=(
            Step(name="in", command=("bash", "-c", f"cat < /dev/tcp/one.example.com/{HTTP}")),
            Step(
                name="out", command=("bash", "-c", f"cat < /dev/tcp/two.example.com/{HTTP} || echo refused")
            ),
        ),
        network_allow=("one.example.com",),
        requirements=Requirements(network="allow"),
    )
    context = MemoryContext(tmp_path)
    with far_network():
        async with open_provider(tmp_path, nameservers=[NAME_SERVER]) as provider:
            assert (await provider.can_dequeue(listed.requirements)).kind is AvailabilityKind.NOW
            outcome = await provider.run_job(request(listed), context)
    assert outcome.kind is OutcomeKind.SUCCEEDED, outcome
    printed = [(context.log_directory / f"{key}.stdout").read_text() for key in ("000", "001")]
    assert printed == ["reached\n", "refused\n"]


async def test_a_bare_pool_says_that_it_has_neither(tmp_path):
    async with open_provider(tmp_path, isolation="none") as provider:
        for requirements, words in (
            (Requirements(isolation=Isolation.NONE, network="allow"), "cannot keep a job to network.allow"),
            (Requirements(isolation=Isolation.NONE, needs_services=True), "cannot run services"),
        ):
            answer = await provider.can_dequeue(requirements)
            assert answer.kind is AvailabilityKind.NEVER
            assert words in answer.why


def test_what_an_older_release_kept_of_an_image_is_asked_for_anew(tmp_path):
    disk = ImageDisk(tmp_path)
    disk.load()
    disk.keep_image(StoredImage(digest="sha256:1", chains=(), origins=("o",)))
    file = next((tmp_path / "images").iterdir())
    again = ImageDisk(tmp_path)
    again.load()
    assert again.find("sha256:1", "o") == StoredImage(digest="sha256:1", chains=(), origins=("o",))

    file.write_text(file.read_text().replace('"process"', '"unknown"'))
    older = ImageDisk(tmp_path)
    older.load()
    assert older.find("sha256:1", "o") is None
