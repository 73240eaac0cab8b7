"""Named secrets: as the ledger holds them, as a job asks for them, and as an attempt gets them."""

from __future__ import annotations

from dataclasses import dataclass, field

VALUE_BYTES_MAX = 64 * 1024
"""Half of what Linux takes in one variable or argument (MAX_ARG_STRLEN)."""

ATTEMPT_BYTES_MAX = 512 * 1024
"""Of all values that one step gets: a quarter of what execve takes with the usual stack limit."""

FILES_DIRECTORY = "/run/secrets"
"""Where a step finds the secrets that it gets as files."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSecret:
    """A secret's row. `sealed` opens only with the key `key_id`, and only under this tenant, name and version, a random
    name of this value. `queues` None: jobs of every queue may use it. Times in epoch seconds; `last_used_by` is the
    attempt's resource name."""

    tenant: str
    name: str
    version: str
    key_id: str
    sealed: bytes = field(repr=False)
    queues: tuple[str, ...] | None = None
    created_at: float
    changed_at: float
    changed_by: str
    last_used_at: float | None = None
    last_used_by: str | None = None

    def is_for(self, queue: str) -> bool:
        return self.queues is None or queue in self.queues


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretUse:
    """What a job says of one: the steps get it as the variable `env`, or as the file `path` beneath FILES_DIRECTORY."""

    name: str
    env: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretValue:
    """One secret for an attempt, resolved right before it is handed over; exactly one of `env` and `path` is set.

    `env` is the variable that holds `value` (which has no NUL then), `path` a file beneath FILES_DIRECTORY (relative,
    without `..`) with these bytes, mode 0400, owned by the step's user, on memory and never on a disk. `step` is the
    name of the one step that gets it, None is every step. Never to be put in an argument, a label, a name, an error or
    anything that outlives the attempt (I11).
    """

    name: str
    value: bytes = field(repr=False)
    env: str | None = None
    path: str | None = None
    step: str | None = None

    def is_for(self, step: str) -> bool:
        return self.step is None or self.step == step
