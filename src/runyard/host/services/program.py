"""The command that starts a program of a service: in the service's root, as its image's user, in the network of the
attempt."""

from __future__ import annotations

from collections.abc import Sequence

from runyard.host.images.ids import ROOT_CAPABILITIES
from runyard.host.plan import PlanService
from runyard.host.sandbox import Sandbox
from runyard.host.sandbox_command import SHM_BYTES, Place, bubblewrap, with_generated
from runyard.host.step import Command


def service_command(place: Place, service: PlanService) -> Command:
    """As hardened as a step. It sees neither workspace nor outputs, and /tmp is its root's own. Raises HostileRoot.
    Root level only."""
    return _command(place, service, service.command, service.image)


def ready_command(place: Place, service: PlanService) -> Command:
    """What asks whether it is ready: like the service, in a root of its own."""
    return _command(place, service, service.ready_command, service.ready_image)


def _command(place: Place, service: PlanService, command: Sequence[str], number: int) -> Command:
    image, network, stage = place.plan.images[number], place.network, place.stage
    assert network is not None
    assert stage is not None
    files = with_generated(place, network.files)
    sandbox = Sandbox(
        root=place.roots.root(number, [target for _, target in files]),
        workspace=None,
        tmp=None,
        outputs=None,
        directory=service.directory,
        env=service.env,
        device_directory=stage.devices,
        files=files,
        shm_bytes=min(SHM_BYTES, service.memory_bytes or place.plan.limits.memory_bytes or SHM_BYTES),
        has_host_network=True,
        inner_ids=(image.user_id, image.group_id),
        capabilities=ROOT_CAPABILITIES if image.user_id == 0 else (),
    )
    return bubblewrap(
        place,
        sandbox,
        command,
        identity=network.entered_by(place.identity(image)),
        user_namespace=place.roots.user_namespace(number),
    )
