"""What a check looks at in a docker pool: the daemon, what it enforces, its storage, one real container; each with its
cure. Nothing is left behind."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import Any

from runyard.model.errors import RunyardError
from runyard.model.finding import Finding
from runyard.providers.docker.attempt import Place
from runyard.providers.docker.client import Document
from runyard.providers.docker.containers import bare, pool_labels
from runyard.providers.docker.markers import split_time
from runyard.providers.docker.plan import BIN

API_LEAST = (1, 40)
MEMORY_BYTES = 64 << 20
_LOOK = """
while read -r key value rest; do
    case $key in CapEff:|NoNewPrivs:|Seccomp:) echo $key$value ;; esac
done </proc/self/status
first() { # NAME FILE…: the first of the files that is there
    name=$1; shift
    for file; do
        if [ -r "/sys/fs/cgroup/$file" ]; then read -r value <"/sys/fs/cgroup/$file"; echo "$name:$value"; return; fi
    done
}
first memory memory.max memory/memory.limit_in_bytes
first pids pids.max pids/pids.max
if (: >/written) 2>/dev/null; then echo root:writable; else echo root:read-only; fi
cd /sys/class/net && for link in *; do links="$links $link"; done; echo "links:$links"
"""


async def check_daemon(place: Place) -> list[Finding]:
    try:
        version, info = await place.client.version(), await place.client.info()
    except RunyardError as error:
        cure = error.cure or "start dockerd, and see that the service may open its socket"
        return [Finding(name="daemon", ok=False, message=error.message, cure=cure)]
    findings = [_daemon(place, version), _storage(info), _runtimes(place, info)]
    try:
        seen, took_s = await _look(place)
    except RunyardError as error:
        cure = "run `docker run --rm` of any image on the daemon's host, and see what it says"
        return [*findings, Finding(name="container", ok=False, message=error.message, cure=cure)]
    return [*findings, *judge_container(seen, took_s, pids_max=place.facts.pids_max)]


def judge_container(seen: Mapping[str, str], took_s: float, *, pids_max: int) -> list[Finding]:
    """From what a hardened container saw of itself. Pure."""
    ran = Finding(
        name="container", ok=bool(seen), message=f"a container ran and was removed in {took_s * 1000:.0f} ms"
    )
    if not seen:
        words = "a container ended without the word that it should print"
        return [Finding(name="container", ok=False, message=words, cure="see the daemon's log")]
    wrong = []
    if int(seen.get("CapEff", "1"), 16):
        wrong.append("it has capabilities")
    if seen.get("NoNewPrivs") != "1":
        wrong.append("new privileges can be gained")
    if seen.get("root") != "read-only":
        wrong.append("its root can be written")
    if seen.get("links", "lo") != "lo":
        wrong.append(f"it has a network: {seen['links']}")
    isolation = Finding(
        name="isolation",
        ok=not wrong,
        message="; ".join(wrong) or "no capability, no new privileges, read-only root, no network",
        cure="use a runtime that enforces these" if wrong else "",
    )
    seccomp = Finding(
        name="seccomp",
        ok=seen.get("Seccomp") == "2",
        message=f"the seccomp mode of a container is {seen.get('Seccomp', 'unknown')} (2 filters)",
        cure=""
        if seen.get("Seccomp") == "2"
        else "use a kernel and daemon with seccomp, and its default profile",
    )
    return [ran, isolation, seccomp, _limits(seen, pids_max)]


def _limits(seen: Mapping[str, str], pids_max: int) -> Finding:
    missing = []
    if seen.get("memory") != str(MEMORY_BYTES):
        missing.append(f"memory is {seen.get('memory', 'not limited')} instead of {MEMORY_BYTES}")
    if seen.get("pids") != str(pids_max):
        missing.append(f"processes are {seen.get('pids', 'not limited')} instead of {pids_max}")
    return Finding(
        name="limits",
        ok=not missing,
        message="; ".join(missing) or "memory and processes are limited as asked",
        cure="give the daemon its cgroups (rootless: delegate memory, pids and cpu; see docs/docker.md)"
        if missing
        else "",
    )


def _daemon(place: Place, version: Document) -> Finding:
    api = str(version.get("ApiVersion", "0.0"))
    is_new = tuple(map(int, api.split(".")[:2])) >= API_LEAST
    return Finding(
        name="daemon",
        ok=is_new,
        message=f"version {version.get('Version', '?')}, API {api}, at {place.client.host}",
        cure="" if is_new else "install Docker 19.03 or Podman 4 or newer",
    )


def _storage(info: Document) -> Finding:
    driver = str(info.get("Driver") or "?")
    ok = driver != "vfs"
    return Finding(
        name="storage",
        ok=ok,
        message=f"storage driver {driver} in {info.get('DockerRootDir', '?')}",
        cure="" if ok else "use overlay2: vfs copies the whole image for each container",
    )


def _runtimes(place: Place, info: Document) -> Finding:
    known = sorted(info.get("Runtimes") or ())
    wanted = place.facts.runtime
    ok = wanted is None or wanted in known
    hint = "" if "crun" in known else "; crun starts faster where the daemon has it (`runtime = 'crun'`)"
    return Finding(
        name="runtime",
        ok=ok,
        message=f"runtimes: {', '.join(known) or 'unknown'}{hint}",
        cure=""
        if ok
        else f"add the runtime {wanted!r} to the daemon's configuration, or leave `runtime` out",
    )


async def _look(place: Place) -> tuple[dict[str, str], float]:
    user = f"{place.options.user}:{place.options.user}"
    tools = await place.tools.get(user)
    config: dict[str, Any] = bare(place.facts, tools, user=user, memory_bytes=MEMORY_BYTES)
    config["Cmd"] = ["sh", "-c", _LOOK]
    config["Entrypoint"] = [f"{BIN}/busybox"]
    config["Labels"] = pool_labels(place.facts)
    name = f"runyard-check-{secrets.token_hex(6)}"
    began = time.monotonic()
    try:
        await place.client.create_container(name, config)
        await place.client.start_container(name)
        await place.client.wait_container(name, 15.0)
        printed = b""
        async for frames in place.client.follow_log(name):
            printed += b"".join(split_time(frame.data)[1] for frame in frames if frame.stream == "stdout")
    finally:
        await place.client.remove_container(name)
    pairs = (line.partition(":") for line in printed.decode(errors="replace").splitlines())
    return {key: value.strip() for key, _, value in pairs}, time.monotonic() - began
