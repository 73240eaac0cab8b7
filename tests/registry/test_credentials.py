"""Which credentials a repository and tenant get, from tables, files, docker's config and its helpers."""

import base64
import json
import os
from pathlib import Path

import pytest

from runyard.model.errors import ConfigError
from runyard.registry.credentials import Credentials, CredentialStore, parse_registries


def store(*rows: dict) -> CredentialStore:
    return CredentialStore(parse_registries(list(rows)).rules)


def login(host: str, username: str, **more) -> dict:
    return {"host": host, "username": username, "password": f"of {username}", **more}


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Puts a docker-credential-NAME on PATH that runs a shell text."""

    def helper(name: str, text: str) -> None:
        program = tmp_path / "bin" / f"docker-credential-{name}"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{text}\n")
        program.chmod(0o755)

    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    return helper


def docker_config(folder: Path, **content) -> dict:
    file = folder / "config.json"
    file.write_text(json.dumps(content))
    return {"docker_config": str(file)}


def packed(text: str) -> dict:
    return {"auth": base64.b64encode(text.encode()).decode()}


async def test_a_tenant_gets_its_own_login_and_nobody_else_s() -> None:
    found = store(login("r.example", "search-ci", tenants=["search"]), login("r.example", "everybody"))
    assert (await found.find("r.example", "a", tenant="search")).username == "search-ci"
    assert (await found.find("r.example", "a", tenant="ads")).username == "everybody"
    assert (await found.find("r.example", "a")).username == "everybody"
    only = store(login("r.example", "search-ci", tenants=["search"]))
    assert await only.find("r.example", "a", tenant="ads") is None
    assert await only.find("r.example", "a") is None
    assert await only.find("other.example", "a", tenant="search") is None


async def test_the_longer_prefix_wins_and_ends_at_a_slash() -> None:
    found = store(
        login("r.example", "host"), login("r.example/team", "team"), login("r.example/team/app", "app")
    )
    names = {
        path: (await found.find("r.example", path)).username for path in ("team/app", "team/x", "teams", "x")
    }
    assert names == {"team/app": "app", "team/x": "team", "teams": "host", "x": "host"}


async def test_the_default_registry_has_one_name_for_all_of_its_names() -> None:
    found = store(login("docker.io", "hub"))
    assert (await found.find("registry-1.docker.io", "library/python")).username == "hub"


async def test_a_password_file_is_read_at_each_look(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("first\n")
    found = store({"host": "r.example", "username": "ci", "password_file": str(file)})
    assert (await found.find("r.example", "a")).password == "first"
    file.write_text("second\n")
    assert (await found.find("r.example", "a")).password == "second"
    file.unlink()
    with pytest.raises(ConfigError, match="cannot read the registry password"):
        await found.find("r.example", "a")


async def test_docker_s_config_is_read_as_docker_reads_it(tmp_path: Path) -> None:
    config = docker_config(
        tmp_path,
        auths={
            "r.example": packed("ci:pass:word"),
            "https://index.docker.io/v1/": packed("hub:x"),
            "https://old.example": {"username": "old", "password": "p"},
            "r.example/team": packed("team:t"),
            "cloud.example": {"auth": "", "identitytoken": "refresh"},
        },
    )
    found = store(config)
    assert await found.find("r.example", "a") == Credentials("ci", "pass:word")
    assert (await found.find("r.example", "team/x")).username == "team"
    assert (await found.find("registry-1.docker.io", "library/python")).username == "hub"
    assert (await found.find("old.example", "a")).username == "old"
    assert (await found.find("cloud.example", "a")).identity_token == "refresh"
    assert await found.find("unknown.example", "a") is None


async def test_a_login_in_the_table_wins_over_docker_s_config(tmp_path: Path) -> None:
    found = store(docker_config(tmp_path, auths={"r.example": packed("file:x")}), login("r.example", "table"))
    assert (await found.find("r.example", "a")).username == "table"


async def test_a_helper_is_asked_with_the_server_and_without_our_secrets(
    tmp_path: Path, helper, monkeypatch
) -> None:
    monkeypatch.setenv("RUNYARD_TOKEN", "of-the-service")
    helper(
        "cloud",
        f'read server; env > {tmp_path}/env; echo "{{\\"Username\\": \\"for $server\\", \\"Secret\\": \\"s\\"}}"',
    )
    found = store(docker_config(tmp_path, credHelpers={"r.example": "cloud"}, credsStore="missing"))

    assert await found.find("r.example", "a") == Credentials("for r.example", "s")
    assert "of-the-service" not in (tmp_path / "env").read_text()


async def test_a_helper_s_answer_is_kept_for_a_while(tmp_path: Path, helper) -> None:
    helper("cloud", f'echo >> {tmp_path}/calls; echo \'{{"Username": "u", "Secret": "s"}}\'')
    found = store(docker_config(tmp_path, credsStore="cloud"))
    await found.find("r.example", "a")
    await found.find("r.example", "b")
    assert (tmp_path / "calls").read_text() == "\n"


async def test_a_store_that_knows_no_login_is_no_error(tmp_path: Path, helper) -> None:
    helper("cloud", "echo credentials not found in native keychain; exit 1")
    assert await store(docker_config(tmp_path, credsStore="cloud")).find("r.example", "a") is None


@pytest.mark.parametrize(
    "text",
    [
        "echo s3cret; exit 2",
        "echo s3cret",
        'echo \'{"Username": "s3cret"}\'',
        "yes s3cret",
        "exec 1>&-; exit 0",
    ],
)
async def test_a_broken_helper_is_told_without_what_it_printed(tmp_path: Path, helper, text: str) -> None:
    helper("cloud", text)
    with pytest.raises(ConfigError) as raised:
        await store(docker_config(tmp_path, credsStore="cloud")).find("r.example", "a")
    assert "docker-credential-cloud" in raised.value.message
    assert "s3cret" not in raised.value.message


async def test_a_helper_that_hangs_is_ended_at_its_deadline(tmp_path: Path, helper, monkeypatch) -> None:
    monkeypatch.setattr("runyard.registry.docker_config.HELPER_S_MAX", 0.2)
    helper("cloud", "sleep 600")
    with pytest.raises(ConfigError, match="did not answer"):
        await store(docker_config(tmp_path, credsStore="cloud")).find("r.example", "a")


@pytest.mark.parametrize("name", ["../../bin/sh", "a b", "missing"])
async def test_a_helper_that_is_none_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="helper"):
        await store(docker_config(tmp_path, credsStore=name)).find("r.example", "a")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"auths": {"r.example": {"auth": "%%"}}}'])
async def test_a_broken_docker_config_is_told_without_its_content(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ConfigError, match="docker config"):
        await store({"docker_config": str(tmp_path / "config.json")}).find("r.example", "a")


def test_flags_of_hosts_are_collected() -> None:
    parsed = parse_registries(
        [
            {"host": "inner.example:5000", "plain_http": True, "private": True},
            {"host": "r.example", "private": True},
        ]
    )
    assert parsed.plain_http_hosts == {"inner.example:5000"}
    assert parsed.private_hosts == {"inner.example:5000", "r.example"}
    assert parsed.rules == ()


def test_every_fault_of_the_tables_is_listed_without_passwords() -> None:
    with pytest.raises(ConfigError) as raised:
        parse_registries(
            [
                {"host": "http://r.example"},
                {"username": "u"},
                {"host": "r.example", "username": "u"},
                {"host": "r.example", "password": "s3cret"},
                {"host": "r.example", "plain_http": "yes", "user": "x"},
                {"docker_config": "/x", "private": True},
                {"host": "r.example", "tenants": "search"},
                "r.example",
            ]
        )
    message = raised.value.message
    assert all(f"registries.{number}" in message for number in range(8))
    assert "s3cret" not in message
