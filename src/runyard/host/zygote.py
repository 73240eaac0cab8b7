"""The zygote: a small process that forks a shim for each attempt, so that a start costs a fork and no interpreter.

Started by the service with the standard library only, in a session of its own. It serves one socket and ends with
it; the shims live on. A request is an attempt's directory, with the descriptor of its secrets if it has any; the reply
is the shim's process number, or `error …`.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from runyard.host import seccomp
from runyard.host.cgroups import AttemptCgroup, CgroupTree
from runyard.host.linux import set_process_name
from runyard.host.shim import run_attempt
from runyard.host.stage import Stage

REQUEST_BYTES_MAX = 4096
READY = b"ready"
_OOM_SCORE = "-800"
_SHIMS_GROUP = "shims"


def main(socket_fd: int, config_json: str) -> None:
    """Serves until the other end closes. `config_json`: {"stage": path or null, "cgroups": tree}."""
    config = json.loads(config_json)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel reaps the shims
    set_process_name("runyard-zygote")
    with socket.socket(fileno=socket_fd) as connection:
        try:
            stage, program = _prepare(config)
        except Exception as error:
            connection.send(f"error {type(error).__name__}: {error}".encode()[:REQUEST_BYTES_MAX])
            return
        gc.collect()
        gc.freeze()  # or each fork would copy the pages that the collector touches
        gc.disable()
        connection.send(READY)
        _serve(connection, stage, program)


def _prepare(config: dict[str, Any]) -> tuple[Stage | None, bytes | None]:
    os.umask(0o022)
    os.chdir("/")
    tree = CgroupTree.from_json(config["cgroups"])
    if tree.version == 2:
        group = AttemptCgroup(tree, _SHIMS_GROUP)  # outside the service's own, which may be ended as a whole
        with contextlib.suppress(OSError):
            os.makedirs(f"{tree.bases['']}/{_SHIMS_GROUP}", exist_ok=True)
            group.join()
    stage = None
    if config["stage"]:
        stage = Stage(config["stage"])
        stage.build()
    return stage, seccomp.build_filter() if seccomp.is_supported() else None


def _serve(connection: socket.socket, stage: Stage | None, program: bytes | None) -> None:
    while True:
        request, fds, _, _ = socket.recv_fds(connection, REQUEST_BYTES_MAX, 1, flags=socket.MSG_CMSG_CLOEXEC)
        if not request:
            return
        try:
            if stage is not None:
                stage.refresh()
            pid = os.fork()
        except OSError as error:
            _close_all(fds)
            connection.send(f"error {error}".encode())
            continue
        if pid == 0:
            _become_shim(connection, os.fsdecode(request), stage, program, fds)
        _close_all(fds)
        connection.send(str(pid).encode())


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)


def _become_shim(
    connection: socket.socket, path: str, stage: Stage | None, program: bytes | None, fds: Sequence[int]
) -> None:
    try:
        connection.close()
        os.setsid()
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        os.close(null)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write(_OOM_SCORE)
        run_attempt(path, stage=stage, seccomp_filter=program, secrets_fd=fds[0] if fds else -1)
    except BaseException:
        with contextlib.suppress(OSError), open(f"{path}/shim-error", "w") as file:
            traceback.print_exc(file=file)
    finally:
        os._exit(0)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
