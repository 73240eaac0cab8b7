"""`runyard run`: one command as a job, as if it ran here."""

from __future__ import annotations

import os
from typing import Literal

from runyard.cli.run_document import RunFlags, build_document


def run(
    *command: str,
    image: str | None = None,
    queue: str | None = None,
    tenant: str | None = None,
    id: str | None = None,
    git: str | None = None,
    ref: str | None = None,
    file: list[str] | None = None,
    env: list[str] | None = None,
    secret: list[str] | None = None,
    network: Literal["none", "open"] | None = None,
    allow: list[str] | None = None,
    isolation: Literal["none", "container", "microvm"] | None = None,
    cpu: str | None = None,
    memory: str | None = None,
    timeout: str | None = None,
    label: list[str] | None = None,
    artifact: list[str] | None = None,
    detach: bool = False,
) -> int:
    """Run one command as a job, show its output, pass its exit code on.

    The job's stdout and stderr come out here byte for byte. Ctrl-C cancels the job, a second one detaches at once; if
    this command vanishes, the job goes on. Exit code: the job's own; 128+n for signal n; 124 timed out; 130 canceled;
    125 for anything of Runyard's.

    Parameters
    ----------
    command
        What to run, after `--`.
    image
        OCI image to run it in, such as python:3.12; without it, the pool's own system.
    queue
        Queue to submit to (default: default).
    tenant
        Tenant it is for (default: the token's).
    id
        Id of the job (default: a random one). The same id with the same flags is the same job.
    git
        URL of a repository to check out as the workspace.
    ref
        Branch, tag or commit of --git.
    file
        File to put into the workspace, as SRC or SRC:DEST. May be repeated.
    env
        Variable as NAME=VALUE, or NAME to pass on this shell's. May be repeated.
    secret
        Name of a secret to give to the job. May be repeated.
    network
        Network the job gets (default: none).
    allow
        Name (also *.example.com) or IPv4 network, with :PORT where only one shall be open, that the job may reach, and
        nothing else. May be repeated.
    isolation
        Isolation the job needs at least (default: container).
    cpu
        Cores, like 2, 0.5 or 500m (default: 1).
    memory
        Memory, like 512Mi or 4Gi (default: 1Gi).
    timeout
        Time the job may run, like 90s or 1h30m (default: 1h).
    label
        Label as KEY=VALUE. May be repeated.
    artifact
        Pattern of files to keep from the workspace. May be repeated.
    detach
        Print the job's id and return at once.
    """
    flags = RunFlags(
        command=command,
        image=image,
        queue=queue,
        tenant=tenant,
        id=id,
        git=git,
        ref=ref,
        file=file or (),
        env=env or (),
        secret=secret or (),
        network=network,
        allow=allow or (),
        isolation=isolation,
        cpu=cpu,
        memory=memory,
        timeout=timeout,
        label=label or (),
        artifact=artifact or (),
    )
    document = build_document(flags, os.environ)
    from runyard.cli.run_session import RunSession

    session = RunSession(document, tenant=tenant)
    return session.detach() if detach else session.attend()
