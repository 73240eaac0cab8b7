"""What is known of each attempt's Job and pod, for as long as somebody follows it: filled by the two shared watches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from runyard.model.requirements import Requirements
from runyard.providers.kubernetes.client import Document

JOB_NAME = "job-name"
"""The label that every Job controller, old and new, puts on its pods."""


@dataclass(eq=False)
class AttemptView:
    """The newest state of an attempt's objects. What was deleted stays in its last state, with `is_…_gone` set."""

    name: str
    job: Document | None = None
    pod: Document | None = None
    is_job_gone: bool = False
    is_pod_gone: bool = False
    words: str = ""
    """What the cluster says about the Job where it has no pod to say it of (the quota's refusal)."""

    requirements: Requirements | None = None
    followers: set[asyncio.Event] = field(default_factory=set)

    def note_job(self, job: Document, *, is_gone: bool) -> None:
        if self.job is not None and self.job["metadata"]["uid"] != job["metadata"]["uid"] and is_gone:
            return  # an earlier one of that name
        self.job, self.is_job_gone = job, is_gone
        self.tell()

    def note_pod(self, pod: Document, *, is_gone: bool) -> None:
        """The oldest pod is the attempt. There is one; where a broken controller made another, that is no attempt."""
        if self.pod is not None and _age(pod) > _age(self.pod):
            return
        self.pod, self.is_pod_gone = pod, is_gone
        self.tell()

    def note_words(self, words: str) -> None:
        if words != self.words:
            self.words = words
            self.tell()

    def tell(self) -> None:
        for changed in self.followers:
            changed.set()


class AttemptViews:
    """By resource name. `note_job` and `note_pod` listen to the watches."""

    def __init__(self) -> None:
        self._views: dict[str, AttemptView] = {}
        self._jobs: dict[str, Document] = {}
        self._pods: dict[str, dict[str, Document]] = {}

    def note_job(self, job: Document, is_gone: bool) -> None:
        name = job["metadata"]["name"]
        if is_gone:
            self._jobs.pop(name, None)
        else:
            self._jobs[name] = job
        if view := self._views.get(name):
            view.note_job(job, is_gone=is_gone)

    def note_pod(self, pod: Document, is_gone: bool) -> None:
        name = job_of(pod)
        pods = self._pods.setdefault(name, {})
        if is_gone:
            pods.pop(pod["metadata"]["name"], None)
        else:
            pods[pod["metadata"]["name"]] = pod
        if not pods:
            del self._pods[name]
        if view := self._views.get(name):
            view.note_pod(pod, is_gone=is_gone)

    def knows_job(self, name: str) -> Document | None:
        return self._jobs.get(name)

    def pods_of(self, name: str) -> tuple[Document, ...]:
        return tuple(self._pods.get(name, {}).values())

    @property
    def followed(self) -> tuple[AttemptView, ...]:
        return tuple(self._views.values())

    @contextlib.contextmanager
    def following(self, name: str) -> Iterator[tuple[AttemptView, asyncio.Event]]:
        """The view, shared by all who follow the attempt, and an event of one's own that is set at each change."""
        view = self._views.get(name)
        if view is None:
            view = self._views[name] = AttemptView(name, job=self._jobs.get(name))
            for pod in self._pods.get(name, {}).values():
                view.note_pod(pod, is_gone=False)
        changed = asyncio.Event()
        view.followers.add(changed)
        try:
            yield view, changed
        finally:
            view.followers.discard(changed)
            if not view.followers:
                del self._views[name]


def job_of(pod: Document) -> str:
    """The name of the pod's Job, which is the attempt's."""
    labels = pod["metadata"].get("labels") or {}
    return str(labels.get(JOB_NAME) or labels.get(f"batch.kubernetes.io/{JOB_NAME}") or "")


def _age(pod: Document) -> tuple[str, str]:
    return pod["metadata"]["creationTimestamp"], pod["metadata"]["uid"]
