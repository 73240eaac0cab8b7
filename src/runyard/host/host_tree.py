"""What a sandbox may see of the host: the allow-list (DESIGN.md 4.11), as binds, links and generated files.

Programs and libraries (/usr and its companions) and chosen entries of /etc. Never /root, /home, /run, /var, /opt or
the data folder.
"""

from __future__ import annotations

import glob
import os

from runyard.host.plan import HostTree
from runyard.host.sandbox import HOSTNAME, INNER_ID, USER_NAME

_PROGRAMS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_ETC = (
    "ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl ca-certificates ca-certificates.conf pki crypto-policies"
    " nsswitch.conf localtime timezone protocols services mime.types os-release debian_version gai.conf magic"
    " bash.bashrc profile inputrc terminfo perl python3* java-* fonts"
).split()
GENERATED = {
    "passwd": f"root:x:0:0:root:/root:/usr/sbin/nologin\n{USER_NAME}:x:{INNER_ID}:{INNER_ID}::/tmp/home:/bin/sh\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    "group": f"root:x:0:\n{USER_NAME}:x:{INNER_ID}:\nnogroup:x:65534:\n",
    "hosts": f"127.0.0.1 localhost {HOSTNAME}\n::1 localhost ip6-localhost\n",
    "hostname": f"{HOSTNAME}\n",
    "resolv.conf": "",
}


def programs() -> HostTree:
    """/usr, and /bin and its like as the host has them: links or folders."""
    binds, links = [("/usr", "/usr")], []
    for path in _PROGRAMS:
        if os.path.islink(path):
            links.append((os.readlink(path), path))
        elif os.path.isdir(path):
            binds.append((path, path))
    return HostTree(binds=tuple(binds), links=tuple(links))


def etc_entries() -> list[str]:
    """The paths beneath /etc that are there and on the list."""
    found: list[str] = []
    for pattern in _ETC:
        found += sorted(glob.glob(f"/etc/{pattern}")) if "*" in pattern else [f"/etc/{pattern}"]
    return [path for path in found if os.path.exists(path)]


def host_tree(generated_directory: str) -> HostTree:
    """The whole allow-list as single binds, for a sandbox without a stage. `generated_directory` holds GENERATED."""
    tree = programs()
    binds, links = list(tree.binds), list(tree.links)
    for path in etc_entries():
        if os.path.islink(path) and os.path.realpath(path).startswith("/usr/"):
            links.append((os.path.realpath(path), path))
        else:
            binds.append((os.path.realpath(path), path))
    binds += [(f"{generated_directory}/{name}", f"/etc/{name}") for name in GENERATED]
    return HostTree(binds=tuple(binds), links=tuple(links))


def write_generated(directory: str) -> None:
    """Writes GENERATED into `directory`, world-readable. Safe to repeat."""
    os.makedirs(directory, mode=0o755, exist_ok=True)
    for name, text in GENERATED.items():
        path = f"{directory}/{name}"
        with open(path, "w") as file:
            file.write(text)
        os.chmod(path, 0o644)
