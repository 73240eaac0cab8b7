"""The containers of one attempt, found by its name; and how those that run steps are stopped."""

from __future__ import annotations

from collections.abc import Mapping

from runyard.providers.docker import names
from runyard.providers.docker.client import DockerClient, Listed, Missing, Refused
from runyard.providers.docker.plan import stop_command


async def find_parts(client: DockerClient, installation: str, attempt: str) -> dict[str, Listed]:
    """The attempt's containers by role: empty is the holder."""
    labels = {names.INSTALLATION: installation, names.ATTEMPT: attempt}
    parts: dict[str, Listed] = {}
    for each in await client.list_containers(labels=labels):
        part = names.Part.parse(each.name)
        if part is not None and part.attempt == attempt:
            parts[part.role] = each
    return parts


async def stop_running(client: DockerClient, parts: Mapping[str, Listed], grace_s: float) -> None:
    """TERM to the container whose turn it is, and KILL after the grace, by a process within; where none can be started
    there (no processes left to have), KILL now."""
    running = sorted(
        (int(role[1:]), part.name)
        for role, part in parts.items()
        if names.is_steps(role) and part.state == "running"
    )
    if not running:
        return
    _, name = running[0]
    try:
        await client.execute(name, stop_command(grace_s))
    except Missing:
        return
    except Refused:
        if await client.inspect_container(name) is not None:
            await client.kill_container(name)
