"""Real servers that repositories and files are fetched from: git over https (git's own backend), sshd, plain files."""

import base64
import contextlib
import hashlib
import http.server
import json
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

SSHD = "/usr/sbin/sshd"
_BACKEND = subprocess.run(["git", "--exec-path"], capture_output=True, text=True, check=True).stdout.strip()


@dataclass
class WebServer:
    """`login` must be given for paths beneath /private; `redirects` and `files` by path; `seen` are the requests;
    large files by their sha256 in `large`."""

    root: Path
    url: str = ""
    ca_file: Path | None = None
    login: str = "user:hunter2"
    redirects: dict[str, str] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    large_at: str = ""
    seen: list[str] = field(default_factory=list)

    @property
    def place(self) -> str:
        return self.url.partition("://")[2]

    def asked(self, word: str) -> int:
        return sum(word in each for each in self.seen)


@contextlib.contextmanager
def web_server(root: Path, *, tls: bool = False) -> Iterator[WebServer]:
    """Serves the repositories beneath `root` over the smart protocol, on localhost."""
    served = WebServer(root)
    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), type("Handler", (_Handler,), {"served": served})
    ) as server:
        protocol = "http"
        if tls:
            protocol, served.ca_file = "https", root / "ca.pem"
            make_certificate(served.ca_file, root / "key.pem")
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(served.ca_file, root / "key.pem")
            server.socket = context.wrap_socket(server.socket, server_side=True)
        served.url = f"{protocol}://localhost:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield served
        server.shutdown()


def make_certificate(certificate: Path, key: Path) -> None:
    argv = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    argv += ["-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*argv, "-out", str(certificate), "-keyout", str(key)], check=True, capture_output=True)


class _Handler(http.server.BaseHTTPRequestHandler):
    served: WebServer

    def do_GET(self) -> None:
        self.answer(b"")

    def do_POST(self) -> None:
        self.answer(self.rfile.read(int(self.headers["Content-Length"])))

    def answer(self, body: bytes) -> None:
        served = self.served
        path, _, query = self.path.partition("?")
        served.seen.append(f"{self.command} {self.path}")
        login = "Basic " + base64.b64encode(served.login.encode()).decode()
        if path.startswith("/private") and self.headers.get("Authorization") != login:
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="r"')
            self.end_whole(b"")
        elif path in served.redirects:
            self.send_response(302)
            self.send_header("Location", served.redirects[path])
            self.end_whole(b"")
        elif path in self.served.files:
            self.send_response(200)
            self.end_whole(self.served.files[path])
        elif path.endswith("/info/lfs/objects/batch"):
            self.send_response(200)
            self.end_whole(json.dumps(self.batch(json.loads(body))).encode())
        else:
            self.run_backend(path, query, body)

    def batch(self, asked: dict) -> dict:
        at = self.served.large_at or self.served.url
        objects = []
        for each in asked["objects"]:
            self.served.files[f"/large/{each['oid']}"] = self.served.large[each["oid"]]
            actions = {"download": {"href": f"{at}/large/{each['oid']}", "header": {"X-Large": "1"}}}
            objects.append({**each, "actions": actions})
        return {"transfer": "basic", "objects": objects}

    def run_backend(self, path: str, query: str, body: bytes) -> None:
        env = {
            "GIT_PROJECT_ROOT": str(self.served.root), "GIT_HTTP_EXPORT_ALL": "1", "PATH_INFO": path,
            "PATH": os.defpath,
            "QUERY_STRING": query, "REQUEST_METHOD": self.command, "CONTENT_LENGTH": str(len(body)),
            "CONTENT_TYPE": self.headers.get("Content-Type", ""), "HTTP_CONTENT_ENCODING":
            self.headers.get("Content-Encoding", ""), "GIT_PROTOCOL": self.headers.get("Git-Protocol", ""),
            "GIT_CONFIG_COUNT": "1", "GIT_CONFIG_KEY_0": "safe.directory", "GIT_CONFIG_VALUE_0": "*", "HOME": "/",
        }  # fmt: skip
        done = subprocess.run(
            [f"{_BACKEND}/git-http-backend"], input=body, env=env, capture_output=True, check=False
        )
        head, _, content = done.stdout.partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
        self.send_response(int(headers.pop("Status", "200 OK").split()[0]))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_whole(content)

    def end_whole(self, content: bytes) -> None:
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


def pointer(content: bytes) -> tuple[str, str]:
    """The text that stands in a repository for a large file, and its name."""
    oid = hashlib.sha256(content).hexdigest()
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{oid}\nsize {len(content)}\n", oid


@dataclass
class SshServer:
    port: int
    key_file: Path
    known_hosts_file: Path


@contextlib.contextmanager
def ssh_server(folder: Path) -> Iterator[SshServer]:
    """sshd on a free port, for root with one key."""
    folder.mkdir()
    for name in ("host", "key"):
        argv = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)]
        subprocess.run(argv, check=True)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    os.makedirs("/run/sshd", exist_ok=True)
    config = folder / "sshd_config"
    config.write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/authorized_keys\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    known = folder / "known_hosts"
    known.write_text(f"[localhost]:{port} {(folder / 'host.pub').read_text()}")
    with subprocess.Popen([SSHD, "-D", "-f", str(config), "-E", str(folder / "log")]) as process:
        try:
            _await_port(port, process)
            yield SshServer(port, folder / "key", known)
        finally:
            process.kill()


def _await_port(port: int, process: subprocess.Popen) -> None:
    ends_at = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        assert process.poll() is None
        assert time.monotonic() < ends_at, "sshd did not come up"
