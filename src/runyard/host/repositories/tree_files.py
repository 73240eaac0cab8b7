"""The files of a work tree's repository that git need not make: settings, refs, and objects shared with the mirror.

Objects are hard links in a tree that lies beneath the jobs' layers, where nobody can write to them, and copies in one
that belongs to a job. Folders that a fetch wrote are entered without following a link.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import stat
from collections.abc import Iterator, Mapping

from runyard.host.linux import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2

_OBJECTS = re.compile(r"pack|[0-9a-f]{2}")
_OBJECT = re.compile(r"pack-[0-9a-f]+\.(?:pack|idx|rev)|[0-9a-f]{38}|[0-9a-f]{62}")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS


@contextlib.contextmanager
def open_folder(root: str, path: str) -> Iterator[str]:
    """A path by which the folder beneath `root` is reached, whatever links lie on the way. Raises OSError."""
    root_fd = os.open(root, _DIRECTORY)
    try:
        fd = openat2(root_fd, path, _DIRECTORY, resolve=_RESOLVE)
    finally:
        os.close(root_fd)
    try:
        yield f"/proc/self/fd/{fd}"
    finally:
        os.close(fd)


def write_git_folder(
    work_tree: str,
    *,
    owner: int | None,
    commit: str,
    branch: str | None,
    url: str,
    visible: Mapping[str, str],
    head: str | None,
) -> None:
    """A `.git` without objects: `work_tree` must be ours, or be opened by `open_folder`."""
    git = f"{work_tree}/.git"
    remotes = "refs/remotes/origin"
    for folder in (
        "",
        "/objects",
        "/objects/pack",
        "/objects/info",
        "/info",
        "/refs",
        "/refs/heads",
        "/refs/tags",
    ):
        _make_folder(git + folder, owner)
    files = {
        "HEAD": f"ref: {branch}\n" if branch is not None else f"{commit}\n",
        "config": _config(url, branch, object_format="sha256" if len(commit) == 64 else "sha1"),
        "packed-refs": _packed_refs(visible),
    }
    if head is not None and f"{remotes}/{head.removeprefix('refs/heads/')}" in visible:
        for folder in ("/refs/remotes", f"/{remotes}"):
            _make_folder(git + folder, owner)
        files[f"{remotes}/HEAD"] = f"ref: {remotes}/{head.removeprefix('refs/heads/')}\n"
    for name, text in files.items():
        _write(f"{git}/{name}", text.encode(), owner)


def add_objects(mirror: str, work_tree: str, *, owner: int | None, link: bool) -> None:
    """The mirror's objects, and where its history ends if it was fetched with a depth."""
    with open_folder(mirror, "objects") as source:
        for name in sorted(os.listdir(source)):
            if _OBJECTS.fullmatch(name):
                with contextlib.suppress(NotADirectoryError), open_folder(source + "/.", name) as folder:
                    _add_folder(folder, f"{work_tree}/.git/objects/{name}", owner, link)
    with contextlib.suppress(FileNotFoundError):
        fd = os.open(f"{mirror}/shallow", os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb") as file:
            _write(f"{work_tree}/.git/shallow", file.read(16 << 20), owner)


def _add_folder(source: str, target: str, owner: int | None, link: bool) -> None:
    _make_folder(target, owner)
    for name in os.listdir(source):
        path = f"{source}/{name}"
        if not _OBJECT.fullmatch(name) or not stat.S_ISREG(os.stat(path, follow_symlinks=False).st_mode):
            continue
        if link:
            with contextlib.suppress(FileExistsError):
                os.link(path, f"{target}/{name}", follow_symlinks=False)
        else:
            shutil.copyfile(path, f"{target}/{name}", follow_symlinks=False)
            os.chmod(f"{target}/{name}", 0o444)
            _own(f"{target}/{name}", owner)


def add_from_tree(source: str, target: str, *, owner: int | None) -> None:
    """The work files of another tree as links, and its index: checking out then only writes what differs."""
    for folder, names, files in os.walk(source):
        inner = os.path.relpath(folder, source)
        if inner == ".":
            names.remove(".git")
        else:
            _make_folder(f"{target}/{inner}", owner)
        links = [name for name in names if os.path.islink(f"{folder}/{name}")]
        for name in (*files, *links):
            os.link(f"{folder}/{name}", f"{target}/{inner}/{name}", follow_symlinks=False)
    with open(f"{source}/.git/index", "rb") as file:
        _write(f"{target}/.git/index", file.read(), owner)


def _config(url: str, branch: str | None, *, object_format: str) -> str:
    """git compares times and sizes alone: a layer shows other inodes and change times than the tree's index knows."""
    version = 0 if object_format == "sha1" else 1
    lines = [
        "[core]",
        f"\trepositoryformatversion = {version}",
        "\tfilemode = true",
        "\tbare = false",
        "\tlogallrefupdates = true",
        "\tcheckStat = minimal",
        "[gc]",
        "\tauto = 0",
        "[maintenance]",
        "\tauto = false",
        '[remote "origin"]',
        f"\turl = {_quoted(url)}",
        "\tfetch = +refs/heads/*:refs/remotes/origin/*",
    ]
    if version:
        lines += ["[extensions]", f"\tobjectFormat = {object_format}"]
    if branch is not None:
        lines += [f"[branch {_quoted(branch.removeprefix('refs/heads/'))}]", "\tremote = origin"]
        lines.append(f"\tmerge = {_quoted(branch)}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _packed_refs(visible: Mapping[str, str]) -> str:
    lines = ["# pack-refs with: peeled fully-peeled sorted "]
    for name in sorted((name for name in visible if not name.endswith("^{}")), key=str.encode):
        lines.append(f"{visible[name]} {name}")
        if f"{name}^{{}}" in visible:
            lines.append(f"^{visible[name + '^{}']}")
    return "\n".join(lines) + "\n"


def _make_folder(path: str, owner: int | None) -> None:
    with contextlib.suppress(FileExistsError):
        os.mkdir(path, 0o755)
        _own(path, owner)


def _write(path: str, content: bytes, owner: int | None) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o644), "wb") as file:
        file.write(content)
    _own(path, owner)


def _own(path: str, owner: int | None) -> None:
    if owner is not None:
        os.chown(path, owner, owner, follow_symlinks=False)
