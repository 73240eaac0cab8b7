"""What is made for an attempt in a daemon, by name and label: all of it carries the attempt's own name (I5).

runyard-<uid>-<n>            the attempt's first container, which is never started: it holds the name and the volumes
runyard-<uid>-<n>-s<k>       the container that runs the steps from k on
runyard-<uid>-<n>-stop       never started either: the mark that it was asked to stop
runyard-<uid>-<n>-net        with services: sleeps, and so keeps the network namespace that all of the attempt share
runyard-<uid>-<n>-svc-<name> the container of a service
runyard-<uid>-<n>-broken     never started: the mark that a service failed the attempt, and in what words
runyard-<uid>-<n>, -state    volumes: the workspace, and what containers of one attempt share
runyard-pause-<pool>-<slot>  holds a network namespace without a network for the slot's containers
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from runyard.model.attempt import AttemptKey

MANAGED_BY, INSTALLATION, POOL = "runyard.managed-by", "runyard.installation", "runyard.pool"
ATTEMPT, JOB, TENANT, EPOCH = "runyard.attempt", "runyard.job", "runyard.tenant", "runyard.epoch"
SLOT, IMAGE, GRACE, WHY = "runyard.slot", "runyard.image", "runyard.grace", "runyard.why"
_PARTS = re.compile(r"(runyard-[0-9a-zA-Z]{16}-[0-9]+)(?:-(s[0-9]+|stop|state|begun|net|broken|svc-.+))?")


@dataclass(frozen=True, slots=True)
class Part:
    """A container or volume of an attempt: the attempt's name, and which part of it (empty: the holder)."""

    attempt: str
    role: str = ""

    @classmethod
    def parse(cls, name: str) -> Part | None:
        match = _PARTS.fullmatch(name)
        if match is None or AttemptKey.from_resource_name(match[1]) is None:
            return None
        return cls(match[1], match[2] or "")


def is_steps(role: str) -> bool:
    """Whether a part runs steps, as `s0` does."""
    return role[:1] == "s" and role[1:].isdecimal()


def steps_container(attempt: str, first: int) -> str:
    return f"{attempt}-s{first}"


def stop_mark(attempt: str) -> str:
    return f"{attempt}-stop"


def network_container(attempt: str) -> str:
    return f"{attempt}-net"


def service_container(attempt: str, service: str) -> str:
    return f"{attempt}-svc-{service}"


def broken_mark(attempt: str) -> str:
    return f"{attempt}-broken"


def begun_mark(attempt: str) -> str:
    return f"{attempt}-begun"


def workspace_volume(attempt: str) -> str:
    return attempt


def state_volume(attempt: str) -> str:
    return f"{attempt}-state"


def pause_container(installation: str, pool: str, slot: int) -> str:
    """One daemon may serve pools of several installations."""
    return f"runyard-pause-{short_hash(f'{installation}/{pool}')}-{slot}"


def marker_word(attempt: str) -> str:
    """What tells Runyard's words in a container's log from what the job printed: the same for whoever adopts it."""
    return short_hash(attempt)


def short_hash(text: str | bytes) -> str:
    data = text.encode() if isinstance(text, str) else text
    return hashlib.sha256(data).hexdigest()[:12]
