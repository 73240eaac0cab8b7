"""The job document and the job's spec, in both directions. `spec_of(validated(document_of(spec)))` is `spec` again."""

from __future__ import annotations

import base64
from typing import Any

from runyard.model.egress import NETWORK_ALLOW
from runyard.model.job import (
    FileSource,
    GitSource,
    JobSpec,
    Limits,
    NamedCache,
    Retry,
    Service,
    Step,
    StepCondition,
    Workspace,
)
from runyard.model.requirements import Isolation, Requirements
from runyard.model.secret import SecretUse
from runyard.wire.job_document import (
    FileContentDocument,
    GitDocument,
    JobDocument,
    RequirementsDocument,
    SecretDocument,
    ServiceDocument,
    StepDocument,
    WorkspaceDocument,
)

SHELLS = {"sh": ("/bin/sh", "-e", "-c"), "bash": ("/bin/bash", "-e", "-c")}


def spec_of(document: JobDocument) -> JobSpec:
    network, network_allow = _network_of(document)
    names_image = document.image is not None or any(step.image is not None for step in document.steps)
    services = tuple(_service_of(name, service) for name, service in document.services.items())
    return JobSpec(
        steps=tuple(_step_of(step, number) for number, step in enumerate(document.steps, start=1)),
        name=document.name,
        queue=document.queue,
        tenant=document.tenant,
        priority=document.priority,
        labels=document.labels,
        env=document.env,
        dir=document.dir,
        image=document.image,
        workspace=_workspace_of(document.workspace),
        requirements=_requirements_of(
            document.requirements,
            network,
            needs_images=names_image or bool(services),
            needs_services=bool(services),
        ),
        limits=Limits(
            queue_s=document.limits.queue, start_s=document.limits.start, run_s=document.limits.run
        ),
        retry=Retry(infrastructure=document.retry.infrastructure, failure=document.retry.failure),
        artifacts=tuple(document.artifacts),
        outputs=document.outputs,
        cache=tuple(
            NamedCache(key=cache.key, path=cache.path, restore=tuple(cache.restore))
            for cache in document.cache
        ),
        secrets=tuple(_secret_of(secret) for secret in document.secrets),
        network_allow=network_allow,
        services=services,
    )


def _network_of(document: JobDocument) -> tuple[str, tuple[str, ...]]:
    if isinstance(document.network, str):
        return document.network, ()
    return NETWORK_ALLOW, tuple(document.network.allow)


def _service_of(name: str, service: ServiceDocument) -> Service:
    return Service(
        name=name,
        image=service.image,
        env=service.env,
        command=tuple(service.command or ()),
        ready_port=service.ready.port,
        ready_command=tuple(service.ready.command or ()),
        ready_timeout_s=service.ready.timeout,
        memory_bytes=service.memory,
        cpu_millis=service.cpu,
    )


def _step_of(step: StepDocument, number: int) -> Step:
    command = tuple(step.command or ())
    if step.run is not None:
        command = (*SHELLS[step.shell], step.run)
    return Step(
        name=step.name or f"step-{number}",
        command=command,
        dir=step.dir,
        env=step.env,
        timeout_s=step.timeout,
        condition=StepCondition(step.condition),
        image=step.image,
        secrets=tuple(_secret_of(secret) for secret in step.secrets),
    )


def _secret_of(secret: SecretDocument) -> SecretUse:
    env = secret.env if secret.env is not None or secret.file is not None else secret.name.upper()
    return SecretUse(name=secret.name, env=env, path=secret.file)


def _workspace_of(workspace: WorkspaceDocument) -> Workspace:
    files = (_file_of(path, content) for path, content in workspace.files.items())
    return Workspace(git=_git_of(workspace.git) if workspace.git else None, files=tuple(files))


def _git_of(git: GitDocument) -> GitSource:
    return GitSource(
        url=git.url,
        ref=git.ref,
        depth=git.depth,
        fetch_tags=git.fetch_tags,
        sparse=tuple(git.sparse),
        submodules=git.submodules,
        lfs=git.lfs,
    )


def _file_of(path: str, content: str | FileContentDocument) -> FileSource:
    if isinstance(content, str):
        return FileSource(path=path, content_base64=base64.b64encode(content.encode()).decode())
    return FileSource(path=path, content_base64=content.base64 or "", url=content.url, sha256=content.sha256)


def _requirements_of(
    needs: RequirementsDocument, network: str, *, needs_images: bool, needs_services: bool
) -> Requirements:
    return Requirements(
        isolation=Isolation.parse(needs.isolation),
        cpu_millis=needs.cpu,
        memory_bytes=needs.memory,
        disk_bytes=needs.disk,
        arch=needs.arch,
        os=needs.os,
        labels=needs.labels,
        network=network,
        needs_images=needs_images,
        needs_services=needs_services,
    )


def document_of(spec: JobSpec, *, job_id: str) -> dict[str, Any]:
    """The document with every default filled in; submitted again under another id, it makes the same job."""
    needs = spec.requirements
    return {
        "id": job_id,
        "name": spec.name,
        "queue": spec.queue,
        "tenant": spec.tenant,
        "priority": spec.priority,
        "labels": dict(spec.labels),
        "image": spec.image,
        "env": dict(spec.env),
        "dir": spec.dir,
        "steps": [_step_document(step) for step in spec.steps],
        "workspace": _workspace_document(spec.workspace),
        "requirements": {
            "isolation": needs.isolation.word,
            "cpu": needs.cpu_millis / 1000,
            "memory": needs.memory_bytes,
            "disk": needs.disk_bytes,
            "arch": needs.arch,
            "os": needs.os,
            "labels": dict(needs.labels),
        },
        "limits": {"queue": spec.limits.queue_s, "start": spec.limits.start_s, "run": spec.limits.run_s},
        "retry": {"infrastructure": spec.retry.infrastructure, "failure": spec.retry.failure},
        "network": {"allow": list(spec.network_allow)} if needs.network == NETWORK_ALLOW else needs.network,
        "artifacts": list(spec.artifacts),
        "outputs": dict(spec.outputs),
        "secrets": [_secret_document(secret) for secret in spec.secrets],
        "cache": [
            {"key": cache.key, "path": cache.path, "restore": list(cache.restore)} for cache in spec.cache
        ],
        "services": {service.name: _service_document(service) for service in spec.services},
    }


def _service_document(service: Service) -> dict[str, Any]:
    return {
        "image": service.image,
        "env": dict(service.env),
        "command": list(service.command) or None,
        "ready": {
            "port": service.ready_port,
            "command": list(service.ready_command) or None,
            "timeout": service.ready_timeout_s,
        },
        "memory": service.memory_bytes,
        "cpu": None if service.cpu_millis is None else service.cpu_millis / 1000,
    }


def _step_document(step: Step) -> dict[str, Any]:
    document: dict[str, Any] = {"name": step.name}
    shell = next((name for name, argv in SHELLS.items() if step.command[:-1] == argv), None)
    if shell is None:
        document["command"] = list(step.command)
    else:
        document |= {"run": step.command[-1], "shell": shell}
    return document | {
        "image": step.image,
        "dir": step.dir,
        "env": dict(step.env),
        "timeout": step.timeout_s,
        "if": step.condition.value,
        "secrets": [_secret_document(secret) for secret in step.secrets],
    }


def _secret_document(secret: SecretUse) -> dict[str, Any]:
    where = {"env": secret.env} if secret.env is not None else {"file": secret.path}
    return {"name": secret.name, **where}


def _workspace_document(workspace: Workspace) -> dict[str, Any]:
    return {
        "git": _git_document(workspace.git) if workspace.git else None,
        "files": {file.path: _content_document(file) for file in workspace.files},
    }


def _git_document(git: GitSource) -> dict[str, Any]:
    return {
        "url": git.url,
        "ref": git.ref,
        "depth": git.depth,
        "fetch_tags": git.fetch_tags,
        "sparse": list(git.sparse),
        "submodules": git.submodules,
        "lfs": git.lfs,
    }


def _content_document(file: FileSource) -> str | dict[str, str]:
    """Text where it is text, else base64."""
    if file.url is not None and file.sha256 is not None:
        return {"url": file.url, "sha256": file.sha256}
    content = base64.b64decode(file.content_base64)
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return {"base64": file.content_base64}
    return {"base64": file.content_base64} if "\0" in text or len(text) > 128 * 1024 else text
