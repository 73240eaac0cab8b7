"""Secrets through the real service and command line: used by a job, and looked for in vain wherever they could leak."""

from __future__ import annotations

import base64
import os
import re
import sqlite3
import subprocess
import urllib.parse
from pathlib import Path

import pytest

from runyard.sdk import Client
from runyard.sdk.following import LogChunk
from tests.journeys.conftest import RunningService

pytestmark = pytest.mark.service

VALUE = "correct horse/battery+staple-42"
FORMS = (
    VALUE.encode(),
    urllib.parse.quote(VALUE).encode(),
    urllib.parse.quote_plus(VALUE).encode(),
    base64.b64encode(VALUE.encode())[:-4],
    base64.b64encode(b"x" + VALUE.encode())[4:-4],
    base64.b64encode(b"xx" + VALUE.encode())[4:-4],
)
USING = """
    echo "plain $TOKEN"; printf '%s' "$TOKEN" | base64 >&2; cat /run/secrets/key
    touch using; until test -e go; do sleep 0.01; done; echo "v=$TOKEN" > /outputs/version
"""


def leaks(text: bytes) -> list[bytes]:
    return [form for form in FORMS if form in text]


def written_beneath(folder: Path) -> bytes:
    """Every byte of every file, the ledger and its journal among them."""
    found = b""
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root) / name
            if path.is_file() and not path.is_symlink():
                found += path.read_bytes()
    return found


def seen_in_proc() -> bytes:
    """Command lines of all processes, and the environments of those that are no job's."""
    found = b""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                found += (entry / "cmdline").read_bytes()
                if (entry / "ns/pid").readlink() == Path("/proc/self/ns/pid").readlink():
                    found += (entry / "environ").read_bytes()
            except OSError:
                continue
    return found


def answers(service: RunningService) -> bytes:
    """What every read of the API tells, and every page."""
    client = service.client()
    page = Client(url=service.url, token=service.token)
    paths = [
        "jobs",
        "jobs/using",
        "jobs/using/why",
        "secrets",
        "audit",
        "events?after=0",
        "queues",
        "tenants",
        "pools",
    ]
    import httpx2

    headers = {"Authorization": f"Bearer {service.token}"}
    found = b""
    for path in paths:
        with httpx2.stream("GET", f"{service.url}/api/v1/{path}", headers=headers, timeout=10) as answer:
            found += next(answer.iter_bytes(), b"")
    found += httpx2.get(f"{service.url}/metrics", headers=headers).content
    with httpx2.Client(base_url=service.url, follow_redirects=True) as browser:
        home = {"Sec-Fetch-Site": "same-origin"}
        assert browser.post("/sign-in", data={"token": service.token}, headers=home).status_code == 200
        for path in ("/", "/jobs", "/jobs/using", "/access", "/audit", "/queues/default", "/pools/local"):
            shown = browser.get(path)
            assert shown.status_code == 200, path
            found += shown.content
    client.close()
    page.close()
    return found


def test_a_job_uses_a_secret_and_it_is_nowhere_else(service: RunningService) -> None:
    service.cli("secret", "set", "token", stdin=VALUE.encode() + b"\n")
    with service.client() as client:
        document = {"steps": [{"run": USING}], "secrets": ["token", {"name": "token", "file": "key"}]}
        client.submit(document, id="using")
        chunks = client.follow_log("using")
        while b"plain ***" not in (next(item for item in chunks if isinstance(item, LogChunk))).data:
            pass
        attempt = next((service.data / "pools/local/attempts").iterdir())
        _wait_for(attempt / "workspace/using")
        running = written_beneath(service.data) + seen_in_proc() + answers(service)
        (attempt / "workspace/go").touch()
        job = client.wait("using", timeout_s=30)
        assert job.state == "succeeded"
        assert dict(job.outputs) == {"version": "v=***\n"}
        assert client.read_log("using") == b"plain ***\n***"
    _wait_for(attempt, is_there=False)  # what the job wrote itself goes with it
    after = written_beneath(service.data) + answers(service) + service.log.read_bytes()
    listed = service.cli("secret", "list").stdout + service.cli("job", "using").stdout
    assert b"token" in listed
    assert leaks(running) == []
    assert leaks(after + listed) == []
    audit = service.cli("audit").stdout.decode()
    assert re.search(r"hand out\s+secret default/token", audit)


def _wait_for(file: Path, *, is_there: bool = True) -> None:
    until = "until" if is_there else "while"
    subprocess.run(["/bin/sh", "-c", f"{until} test -e {file}; do sleep 0.01; done"], timeout=30, check=True)


def test_a_service_that_dies_before_the_shim_started_hands_the_secret_over_again(
    service: RunningService,
) -> None:
    service.cli("secret", "set", "TOKEN", stdin=VALUE.encode())
    with service.client() as client:
        client.submit(
            {"steps": [{"run": "echo begins; sleep 2; echo $TOKEN"}], "secrets": ["TOKEN"]}, id="long"
        )
        for change in client.events(after="0"):
            if change.job == "long" and change.state == "running":
                break
    service.kill()
    service.start()
    with service.client() as client:
        job = client.wait("long", timeout_s=30)
        assert (job.state, job.attempt_count) == ("succeeded", 1)
        assert client.read_log("long") == b"begins\n***\n"


def test_a_run_gets_its_secret_and_a_missing_one_is_refused_with_the_cure(service: RunningService) -> None:
    refused = service.cli("run", "--secret", "GONE", "--", "true", check=125)
    assert b"runyard secret set GONE" in refused.stderr
    service.cli("secret", "set", "KEY", "--from-file", __file__)
    done = service.cli("run", "--secret", "KEY", "--", "sh", "-c", 'printf "%s" "$KEY" | tail -c 40 | wc -c')
    assert done.stdout == b"40\n"
    service.cli("secret", "delete", "KEY")
    service.cli("secret", "delete", "KEY", check=1)


def test_a_rotation_after_a_restart_keeps_every_secret(service: RunningService, tmp_path: Path) -> None:
    service.cli("secret", "set", "TOKEN", stdin=VALUE.encode())
    assert (service.data / "secrets.key").stat().st_mode & 0o777 == 0o600
    new = tmp_path / "new.key"
    new.write_text(base64.b64encode(os.urandom(32)).decode())
    service.environment = {"RUNYARD_SECRETS__KEYS": f'["{new}"]'}
    service.stop()
    (service.data / "secrets.key").rename(tmp_path / "old.key")
    service.start()
    assert b"secrets_unreadable" in service.log.read_bytes()
    assert b"(missing)" in service.cli("secret", "list").stdout
    service.stop()
    service.environment = {"RUNYARD_SECRETS__KEYS": f'["{new}", "{tmp_path / "old.key"}"]'}
    service.start()
    assert service.cli("secret", "rotate").stdout.startswith(b"1 sealed anew")
    done = service.cli("run", "--secret", "TOKEN", "--", "sh", "-c", 'printf "%s" "$TOKEN" | wc -c')
    assert done.stdout == f"{len(VALUE)}\n".encode()


def test_the_ledger_holds_sealed_bytes_and_a_row_of_another_name_does_not_open(
    service: RunningService,
) -> None:
    service.cli("secret", "set", "TOKEN", stdin=VALUE.encode())
    with service.client() as client:
        client.secrets.put("OTHER", "other-value")
    service.stop()
    with sqlite3.connect(service.data / "ledger.sqlite") as ledger:
        [(sealed, version)] = ledger.execute("SELECT sealed, version FROM secrets WHERE name = 'TOKEN'")
        assert leaks(sealed) == []
        ledger.execute("UPDATE secrets SET sealed = ?, version = ? WHERE name = 'OTHER'", (sealed, version))
    ledger.close()
    service.start()
    with service.client() as client:
        client.submit({"steps": [{"run": "echo $OTHER"}], "secrets": ["OTHER"]}, id="thief")
        for change in client.events(after="0"):
            if change.job == "thief" and change.reason is not None:
                break
        assert change.reason is not None
        assert "does not open" in change.reason.message
        assert client.cancel("thief").state in ("canceled", "canceling", "refused")
