"""From an attempt to what its containers are fed: groups of steps in one image, and the plan as shell text. Pure."""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from runyard.model.job import JobSpec, Step
from runyard.providers.docker.names import marker_word
from runyard.providers.port import AttemptRequest

WORKSPACE, HOME, BIN, STATE = "/workspace", "/tmp/home", "/.runyard/bin", "/.runyard/state"
OUTPUTS = f"{STATE}/outputs"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_BYTES_MAX, OUTPUTS_MAX = 64 * 1024, 64
_TICKS = 100  # of step.sh, in a second


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """One that the daemon has: `id` names it there, `digest` is what the registry calls it, `user` as in its config."""

    id: str
    digest: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    user: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Steps that follow one another in one image, and so run in one container. `image` is its name in the job."""

    first: int
    last: int
    image: str


def group_steps(spec: JobSpec, default_image: str) -> list[Group]:
    groups: list[Group] = []
    for index, step in enumerate(spec.steps):
        image = spec.image_of(step) or default_image
        if groups and groups[-1].image == image:
            groups[-1] = Group(first=groups[-1].first, last=index, image=image)
        else:
            groups.append(Group(first=index, last=index, image=image))
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
    return ["sh", f"{BIN}/step.sh", "run", str(group.first), str(group.last)]


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
    words = [*(f"{name}={value}" for name, value in env.items()), *step.command]
    timeout = 0 if step.timeout_s is None else max(1, _ticks(step.timeout_s))
    return [
        f"step_{index:03d}() {{",
        f"    condition={step.condition.value} timeout={timeout} dir={shlex.quote(place)}",
        f"    path={shlex.quote(env['PATH'])} command={shlex.quote(step.command[0])}",
        "}",
        f"launch_{index:03d}() {{",
        f"    exec {BIN}/busybox env -i {' '.join(map(shlex.quote, words))}",
        "}",
    ]


def _ticks(seconds: float) -> int:
    return round(seconds * _TICKS)
