"""The secrets of one attempt on their way from the service to its steps: in memory alone, from one process to the next.

The service puts them into a memory file and hands its descriptor over with the request for a shim; the shim reads it
once and keeps them for its steps and for masking. They are in no plan, so a shim that is started anew gets them anew.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import os
from collections.abc import Iterable, Mapping, Sequence

from runyard.host.plan import PlanStep
from runyard.logs.masking import Masks
from runyard.model.secret import SecretValue


def write_memory_file(secrets: Sequence[SecretValue]) -> int:
    """A descriptor, which the caller closes; nobody finds it by a name."""
    document = [
        {**dataclasses.asdict(secret), "value": base64.b64encode(secret.value).decode()} for secret in secrets
    ]
    fd = os.memfd_create("attempt", os.MFD_CLOEXEC)
    with os.fdopen(os.dup(fd), "w") as file:
        json.dump(document, file)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def read_memory_file(fd: int) -> tuple[SecretValue, ...]:
    """Closes it."""
    with os.fdopen(fd, "r") as file:
        document = json.load(file)
    return tuple(SecretValue(**{**entry, "value": base64.b64decode(entry["value"])}) for entry in document)


class AttemptSecrets:
    """What the shim holds."""

    def __init__(self, secrets: Iterable[SecretValue] = ()) -> None:
        self._secrets = tuple(secrets)
        self.masks = Masks(secret.value for secret in self._secrets) if self._secrets else None

    def __len__(self) -> int:
        return len(self._secrets)

    @property
    def has_files(self) -> bool:
        return any(secret.path is not None for secret in self._secrets)

    def given_to(self, step: PlanStep) -> PlanStep:
        """The step with the variables that are its own."""
        own = {
            secret.env: os.fsdecode(secret.value)
            for secret in self._secrets
            if secret.env is not None and secret.is_for(step.name)
        }
        return dataclasses.replace(step, env={**step.env, **own}) if own else step

    def files_of(self, step: PlanStep) -> tuple[tuple[str, bytes], ...]:
        """By their path beneath the folder of secrets."""
        return tuple(
            (secret.path, secret.value)
            for secret in self._secrets
            if secret.path is not None and secret.is_for(step.name)
        )

    def masked(self, text: str) -> str:
        if self.masks is None:
            return text
        return self.masks.mask(text.encode(errors="surrogateescape")).decode(errors="replace")

    def masked_outputs(self, outputs: Mapping[str, str]) -> dict[str, str]:
        """Without those whose very names hold a secret."""
        return {
            name: self.masked(text)
            for name, text in outputs.items()
            if self.masks is None or self.masked(name) == name
        }
