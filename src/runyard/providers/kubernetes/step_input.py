"""What step.sh is told of its step: a fragment of shell that only says, quoted by us, one key of the input Secret.

A file and not the pod's `env` and `args`: there a `$(NAME)` would be replaced, and whoever may read pods would read it.
"""

from __future__ import annotations

import posixpath
import shlex
from collections.abc import Mapping

from runyard.host.sandbox import HOME, OUTPUTS, PATH, WORKSPACE
from runyard.model.job import Step
from runyard.providers.port import AttemptRequest

COLLECT_CONDITION = "collect"


def step_input(
    attempt: AttemptRequest,
    step: Step,
    index: int,
    grace_s: float,
    *,
    condition: str | None = None,
    run_s: float | None = None,
) -> str:
    """Control variables of step.sh, and the function that becomes the command. Times are in hundredths of a second.
    With a `condition` of its own it is no step of the job's: it gets none of the secrets."""
    spec = attempt.spec
    directory = step.dir if step.dir is not None else spec.dir
    own = {**spec.env, **step.env, **(_secrets(attempt, step) if condition is None else {})}
    lines = {
        "step": f"{index:03d}",
        "earlier": " ".join(f"{each:03d}" for each in range(index)),
        "condition": condition or step.condition.value,
        "timeout": "" if step.timeout_s is None else str(_hundredths(step.timeout_s)),
        "run_limit": str(_hundredths(spec.limits.run_s if run_s is None else run_s)),
        "grace": str(_hundredths(grace_s)),
        "directory": posixpath.normpath(posixpath.join(WORKSPACE, directory or "")),
        "command": step.command[0],
        "search": own.get("PATH", ""),
        "default_search": PATH,
    }
    text = [f"{name}={shlex.quote(value)}" for name, value in lines.items()]
    text += ["", "become() {"]
    for name, value in _base(attempt, step).items():
        text += [f'[ "${{{name}+set}}" ] || {name}={shlex.quote(value)}', f"export {name}"]
    text += [f"export HOME={shlex.quote(own.get('HOME', HOME))}"]
    text += [f"export {name}={shlex.quote(value)}" for name, value in own.items() if name != "HOME"]
    words = " ".join(shlex.quote(word) for word in step.command[1:])
    text += [f'exec -a {shlex.quote(step.command[0])} "$1" {words}', "}", ""]
    return "\n".join(text)


def _secrets(attempt: AttemptRequest, step: Step) -> Mapping[str, str]:
    """What the step gets as variables: in the input Secret, which goes with the attempt, and nowhere else."""
    return {
        secret.env: secret.value.decode()
        for secret in attempt.secrets
        if secret.env is not None and secret.is_for(step.name)
    }


def _base(attempt: AttemptRequest, step: Step) -> Mapping[str, str]:
    """What INTERFACE.md gives each step and an image may say otherwise, as on every pool. (HOME is set apart: a runtime
    gives one where the image has none.)"""
    return {
        "PATH": PATH,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "CI": "true",
        **attempt.env,
        "RUNYARD_STEP": step.name,
        "RUNYARD_WORKSPACE": WORKSPACE,
        "RUNYARD_OUTPUTS": OUTPUTS,
    }


def _hundredths(seconds: float) -> int:
    return max(1, round(seconds * 100))
