"""What a service holds, counted from outside: its process, what descends from it, its folders, the host, the ledger's
rows. Each `leftover` is a sentence, so that a failure says what was left and not how many.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from runyard.host.cgroups import CgroupTree, detect
from runyard.host.linux import adopt_orphans
from runyard.testing.simulation.snapshot import Reader

RSS_LINE = re.compile(r"RssAnon:\s+(\d+) kB")
PASSING_TASKS = 3
"""An owner waits for its next turn with tasks that are not there within the turn: a moment's look may miss them."""

_VOLATILE = re.compile(r"\d+")
_PR_SET_CHILD_SUBREAPER = 36


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessHoldings:
    """Of the service's own process. `descriptors` counts by what they are open on, numbers taken out."""

    heap_bytes: int
    threads: int
    tasks: int
    descriptors: Counter[str]

    def above(self, idle: ProcessHoldings, *, threads_max: int, descriptors_max: int) -> list[str]:
        """What it holds more than when it was idle: no task but those that come and go; threads and descriptors only
        up to what a full pool of threads and its readers hold."""
        more = self.descriptors - idle.descriptors
        tasks = self.tasks - idle.tasks
        found = [f"{tasks} asyncio tasks more"] if tasks > PASSING_TASKS else []
        if more.total() > descriptors_max:
            found.append(f"descriptors more: {dict(more)}")
        if self.threads > threads_max:
            found.append(f"{self.threads} threads, at most {threads_max}")
        return found


def process_holdings(pid: int, metrics: str) -> ProcessHoldings:
    status = Path(f"/proc/{pid}/status").read_text()
    heap = RSS_LINE.search(status)
    assert heap is not None
    return ProcessHoldings(
        heap_bytes=int(heap[1]) << 10,
        threads=len(os.listdir(f"/proc/{pid}/task")),
        tasks=int(metric(metrics, "runyard_process_tasks")),
        descriptors=Counter(_VOLATILE.sub("N", target) for target in links(pid)),
    )


def metric(text: str, name: str) -> float:
    [value] = [line.split()[-1] for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(value)


def links(pid: int) -> Iterator[str]:
    """What a process has open. Nothing for one that is gone."""
    with contextlib.suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(f"/proc/{pid}/fd/{descriptor}")


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """What a dead service leaves running becomes a child of this process, and stays among its descendants."""
    adopt_orphans()
    try:
        yield
    finally:
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):
            for task in os.listdir(f"/proc/{parent}/task"):
                children = Path(f"/proc/{parent}/task/{task}/children").read_text()
                found.extend(int(child) for child in children.split())
    return found[1:]


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return False


def command_of(pid: int) -> str:
    try:
        name = Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        name = "gone"
    return f"{name} ({pid})"


# -- the host -------------------------------------------------------------------------------------------------------
def shim_of(ours: list[int], attempt: str) -> int | None:
    """The process that holds the lock of an attempt's folder."""
    for pid in ours:
        if any(target.endswith(f"/{attempt}/lock") for target in links(pid)):
            return pid
    return None


def processes_left(service: int, ours: list[int]) -> list[str]:
    """All but the service and its zygote; and whoever is a zombie beneath the service."""
    left = [pid for pid in ours if pid != service and not is_zygote(pid)]
    return [f"process {command_of(pid)}{' is a zombie' if is_zombie(pid) else ''}" for pid in left]


def is_zygote(pid: int) -> bool:
    """Its shims are forks of it, with its command line, but in sessions of their own and of another parent."""
    return command_of(pid).startswith("runyard-zygote") and os.getsid(pid) == pid and not is_zombie(pid)


def namespaces_left(ours: list[int]) -> list[str]:
    """Network namespaces other than the host's that a process is in or holds open."""
    own = os.readlink("/proc/self/ns/net")
    found: dict[str, int] = {}
    for pid in ours:
        with contextlib.suppress(OSError):
            found[os.readlink(f"/proc/{pid}/ns/net")] = pid
        found |= {target: pid for target in links(pid) if target.startswith("net:[")}
    return [f"{name} of {command_of(pid)}" for name, pid in found.items() if name != own]


def mounts_of(pid: int, *beneath: str) -> list[str]:
    """Mount points beneath these folders, as this process sees them."""
    lines = Path(f"/proc/{pid}/mountinfo").read_text().splitlines()
    points = [line.split()[4] for line in lines]
    return [point for point in points if point.startswith(beneath)]


def cgroup_tree() -> CgroupTree:
    own, mounts = Path("/proc/self/cgroup").read_text(), Path("/proc/self/mountinfo").read_text()
    return detect(own, mounts, is_root=os.geteuid() == 0)


def cgroups_left(tree: CgroupTree, uids: set[str]) -> list[str]:
    """Groups of attempts of these jobs; the base is shared with whatever else runs here."""
    left = []
    for base in tree.bases.values():
        with contextlib.suppress(FileNotFoundError):
            names = os.listdir(base)
            left += [
                f"cgroup {base}/{name}"
                for name in names
                if name.split("-")[1:2] and name.split("-")[1] in uids
            ]
    return left


def folders_left(data: Path, kept: set[str]) -> list[str]:
    """Attempts that nobody runs, and logs and artifacts of jobs that are no longer kept."""
    left = [f"attempt {path.name}" for path in (data / "pools").glob("*/attempts/*")]
    for kind in ("logs", "artifacts"):
        with contextlib.suppress(FileNotFoundError):
            left += [
                f"{kind} of {uid}, which is forgotten" for uid in os.listdir(data / kind) if uid not in kept
            ]
    return left


# -- the ledger -----------------------------------------------------------------------------------------------------
_ORPHANS = {
    "attempts without a job": "SELECT uid || '/' || number FROM attempts WHERE uid NOT IN (SELECT uid FROM jobs)",
    "specs without a job": "SELECT serial FROM job_specs WHERE serial NOT IN (SELECT serial FROM jobs)",
    "labels without a job": "SELECT serial FROM job_labels WHERE serial NOT IN (SELECT serial FROM jobs)",
    "availability of an unknown class": "SELECT class_key FROM availability"
    " WHERE class_key NOT IN (SELECT class_key FROM classes)",
    "fair rows with nothing ready": "SELECT queue || '/' || tenant FROM fair WHERE ready = 0",
}
BOUNDED = (
    "queues",
    "tenants",
    "classes",
    "shares",
    "lanes",
    "fair",
    "pools",
    "pool_queues",
    "tokens",
)
"""Tables whose size hangs on how many different things there are, not on how many jobs there were."""


class LedgerRows:
    """The ledger's file, read past the service, each time in one snapshot."""

    def __init__(self, file: Path) -> None:
        self._connection = sqlite3.connect(
            f"file:{file}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
        )

    def close(self) -> None:
        self._connection.close()

    def rows(self, sql: str) -> list[tuple[object, ...]]:
        return self._connection.execute(sql).fetchall()

    def uids(self, table: str) -> set[str]:
        return {str(uid) for (uid,) in self.rows(f"SELECT DISTINCT uid FROM {table}")}

    def miscounts(self) -> list[str]:
        """Counters that differ from counting, and rows that belong to nothing, at any moment, also under load."""
        return self._in_one_snapshot(self._miscounts)

    def _in_one_snapshot(self, look: Callable[[], list[str]]) -> list[str]:
        self._connection.execute("BEGIN")
        try:
            return look()
        finally:
            self._connection.execute("ROLLBACK")

    def _miscounts(self) -> list[str]:
        reader = Reader(self._connection)
        wrong = reader.miscounts(reader.snapshot())
        for what, sql in _ORPHANS.items():
            wrong += [f"{what}: {row[0]}" for row in self.rows(sql)]
        return wrong

    def unfinished(self) -> list[str]:
        found = self.rows("SELECT id, state FROM jobs WHERE ended_at IS NULL")
        return [f"job {job} is {state}" for job, state in found]

    def size_bytes(self) -> int:
        [(pages,)], [(page_bytes,)] = self.rows("PRAGMA page_count"), self.rows("PRAGMA page_size")
        return int(str(pages)) * int(str(page_bytes))

    def sizes(self) -> dict[str, int]:
        """Of the tables that may not grow with the number of jobs."""
        return {table: int(str(self.rows(f"SELECT count(*) FROM {table}")[0][0])) for table in BOUNDED}

    def kept_too_long(self, *, ended_before: float) -> list[str]:
        """Jobs that a sweep of the retention at or after `ended_before` + what is kept should have taken."""
        found = self.rows(f"SELECT id FROM jobs WHERE ended_at < {ended_before!r}")
        return [f"job {job} outlived its time" for (job,) in found]

    def talkative(self) -> list[str]:
        """Jobs of which the feed tells more than: queued, and for each attempt starting, running, canceling, end."""
        sql = (
            "SELECT jobs.id, count(*), jobs.attempts FROM events JOIN jobs USING (uid)"
            " GROUP BY jobs.uid HAVING count(*) > 1 + 4 * max(jobs.attempts, 1)"
        )
        return [
            f"job {job} has {events} events for {tries} attempts" for job, events, tries in self.rows(sql)
        ]
