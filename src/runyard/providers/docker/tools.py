"""Our own two files in the daemon: a static busybox and step.sh.

They come as an image, made from a tar by the API (so no registry is needed), and get from there into a volume that
jobs' containers mount read-only. Both are named by what they hold, so that releases do not disturb each other.
"""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

from runyard.providers.docker.client import DockerClient, NameTaken, read_binary
from runyard.providers.docker.containers import Facts, Tools, pool_labels
from runyard.providers.docker.names import short_hash
from runyard.providers.docker.plan import BIN, STATE, WORKSPACE

REPOSITORY = "runyard-tools"
_STEP = Path(__file__).with_name("step.sh")


class ToolMaker:
    """Makes them on need, once for each user that jobs run as: the image's folders belong to it."""

    def __init__(self, client: DockerClient, facts: Facts, busybox: str) -> None:
        self._client = client
        self._facts = facts
        self._busybox = busybox
        self._made: dict[str, Tools] = {}
        self._lock = asyncio.Lock()

    async def get(self, user: str) -> Tools:
        """`user` is `uid:gid`. Raises ConfigError where there is no busybox."""
        if user not in self._made:
            async with self._lock:
                if user not in self._made:
                    self._made[user] = await self._make(user)
        return self._made[user]

    def forget(self) -> None:
        """Somebody removed an image of ours: look again."""
        self._made.clear()

    async def _make(self, user: str) -> Tools:
        busybox = await asyncio.to_thread(read_binary, self._busybox)
        step = _STEP.read_bytes()
        tar = await asyncio.to_thread(_pack, busybox, step, user)
        tag, volume = short_hash(tar), f"runyard-tools-{short_hash(busybox + step)}"
        tools = Tools(image=f"{REPOSITORY}:{tag}", volume=volume)
        if await self._client.inspect_image(tools.image) is None:
            await self._client.import_image(tar, repository=REPOSITORY, tag=tag)
        await self._fill_volume(tools)
        return tools

    async def _fill_volume(self, tools: Tools) -> None:
        """The daemon copies from the image into a volume that is empty when a container is created: so one is, by a
        name that only one can have, before any job's could find the volume half full."""
        name = f"runyard-tools-{short_hash(tools.volume)}"
        mount = {"Type": "volume", "Source": tools.volume, "Target": BIN}
        config = {
            "Image": tools.image,
            "Cmd": [f"{BIN}/busybox", "true"],
            "Labels": pool_labels(self._facts),
            "HostConfig": {"Mounts": [mount], "NetworkMode": "none"},
        }
        try:
            await self._client.create_container(name, config)
        except NameTaken:
            return  # it is kept: the volume then is in use, and no prune takes it away


def _pack(busybox: bytes, step: bytes, user: str) -> bytes:
    owner = tuple(map(int, user.split(":")))
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        _add(tar, "tmp", None, 0o1777, (0, 0))
        for folder in ("proc", "dev", "sys", "etc", ".runyard", BIN.lstrip("/")):
            _add(tar, folder, None, 0o755, (0, 0))
        for folder, mode in ((WORKSPACE, 0o755), (STATE, 0o1777)):
            _add(tar, folder.lstrip("/"), None, mode, (owner[0], owner[1]))
        _add(tar, f"{BIN.lstrip('/')}/busybox", busybox, 0o755, (0, 0))
        _add(tar, f"{BIN.lstrip('/')}/step.sh", step, 0o644, (0, 0))
    return out.getvalue()


def _add(tar: tarfile.TarFile, name: str, data: bytes | None, mode: int, owner: tuple[int, int]) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode, (entry.uid, entry.gid) = mode, owner
    if data is None:
        entry.type = tarfile.DIRTYPE
        tar.addfile(entry)
    else:
        entry.size = len(data)
        tar.addfile(entry, io.BytesIO(data))
