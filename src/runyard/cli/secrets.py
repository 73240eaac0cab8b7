"""`runyard secret …`. A value comes from stdin or a file, never from the command line, where others see it."""

from __future__ import annotations

import sys
from pathlib import Path

from runyard.cli.connection import open_client
from runyard.cli.exit_codes import DONE, FAILED, UsageError
from runyard.cli.words import age_of, print_json, print_table, say

BYTES_MAX = 64 * 1024


def set_secret(
    name: str,
    /,
    *,
    tenant: str | None = None,
    queue: list[str] | None = None,
    from_file: Path | None = None,
    json: bool = False,
) -> None:
    """Set a secret. Its value is read from stdin, without one newline at its end, or from a file, byte for byte.

    Parameters
    ----------
    name
        The name that jobs ask for it by.
    tenant
        Whose it is (default: the token's tenant).
    queue
        Queue whose jobs may have it; may be repeated (default: all queues).
    from_file
        The file that holds the value.
    json
        Print JSON.
    """
    value = _from_stdin() if from_file is None else _from_file(from_file)
    with open_client() as client:
        secret = client.secrets.put(name, value, tenant=tenant, queues=queue)
    if json:
        print_json(secret)
        return
    print(f"{secret.name}  set")
    say(f"for jobs of tenant '{secret.tenant}', {_queues_of(secret.queues)}; nobody is shown its value")


def list_secrets(*, tenant: str | None = None, json: bool = False) -> None:
    """List secrets: whose, for which queues, when they were set and used.

    Parameters
    ----------
    tenant
        Of this tenant alone (default: all that the token is for).
    json
        Print JSON.
    """
    with open_client() as client:
        listed = client.secrets.list(tenant=tenant)
    if json:
        print_json(listed)
        return
    rows = (
        (
            one.name,
            one.tenant,
            ",".join(one.queues or ["*"]),
            age_of(one.changed_at),
            one.changed_by,
            age_of(one.last_used_at),
            one.key_id if one.readable else f"{one.key_id} (missing)",
        )
        for one in listed
    )
    print_table(("NAME", "TENANT", "QUEUES", "SET", "BY", "USED", "KEY"), rows)


def delete(name: str, /, *, tenant: str | None = None) -> None:
    """Delete a secret. Jobs that name it are refused from now on; what runs keeps what it has.

    Parameters
    ----------
    name
        The secret.
    tenant
        Whose it is (default: the token's tenant).
    """
    with open_client() as client:
        client.secrets.delete(name, tenant=tenant)
    print(f"{name}  deleted")


def rotate(*, json: bool = False) -> int:
    """Seal all secrets with the first key of `secrets.keys`, after a new one was put there. Safe to repeat.

    Parameters
    ----------
    json
        Print JSON.
    """
    with open_client() as client:
        done = client.secrets.rotate()
    if json:
        print_json(done)
    else:
        print(f"{done.resealed} sealed anew, by key {done.key_id}")
    for key, count in done.unreadable.items():
        say(
            f"{count} are sealed by the key {key}, which the service does not have; add it, or set them again"
        )
    return FAILED if done.unreadable else DONE


def _from_stdin() -> bytes:
    if sys.stdin.isatty():
        say("the value, then Ctrl-D:")
    value = _bounded(sys.stdin.buffer.read(BYTES_MAX + 2), "stdin", spare=1)
    return value[:-1] if value.endswith(b"\n") else value


def _from_file(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return _bounded(file.read(BYTES_MAX + 1), str(path))
    except OSError as error:
        raise UsageError(f"--from-file: {path} cannot be read ({error.strerror})") from None


def _bounded(value: bytes, source: str, *, spare: int = 0) -> bytes:
    if len(value) > BYTES_MAX + spare:
        raise UsageError(f"{source} holds more than the 64 KiB that a secret may have")
    return value


def _queues_of(queues: list[str] | None) -> str:
    return "in every queue" if queues is None else f"in queues {', '.join(queues)}"
