"""The roots of an attempt's images, mounted by its shim: each image's layers, with the slot's ids, under a writable
layer of the attempt's own.

Root level: the layers, stored once with the images' own ids, are mounted with the slot's (an idmapped mount), stacked
by overlayfs, and nothing of it is seen on the host. Elsewhere bubblewrap stacks them, with the one id that there is.
Standard library only: the shim imports this.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from runyard.host import attempt_directory as folders
from runyard.host.attempt_directory import AttemptDirectory
from runyard.host.images.ids import UserNamespace
from runyard.host.linux import (
    MS_NODEV,
    MS_NOSUID,
    attach_mount,
    clone_mount,
    map_mount,
    mount,
    working_directory,
)
from runyard.host.mount_points import prepare
from runyard.host.plan import Plan, PlanImage
from runyard.host.sandbox import MOUNT_POINTS, DirectoryRoot, OverlayRoot

GENERATED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""Files of ours over the image's, as containers have them."""


class ImageRoots:
    """`stage_path` is where to mount (a folder of the stage); None: bubblewrap does it."""

    def __init__(self, plan: Plan, directory: AttemptDirectory, stage_path: str | None) -> None:
        self._plan = plan
        self._directory = directory
        self._stage_path = stage_path
        self._namespaces: dict[int, UserNamespace] = {}
        if stage_path is not None and plan.images:
            self._begin_namespace(0)  # while the rest of the place is made

    def mount_all(self) -> None:
        """Once, in the shim's own mount namespace. Makes the attempt's layers. Raises OSError."""
        if not self._plan.images:
            return
        for index, image in enumerate(self._plan.images):
            self._make_layer(index, image)
        if self._stage_path is None:
            return
        mount("runyard-images", self._stage_path, "tmpfs", MS_NOSUID | MS_NODEV, "mode=755,size=1m")
        names = self._mount_layers()
        for index, image in enumerate(self._plan.images):
            self._mount_root(index, [names[layer] for layer in image.layers])

    def root(
        self, index: int, files: Sequence[str], mount_points: Sequence[str] = MOUNT_POINTS
    ) -> DirectoryRoot | OverlayRoot:
        """An image's root, its mount points looked over: an earlier step may have changed it. Raises HostileRoot."""
        image = self._plan.images[index]
        if self._stage_path is not None:
            path = self._root_path(index)
            prepare(
                path, directories=mount_points, files=files, owner=self._plan.id_base, replaces_links=True
            )
            return DirectoryRoot(path=path, read_only=False)
        upper, work = self._folders_of(index)
        prepare(upper, directories=mount_points, files=files, replaces_links=True)
        return OverlayRoot(layers=tuple(reversed(image.layers)), upper=upper, work=work)

    def user_namespace(self, index: int) -> int:
        """The namespace that a step of this image runs in; kept open. Root level only."""
        return self._begin_namespace(index).open()

    def _begin_namespace(self, index: int) -> UserNamespace:
        base = self._plan.id_base
        assert base is not None
        owner = base + self._plan.images[index].user_id
        if owner not in self._namespaces:
            self._namespaces[owner] = UserNamespace(base, owner)
        return self._namespaces[owner]

    def _folders_of(self, index: int) -> tuple[str, str]:
        file = self._directory.file
        return f"{file(folders.UPPER)}/{index}", f"{file(folders.WORK)}/{index}"

    def _root_path(self, index: int) -> str:
        return f"{self._stage_path}/root-{index}"

    def _make_layer(self, index: int, image: PlanImage) -> None:
        """The attempt's own layer, whose top is that of the image's root."""
        for path in self._folders_of(index):
            os.makedirs(path, mode=0o755, exist_ok=True)
        upper = self._folders_of(index)[0]
        mode, base = 0o755, self._plan.id_base
        if image.layers:
            top = os.stat(image.layers[0])
            mode = stat.S_IMODE(top.st_mode)
            if base is not None:
                os.chown(upper, base + top.st_uid, base + top.st_gid)
        elif base is not None:
            os.chown(upper, base, base)
        os.chmod(upper, mode | stat.S_IRWXU)

    def _mount_layers(self) -> dict[str, str]:
        """Each layer once, however many images have it. Short names: overlayfs takes a page of them."""
        namespace = self.user_namespace(0)
        names: dict[str, str] = {}
        for image in self._plan.images:
            for layer in image.layers:
                if layer not in names:
                    names[layer] = str(len(names))
                    target = f"{self._stage_path}/{names[layer]}"
                    os.mkdir(target, 0o755)
                    fd = clone_mount(layer)
                    try:
                        map_mount(fd, namespace)
                        attach_mount(fd, target)
                    finally:
                        os.close(fd)
        return names

    def _mount_root(self, index: int, names: Sequence[str]) -> None:
        upper, work = self._folders_of(index)
        target = self._root_path(index)
        os.mkdir(target, 0o755)
        if not names:  # overlayfs needs something beneath
            names = ["empty"]
            os.makedirs(f"{self._stage_path}/empty", exist_ok=True)
        with working_directory(str(self._stage_path)):
            # volatile: nothing of it outlives the attempt, so nothing is worth waiting for the disk
            options = f"lowerdir={':'.join(names)},upperdir={upper},workdir={work},volatile"
            mount("overlay", target, "overlay", MS_NOSUID | MS_NODEV, options)
