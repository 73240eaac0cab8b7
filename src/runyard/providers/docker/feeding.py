"""What a container is fed through its standard input: the plan, the secrets of its steps, the workspace.

Secrets go no other way. step.sh keeps them in the memory of its shell, so they are in no argument, listing or volume.
"""

from __future__ import annotations

import base64
import shlex

from runyard.providers.docker.client import Feed
from runyard.providers.docker.plan import Group
from runyard.providers.docker.workspace import Packed
from runyard.providers.port import AttemptRequest


def write_secrets(request: AttemptRequest, group: Group) -> bytes:
    """Shell text that defines what step.sh calls before each step of the group; empty where there are none. Pure."""
    step = request.spec.steps[group.first].name
    given = [secret for secret in request.secrets if group.secrets and secret.is_for(step)]
    variables = [
        f"    export {secret.env}={shlex.quote(secret.value.decode(errors='surrogateescape'))}"
        for secret in given
        if secret.env is not None
    ]
    files = [
        f"    give_file {shlex.quote(secret.path)} {base64.b64encode(secret.value).decode()} || return 1"
        for secret in given
        if secret.path is not None
    ]
    lines = ["give_variables() {", *variables, "}"] if variables else []
    if files:
        lines += ["has_files=yes", "give_files() {", *files, "}"]
    return "".join(f"{line}\n" for line in lines).encode(errors="surrogateescape")


async def feed_container(feed: Feed, *, plan: bytes, secrets: bytes, packed: Packed) -> None:
    """All of it in the order in which step.sh reads. Raises Unreachable; what was not fed to its end runs nothing."""
    await feed.write(b"%d %d %d\n" % (len(plan), len(secrets), packed.size) + plan + secrets)
    async for chunk in packed.chunks():
        await feed.write(chunk)
    await feed.write(b"complete\n")
