"""From an attempt to what its containers are fed: groups of steps in one image, and the plan as shell text. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from runyard.model.job import JobSpec, Step
from runyard.model.secret import SecretUse
from runyard.providers.docker.names import marker_word
from runyard.providers.port import AttemptRequest

WORKSPACE, HOME, BIN, STATE = "/workspace", "/tmp/home", "/.runyard/bin", "/.runyard/state"
OUTPUTS = f"{STATE}/outputs"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_BYTES_MAX, OUTPUTS_MAX = 64 * 1024, 64
_TICKS = 100  # of step.sh, in a second
_NO_ENVIRONMENT = ("env", "-i", f"{BIN}/busybox")
_SHELLS_OWN = ("SHLVL", "PWD", "OLDPWD")
"""What a shell that began without an environment exports nonetheless, beside PATH, which each step has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One that the daemon has: `id` names it there, `digest` is what the registry calls it, `user` as in its config."""

    id: str
    digest: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Steps that follow one another in one image, with the same secrets, and so run in one container. `image` is its
    name in the job; `secrets` are all that its steps get."""

    first: int
    last: int
    image: str
    secrets: tuple[SecretUse, ...] = ()

    @property
    def is_fed(self) -> bool:
        """Whether it gets its plan through its own standard input; others read the first one's."""
        return self.first == 0 or bool(self.secrets)


def group_steps(spec: JobSpec, default_image: str) -> list[Group]:
    """A step with secrets of its own has a container of its own: all steps run as one user, so what is to be for one
    alone must not be where another one runs."""
    groups: list[Group] = []
    for index, step in enumerate(spec.steps):
        image, secrets = spec.image_of(step) or default_image, (*spec.secrets, *step.secrets)
        if groups and (groups[-1].image, groups[-1].secrets) == (image, secrets):
            groups[-1] = replace(groups[-1], last=index)
        else:
            groups.append(Group(first=index, last=index, image=image, secrets=secrets))
    return groups


def write_plan(
    request: AttemptRequest, images: Mapping[str, Image], *, default_image: str, kill_grace_s: float
) -> bytes:
    """The shell text that step.sh reads: what holds for the attempt, then two functions for each step."""
    spec = request.spec
    lines = [
        f"mark={marker_word(request.key.resource_name)}",
        f"grace={_ticks(kill_grace_s)} run_limit={_ticks(spec.limits.run_s)} steps={len(spec.steps)}",
        f"output_max={OUTPUT_BYTES_MAX} outputs_max={OUTPUTS_MAX}",
        "named_outputs() {",
        "    :",
        *(
            f"    tell_output {shlex.quote(name)} {shlex.quote(posixpath.join(WORKSPACE, path))}"
            for name, path in spec.outputs.items()
        ),
        "}",
    ]
    for index, step in enumerate(spec.steps):
        image = images[spec.image_of(step) or default_image]
        lines += _step(index, step, spec, environment(request, step, image.env))
    return "\n".join(lines).encode(errors="surrogateescape") + b"\n"


def environment(request: AttemptRequest, step: Step, image_env: Mapping[str, str]) -> dict[str, str]:
    """A step's whole environment; nothing of the service's, and nothing of step.sh's own."""
    return {
        "PATH": PATH,
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "TZ": "UTC",
        "CI": "true",
        **request.env,
        "RUNYARD_STEP": step.name,
        "RUNYARD_WORKSPACE": WORKSPACE,
        "RUNYARD_OUTPUTS": OUTPUTS,
        **image_env,
        **request.spec.env,
        **step.env,
    }


def run_command(group: Group) -> list[str]:
    """A container's command; its entry point is our busybox."""
    words = ["fed"] if group.is_fed else []
    return [*_NO_ENVIRONMENT, "sh", f"{BIN}/step.sh", "run", str(group.first), str(group.last), *words]


def stop_command(grace_s: float) -> list[str]:
    return [f"{BIN}/busybox", "sh", f"{BIN}/step.sh", "stop", str(_ticks(grace_s))]


def user_of(image: Image, default: int) -> str:
    """`uid:gid` of the attempt: the image's user where that is a number and not root, else the pool's."""
    match = re.fullmatch(r"([0-9]{1,9})(?::([0-9]{1,9}))?", image.user)
    if match is None or int(match[1]) == 0:
        return f"{default}:{default}"
    return f"{match[1]}:{match[2] or match[1]}"


def _step(index: int, step: Step, spec: JobSpec, env: Mapping[str, str]) -> Sequence[str]:
    directory = step.dir if step.dir is not None else spec.dir
    place = posixpath.normpath(posixpath.join(WORKSPACE, directory or ""))
    secret = {use.env for use in (*spec.secrets, *step.secrets) if use.env is not None}
    words = [*(f"{name}={value}" for name, value in env.items() if name not in secret), *step.command]
    launch = [f"    exec {BIN}/busybox env -i {' '.join(map(shlex.quote, words))}"]
    if secret:  # the shell exports them: an argument would show them
        without = "".join(f"-u {name} " for name in _SHELLS_OWN if name not in secret)
        launch = [
            "    give_variables",
            f"    exec {BIN}/busybox env {without}{' '.join(map(shlex.quote, words))}",
        ]
    timeout = 0 if step.timeout_s is None else max(1, _ticks(step.timeout_s))
    return [
        f"step_{index:03d}() {{",
        f"    condition={step.condition.value} timeout={timeout} dir={shlex.quote(place)}",
        f"    path={shlex.quote(env['PATH'])} command={shlex.quote(step.command[0])}",
        "}",
        f"launch_{index:03d}() {{",
        *launch,
        "}",
    ]


def _ticks(seconds: float) -> int:
    return round(seconds * _TICKS)
