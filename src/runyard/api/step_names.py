"""Log files know steps by number, people by name: the mapping of one job."""

from __future__ import annotations

from runyard.logs.layout import SETUP, step_key
from runyard.model.errors import NotFound
from runyard.model.job import JobSpec

SETUP_NAME = "setup"
SETUP_NAME_WHERE_TAKEN = "runyard:setup"


class StepNames:
    """What was printed while the workspace was made goes by `setup`, unless the job has a step of that name."""

    def __init__(self, spec: JobSpec) -> None:
        self._names = {step_key(index): step.name for index, step in enumerate(spec.steps)}
        is_taken = SETUP_NAME in self._names.values()
        self._names[SETUP] = SETUP_NAME_WHERE_TAKEN if is_taken else SETUP_NAME
        self._keys = {name: key for key, name in self._names.items()}

    def name_of(self, key: str) -> str:
        return self._names.get(key, key)

    def key_of(self, name: str) -> str:
        """Raises NotFound naming the steps there are."""
        if name not in self._keys:
            known = ", ".join(repr(name) for name in list(self._keys)[:20])
            raise NotFound(
                f"there is no step {name[:100]!r}", field="step", cure=f"ask for one of: {known[:1000]}"
            )
        return self._keys[name]

    @property
    def step_keys(self) -> list[str]:
        """The job's own steps, in order."""
        return [key for key in self._names if key != SETUP]
