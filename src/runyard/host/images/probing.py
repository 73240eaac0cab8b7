"""Whether this host can run images: tried, in a child, with a layer of one file; the reason in plain words if not."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from runyard.host.images.ids import UserNamespace
from runyard.host.linux import (
    CLONE_NEWNS,
    MS_PRIVATE,
    MS_REC,
    attach_mount,
    clone_mount,
    map_mount,
    mount,
    unshare,
    working_directory,
)

_FILE_ID = 7
_PROBE_S_MAX = 20.0


def probe_images(folder: Path, *, bwrap: str | None, id_base: int | None) -> str:
    """Why no image can be run from `folder`; empty: one can. `id_base` None: with the service's one id. Blocks for
    some 20 ms."""
    if bwrap is None:
        return "no bubblewrap works here"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if set(str(folder)) & set(":,\\"):
        return f"overlayfs cannot take the path {folder}"
    place = Path(tempfile.mkdtemp(prefix="probe-", dir=folder))
    try:
        for name in ("lower", "upper", "work", "mapped", "root"):
            (place / name).mkdir()
        (place / "lower" / "file").touch()
        return _with_one_id(place, bwrap) if id_base is None else _with_a_range(place, id_base)
    except OSError as error:
        return f"{error.filename}: {error.strerror}"
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _with_a_range(place: Path, id_base: int) -> str:
    os.chown(place / "lower" / "file", _FILE_ID, _FILE_ID)
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write_end, _try_mounts(place, id_base).encode())
        finally:
            os._exit(0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as answer:
        words = answer.read().decode(errors="replace")
    os.waitpid(pid, 0)
    return "" if words == "ok" else words or "the child that tried it died"


def _try_mounts(place: Path, id_base: int) -> str:
    what = "a mount namespace"
    try:
        unshare(CLONE_NEWNS)
        mount("", "/", None, MS_REC | MS_PRIVATE)
        what = "a user namespace with a range of ids"
        namespace = UserNamespace(id_base, id_base).open()
        what = "a mount with other ids (kernel 5.12, and a file system that can; not NFS)"
        fd = clone_mount(str(place / "lower"))
        map_mount(fd, namespace)
        attach_mount(fd, str(place / "mapped"))
        what = "overlayfs over it (kernel 5.19, and a file system that can)"
        with working_directory(str(place)):
            mount(
                "overlay",
                str(place / "root"),
                "overlay",
                0,
                "lowerdir=mapped,upperdir=upper,workdir=work,volatile",
            )
        os.chown(place / "root" / "file", id_base, id_base)
        if os.stat(place / "upper" / "file").st_uid == id_base:
            return "ok"
    except OSError as error:
        return f"{what}: {error.strerror}"
    return what


def _with_one_id(place: Path, bwrap: str) -> str:
    """bubblewrap stacks the layers itself, from 0.11 on."""
    argv = [bwrap, "--unshare-user", "--uid", "0", "--gid", "0", "--ro-bind", "/", "/"]
    argv += [
        "--overlay-src",
        str(place / "lower"),
        "--overlay",
        str(place / "upper"),
        str(place / "work"),
        "/mnt",
    ]
    argv += ["--", "/bin/sh", "-c", "echo x > /mnt/file"]
    with contextlib.suppress(subprocess.TimeoutExpired):
        ran = subprocess.run(argv, capture_output=True, timeout=_PROBE_S_MAX, check=False)
        if ran.returncode == 0:
            return ""
        return (
            ran.stderr.decode(errors="replace").strip().splitlines()[-1][:200]
            if ran.stderr
            else "bwrap failed"
        )
    return "bwrap did not answer"
