"""Where a job's secrets come to lie in its steps: each variable and each file once, and none that is written out."""

from __future__ import annotations

from collections.abc import Iterator

from runyard.model.errors import Invalid
from runyard.wire.job_document import JobDocument, SecretDocument


def secret_problems(document: JobDocument) -> Iterator[Invalid]:
    of_job = [(f"secrets.{index}", _place(secret)) for index, secret in enumerate(document.secrets)]
    yield from _collisions(of_job, document.env, "env")
    for number, step in enumerate(document.steps):
        field = f"steps.{number}"
        of_step = [(f"{field}.secrets.{index}", _place(secret)) for index, secret in enumerate(step.secrets)]
        yield from _collisions([*of_job, *of_step], step.env, f"{field}.env", new_from=len(of_job))
        yield from _written_out(of_step, document.env, "env")


def _place(secret: SecretDocument) -> tuple[str, str]:
    """The kind and the name: a variable, or a file."""
    return ("env", secret.env or secret.name.upper()) if secret.file is None else ("file", secret.file)


def _collisions(
    places: list[tuple[str, tuple[str, str]]], env: dict[str, str], env_field: str, *, new_from: int = 0
) -> Iterator[Invalid]:
    """What from `new_from` on comes where another is, or where `env` writes something."""
    taken: dict[tuple[str, str], str] = {}
    for index, (field, place) in enumerate(places):
        kind, name = place
        if index >= new_from:
            other = taken.get(place) or _above(taken, place)
            if other is not None:
                cure = "give one of them another `env` or `file`"
                yield Invalid(f"{field}: {kind} {name!r} is that of {other} too", field=field, cure=cure)
        taken.setdefault(place, field)
    yield from _written_out(places, env, env_field)


def _written_out(
    places: list[tuple[str, tuple[str, str]]], env: dict[str, str], env_field: str
) -> Iterator[Invalid]:
    for field, (kind, name) in places:
        if kind == "env" and name in env:
            yield Invalid(
                f"{field}: the variable {name} is written out in {env_field} too",
                field=field,
                cure=f"remove it from {env_field}, where everyone who may read the job sees it",
            )


def _above(taken: dict[tuple[str, str], str], place: tuple[str, str]) -> str | None:
    """A file that would have to be a folder of another one."""
    kind, path = place
    if kind != "file":
        return None
    for (_, other), field in ((key, field) for key, field in taken.items() if key[0] == "file"):
        if path.startswith(f"{other}/") or other.startswith(f"{path}/"):
            return field
    return None
