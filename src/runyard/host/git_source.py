"""How a repository is fetched for a job: over allowed protocols, from an address that was looked at, pinned. Pure but
for the name's resolution, which is handed in."""

from __future__ import annotations

import ipaddress
import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from runyard.host.addresses import Network, connected_networks, is_always_closed, is_public
from runyard.host.plan import FetchRules

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<place>[^/?#]*)(?P<rest>.*)")
_PLACE = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+)(?::(?P<port>[0-9]{1,5}))?")
_SCP_LIKE = re.compile(r"(?:(?P<user>[^@/:]+)@)?(?P<host>[A-Za-z0-9.-]+):(?!//)(?P<path>.+)")
_PRINTABLE = re.compile(
    r"[!-\[\]-~]+"
)  # ASCII without space and backslash: programs differ in how they read those
_LABEL = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._~+-]*")
_CREDENTIALS = re.compile(r"(?<=://)[^/?#\s]*@")
_PORTS = {"https": 443, "http": 80, "ssh": 22, "git": 9418}
CONFIG, CREDENTIAL, SSH_KEY, KNOWN_HOSTS, AUTHORITIES = (  # where the sandbox of a fetch has them
    "/tmp/gitconfig",
    "/tmp/credential",
    "/tmp/ssh-key",
    "/tmp/known-hosts",
    "/tmp/authorities.pem",
)
CONFIG_TEXT = (
    "[safe]\n\tdirectory = *\n"  # git hands the environment's settings to no upload-pack, which minds owners
)
_HELPER = f'!f() {{ [ "$1" != get ] || cat {CREDENTIAL}; }}; f'

Resolve = Callable[[str, int], list[str]]


class SourceRefused(Exception):
    """The repository will not be fetched from there; the message says what would allow it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Where a URL leads. `path` is set for `file`, `host` and `port` for the others. `url` is rebuilt from the parts
    that were read, so that git reads the same, and holds no credentials: `user` and `password` do."""

    protocol: str
    url: str
    host: str = ""
    port: int = 0
    path: str = ""
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)


def parse_url(url: str) -> Remote:
    """Raises SourceRefused for what is no URL that every program reads alike. Its words hold no credentials (I11)."""
    if not _PRINTABLE.fullmatch(url) or url.startswith("-"):
        raise _refused(url, "is no URL of printable ASCII without spaces and backslashes")
    if url.startswith("/"):
        return Remote(protocol="file", url=url, path=url)
    match = _URL.fullmatch(url)
    if match is None:
        return _scp_like(url)
    protocol, rest = match["protocol"], match["rest"]
    if protocol == "file":
        if match["place"] not in ("", "localhost"):
            raise _refused(url, "names a host, but a file has none")
        return Remote(protocol="file", url=url, path=rest)
    userinfo, _, place = match["place"].rpartition("@")
    found = _PLACE.fullmatch(place)
    if found is None:
        raise _refused(url, "names no valid host and port")
    host = _host(url, found["host"])
    port = int(found["port"] or _PORTS.get(protocol, 0))
    if not 0 < port < 1 << 16:
        raise _refused(url, "has no valid port")
    user, password = _user(url, protocol, userinfo)
    kept_user = f"{user}@" if user and protocol == "ssh" else ""
    shown_port = f":{port}" if found["port"] else ""
    return Remote(
        protocol=protocol,
        url=f"{protocol}://{kept_user}{_bracketed(host)}{shown_port}{rest}",
        host=host,
        port=port,
        user=user,
        password=password,
    )


def _scp_like(url: str) -> Remote:
    match = _SCP_LIKE.fullmatch(url)
    if (
        match is None or "@" in match["path"].partition("/")[0]
    ):  # `user:secret@host:path` is not what it looks like
        raise _refused(url, "is no URL")
    host = _host(url, match["host"])
    user, _ = _user(url, "ssh", match["user"] or "")
    return Remote(
        protocol="ssh",
        url=f"{user}@{host}:{match['path']}" if user else f"{host}:{match['path']}",
        host=host,
        port=22,
        user=user,
    )


def _host(url: str, host: str) -> str:
    """A name or an address, in the one form that curl, ssh and the resolver take for the same."""
    if host.startswith("["):
        try:
            return str(ipaddress.IPv6Address(host[1:-1]))
        except ValueError:
            raise _refused(url, "names no valid host") from None
    labels = host.split(".")
    if len(host) > 253 or not all(map(_LABEL.fullmatch, labels)):
        raise _refused(url, "names no valid host")
    if _NUMBER.fullmatch(labels[-1]):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise _refused(url, "names no valid host") from None
    return host.lower()


def _user(url: str, protocol: str, userinfo: str) -> tuple[str, str]:
    user, _, password = userinfo.partition(":")
    if protocol in ("http", "https"):
        user, password = unquote(user), unquote(password)
        if not (user + password).isprintable():
            raise _refused(url, "holds credentials with control characters")
        return user, password
    if user and not _USER.fullmatch(user):
        raise _refused(url, "holds a user that is no name")
    return user, ""


def _refused(url: str, why: str) -> SourceRefused:
    """With as much of the URL as cannot be a credential, wherever its parts were meant to end."""
    shown = re.sub(r"^([A-Za-z0-9+.-]*://)?.*@", r"\1", url, flags=re.DOTALL)
    return SourceRefused(f"workspace.git.url: {shown!r} {why}")


def check_protocol(remote: Remote, rules: FetchRules) -> None:
    if remote.protocol not in rules.protocols:
        raise SourceRefused(
            f"workspace.git.url: the protocol {remote.protocol!r} is not allowed on this pool; allowed are"
            f" {', '.join(rules.protocols)} (the pool's `git_protocols`)"
        )


def pin_address(remote: Remote, rules: FetchRules, resolve: Resolve) -> str:
    """The one address to fetch from. All that the name resolves to must be allowed, or a name could change its mind."""
    try:
        addresses = resolve(remote.host, remote.port)
    except OSError as error:
        raise SourceRefused(f"the host {remote.host!r} cannot be resolved: {error.strerror}") from None
    if not addresses:
        raise SourceRefused(f"the host {remote.host!r} has no address")
    connected = connected_networks()
    for address in addresses:
        if _is_always_closed(address):
            raise SourceRefused(
                f"the host {remote.host!r} is at {address}, which is not a public address: clouds serve their metadata"
                " and credentials there, and no pool allows it"
            )
        if not rules.allow_private_addresses and not _is_public(address, connected):
            raise SourceRefused(
                f"the host {remote.host!r} is at {address}, which is not a public address; the pool's"
                " `allow_private_addresses` would allow it"
            )
    return addresses[0]


def _is_always_closed(address: str) -> bool:
    try:
        return is_always_closed(address)
    except ValueError:
        return False  # and no public one either


def _is_public(address: str, connected: tuple[Network, ...]) -> bool:
    try:
        return is_public(address, connected)
    except ValueError:  # a zone of link-local addresses, or nothing that we know
        return False


def fetch_url(remote: Remote, address: str) -> str:
    """What git is told to fetch. Its own protocol takes no pin, so there the address stands for the name."""
    if remote.protocol != "git":
        return remote.url
    return remote.url.replace(_bracketed(remote.host), _bracketed(address), 1)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What lies ready in the sandbox of a fetch."""

    has_credential: bool = False
    has_ssh_key: bool = False
    has_known_hosts: bool = False
    has_authorities: bool = False


def environment(
    remote: Remote, rules: FetchRules, address: str | None, given: Given | None = None
) -> dict[str, str]:
    """git's environment: no configuration but this, no prompt, no redirect, the address pinned."""
    given = given or Given()
    config = {
        "http.followRedirects": "false",
        "core.hooksPath": "/dev/null",
        "advice.detachedHead": "false",
        "init.defaultBranch": "main",
        "gc.auto": "0",
        "fetch.unpackLimit": "1",
    }
    env = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": CONFIG,
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ALLOW_PROTOCOL": ":".join(rules.protocols),
        "GIT_ADVICE": "0",
    }
    if address is not None:
        if ":" not in remote.host:
            config["http.curloptResolve"] = f"{remote.host}:{remote.port}:{_bracketed(address)}"
        env["GIT_SSH_COMMAND"] = _ssh_command(remote, address, given)
    if given.has_credential and remote.protocol in ("http", "https"):
        config["credential.helper"] = _HELPER
    if given.has_authorities:
        env["GIT_SSL_CAINFO"] = AUTHORITIES
    for index, (key, value) in enumerate(config.items()):
        env[f"GIT_CONFIG_KEY_{index}"], env[f"GIT_CONFIG_VALUE_{index}"] = key, value
    env["GIT_CONFIG_COUNT"] = str(len(config))
    return env


def _ssh_command(remote: Remote, address: str, given: Given) -> str:
    """A host whose key the operator gave must have that key; any other is taken at its first word."""
    options = [
        "BatchMode=yes",
        f"HostName={address}",
        f"HostKeyAlias={_host_key_name(remote)}",
        "ConnectTimeout=20",
    ]
    options.append(f"UserKnownHostsFile={KNOWN_HOSTS}")
    options.append(f"StrictHostKeyChecking={'yes' if given.has_known_hosts else 'accept-new'}")
    words = ["ssh", "-F", "/dev/null"]
    if given.has_ssh_key:
        words += ["-i", SSH_KEY]
        options.append("IdentitiesOnly=yes")
    for option in options:
        words += ["-o", option]
    return shlex.join(words)


def _host_key_name(remote: Remote) -> str:
    """As known_hosts files have it: with the port in brackets where it is another."""
    return remote.host if remote.port == 22 else f"[{remote.host}]:{remote.port}"


def check_ref(ref: str | None) -> None:
    if ref is not None and (ref.startswith("-") or not ref.strip() or any(c in ref for c in " ~^:?*[\\\0\n")):
        raise SourceRefused(f"workspace.git.ref: {ref!r} is no branch, tag or commit")


def last_words(stderr: str) -> str:
    """The line that tells best what went wrong: git's last `fatal` or `error`, else the last."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if line.startswith(("fatal:", "error:", "remote:", "ssh:"))]
    return redact((telling or lines or [""])[-1])


def redact(text: str) -> str:
    """Without what stands before the last `@` of a URL's place (I11)."""
    return _CREDENTIALS.sub("", text)
