"""What packs and unpacks a cache: the host's tar, in the attempt's own sandbox, as the attempt's own id.

So an archive, whatever an earlier job put into it, can do nothing that the job could not do itself. The archive is the
program's standard input, open already: the sandbox never sees where caches lie.
"""

from __future__ import annotations

import dataclasses
import os
import resource

from runyard.host.plan import NONE, PlanCache, PlanStep
from runyard.host.sandbox import HOME, PATH
from runyard.host.sandbox_command import Place, bare, sandboxed
from runyard.host.step import Command

NOT_A_FOLDER, EMPTY = 3, 4
_ROOT = "RUNYARD_CACHE_ROOT"

# What was begun in vain is removed, unless the folder held something before.
_UNPACK = f"""
cd "${_ROOT}" || exit 1
if [ -d "./$1" ] && [ -n "$(ls -A "./$1")" ]; then exec tar -xpf - -b 512 -C "./$1"; fi
mkdir -p "./$1" && tar -xpf - -b 512 -C "./$1" || {{ rm -rf "./$1"; exit 1; }}
"""

# The same files make the same archive: sorted, without owners, nor the times of reading them.
_PACK = f"""
cd "${_ROOT}" || exit 1
[ -d "./$1" ] || exit {NOT_A_FOLDER}
[ -n "$(ls -A "./$1")" ] || exit {EMPTY}
exec tar -cf - -b 512 --format=posix --pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime \
  --sort=name --numeric-owner --owner=0 --group=0 -C "./$1" . >&0
"""


def unpack_command(place: Place, cache: PlanCache, archive_fd: int) -> Command:
    """Unpacks the archive, from where the descriptor stands, into the cache's folder."""
    return _command(place, cache, _UNPACK, archive_fd)


def pack_command(place: Place, cache: PlanCache, archive_fd: int, *, bytes_max: int) -> Command:
    """Packs the cache's folder into the open file. The kernel ends it by SIGXFSZ beyond `bytes_max`."""
    command = _command(place, cache, _PACK, archive_fd)
    given = command.identity.rlimits
    rlimits = {**given, resource.RLIMIT_FSIZE: min(bytes_max, given.get(resource.RLIMIT_FSIZE, bytes_max))}
    return dataclasses.replace(command, identity=dataclasses.replace(command.identity, rlimits=rlimits))


def _command(place: Place, cache: PlanCache, script: str, archive_fd: int) -> Command:
    step = PlanStep(
        name="cache",
        command=("/bin/sh", "-c", script, "cache", cache.path),
        env={"PATH": PATH, "HOME": HOME, "LANG": "C.UTF-8", _ROOT: cache.root},
    )
    # Never in the job's image: it may hold no tar, or one of its own making.
    host = dataclasses.replace(place, plan=dataclasses.replace(place.plan, root_directory=None))
    command = bare(host, step) if place.plan.isolation == NONE else sandboxed(host, step)
    return dataclasses.replace(command, stdin=os.dup(archive_fd))
