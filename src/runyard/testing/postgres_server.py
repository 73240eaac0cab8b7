"""A throw-away PostgreSQL cluster from the system's binaries, under an ordinary user, in a folder that goes with it.
For tests and measurements; a fresh, migrated database for each that asks.

`fsync` is off: what a power cut leaves is PostgreSQL's to prove, not ours; what a killed server leaves is the same
either way, for its files outlive it.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from runyard.ledger.postgresql.ledger import PostgresqlLedger

PASSWORD = "s3cret-Pass"
NO_SERVER = "no PostgreSQL server here: apt-get install postgresql"
DATABASES_KEPT = 25
TEMPLATE = "runyard_template"

_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "64MB",
    "max_connections": "200",
    "autovacuum": "on",
    "log_min_messages": "error",
    "max_wal_size": "512MB",
}


# Few rows are faster deleted than their files truncated.
_CLEAN = """
    SET lock_timeout = '10s';
    DO $$
    DECLARE
        name text;
    BEGIN
        FOR name IN SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename <> 'migrations' LOOP
            EXECUTE format('DELETE FROM %I', name);
        END LOOP;
        INSERT INTO queues (name, weight, defaults, is_paused, is_configured) VALUES ('default', 1.0, '{}', 0, 0);
        INSERT INTO event_head VALUES (0);
    END $$;
"""


class PostgresServer:
    """One cluster. Root may not run the server, so its files belong to an ordinary user."""

    def __init__(self, binaries: Path, **settings: str) -> None:
        self._binaries = binaries
        self._settings = _SETTINGS | settings
        self.folder = Path(tempfile.mkdtemp(prefix="runyard-pg-"))
        self.port = _free_port()
        self._as_user: list[str] = []
        self._process: subprocess.Popen[bytes] | None = None
        self._names: deque[str] = deque()
        self._made = 0
        self._has_clean = False
        if os.getuid() == 0:
            user = _ordinary_user()
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = [
                "setpriv",
                f"--reuid={user.pw_uid}",
                f"--regid={user.pw_gid}",
                "--clear-groups",
                "--pdeathsig=QUIT",
            ]
        password_file = self.folder / "password"
        password_file.write_text(PASSWORD)
        password_file.chmod(0o644)
        self._run("initdb", "-D", str(self.data), "-U", "runyard", f"--pwfile={password_file}", "-A", "scram-sha-256",
                  "-E", "UTF8", "--locale=C.UTF-8", "--no-sync")  # fmt: skip

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def pid(self) -> int:
        if self._process is None:
            raise RuntimeError("the server is not started")
        return self._process.pid

    def start(self) -> None:
        options = [word for name, value in self._settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._as_user, self._binaries / "postgres", "-D", self.data, "-p", str(self.port),
                 "-k", self.folder, "-c", "listen_addresses=127.0.0.1", *options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd="/",
            )  # fmt: skip
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """INT is the fast shutdown, QUIT the one without a checkpoint (a crash), as PostgreSQL defines them."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.wait(timeout=30)
            self._process = None

    def remove(self) -> None:
        self.stop(signal.SIGQUIT)
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str, *, password: str = PASSWORD, by_socket: bool = False) -> str:
        if by_socket:
            return f"postgresql://runyard:{password}@/{database}?host={self.folder}&port={self.port}"
        return f"postgresql://runyard:{password}@127.0.0.1:{self.port}/{database}"

    def new_database(self, *, is_migrated: bool = True) -> str:
        """The URL of a fresh one. Those of tests long past are dropped on the way."""
        self._made += 1
        name = f"test_{self._made}"
        statements = [f"CREATE DATABASE {name} TEMPLATE {TEMPLATE if is_migrated else 'template0'}"]
        self._names.append(name)
        if len(self._names) > DATABASES_KEPT:
            statements.append(f"DROP DATABASE {self._names.popleft()} WITH (FORCE)")
        self.sql(*statements)
        return self.url(name)

    def clean_database(self) -> str:
        """The URL of one that is as good as fresh, in a tenth of the time: for one ledger after the other."""
        name = "test_clean"
        if not self._has_clean:
            self.sql(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
            self._has_clean = True
        else:
            self.sql(_CLEAN, database=name)
        return self.url(name)

    def sql(self, *statements: str, database: str = "postgres") -> str:
        commands = [word for statement in statements for word in ("-c", statement)]
        return self._run("psql", "-XqAt", "-v", "ON_ERROR_STOP=1", self.url(database), *commands)

    def make_template(self) -> None:
        self.sql(f"CREATE DATABASE {TEMPLATE}")

        async def migrate() -> None:
            ledger = PostgresqlLedger(self.url(TEMPLATE))
            await ledger.open()
            await ledger.close()

        with ThreadPoolExecutor(1) as thread:  # the caller's may have a running loop
            thread.submit(lambda: asyncio.run(migrate())).result()

    def _answers(self) -> bool:
        command = [str(self._binaries / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> str:
        done = subprocess.run(
            [*self._as_user, self._binaries / program, *arguments],
            capture_output=True, text=True, check=False, cwd="/", stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{program}: {done.stderr[-2000:]}")
        return done.stdout


def find_binaries() -> Path | None:
    """Debian's newest, or those on the PATH."""
    versions = Path("/usr/lib/postgresql").glob("*/bin")
    newest = sorted(versions, key=lambda path: float(path.parent.name), reverse=True)
    if newest:
        return newest[0]
    found = shutil.which("initdb")
    return None if found is None else Path(found).parent


def _ordinary_user() -> pwd.struct_passwd:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("neither postgres nor nobody is a user here")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])
