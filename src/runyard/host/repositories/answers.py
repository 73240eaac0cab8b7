"""What a remote said of its refs, how long that holds, and which commit it makes of a job's ref. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

RIGHTS_HOLD_S = 60.0
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_ABBREVIATED = re.compile(r"[0-9a-f]{4,39}")
_REF = re.compile(r"[!-\[\]-~\x80-\U0010ffff]+")
_HEADS, _TAGS = "refs/heads/", "refs/tags/"


class NoSuchRef(Exception):
    """The message is for the user."""


def is_commit(ref: str | None) -> bool:
    return ref is not None and _COMMIT.fullmatch(ref) is not None


def wanted_patterns(ref: str | None, *, fetch_tags: bool, depth: int | None) -> tuple[str, ...]:
    """What `git ls-remote` is asked for. With a depth only the job's own ref is seen, else every branch."""
    patterns = ["HEAD"]
    if depth is None:
        patterns.append(f"{_HEADS}*")
    if fetch_tags:
        patterns.append(f"{_TAGS}*")
    if ref is not None and not is_commit(ref):
        named = [ref] if ref.startswith("refs/") else [_HEADS + ref, _TAGS + ref]
        patterns += [*named, *(name + "^{}" for name in named if name.startswith(_TAGS))]
    return tuple(dict.fromkeys(patterns))


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`refs` by full name; a tag's peeled commit has `^{}` behind. `head` is the branch that HEAD names, `asked_at` is
    on CLOCK_BOOTTIME of the boot `boot_id`."""

    refs: Mapping[str, str]
    head: str | None
    asked_at: float
    boot_id: str

    def holds_for(self, ref: str | None, *, wanted_at: float, now: float, boot_id: str) -> bool:
        """A moving ref must have been asked for after the job wanted it; the right to read a commit holds a while."""
        if self.boot_id != boot_id or self.asked_at > now:
            return False
        return self.asked_at >= wanted_at or (is_commit(ref) and now - self.asked_at <= RIGHTS_HOLD_S)

    def to_json(self) -> dict[str, Any]:
        return {
            "refs": dict(self.refs),
            "head": self.head,
            "asked_at": self.asked_at,
            "boot_id": self.boot_id,
        }


def read_answer(text: str, *, patterns: Iterable[str], asked_at: float, boot_id: str) -> Answer:
    """From `git ls-remote --symref`. Its patterns match the ends of names too; only what was asked for is taken."""
    refs: dict[str, str] = {}
    head = None
    exact = {pattern for pattern in patterns if not pattern.endswith("*")}
    prefixes = tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))
    for line in text.splitlines():
        value, _, name = line.partition("\t")
        if value.startswith("ref: ") and name == "HEAD":
            head = value.removeprefix("ref: ")
        elif (
            _COMMIT.fullmatch(value) and _REF.fullmatch(name) and (name in exact or name.startswith(prefixes))
        ):
            refs[name] = value
    return Answer(refs=refs, head=_branch_of_head(head, refs), asked_at=asked_at, boot_id=boot_id)


def _branch_of_head(named: str | None, refs: Mapping[str, str]) -> str | None:
    """A remote that does not say which branch HEAD is: the likeliest that is the same commit, as git does."""
    if named is not None and named.startswith(_HEADS):
        return named
    same = [name for name, commit in refs.items() if name.startswith(_HEADS) and commit == refs.get("HEAD")]
    likely = [f"{_HEADS}main", f"{_HEADS}master"]
    return next((name for name in [*likely, *sorted(same)] if name in same), None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolved:
    """`branch` is checked out as one, None leaves HEAD detached. `remote_refs` are what has to be fetched for it;
    `visible` are the refs that the job sees, by the names they have in its repository."""

    commit: str
    branch: str | None
    remote_refs: tuple[str, ...]
    visible: Mapping[str, str] = field(default_factory=dict)


def resolve(answer: Answer, ref: str | None, *, fetch_tags: bool, depth: int | None) -> Resolved:
    """Raises NoSuchRef."""
    commit, branch, source = _commit_of(answer, ref)
    visible = {}
    for name, value in answer.refs.items():
        if name.startswith(_HEADS) and (depth is None or name == branch):
            visible["refs/remotes/origin/" + name.removeprefix(_HEADS)] = value
        elif name.startswith(_TAGS) and (fetch_tags or name.removesuffix("^{}") == source):
            visible[name] = value
    if branch is not None:
        visible[branch] = commit
    wanted = [] if depth is not None else [f"{_HEADS}*"]
    wanted += [f"{_TAGS}*"] if fetch_tags else []
    if source is not None and not any(source.startswith(each[:-1]) for each in wanted):
        wanted.append(source)
    return Resolved(commit=commit, branch=branch, remote_refs=tuple(wanted), visible=visible)


def _commit_of(answer: Answer, ref: str | None) -> tuple[str, str | None, str | None]:
    """The commit, the branch it is checked out as, and the remote's ref that it came from."""
    if ref is None:
        if "HEAD" not in answer.refs:
            raise NoSuchRef("the remote has no HEAD; name a branch in workspace.git.ref, or push one")
        return answer.refs["HEAD"], answer.head, answer.head or "HEAD"
    if is_commit(ref):
        return ref, None, None
    names = [ref] if ref.startswith("refs/") else [_HEADS + ref, _TAGS + ref]
    for name in names:
        if name in answer.refs:
            is_branch = name.startswith(_HEADS) and not ref.startswith("refs/")
            return answer.refs.get(name + "^{}", answer.refs[name]), name if is_branch else None, name
    if _ABBREVIATED.fullmatch(ref):
        raise NoSuchRef(f"'{ref}' is an abbreviated commit; write all of its digits in workspace.git.ref")
    raise NoSuchRef(f"the remote has no branch or tag '{ref}'")
