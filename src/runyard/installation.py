"""The data folder of one installation: what lies where, made at the first start, private where it must be."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runyard.model.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Folders:
    """Where everything of one installation lies beneath its data folder."""

    data: Path
    logs_elsewhere: Path | None = None
    artifacts_elsewhere: Path | None = None

    @property
    def address(self) -> Path:
        return self.data / "address"

    @property
    def admin_token(self) -> Path:
        return self.data / "admin.token"

    @property
    def secrets_key(self) -> Path:
        """The key that is made where none is configured."""
        return self.data / "secrets.key"

    @property
    def logs(self) -> Path:
        return self.logs_elsewhere or self.data / "logs"

    @property
    def artifacts(self) -> Path:
        return self.artifacts_elsewhere or self.data / "artifacts"

    def pool(self, name: str) -> Path:
        return self.data / "pools" / name


def prepare_data_folder(data: Path) -> None:
    """Makes it, for this user only. Raises ConfigError where it cannot be written."""
    try:
        data.mkdir(parents=True, exist_ok=True, mode=0o711)
        probe = data / f".writable-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ConfigError(
            f"cannot write the data folder {data}: {error.strerror}",
            field="data",
            cure="make it writable for this user, free some space, or choose another with --data",
        ) from None


@contextlib.contextmanager
def data_folder_lock(data: Path) -> Iterator[None]:
    """Holds the folder for this process: two services on one would adopt each other's attempts. Raises ConfigError
    that names the process which has it."""
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode(errors="replace").strip() or "another one"
            raise ConfigError(
                f"data folder {data}: process {holder} already uses it",
                field="data",
                cure="stop that service first, or choose another folder with --data",
            ) from None
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(descriptor)


def installation_id(data: Path) -> str:
    """A random name of this installation, made at its first start: the owner of its pools, the tag of its resources."""
    return kept_text(data / "installation", lambda: secrets.token_hex(8))


def kept_text(file: Path, make: Callable[[], str]) -> str:
    """The text in `file`, made now if there is none; readable by this user only."""
    if not file.exists():
        write_private(file, make() + "\n")
    return file.read_text().strip()


def write_private(path: Path, text: str, *, mode: int = 0o600) -> None:
    """Replaces the file whole; no reader sees half of it, and no one but its user with the default mode."""
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
