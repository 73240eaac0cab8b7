"""A PostgreSQL image made of this host's own: started as root, it drops to its user, as the official one does."""

import re
import subprocess
from pathlib import Path

from runyard.testing.postgres_server import find_binaries
from tests.host.images.layers import entry, link
from tests.registry_server import busybox_entries

PORT, USER_ID = 5432, 999
_PROGRAMS = ("postgres", "initdb", "psql", "pg_isready")
_MODULES = ("plpgsql.so", "dict_snowball.so")
_START = """#!/bin/sh
# What the official image's entrypoint does, in short.
set -e
chown -R 999:999 /var/lib/postgresql
su postgres -c 'initdb -A trust -D /var/lib/postgresql/data --no-sync -E UTF8 --locale=C' >/dev/null
exec su postgres -c 'exec postgres -D /var/lib/postgresql/data -c listen_addresses=* -c fsync=off'
"""


def postgres_entries():
    """The layer's entries, or None where this host has no server."""
    binaries = find_binaries()
    if binaries is None:
        return None
    home = binaries.resolve().parent  # /usr/lib/postgresql/N, which is where its programs look
    share = Path("/usr/share/postgresql") / home.name
    programs = [home / "bin" / name for name in _PROGRAMS]
    libraries = [home / "lib" / name for name in _MODULES]
    found = [*busybox_entries(), *(link(f"bin/{name}", "busybox") for name in ("su", "test", "["))]
    found.append(
        entry(
            "etc/passwd", "root:x:0:0:root:/root:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n"
        )
    )
    found += [_file(path, 0o755) for path in (*programs, *libraries, *_needed(*programs, *libraries))]
    found += [_file(path) for path in sorted(share.rglob("*")) if path.is_file() and "man" not in path.parts]
    found += [link(f"bin/{name}", f"{home}/bin/{name}") for name in _PROGRAMS]
    found += [
        entry("start", _START, mode=0o755),
        entry("var/lib/postgresql", mode=0o755),
        entry("var/run/postgresql", mode=0o777),
    ]
    return found


CONFIG = {"Entrypoint": ["/start"], "Env": ["PATH=/bin"], "ExposedPorts": {f"{PORT}/tcp": {}}}


def _file(path: Path, mode: int = 0o644):
    return entry(str(path).lstrip("/"), path.read_bytes(), mode=mode)


def _needed(*programs: Path) -> list[Path]:
    """The libraries that the loader would load, by the names that it looks for."""
    told = subprocess.run(["ldd", *map(str, programs)], capture_output=True, check=True, text=True).stdout
    return [Path(path) for path in sorted(set(re.findall(r"(/\S+\.so\S*) \(0x", told)))]
