"""Log files know steps and services by number, people by name: the mapping of one job."""

from __future__ import annotations

from runyard.logs.layout import SETUP, is_service, service_key, step_key
from runyard.model.errors import NotFound
from runyard.model.job import JobSpec

SETUP_NAME, SERVICE_PREFIX = "setup", "service:"
WHERE_TAKEN = "runyard:"


class StepNames:
    """What was printed while the workspace was made goes by `setup`, what a service printed by `service:NAME`; with
    `runyard:` before it where the job has a step of that name."""

    def __init__(self, spec: JobSpec) -> None:
        self._names = {step_key(index): step.name for index, step in enumerate(spec.steps)}
        steps = set(self._names.values())
        others = {service_key(index): SERVICE_PREFIX + each.name for index, each in enumerate(spec.services)}
        for key, name in ({SETUP: SETUP_NAME} | others).items():
            self._names[key] = WHERE_TAKEN + name if name in steps else name
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
        return [key for key in self._names if key != SETUP and not is_service(key)]
