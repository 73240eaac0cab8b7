"""How a repository is fetched for a job: over allowed protocols, from an address that was looked at, pinned. Pure but
for the name's resolution, which is handed in."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from runyard.host.plan import PlanGit

_SCP_LIKE = re.compile(r"(?:(?P<user>[^@/]+)@)?(?P<host>[^:/]+):(?!//)(?P<path>.+)")
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_CREDENTIALS = re.compile(r"(?<=://)[^/@\s]+@")
_CONFIG = "/tmp/runyard-gitconfig"
_OWN_CONFIG = (  # git hands the environment's settings to no upload-pack, and that one minds the owner
    f"trap 'rm -f {_CONFIG}' EXIT; printf '[safe]\\n\\tdirectory = *\\n' > {_CONFIG}; "
)
_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}

Resolve = Callable[[str, int], list[str]]


class SourceRefused(Exception):
    """The repository will not be fetched from there; the message says what would allow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Where a URL leads. `path` is set for `file`, `host` and `port` for the others."""

    protocol: str
    host: str = ""
    port: int = 0
    path: str = ""


def parse_url(url: str) -> Remote:
    """Raises SourceRefused for what is no URL that git understands."""
    if "\0" in url or "\n" in url or url.startswith("-"):
        raise SourceRefused(f"workspace.git.url: {url!r} is no URL")
    if "://" not in url:
        if url.startswith("/"):
            return Remote(protocol="file", path=url)
        match = _SCP_LIKE.fullmatch(url)
        if match is None or match["host"].startswith("-"):
            raise SourceRefused(f"workspace.git.url: {url!r} is no URL")
        return Remote(protocol="ssh", host=match["host"], port=22)
    parts = urlsplit(url)
    try:
        port = parts.port or _PORTS.get(parts.scheme, 0)
    except ValueError:
        raise SourceRefused(f"workspace.git.url: {redact(url)!r} has no valid port") from None
    if parts.scheme == "file":
        return Remote(protocol="file", path=parts.path)
    if not parts.hostname or parts.hostname.startswith("-"):
        raise SourceRefused(f"workspace.git.url: {redact(url)!r} names no host")
    return Remote(protocol=parts.scheme, host=parts.hostname, port=port)


def check_protocol(remote: Remote, git: PlanGit) -> None:
    if remote.protocol not in git.protocols:
        raise SourceRefused(
            f"workspace.git.url: the protocol {remote.protocol!r} is not allowed on this pool; allowed are"
            f" {', '.join(git.protocols)} (the pool's `git_protocols`)"
        )


def pin_address(remote: Remote, git: PlanGit, resolve: Resolve | None = None) -> str:
    """The one address to fetch from. All that the name resolves to must be allowed, or a name could change its mind."""
    try:
        addresses = (resolve or _resolve)(remote.host, remote.port)
    except OSError as error:
        raise SourceRefused(f"the host {remote.host!r} cannot be resolved: {error.strerror}") from None
    for address in addresses:
        if not git.allow_private_addresses and not is_public(address):
            raise SourceRefused(
                f"the host {remote.host!r} is at {address}, which is not a public address; the pool's"
                " `allow_private_addresses` would allow it"
            )
    return addresses[0]


def is_public(address: str) -> bool:
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped or parsed.sixtofour
        if inner is not None:
            return inner.is_global
        if parsed in ipaddress.ip_network("64:ff9b::/96"):
            return False
    return parsed.is_global and not parsed.is_multicast


def environment(remote: Remote, git: PlanGit, address: str | None) -> dict[str, str]:
    """git's environment: no configuration but this, no prompt, no redirect, the address pinned."""
    config = {
        "http.followRedirects": "false",
        "core.hooksPath": "/dev/null",
        "advice.detachedHead": "false",
        "init.defaultBranch": "main",
        "gc.auto": "0",
    }
    env = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": _CONFIG,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(git.protocols),
        "GIT_ADVICE": "0",
    }
    if address is not None:
        shown = f"[{address}]" if ":" in address else address
        config["http.curloptResolve"] = f"{remote.host}:{remote.port}:{shown}"
        env["GIT_SSH_COMMAND"] = (
            f"ssh -F /dev/null -o BatchMode=yes -o HostName={address} -o HostKeyAlias={remote.host}"
            " -o StrictHostKeyChecking=accept-new -o UserKnownHostsFile=/tmp/home/.ssh-known-hosts"
            " -o ConnectTimeout=20"
        )
    for index, (key, value) in enumerate(config.items()):
        env[f"GIT_CONFIG_KEY_{index}"], env[f"GIT_CONFIG_VALUE_{index}"] = key, value
    env["GIT_CONFIG_COUNT"] = str(len(config))
    return env


def script(git: PlanGit, url: str) -> list[str]:
    """The shell command that fills the current folder. `$1` is the URL to fetch, `$2` the ref, `$3` the URL to keep."""
    tags = "" if git.fetch_tags else " --no-tags"
    depth = "" if git.depth is None else f" --depth {git.depth}"
    ref = git.ref or ""
    if not ref:
        body = f'git clone -q{tags}{depth} -- "$1" .'
    elif _COMMIT.fullmatch(ref):
        body = (
            'git init -q . && git remote add origin "$1"'
            f' && {{ git fetch -q{tags}{depth} origin "$2" || git fetch -q{tags} origin; }}'
            ' && git checkout -q --detach "$2"'
        )
    elif ref.startswith("refs/"):
        body = (
            'git init -q . && git remote add origin "$1"'
            f' && git fetch -q{tags}{depth} origin "$2" && git checkout -q --detach FETCH_HEAD'
        )
    else:
        body = f"{_named_ref(tags, depth)} || {{ {_tag(depth)}; }}"
    if git.fetch_tags and git.depth is not None:
        body += f" && git fetch -q --tags{depth} origin"
    body += ' && git remote set-url origin "$3" && git log -1 --format="checked out %H"'
    return ["/bin/sh", "-c", _OWN_CONFIG + body, "git", url, ref, redact(git.url)]


def _named_ref(tags: str, depth: str) -> str:
    """A branch, or an abbreviated commit. With a depth only that branch comes, else all of them."""
    if not depth:
        return f'git clone -q{tags} --no-checkout -- "$1" . && git checkout -q "$2" --'
    return (
        'git init -q . && git remote add origin "$1"'
        f' && git fetch -q{tags}{depth} origin "+refs/heads/$2:refs/remotes/origin/$2" && git checkout -q "$2" --'
    )


def _tag(depth: str) -> str:
    return f'[ -d .git ] && git fetch -q{depth} origin "+refs/tags/$2:refs/tags/$2" && git checkout -q --detach "$2"'


def check_ref(ref: str | None) -> None:
    if ref is not None and (ref.startswith("-") or not ref.strip() or any(c in ref for c in " ~^:?*[\\\0\n")):
        raise SourceRefused(f"workspace.git.ref: {ref!r} is no branch, tag or commit")


def last_words(stderr: str) -> str:
    """The line that tells best what went wrong: git's last `fatal` or `error`, else the last."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:"))]
    return redact((telling or lines or [""])[-1])


def redact(text: str) -> str:
    """Without the name and password in URLs (I11)."""
    return _CREDENTIALS.sub("", text)


def _resolve(host: str, port: int) -> list[str]:
    rows = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(row[4][0]) for row in rows))
