"""The process that unpacks layers: a request a line, and for each a child that has nothing but its folders.

Run by the service (`unpacker.py`), so that a layer neither stalls it nor, were there a fault in reading it, holds its
memory or reaches its files: the child of a root service has its root in the empty folder that the layer goes to.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import sys
import traceback
from dataclasses import asdict
from typing import Any

from runyard.host.images.layer_stream import LayerLimits, LayerRefused
from runyard.host.images.layers_beneath import Lower
from runyard.host.images.unpack import unpack_layer
from runyard.host.linux import CLONE_NEWNET, die_with_parent, set_process_name, unshare
from runyard.host.removal import remove_tree

_MEMORY_BYTES_MAX = 1 << 30
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def main() -> None:
    """Serves until its standard input ends. The answers to a request are lines too: `{"read": bytes}` as it goes on,
    then `{"facts": …}`, `{"refused": words}` or `{"error": words}`."""
    die_with_parent(signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    set_process_name("runyard-unpack")
    os.umask(0o022)
    for line in sys.stdin.buffer:
        request = json.loads(line)
        if "remove" in request:
            _remove(request["remove"])
            continue
        pid = os.fork()
        if pid == 0:
            _serve(request)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status:
            _say({"error": f"the process that unpacked the layer ended with {status}"})


def _remove(path: str) -> None:
    try:
        remove_tree(path)
    except OSError as error:
        _say({"error": str(error)})
    else:
        _say({"removed": path})


def _serve(request: dict[str, Any]) -> None:
    status = 1  # without an answer: our parent then says one, for somebody waits
    try:
        die_with_parent(signal.SIGKILL)
        _say(_unpack(request))
        status = 0
    finally:
        os._exit(status)


def _unpack(request: dict[str, Any]) -> dict[str, Any]:
    try:
        blob_fd = os.open(request["blob"], os.O_RDONLY | os.O_CLOEXEC)
        root_fd = os.open(request["root"], _DIRECTORY)
        lowers = [
            Lower(fd=os.open(each["root"], _DIRECTORY), opaque=frozenset(each["opaque"]))
            for each in request["lowers"]
        ]
        as_root = os.geteuid() == 0
        _close_ourselves_in(root_fd, as_root=as_root)
        facts = unpack_layer(
            blob_fd,
            root_fd,
            lowers=lowers,
            diff_id=request["diff_id"],
            as_root=as_root,
            limits=LayerLimits(**request["limits"]),
            report=lambda packed_bytes: _say({"read": packed_bytes}),
        )
    except LayerRefused as error:
        return {"refused": str(error)}
    except (OSError, MemoryError) as error:
        return {"error": f"{type(error).__name__}: {error}"}
    except Exception as error:  # a fault of ours in reading it: it will not be read the next time either
        traceback.print_exc()
        return {"refused": f"the layer cannot be read: {type(error).__name__}: {error}"}
    return {"facts": asdict(facts)}


def _close_ourselves_in(root_fd: int, *, as_root: bool) -> None:
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES_MAX, _MEMORY_BYTES_MAX))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if as_root:
        unshare(CLONE_NEWNET)
        os.fchdir(root_fd)
        os.chroot(".")


def _say(answer: dict[str, Any]) -> None:
    os.write(1, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    main()
