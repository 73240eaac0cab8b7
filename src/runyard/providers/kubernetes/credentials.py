"""The pool's git credentials for one attempt, their files read on the service's side: the pod has none of them."""

from __future__ import annotations

from pathlib import Path

from runyard.model.errors import ProviderDenied
from runyard.model.job import JobSpec
from runyard.providers.kubernetes.manifest import ReadCredential
from runyard.providers.kubernetes.options import KubernetesOptions

_FILE_BYTES_MAX = 64 * 1024


def read_credentials(options: KubernetesOptions, spec: JobSpec) -> tuple[ReadCredential, ...]:
    """Those that the job's tenant may use; none where it has no repository. Blocking. Raises ProviderDenied where a
    file cannot be read."""
    if spec.workspace.git is None:
        return ()
    return tuple(
        ReadCredential(
            url=each.url,
            username=each.username,
            password=_read(each.password_file).rstrip(b"\r\n"),
            ssh_key=_read(each.ssh_key_file),
            known_hosts=_read(each.known_hosts_file),
        )
        for each in options.git_credentials
        if each.is_for(spec.tenant)
    )


def read_authorities(options: KubernetesOptions) -> bytes:
    """The pool's git_ca_file, empty where it names none. Blocking. Raises ProviderDenied."""
    return _read(options.git_ca_file, bytes_max=1 << 19)


def _read(path: str | None, bytes_max: int = _FILE_BYTES_MAX) -> bytes:
    if path is None:
        return b""
    try:
        with Path(path).open("rb") as file:
            return file.read(bytes_max)
    except OSError as error:
        raise ProviderDenied(
            f"the pool's options name {path}, which cannot be read: {error.strerror}"
        ) from None
