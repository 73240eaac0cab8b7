"""Asks a remote, and keeps the mirror of it: one ask and one fetch at a time, however many jobs want the same."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from runyard.host import git_source
from runyard.host.disk_watch import DiskLimits, DiskWatch
from runyard.host.git_source import Remote, SourceRefused
from runyard.host.linux import boot_id, boottime
from runyard.host.plan import FetchRules, PlanGit
from runyard.host.repositories import answers, scripts
from runyard.host.repositories.answers import Answer, NoSuchRef, Resolved
from runyard.host.repositories.credentials import Credential, credential_for, store_salt
from runyard.host.repositories.fetch_sandbox import REPOSITORY, FetchSandbox, GitFailed
from runyard.host.repositories.store import RepositoryFolder, digest
from runyard.host.sandbox_command import Place
from runyard.host.setup import Setup, WorkspaceFailed

MIRRORS = "git_mirrors"
_ANSWER_BYTES_MAX = 32 << 20
_MOVES_MAX = 3
_GONE = ("not our ref", "couldn't find remote ref", "no such remote ref", "unadvertised object")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Way:
    """How the remote is reached: what git is told, from which address it fetches, or which folder it reads."""

    url: str
    address: str | None = None
    reads: str | None = None


class Mirror:
    """The mirror of one repository, for one tenant and its credentials. Raises WorkspaceFailed, SetupEnded."""

    def __init__(self, place: Place, setup: Setup, sandbox: FetchSandbox, git: PlanGit, store: str) -> None:
        self._setup = setup
        self._sandbox = sandbox
        self._git = git
        self._rules: FetchRules = place.plan.fetch
        self._created_at = place.plan.created_boottime
        self._reserve_bytes = place.plan.disk.reserve_bytes
        try:
            git_source.check_ref(git.ref)
            self.remote: Remote = git_source.parse_url(git.url)
            git_source.check_protocol(self.remote, self._rules)
        except SourceRefused as error:
            raise WorkspaceFailed(str(error)) from None
        self.credential: Credential = credential_for(self.remote, git.credentials)
        salt = store_salt(store)
        owner = {
            "tenant": git.tenant,
            "url": self.remote.url,
            "depth": git.depth,
            "credentials": self.credential.identity(salt),
        }
        self.folder = RepositoryFolder(store, digest(owner, salt))
        self.folder.create({"tenant": git.tenant, "url": self.remote.url, "depth": git.depth})
        self._way: _Way | None = None

    def failed(self, words: object) -> WorkspaceFailed:
        return WorkspaceFailed(f"workspace.git: {self.remote.url}: {words}")

    def find(self) -> tuple[Resolved, Answer]:
        """What the ref is now, by the remote's own word."""
        git = self._git
        answer = self._ask()
        try:
            return answers.resolve(answer, git.ref, fetch_tags=git.fetch_tags, depth=git.depth), answer
        except NoSuchRef as error:
            raise self.failed(error) from None

    def hold(self) -> tuple[int, Resolved, Answer]:
        """Like `find`, with the mirror brought up to it and its lock held until the descriptor is closed."""
        for _ in range(_MOVES_MAX):
            resolved, answer = self.find()
            lock = self.folder.take_lock(self._setup.wait_readable)
            try:
                self.folder.drop_torn_mirror()
                if self._is_current(resolved, answer):
                    self._setup.note_use(MIRRORS, "current")
                    return lock, resolved, answer
                self._setup.note_use(MIRRORS, "fetched")
                if self._fetch(resolved, answer):
                    return lock, resolved, answer
                self._forget_answer()
            except BaseException:
                os.close(lock)
                raise
            os.close(lock)  # the ref was moved between the question and the fetch: ask again
        raise self.failed("its refs were moved again and again while they were fetched")

    def repair(self) -> bool:
        """Looks whether the mirror is damaged, and if so drops it. Whether it was."""
        lock = self.folder.take_lock(self._setup.wait_readable)
        try:
            return self._drop_if_damaged()
        finally:
            os.close(lock)

    # -- asking -------------------------------------------------------------------------------------------------

    @property
    def _patterns(self) -> tuple[str, ...]:
        return answers.wanted_patterns(self._git.ref, fetch_tags=self._git.fetch_tags, depth=self._git.depth)

    def _known_answer(self) -> Answer | None:
        answer = self.folder.read_answer(digest(self._patterns))
        if answer is None:
            return None
        holds = answer.holds_for(self._git.ref, wanted_at=self._created_at, now=boottime(), boot_id=boot_id())
        return answer if holds else None

    def _ask(self) -> Answer:
        """An answer that another job got, if the question was asked after this job wanted it; else our own."""
        answer = self._known_answer()
        if answer is not None:
            return answer
        lock = self.folder.take_asking_lock(self._setup.wait_readable)
        try:
            return self._known_answer() or self._ask_remote()
        finally:
            os.close(lock)

    def _ask_remote(self) -> Answer:
        patterns, asked_at = self._patterns, boottime()
        way = self._find_way()
        try:
            self._run_remote(way, scripts.ask(way.url, patterns), self._sandbox.nothing)
        except GitFailed as error:
            raise self.failed(error) from None
        text = self._sandbox.read(scripts.ANSWER, _ANSWER_BYTES_MAX).decode(errors="replace")
        answer = answers.read_answer(text, patterns=patterns, asked_at=asked_at, boot_id=boot_id())
        self.folder.keep_answer(digest(patterns), answer)
        return answer

    def _forget_answer(self) -> None:
        answer = self.folder.read_answer(digest(self._patterns))
        if answer is not None:
            self.folder.keep_answer(digest(self._patterns), replace(answer, asked_at=0.0))
            self._created_at = boottime()

    # -- fetching -----------------------------------------------------------------------------------------------

    def _is_current(self, resolved: Resolved, answer: Answer) -> bool:
        mirrored = self.folder.mirrored_refs()
        if mirrored is None:
            return False
        wanted = _wanted_refs(resolved, answer)
        return all(mirrored.get(name) == value for name, value in wanted.items())

    def _fetch(self, resolved: Resolved, answer: Answer) -> bool:
        """Whether the commit is there afterwards. A mirror that turns out to be damaged is made again, once."""
        before = self.folder.mirrored_refs()
        is_old = os.path.exists(f"{self.folder.mirror}/HEAD")
        self.folder.begin_fetch(self._sandbox.user_id)
        try:
            is_there = self._fetch_once(resolved)
        except GitFailed as error:
            if not is_old or _says_gone(str(error)) or not self._drop_if_damaged():
                raise self.failed(error) from None
            before = None
            self.folder.begin_fetch(self._sandbox.user_id)
            try:
                is_there = self._fetch_once(resolved)
            except GitFailed as again:
                raise self.failed(again) from None
        if is_there:
            pruned = tuple(ref.removesuffix("*") for ref in resolved.remote_refs if ref.endswith("*"))
            kept = {name: value for name, value in (before or {}).items() if not name.startswith(pruned)}
            self.folder.keep_mirrored_refs({**kept, **_wanted_refs(resolved, answer)})
        return is_there

    def _fetch_once(self, resolved: Resolved) -> bool:
        """Raises GitFailed."""
        way = self._find_way()
        names_commit = answers.is_commit(self._git.ref) or "HEAD" in resolved.remote_refs
        script = scripts.fetch(
            way.url,
            commit=resolved.commit,
            refs=resolved.remote_refs,
            depth=self._git.depth,
            names_commit=names_commit,
        )
        try:
            self._run_remote(way, script, self.folder.mirror, self._disk_watch())
        except GitFailed as error:
            if error.exit_code != scripts.MISSING:
                raise
            if answers.is_commit(self._git.ref):
                raise self.failed(f"it has no commit {resolved.commit}") from None
            return False
        return True

    def _disk_watch(self) -> DiskWatch:
        limits = DiskLimits(bytes_max=self._git.store_bytes_max, reserve_bytes=self._reserve_bytes)
        return DiskWatch(self.folder.path, ("mirror",), limits)

    def _drop_if_damaged(self) -> bool:
        if not os.path.isdir(self.folder.mirror):
            return False
        env = git_source.environment(self.remote, self._rules, None)
        try:
            self._sandbox.run(scripts.inspect(), self.folder.mirror, env=env)
        except GitFailed:
            self.folder.drop_mirror()
            return True
        return False

    # -- the way there ------------------------------------------------------------------------------------------

    def _run_remote(
        self, way: _Way, script: tuple[str, ...], folder: str, disk_watch: DiskWatch | None = None
    ) -> None:
        """Raises GitFailed. The credentials are there for as long as the program runs."""
        given = self._sandbox.give(self.remote, self._rules, self.credential)
        env = git_source.environment(self.remote, self._rules, way.address, given)
        has_network = way.address is not None
        try:
            self._sandbox.run(
                script, folder, env=env, reads=way.reads, has_network=has_network, disk_watch=disk_watch
            )
        finally:
            self._sandbox.take_back()

    def _find_way(self) -> _Way:
        """Once for an attempt: the address stays the one that was looked at."""
        if self._way is None:
            self._way = self._look_up_way()
        return self._way

    def _look_up_way(self) -> _Way:
        if self.remote.protocol == "file":
            reads = repository_within(self.remote.path, self._rules.file_roots)
            return _Way(url=f"file://{REPOSITORY}", reads=reads)
        try:
            address = git_source.pin_address(self.remote, self._rules, self._setup.look_up)
        except SourceRefused as error:
            raise WorkspaceFailed(str(error)) from None
        return _Way(url=git_source.fetch_url(self.remote, address), address=address)


def _says_gone(words: str) -> bool:
    return any(each in words for each in _GONE)


def _wanted_refs(resolved: Resolved, answer: Answer) -> dict[str, str]:
    """Of the remote's refs, those that the job's mirror must have; the commit, under a name of ours."""
    wanted = {}
    for pattern in resolved.remote_refs:
        prefix = pattern.removesuffix("*")
        for name, value in answer.refs.items():
            if name == pattern or (prefix != pattern and name.startswith(prefix)):
                wanted[name] = value
    if resolved.commit not in wanted.values():
        wanted[f"refs/runyard/{resolved.commit}"] = resolved.commit
    return wanted


def repository_within(path: str, roots: tuple[str, ...]) -> str:
    """A repository on this host, beneath one of the pool's roots. Raises WorkspaceFailed."""
    real = os.path.realpath(path)
    if not any(
        real == root or real.startswith(root.rstrip("/") + "/") for root in map(os.path.realpath, roots)
    ):
        raise WorkspaceFailed(
            f"workspace.git.url: {path} is in none of the folders that the pool's `git_file_roots` names"
        )
    if not os.path.isdir(real):
        raise WorkspaceFailed(f"workspace.git.url: {path} is no repository")
    return real
