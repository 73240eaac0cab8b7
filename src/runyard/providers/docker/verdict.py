"""From how steps and containers ended to the attempt's outcome. Pure: whoever adopts it comes to the same."""

from __future__ import annotations

import signal
from collections.abc import Sequence
from dataclasses import dataclass, field

from runyard.model.job import JobSpec, StepCondition
from runyard.model.outcome import Outcome, OutcomeKind, Reason, ReasonCode, Usage, lost, succeeded
from runyard.model.secret import FILES_DIRECTORY
from runyard.providers.docker.plan import Group

UNFED = 75
"""What step.sh exits with where the service left while it was feeding it."""
_ENDS_ALL = ("stop", "run_timeout")
CANCELED = "canceled on request"


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnd:
    """A step's end as step.sh told it; `why` is `-` where the step ended by itself. None is unknown."""

    code: int
    wall_s: float
    oom_kills: int
    pids_refused: int
    cpu_s: float | None
    memory_bytes: int | None
    why: str

    @classmethod
    def parse(cls, words: Sequence[str]) -> StepEnd:
        """The words after `end NNN`. Raises ValueError, IndexError."""
        code, ticks, oom, pids, cpu_us, memory, why = words[:7]
        return cls(
            code=int(code),
            wall_s=int(ticks) / 100,
            oom_kills=int(oom),
            pids_refused=int(pids),
            cpu_s=int(cpu_us) / 1e6 if cpu_us.isdecimal() else None,
            memory_bytes=int(memory) if memory.isdecimal() else None,
            why=why,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerEnd:
    """How a container ended: None is that it is not there any more."""

    exit_code: int
    is_oom: bool = False
    ended_at: float = 0.0
    error: str = ""


@dataclass(slots=True)
class Story:
    """What is known of an attempt: when its steps began (the daemon's clock), how they ended, and their containers, by
    the first step of each."""

    begun: dict[int, float] = field(default_factory=dict)
    ended: dict[int, StepEnd] = field(default_factory=dict)
    ended_at: dict[int, float] = field(default_factory=dict)
    containers: dict[int, ContainerEnd | None] = field(default_factory=dict)
    is_stopped: bool = False
    has_printed: bool = False

    @property
    def is_over(self) -> bool:
        """No further step will begin."""
        return any(end.why in _ENDS_ALL for end in self.ended.values())

    def has_told(self, first: int) -> bool:
        """Whether what the container from that step on began has an end."""
        begun = {index for index in self.begun if index >= first}
        return bool(begun) and begun <= self.ended.keys()

    def is_unfed(self) -> bool:
        first = self.containers.get(0)
        return first is not None and first.exit_code == UNFED and not self.begun


def judge(spec: JobSpec, groups: Sequence[Group], story: Story, *, pids_max: int) -> Outcome:
    """The first failure decides, as on a local pool."""
    usage = _usage(story)
    for group in groups:
        for index in range(group.first, group.last + 1):
            end = story.ended.get(index)
            failure = None if end is None else _of_step(spec, index, end, usage, pids_max)
            if failure is not None:
                return failure
        broken = _of_container(spec, group, story, usage)
        if broken is not None:
            return broken
    if story.is_stopped and is_cut_short(spec, story):
        return _outcome(
            OutcomeKind.CANCELED, ReasonCode.CANCELED, CANCELED, None, usage, was_seen=bool(story.begun)
        )
    return succeeded(usage)


def is_cut_short(spec: JobSpec, story: Story) -> bool:
    """Whether steps were left that should have run: a stop may fall between two of them."""
    done = max(story.ended, default=-1) + 1
    return any(not _is_skipped(spec, index, story) for index in range(done, len(spec.steps)))


def _of_step(spec: JobSpec, index: int, end: StepEnd, usage: Usage, pids_max: int) -> Outcome | None:
    step = spec.steps[index]
    name = step.name
    match end.why:
        case "stop":
            return _outcome(OutcomeKind.CANCELED, ReasonCode.CANCELED, CANCELED, name, usage)
        case "run_timeout":
            words = f"ran longer than limits.run = {spec.limits.run_s:g} s"
            return _outcome(OutcomeKind.TIMED_OUT, ReasonCode.RUN_TIMEOUT, words, name, usage)
        case "step_timeout":
            words = f"step '{name}' ran longer than its timeout of {step.timeout_s or 0:g} s"
            return _outcome(OutcomeKind.TIMED_OUT, ReasonCode.STEP_TIMEOUT, words, name, usage)
        case "directory":
            words = f"step '{name}': its directory {step.dir or spec.dir!r} cannot be entered"
            return _failed(ReasonCode.COMMAND, words, name, usage, exit_code=end.code)
        case "secrets":
            words = f"step '{name}': its secrets could not be put into {FILES_DIRECTORY}"
            return _failed(ReasonCode.SECRET, words, name, usage, exit_code=end.code)
        case "command":
            words = f"step '{name}': the command {step.command[0]!r} was not found"
            return _failed(ReasonCode.COMMAND, words, name, usage, exit_code=end.code)
        case _:
            return None if end.code == 0 else _ended_badly(spec, name, end, usage, pids_max)


def _ended_badly(spec: JobSpec, name: str, end: StepEnd, usage: Usage, pids_max: int) -> Outcome:
    number = end.code - 128 if 128 < end.code <= 128 + signal.NSIG else None
    if end.oom_kills:
        words = f"step '{name}' used more memory than {_memory(spec)}"
        return _failed(ReasonCode.MEMORY, words, name, usage, exit_code=end.code, number=number)
    if end.pids_refused:
        words = f"step '{name}' needed more than {pids_max} processes"
        return _failed(ReasonCode.PIDS, words, name, usage, exit_code=end.code, number=number)
    if number is not None:
        words = f"step '{name}' was killed by {_signal_name(number)}"
        return _failed(ReasonCode.SIGNAL, words, name, usage, exit_code=end.code, number=number)
    words = f"step '{name}' exited with {end.code}"
    return _failed(ReasonCode.EXIT, words, name, usage, exit_code=end.code)


def _of_container(spec: JobSpec, group: Group, story: Story, usage: Usage) -> Outcome | None:
    """None: it told how all of its steps ended, or had none to run."""
    if group.first not in story.containers:
        return None
    container = story.containers[group.first]
    begun = [
        index for index in range(group.first, group.last + 1) if index in story.begun.keys() - story.ended
    ]
    if not begun and _is_told(spec, group, story, container):
        return None
    step = spec.steps[begun[0]].name if begun else None
    was_seen = bool(story.begun) or story.has_printed
    if story.is_stopped:
        return _outcome(OutcomeKind.CANCELED, ReasonCode.CANCELED, CANCELED, step, usage, was_seen=was_seen)
    if container is None:
        return lost("its container was removed by somebody else", was_seen=was_seen, usage=usage)
    if container.is_oom:
        words = f"step '{step}' used more memory than {_memory(spec)}"
        return _failed(ReasonCode.MEMORY, words, step, usage, exit_code=container.exit_code)
    if story.begun and container.ended_at - min(story.begun.values()) >= spec.limits.run_s:
        words = f"ran longer than limits.run = {spec.limits.run_s:g} s"
        return _outcome(OutcomeKind.TIMED_OUT, ReasonCode.RUN_TIMEOUT, words, step, usage)
    more = f": {container.error}" if container.error else ""
    words = f"its container was ended from outside, or with its daemon (exit {container.exit_code}){more}"
    return lost(words, was_seen=was_seen, usage=usage)


def _is_told(spec: JobSpec, group: Group, story: Story, container: ContainerEnd | None) -> bool:
    """It ended as step.sh ends, with the code of its last step, or 0 where none ran; gone, it must have told all."""
    if container is None:
        return _is_whole(spec, group, story)
    codes = [story.ended[index].code for index in range(group.first, group.last + 1) if index in story.ended]
    return container.exit_code == (codes[-1] if codes else 0) or story.is_over


def _is_whole(spec: JobSpec, group: Group, story: Story) -> bool:
    """All of its steps have ended, or will not run."""
    if story.is_over:
        return True
    indices = range(group.first, group.last + 1)
    return all(index in story.ended or _is_skipped(spec, index, story) for index in indices)


def _is_skipped(spec: JobSpec, index: int, story: Story) -> bool:
    has_failed = any(end.code or end.why != "-" for number, end in story.ended.items() if number < index)
    match spec.steps[index].condition:
        case StepCondition.ALWAYS:
            return False
        case StepCondition.SUCCESS:
            return has_failed
        case StepCondition.FAILURE:
            return not has_failed


def _usage(story: Story) -> Usage:
    """cpu and memory are a container's since its start, so the last word of each counts."""
    last: dict[int, StepEnd] = {}
    firsts = sorted(story.containers)
    for index in sorted(story.ended):
        first = max((each for each in firsts if each <= index), default=0)
        last[first] = story.ended[index]
    cpus = [end.cpu_s for end in last.values() if end.cpu_s is not None]
    peaks = [end.memory_bytes for end in last.values() if end.memory_bytes is not None]
    wall_s = 0.0
    if story.begun and story.ended_at:
        wall_s = max(0.0, max(story.ended_at.values()) - min(story.begun.values()))
    return Usage(wall_s=wall_s, cpu_s=sum(cpus) if cpus else None, memory_bytes_peak=max(peaks, default=None))


def _failed(
    code: ReasonCode,
    words: str,
    step: str | None,
    usage: Usage,
    *,
    exit_code: int,
    number: int | None = None,
) -> Outcome:
    return Outcome(
        kind=OutcomeKind.FAILED,
        reason=Reason(code=code, message=words, step=step),
        exit_code=exit_code,
        signal=number,
        usage=usage,
    )


def _outcome(
    kind: OutcomeKind,
    code: ReasonCode,
    words: str,
    step: str | None,
    usage: Usage,
    *,
    was_seen: bool = True,
) -> Outcome:
    return Outcome(
        kind=kind, reason=Reason(code=code, message=words, step=step), usage=usage, was_seen=was_seen
    )


def unseen(kind: OutcomeKind, code: ReasonCode, words: str) -> Outcome:
    """An end before the first step."""
    return Outcome(kind=kind, reason=Reason(code=code, message=words), was_seen=False)


def _memory(spec: JobSpec) -> str:
    return f"requirements.memory = {spec.requirements.memory_bytes / (1 << 20):g}Mi"


def _signal_name(number: int) -> str:
    try:
        return f"{signal.Signals(number).name} ({number})"
    except ValueError:
        return f"signal {number}"
