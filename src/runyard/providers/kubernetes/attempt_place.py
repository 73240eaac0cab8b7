"""The objects of one attempt, as the cluster's own record of it: made, adopted, stopped, ended, removed.

The Secret comes first and goes last; its marks (marks.py) are what a later owner finds. Each effect is safe to repeat
and to race: a stop marks the Secret and only then looks for the Job; a start makes the Job and only then reads the
Secret's marks, so one of the two sees the other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime

from runyard.model.attempt import AttemptKey
from runyard.model.errors import ProviderDenied, ProviderError, Unreachable
from runyard.providers.kubernetes.attempt_views import AttemptViews
from runyard.providers.kubernetes.client import CREATE_S, JOBS, PODS, SECRETS, Document, KubernetesClient
from runyard.providers.kubernetes.marks import (
    EndMark,
    Marks,
    StopMark,
    end_patch,
    job_patch,
    read_marks,
    stop_patch,
)

KILL_GRACE_S = 1
"""The least that lets the kubelet end a container in order: 0 forgets the pod and leaves its processes."""

GONE_S = 25.0
MayCreate = Callable[[float], bool]


@dataclass(frozen=True, slots=True)
class Place:
    """What stands in the cluster for an attempt. `job` is the Job as it was made or found; None where it was seen
    before and is gone, or where the marks already tell the end."""

    marks: Marks
    job: Document | None = None


class AttemptPlaces:
    """`labels` are those that tell this installation's objects."""

    def __init__(
        self, client: KubernetesClient, views: AttemptViews, *, pool: str, labels: Mapping[str, str]
    ) -> None:
        self._client = client
        self._views = views
        self._pool = pool
        self._labels = labels

    # -- starting -------------------------------------------------------------------------------------------------
    async def start(self, secret: Document, job: Document, may_create: MayCreate) -> Place:
        """Makes both, or finds them. Raises a ProviderError; all but Unreachable left nothing behind."""
        name = secret["metadata"]["name"]
        marks, is_new = await self._own_secret(name, secret, may_create)
        if marks.end is not None:
            return Place(marks, self._views.knows_job(name))
        if marks.job_uid is not None:  # where the watch does not know it, it may only lag
            return Place(marks, self._views.knows_job(name) or await self._client.read(JOBS, name))
        if marks.stop is not None:
            return Place(marks, await self._client.read(JOBS, name))  # made by a start whose reply was lost
        self._need_lease(may_create)
        try:
            made = await self._client.create(JOBS, job)
        except Unreachable:
            raise
        except ProviderError:
            if is_new:
                await self._client.delete(SECRETS, name)
            raise
        found = made or await self._client.read(JOBS, name)
        if found is None:
            raise Unreachable(f"Job {name} was there, and is being removed")
        self._need_ours(found)
        return await self._mark_job(name, found, is_made=made is not None)

    async def _own_secret(self, name: str, secret: Document, may_create: MayCreate) -> tuple[Marks, bool]:
        known = self._views.knows_job(name)
        if known is None:
            self._need_lease(may_create)
            made = await self._client.create(SECRETS, secret)
            if made is not None:
                return marks_of(made), True
        found = await self._client.read(SECRETS, name)
        if found is None:
            raise Unreachable(f"Secret {name} is being removed")
        self._need_ours(found)
        return marks_of(found), False

    async def _mark_job(self, name: str, job: Document, *, is_made: bool) -> Place:
        """From here on a missing Job is one that was deleted. The answer holds all that others marked meanwhile."""
        secret = await self._client.patch(SECRETS, name, job_patch(job["metadata"]["uid"]))
        marks = marks_of(secret) if secret is not None else None
        if is_made and (marks is None or marks.end is not None):  # we came late: it has ended, or was removed
            await self._remove_job(name)
        if marks is None:
            raise Unreachable(f"{name} was removed while it was made")
        return Place(marks, job)

    def _need_lease(self, may_create: MayCreate) -> None:
        if not may_create(CREATE_S):
            raise Unreachable(f"the lease of pool '{self._pool}' ends before a start would")

    def _need_ours(self, found: Document) -> None:
        labels = found["metadata"].get("labels") or {}
        if any(labels.get(key) != value for key, value in self._labels.items()):
            kind, name = found.get("kind", "an object"), found["metadata"]["name"]
            raise ProviderDenied(
                f"{kind} {name} in namespace {self._client.namespace} belongs to another installation",
                cure="give this pool a namespace of its own",
            )

    # -- stopping and ending --------------------------------------------------------------------------------------
    async def stop(self, key: AttemptKey, bare_secret: Document, *, grace_s: float, was_seen: bool) -> None:
        """Marks first, then ends what is there. Missing is success."""
        name = key.resource_name
        mark = StopMark(grace_s=grace_s, at=self._client.now(), was_seen=was_seen)
        marked = await self._mark_stop(name, bare_secret, mark)
        self._need_ours(marked)
        if marks_of(marked).end is not None:
            return
        pods = self._views.pods_of(name)
        changes = stop_patch(mark)
        if not pods:
            changes["spec"] = {"parallelism": 0}
        if await self._client.patch(JOBS, name, changes) is None:
            return
        pods = pods or (await self._client.list(PODS, labels=f"job-name={name}")).items
        await self._delete_pods(pods, grace_s)

    async def _mark_stop(self, name: str, bare_secret: Document, mark: StopMark) -> Document:
        for _ in range(3):
            marked = await self._client.patch(SECRETS, name, stop_patch(mark))
            if marked is not None:
                return marked
            body = {**bare_secret, "metadata": {**bare_secret["metadata"], **stop_patch(mark)["metadata"]}}
            made = await self._client.create(SECRETS, body)
            if made is not None:
                return made
        raise Unreachable(f"Secret {name} comes and goes")

    async def end(self, name: str, *, grace_s: float = KILL_GRACE_S) -> None:
        """Lets nothing of it run any more; its Job stays, so that a late create collides. The pods go first: what the
        controller ends for want of parallelism gets the template's grace, and no more than that."""
        pods = self._views.pods_of(name) or (await self._client.list(PODS, labels=f"job-name={name}")).items
        await self._delete_pods(pods, grace_s)
        await self._client.patch(JOBS, name, {"spec": {"parallelism": 0}})

    async def look_again(self, name: str) -> bool:
        """Asks the server itself, because a watch may lag behind another: tells the views what is there, and whether
        there is anything."""
        job = await self._client.read(JOBS, name)
        pods = (await self._client.list(PODS, labels=f"job-name={name}")).items
        if job is not None:
            self._views.note_job(job, False)
        for pod in pods:
            self._views.note_pod(pod, False)
        return bool(pods)

    async def record_end(self, name: str, end: EndMark, *, version: str) -> EndMark:
        """Writes it down, unless another wrote before: returns the one that stands. `version` is that of the marks
        that were read last."""
        for _ in range(10):
            if (
                await self._client.compare_and_patch(SECRETS, name, end_patch(end), version=version)
                is not None
            ):
                return end
            secret = await self._client.read(SECRETS, name)
            if secret is None:
                return end  # destroyed: nobody will ask again
            marks = marks_of(secret)
            if marks.end is not None:
                return marks.end
            version = marks.version
        raise Unreachable(f"Secret {name} is written to without an end")

    async def _delete_pods(self, pods: tuple[Document, ...], grace_s: float) -> None:
        grace = max(KILL_GRACE_S, round(grace_s + 0.5))
        for pod in pods:
            metadata = pod["metadata"]
            await self._client.delete(PODS, metadata["name"], uid=metadata["uid"], grace_s=grace)

    # -- removing -------------------------------------------------------------------------------------------------
    async def destroy(self, name: str) -> None:
        """All that is ours under the name: the Job, its pods, the Secret last. Returns when they are gone."""
        secret = await self._client.read(SECRETS, name)
        if secret is not None and not self._is_ours(secret):
            return
        await self._remove_job(name)
        if secret is not None:
            await self._client.delete(SECRETS, name, uid=secret["metadata"]["uid"])

    async def _remove_job(self, name: str) -> None:
        job = self._views.knows_job(name) or await self._client.read(JOBS, name)
        if job is not None:
            if not self._is_ours(job):
                return
            await self._client.delete(JOBS, name, uid=job["metadata"]["uid"])
        pods = self._views.pods_of(name)
        if any(not has_ended(pod) for pod in pods):
            await self._delete_pods(tuple(pod for pod in pods if self._is_ours(pod)), KILL_GRACE_S)
        await self._gone(name)

    async def _gone(self, name: str) -> None:
        """Until the watch has seen the last pod go: what is deleted still runs for its grace."""
        ends_at = time.monotonic() + GONE_S
        with self._views.following(name) as (_, changed):
            while self._views.pods_of(name) or self._views.knows_job(name):
                changed.clear()
                if time.monotonic() > ends_at:
                    raise Unreachable(f"{name} is deleted, and its pod is not gone yet")
                try:
                    async with asyncio.timeout(1.0):
                        await changed.wait()
                except TimeoutError:
                    continue

    def _is_ours(self, found: Document) -> bool:
        labels = found["metadata"].get("labels") or {}
        return all(labels.get(key) == value for key, value in self._labels.items())


def marks_of(secret: Document) -> Marks:
    """Raises ProviderDenied where another hand wrote into them."""
    try:
        return read_marks(secret, made_at=time_of(secret["metadata"]["creationTimestamp"]))
    except (ValueError, TypeError) as error:
        name = secret["metadata"]["name"]
        raise ProviderDenied(
            f"Secret {name}: its annotations are not as we wrote them: {error}",
            cure="let nobody but Runyard change what carries its label",
        ) from None


def time_of(text: str) -> float:
    """Epoch seconds from the API's form, which has whole ones."""
    return datetime.fromisoformat(text).timestamp()


def has_ended(pod: Document) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
