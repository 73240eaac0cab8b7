"""Writes a layer's entries into a folder of their own, as overlayfs wants it, over the layers that lie beneath.

Nothing lands outside: a path is walked name by name through open folders, none of them a link. A link on the way is
resolved by ourselves, within the root, over all layers, as a container would see it; the kernel follows none.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from runyard.host.images.archive import Entry, Kind
from runyard.host.images.layer_stream import LayerRefused, LayerStream
from runyard.host.images.layers_beneath import Beneath, Lower, find_beneath, is_hidden, is_whiteout
from runyard.host.linux import RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS, openat2
from runyard.host.removal import remove_entry

ID_COUNT = 65536
NOBODY = 65534
_LINKS_MAX = 40
_WHITEOUT, _OPAQUE = ".wh.", ".wh..wh..opq"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS
_XATTRS_MAX, _XATTR_BYTES_MAX = 64, 64 << 10
_COPY_BYTES = 1 << 20


@dataclass(slots=True, kw_only=True)
class _Owner:
    uid: int
    gid: int
    mode: int
    mtime_ns: int


@dataclass(slots=True)
class Tally:
    """What was not kept as it was, for the operator."""

    devices: int = 0
    xattrs: int = 0
    foreign_ids: int = 0


@dataclass(slots=True)
class LayerTree:
    """`lowers` from the top down. `as_root`: owners are kept, overlayfs's marks are root's. `opaque` grows."""

    root_fd: int
    lowers: Sequence[Lower]
    as_root: bool
    opaque: set[str] = field(default_factory=set)
    tally: Tally = field(default_factory=Tally)
    _folders: dict[str, _Owner] = field(default_factory=dict)
    _parent: tuple[str, str, int] | None = None  # of the entry before: as written, as resolved, opened

    def __post_init__(self) -> None:
        if self.lowers:
            self._folders[""] = _owner_of(os.fstat(self.lowers[0].fd))

    def add(self, entry: Entry, stream: LayerStream) -> None:
        """Takes the entry's content from the stream. Raises LayerRefused, OSError."""
        parts = _parts(entry.path)
        if not parts:
            if entry.kind is Kind.DIRECTORY:
                self._folders[""] = self._owner(entry)
            return
        name = parts[-1]
        place, parent_fd = self._open_parent(parts[:-1])
        if name == _OPAQUE:
            self._make_opaque(place, parent_fd)
        elif name.startswith(_WHITEOUT):
            self._white_out(place, parent_fd, name[len(_WHITEOUT) :])
        else:
            self._make(entry, stream, place, parent_fd, name)

    def finish(self) -> None:
        """Owners, modes and times of folders, now that nothing more is made in them; the deepest first."""
        self._forget_parent()
        for path in sorted(self._folders, key=lambda path: path.count("/"), reverse=True):
            try:
                fd = self._open_folder(path)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
                    continue  # replaced by a later entry
                raise
            try:
                self._give(fd, self._folders[path])
            finally:
                os.close(fd)

    # -- one entry ------------------------------------------------------------------------------------------------

    def _make(self, entry: Entry, stream: LayerStream, place: str, parent_fd: int, name: str) -> None:
        path = f"{place}/{name}" if place else name
        match entry.kind:
            case Kind.FILE:
                self._make_file(entry, stream, parent_fd, name, path)
            case Kind.DIRECTORY:
                self._make_folder(parent_fd, name, path)
                self._folders[path] = self._owner(entry)
                self._set_folder_xattrs(entry, parent_fd, name)
            case Kind.SYMLINK:
                if not entry.link:
                    raise LayerRefused(f"{entry.path!r}: a link to nothing")
                self._replacing(parent_fd, name, path, lambda: os.symlink(entry.link, name, dir_fd=parent_fd))
                self._own_special(entry, parent_fd, name)
            case Kind.HARD_LINK:
                self._make_hard_link(entry, parent_fd, name, path)
            case Kind.FIFO:
                self._replacing(parent_fd, name, path, lambda: os.mkfifo(name, 0o600, dir_fd=parent_fd))
                self._own_special(entry, parent_fd, name)
            case Kind.DEVICE:
                self.tally.devices += 1  # /dev is ours; elsewhere none works in a sandbox
                self._clear(parent_fd, name, path)

    def _make_file(self, entry: Entry, stream: LayerStream, parent_fd: int, name: str, path: str) -> None:
        fd = self._create(parent_fd, name, path)
        try:
            if entry.segments is None:
                stream.copy(entry.stored, lambda piece: _write_all(fd, piece))
            else:
                for offset, length in entry.segments:
                    os.lseek(fd, offset, os.SEEK_SET)
                    stream.copy(length, lambda piece: _write_all(fd, piece))
                os.ftruncate(fd, entry.size)
            if entry.xattrs:
                self._set_xattrs(entry, fd)
            self._give(fd, self._owner(entry))
        finally:
            os.close(fd)

    def _create(self, parent_fd: int, name: str, path: str) -> int:
        try:
            return os.open(name, _CREATE, 0o600, dir_fd=parent_fd)
        except FileExistsError:
            self._clear(parent_fd, name, path)
            return os.open(name, _CREATE, 0o600, dir_fd=parent_fd)

    def _replacing(self, parent_fd: int, name: str, path: str, make: Callable[[], None]) -> None:
        try:
            make()
        except FileExistsError:
            self._clear(parent_fd, name, path)
            make()

    def _clear(self, parent_fd: int, name: str, path: str) -> None:
        """What stands there goes: of two entries of one name the later one counts."""
        with contextlib.suppress(FileNotFoundError):
            remove_entry(parent_fd, name)
        if self.opaque:
            self.opaque -= {each for each in self.opaque if each == path or each.startswith(f"{path}/")}

    def _make_folder(self, parent_fd: int, name: str, path: str) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=parent_fd)
        except FileExistsError:
            seen = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISDIR(seen.st_mode):
                return
            was_whiteout = is_whiteout(seen)
            os.unlink(name, dir_fd=parent_fd)
            os.mkdir(name, 0o700, dir_fd=parent_fd)
            if was_whiteout:  # what it hid stays hidden
                self._mark_opaque(path, parent_fd, name)

    def _make_hard_link(self, entry: Entry, parent_fd: int, name: str, path: str) -> None:
        """To a file of this layer, or a copy of one beneath, which overlayfs would make of it anyway."""
        *above, target = _parts(entry.link) or [""]
        if not target or target.startswith(_WHITEOUT):
            raise LayerRefused(f"{entry.path!r}: a hard link to {entry.link!r}")
        parent_fd = os.dup(parent_fd)  # the way to the target takes its place
        try:
            place, target_fd = self._open_parent(above)
            if (f"{place}/{target}" if place else target) == path:
                return  # to itself
            try:
                seen = os.stat(target, dir_fd=target_fd, follow_symlinks=False)
            except FileNotFoundError:
                self._copy_from_beneath(entry, place, target, parent_fd, name, path)
                return
            if stat.S_ISDIR(seen.st_mode) or stat.S_ISCHR(seen.st_mode):
                raise LayerRefused(f"{entry.path!r}: a hard link to {entry.link!r}, which is no file")
            self._link(target_fd, target, parent_fd, name, path)
        finally:
            os.close(parent_fd)
            self._forget_parent()

    def _link(self, target_fd: int, target: str, parent_fd: int, name: str, path: str) -> None:
        def make() -> None:
            os.link(target, name, src_dir_fd=target_fd, dst_dir_fd=parent_fd, follow_symlinks=False)

        try:
            self._replacing(parent_fd, name, path, make)
        except FileNotFoundError:
            raise LayerRefused(f"{path!r}: a hard link to {target!r}, which it replaces") from None

    def _copy_from_beneath(
        self, entry: Entry, place: str, target: str, parent_fd: int, name: str, path: str
    ) -> None:
        found = self._find_beneath(place, target)
        if found is None or not (stat.S_ISREG(found.seen.st_mode) or found.link is not None):
            raise LayerRefused(
                f"{entry.path!r}: a hard link to {entry.link!r}, which is no file in the image"
            )
        if found.link is not None:
            text = found.link
            self._replacing(parent_fd, name, path, lambda: os.symlink(text, name, dir_fd=parent_fd))
            return
        source = openat2(found.layer_fd, found.path, os.O_RDONLY | os.O_NOFOLLOW, resolve=_RESOLVE)
        try:
            fd = self._create(parent_fd, name, path)
            try:
                _copy_all(source, fd, found.seen.st_size)
                self._give(fd, _owner_of(found.seen))
            finally:
                os.close(fd)
        finally:
            os.close(source)

    # -- hiding what lies beneath -----------------------------------------------------------------------------------

    def _make_opaque(self, place: str, parent_fd: int) -> None:
        self.opaque.add(place)
        self._set_mark(parent_fd)

    def _mark_opaque(self, path: str, parent_fd: int, name: str) -> None:
        fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
        try:
            self.opaque.add(path)
            self._set_mark(fd)
        finally:
            os.close(fd)

    def _set_mark(self, fd: int) -> None:
        os.setxattr(fd, "trusted.overlay.opaque" if self.as_root else "user.overlay.opaque", b"y")

    def _white_out(self, place: str, parent_fd: int, name: str) -> None:
        if name.startswith(_WHITEOUT):
            return  # aufs's own bookkeeping
        if name in ("", ".", ".."):
            raise LayerRefused(f"a whiteout of {name!r}")
        path = f"{place}/{name}" if place else name
        try:
            seen = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            os.mknod(name, stat.S_IFCHR | 0o600, 0, dir_fd=parent_fd)
            return
        if stat.S_ISDIR(seen.st_mode):  # of this layer: it stays, and hides the one beneath
            self._mark_opaque(path, parent_fd, name)

    # -- the way to an entry ----------------------------------------------------------------------------------------

    def _open_parent(self, parts: list[str]) -> tuple[str, int]:
        """Where it really is, and the folder, opened; ours until the next call."""
        written = "/".join(parts)
        if self._parent is not None and self._parent[0] == written:
            return self._parent[1], self._parent[2]
        self._forget_parent()
        place, fd = self._walk(parts)
        self._parent = (written, place, fd)
        return place, fd

    def _forget_parent(self) -> None:
        if self._parent is not None:
            os.close(self._parent[2])
            self._parent = None

    def _walk(self, parts: list[str]) -> tuple[str, int]:
        todo, done, links = deque(parts), list[str](), 0
        fd = os.dup(self.root_fd)
        try:
            while todo:
                name = todo.popleft()
                if name in ("", "."):
                    continue
                if name == "..":
                    done = done[:-1]
                    fd = self._reopened(fd, done)
                    continue
                following, text = self._step(fd, done, name)
                if text is None:
                    os.close(fd)
                    fd = following
                    done.append(name)
                    continue
                links += 1
                if links > _LINKS_MAX or len(todo) > _LINKS_MAX * 256:
                    raise LayerRefused(f"{'/'.join(parts)!r}: too many links")
                todo.extendleft(reversed(text.split("/")))
                if text.startswith("/"):
                    done = []
                    fd = self._reopened(fd, done)
        except BaseException:
            os.close(fd)
            raise
        return "/".join(done), fd

    def _reopened(self, fd: int, done: list[str]) -> int:
        following = self._open_folder("/".join(done))
        os.close(fd)
        return following

    def _open_folder(self, path: str) -> int:
        if not path:
            return os.dup(self.root_fd)
        return openat2(self.root_fd, path, _DIRECTORY, resolve=_RESOLVE)

    def _step(self, fd: int, done: list[str], name: str) -> tuple[int, str | None]:
        """The folder of that name, opened, made where it is missing; or a link's text."""
        path = "/".join((*done, name))
        try:
            return os.open(name, _DIRECTORY, dir_fd=fd), None
        except FileNotFoundError:
            text = self._imply(fd, "/".join(done), name, path)
            if text is not None:
                return -1, text
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            seen = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISLNK(seen.st_mode):
                return -1, os.readlink(name, dir_fd=fd)
            if not is_whiteout(seen):
                raise LayerRefused(f"{path!r} is a file, and the archive has entries in it") from None
            self._make_folder(fd, name, path)
            self._folders[path] = _Owner(uid=0, gid=0, mode=0o755, mtime_ns=0)
        return os.open(name, _DIRECTORY, dir_fd=fd), None

    def _imply(self, fd: int, place: str, name: str, path: str) -> str | None:
        """A folder that the archive does not name is the one beneath, if there is one: or it would be covered by
        ours with another owner. A link beneath stays a link."""
        found = self._find_beneath(place, name)
        if found is not None and found.link is not None:
            return found.link
        if found is not None and not stat.S_ISDIR(found.seen.st_mode):
            raise LayerRefused(f"{path!r} is a file, and the archive has entries in it")
        owner = _Owner(uid=0, gid=0, mode=0o755, mtime_ns=0) if found is None else _owner_of(found.seen)
        os.mkdir(name, 0o700, dir_fd=fd)
        self._folders[path] = owner
        return None

    def _find_beneath(self, place: str, name: str) -> Beneath | None:
        path = f"{place}/{name}" if place else name
        return None if is_hidden(path, self.opaque) else find_beneath(self.lowers, path)

    # -- owners, modes, times, attributes ---------------------------------------------------------------------------

    def _owner(self, entry: Entry) -> _Owner:
        uid, gid = entry.uid, entry.gid
        if uid >= ID_COUNT or gid >= ID_COUNT:
            self.tally.foreign_ids += 1
            uid, gid = (uid if uid < ID_COUNT else NOBODY), (gid if gid < ID_COUNT else NOBODY)
        return _Owner(uid=uid, gid=gid, mode=entry.mode, mtime_ns=entry.mtime_ns)

    def _give(self, fd: int, owner: _Owner) -> None:
        mode = owner.mode
        if self.as_root:
            os.fchown(fd, owner.uid, owner.gid)
        elif stat.S_ISDIR(os.fstat(fd).st_mode):
            mode |= stat.S_IRWXU  # or we could not remove it
        else:
            mode |= stat.S_IRUSR
        os.fchmod(fd, mode)
        os.utime(fd, ns=(owner.mtime_ns, owner.mtime_ns))

    def _own_special(self, entry: Entry, parent_fd: int, name: str) -> None:
        owner = self._owner(entry)
        if self.as_root:
            os.chown(name, owner.uid, owner.gid, dir_fd=parent_fd, follow_symlinks=False)
        if entry.kind is Kind.FIFO:
            os.chmod(name, owner.mode, dir_fd=parent_fd)  # it was just made, and only we write here
        os.utime(name, ns=(owner.mtime_ns, owner.mtime_ns), dir_fd=parent_fd, follow_symlinks=False)

    def _set_folder_xattrs(self, entry: Entry, parent_fd: int, name: str) -> None:
        if entry.xattrs:
            fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
            try:
                self._set_xattrs(entry, fd)
            finally:
                os.close(fd)

    def _set_xattrs(self, entry: Entry, fd: int) -> None:
        """`user.` only. Capabilities of files could not take effect (no_new_privs); labels and overlayfs's own marks
        are the host's."""
        kept = {
            name: value
            for name, value in entry.xattrs.items()
            if name.startswith("user.") and not name.startswith("user.overlay.") and "\0" not in name
        }
        self.tally.xattrs += len(entry.xattrs) - len(kept)
        if len(kept) > _XATTRS_MAX or sum(map(len, kept.values())) > _XATTR_BYTES_MAX:
            raise LayerRefused(
                f"{entry.path!r}: more than {_XATTRS_MAX} attributes or {_XATTR_BYTES_MAX} bytes of them"
            )
        for name, value in kept.items():
            try:
                os.setxattr(fd, name, value)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.ENOSPC, errno.E2BIG, errno.ERANGE):
                    raise
                self.tally.xattrs += 1


def _parts(path: str) -> list[str]:
    """The names of a path within the root; an absolute one is within it too."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise LayerRefused(f"{path!r} leads out of the root")
    if any(len(os.fsencode(part)) > 255 for part in parts):
        raise LayerRefused("the archive holds a name longer than 255 bytes")
    return parts


def _owner_of(seen: os.stat_result) -> _Owner:
    return _Owner(
        uid=seen.st_uid, gid=seen.st_gid, mode=stat.S_IMODE(seen.st_mode), mtime_ns=seen.st_mtime_ns
    )


def _copy_all(source: int, fd: int, size: int) -> None:
    at = 0
    while at < size and (copied := os.sendfile(fd, source, at, min(_COPY_BYTES, size - at))):
        at += copied


def _write_all(fd: int, data: memoryview) -> None:
    while data:
        data = data[os.write(fd, data) :]
