"""Where git runs for a workspace: a sandbox with an id of its own, without the host's files and without the job's."""

from __future__ import annotations

import contextlib
import os
import resource
from types import TracebackType

from runyard.host import git_source
from runyard.host.beneath import open_regular
from runyard.host.disk_watch import DiskWatch
from runyard.host.git_source import Given, Remote
from runyard.host.linux import MS_NODEV, MS_NOSUID, bind, bind_folder, mount, unmount
from runyard.host.plan import FetchRules
from runyard.host.process import OPEN_FILES_MAX, Identity
from runyard.host.removal import remove_tree
from runyard.host.repositories.credentials import Credential
from runyard.host.sandbox import PATH, DirectoryRoot, HostRoot, Sandbox
from runyard.host.sandbox_command import Place, bubblewrap
from runyard.host.setup import Setup, SetupEnded, WorkspaceFailed
from runyard.host.step import DISK, ProgramEnd
from runyard.host.verdict import NOT_FOUND

REPOSITORY = "/mnt"
_SCRATCH_BYTES = 64 << 20
_AUTHORITIES_OF_HOST = "/etc/ssl/certs/ca-certificates.crt"


def fetch_identity(place: Place, user_id: int | None = None) -> Identity:
    """Of who fetches, in the attempt's own groups; `user_id` is for what shall belong to another."""
    plan = place.plan
    if user_id is None and plan.user_id is not None:
        user_id = plan.user_id if plan.fetch.user_id is None else plan.fetch.user_id
    return Identity(user_id=user_id, join=place.identity().join, rlimits=_rlimits())


class GitFailed(Exception):
    """git ended with `exit_code`; the message is its last word."""

    def __init__(self, words: str, exit_code: int | None) -> None:
        super().__init__(words)
        self.exit_code = exit_code


class FetchSandbox:
    """A context. Its scratch is memory (root level) or a folder of the attempt, and is gone afterwards."""

    def __init__(self, place: Place, setup: Setup) -> None:
        self._place = place
        self._setup = setup
        self._stage = place.stage
        self._scratch = place.directory.file("fetch") if self._stage is None else self._stage.scratch

    @property
    def user_id(self) -> int | None:
        """Who owns what it writes."""
        return fetch_identity(self._place).user_id

    @property
    def nothing(self) -> str:
        """An empty folder to run in."""
        return f"{self._scratch}/outputs"

    def __enter__(self) -> FetchSandbox:
        if self._stage is None:
            remove_tree(self._scratch)
            os.mkdir(self._scratch, 0o711)
        else:
            mount("runyard", self._scratch, "tmpfs", MS_NOSUID | MS_NODEV, f"mode=755,size={_SCRATCH_BYTES}")
        for name in ("tmp", "tmp/home", "outputs"):
            os.mkdir(f"{self._scratch}/{name}", 0o755)
            self._own(f"{self._scratch}/{name}")
        self._write_config()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._stage is None:
            remove_tree(self._scratch)
        else:
            unmount(self._scratch)

    def run(
        self,
        command: tuple[str, ...],
        folder: str,
        *,
        env: dict[str, str],
        reads: str | None = None,
        has_network: bool = False,
        disk_watch: DiskWatch | None = None,
        user_id: int | None = None,
    ) -> None:
        """`command` in `folder`, which alone it can write to; it may read the repository at `reads`. `user_id` is for
        what shall belong to another. Raises GitFailed, SetupEnded, WorkspaceFailed."""
        stage = self._stage
        with contextlib.ExitStack() as mounts:
            if stage is not None:
                bind_folder(folder, stage.fetch)
                mounts.callback(unmount, stage.fetch)
                folder = stage.fetch
                if reads is not None:
                    bind(reads, stage.repository, read_only=True)
                    mounts.callback(unmount, stage.repository)
                    reads = stage.repository
            sandbox = self._sandbox(folder, env, reads, has_network)
            identity = fetch_identity(self._place, user_id)
            started = bubblewrap(self._place, sandbox, command, identity=identity)
            end, words = self._setup.run(started, disk_watch=disk_watch)
        check_end(end, words)

    def _sandbox(self, folder: str, env: dict[str, str], reads: str | None, has_network: bool) -> Sandbox:
        plan, stage = self._place.plan, self._stage
        tree = plan.host_tree
        return Sandbox(
            root=HostRoot(binds=tree.binds, links=tree.links)
            if stage is None
            else DirectoryRoot(path=stage.root),
            workspace=folder,
            tmp=f"{self._scratch}/tmp",
            outputs=f"{self._scratch}/outputs",
            env={"PATH": PATH, "HOME": "/tmp/home", "LANG": "C.UTF-8", "TZ": "UTC", **env},
            device_directory=None if stage is None else stage.devices,
            folders=() if reads is None else ((reads, REPOSITORY),),
            shm_bytes=1 << 20,
            has_host_network=has_network,
        )

    # -- the scratch --------------------------------------------------------------------------------------------

    def give(self, remote: Remote, rules: FetchRules, credential: Credential) -> Given:
        """Lays what the fetch needs into the scratch, and takes away what the last one needed."""
        is_ssh = remote.protocol == "ssh"
        words = f"username={credential.username}\npassword={credential.password}\n"
        has_login = bool(credential.username or credential.password) and not is_ssh
        authorities = _authorities(rules)
        contents = {
            git_source.CREDENTIAL: words.encode() if has_login else b"",
            git_source.SSH_KEY: credential.ssh_key if is_ssh else b"",
            git_source.KNOWN_HOSTS: credential.known_hosts if is_ssh else b"",
            git_source.AUTHORITIES: authorities,
        }
        for path, content in contents.items():
            self._write(path, content)
        return Given(
            has_credential=has_login,
            has_ssh_key=is_ssh and bool(credential.ssh_key),
            has_known_hosts=is_ssh and bool(credential.known_hosts),
            has_authorities=bool(authorities),
        )

    def take_back(self) -> None:
        """Credentials are not there any more when what was fetched is looked at."""
        for path in (git_source.CREDENTIAL, git_source.SSH_KEY):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._scratch + path)

    def read(self, name: str, bytes_max: int) -> bytes:
        """A file that a command left in /tmp. Raises WorkspaceFailed where it is too long."""
        directory_fd = os.open(f"{self._scratch}/tmp", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with os.fdopen(open_regular(directory_fd, name), "rb") as file:
                content = file.read(bytes_max + 1)
        finally:
            os.close(directory_fd)
        if len(content) > bytes_max:
            raise WorkspaceFailed(f"workspace.git: git's list of {name} is longer than {bytes_max} bytes")
        return content

    def _write_config(self) -> None:
        self._write(git_source.CONFIG, git_source.CONFIG_TEXT.encode())

    def _write(self, path: str, content: bytes) -> None:
        """Only in its own sandbox's eyes, whatever a link there says."""
        target = self._scratch + path
        with contextlib.suppress(FileNotFoundError):
            os.unlink(target)
        if not content:
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(target, flags, 0o600), "wb") as file:
            file.write(content)
        self._own(target)

    def _own(self, path: str) -> None:
        if self.user_id is not None:
            os.chown(path, self.user_id, self.user_id, follow_symlinks=False)


def _authorities(rules: FetchRules) -> bytes:
    if rules.ca_file is None:
        return b""
    try:
        with open(rules.ca_file, "rb") as file:
            own = file.read()
    except OSError as error:
        raise WorkspaceFailed(
            f"workspace: the pool's git_ca_file {rules.ca_file} cannot be read: {error.strerror}"
        ) from None
    with contextlib.suppress(OSError), open(_AUTHORITIES_OF_HOST, "rb") as file:
        own = file.read() + b"\n" + own
    return own


def check_end(end: ProgramEnd, words: str) -> None:
    """Raises what a program of a fetch came to: GitFailed, SetupEnded, WorkspaceFailed; nothing where it did well."""
    if end.why == DISK:
        raise WorkspaceFailed(
            f"workspace.git: fetching it {end.words or 'filled the disk that holds the logs'}"
        )
    if end.why is not None:
        raise SetupEnded(end)
    if end.exit_code == 0:
        return
    if end.exit_code == NOT_FOUND:
        raise WorkspaceFailed("git is not installed on this host; install it, or leave workspace.git away")
    last = git_source.last_words(words) or end.setup_error or f"git exited with {end.exit_code}"
    raise GitFailed(last, end.exit_code)


def _rlimits() -> dict[int, int]:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: OPEN_FILES_MAX if hard < 0 else min(OPEN_FILES_MAX, hard),
    }
