"""The configuration: checked whole, every problem named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from runyard.app import check_settings
from runyard.cli import config as config_command
from runyard.config import load
from runyard.model.errors import ConfigError


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNYARD_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("RUNYARD_CONFIG", raising=False)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "runyard.toml"
    file.write_text(text)
    return file


def test_without_file_and_variables_the_defaults_serve(tmp_path: Path) -> None:
    settings = load()
    assert (settings.server.host, settings.server.port) == ("127.0.0.1", 7700)
    assert settings.ledger_url == f"sqlite://{tmp_path}/data/ledger.sqlite"
    assert settings.pools == {}


def test_the_file_is_read(tmp_path: Path) -> None:
    text = """
        [server]
        listen = "0.0.0.0:80"
        [retention]
        logs = "3d"
        [queues.slow]
        weight = 0.5
        running_max = 2
        [pools.big]
        provider = "local"
        slots = 4
        uid_base = 900000
    """
    settings = load(written(tmp_path, text))
    assert settings.server.port == 80
    assert settings.retention.logs == 3 * 86400
    assert settings.queues["slow"].running_max == 2
    assert settings.pools["big"].options == {"uid_base": 900000}


def test_what_holds_for_all_workspaces_is_in_each_pool_that_does_not_say_it_itself(tmp_path: Path) -> None:
    text = """
        [workspaces]
        git_protocols = ["https", "git"]
        [pools.a]
        provider = "local"
        [pools.b]
        provider = "local"
        git_protocols = ["ssh"]
    """
    pools = load(written(tmp_path, text)).pools_in_force
    assert pools["a"].options["git_protocols"] == ["https", "git"]
    assert pools["b"].options["git_protocols"] == ["ssh"]
    with pytest.raises(ConfigError, match="ftp"):
        load(written(tmp_path, '[workspaces]\ngit_protocols = ["ftp"]'))


def test_a_variable_wins_over_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNYARD_SERVER__LISTEN", "127.0.0.1:1234")
    assert load(written(tmp_path, '[server]\nlisten = "127.0.0.1:80"')).server.port == 1234


def test_every_problem_is_listed_at_once(tmp_path: Path) -> None:
    text = """
        [server]
        listen = "nowhere"
        colour = "red"
        [retention]
        logs = "soon"
        [pools.x]
        provider = "local"
        slots = 0
    """
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, text))
    for part in (
        "4 problems",
        "server.listen",
        "server.colour",
        "retention.logs",
        "pools.x.slots",
        "'nowhere'",
    ):
        assert part in caught.value.message


def test_a_file_that_is_no_toml_names_the_place(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="line 1"):
        load(written(tmp_path, "a = ?"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        load(tmp_path / "gone.toml")


def test_a_name_that_no_job_can_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Bad Name"):
        load(written(tmp_path, '[queues."Bad Name"]\nweight = 1'))


def test_the_bound_of_each_tenant_in_a_queue_has_two_names_and_one_value(tmp_path: Path) -> None:
    settings = load(written(tmp_path, "[queues.ci.tenant_default]\nrunning_max = 3"))
    assert settings.queues["ci"].settings_of("ci").tenant_running_max == 3
    with pytest.raises(ConfigError, match="keep one"):
        load(written(tmp_path, "[queues.ci]\ntenant_running_max = 1\ntenant_default = {running_max = 2}"))


def test_without_pools_the_local_one_is_in_force() -> None:
    assert list(load().pools_in_force) == ["local"]


@pytest.mark.parametrize(
    ("address", "has_token", "pool"),
    [("10.96.0.1", True, "kubernetes"), ("10.96.0.1", False, "local"), ("", True, "local")],
)
def test_without_pools_a_pod_with_a_service_account_has_one_of_its_cluster(
    address: str, has_token: bool, pool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    if has_token:
        token.write_text("secret")
    monkeypatch.setattr("runyard.config.SERVICE_ACCOUNT_TOKEN", token)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", address)
    pools = load().pools_in_force
    assert {name: section.provider for name, section in pools.items()} == {pool: pool}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[pools.x]\nprovider = "cloud"', "'cloud'"),
        ('[pools.x]\nprovider = "local"\nnokey = 1', "nokey"),
        ('[pools.x]\nprovider = "local"\ngit_protocols = ["ftp"]', "git_protocols"),
        ('[ledger]\nurl = "mysql://x/y"', "mysql"),
        ("[queues.q]\ndefaults = {bogus = 1}", "queues.q.defaults.bogus"),
    ],
)
def test_what_serve_would_refuse_is_found_without_starting_it(tmp_path: Path, text: str, said: str) -> None:
    from runyard.app import check_settings

    with pytest.raises(ConfigError, match=said):
        check_settings(load(written(tmp_path, text)))


def test_every_key_of_a_local_pool_is_documented() -> None:
    from runyard.providers.local.options import _KEYS

    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text()
    assert [key for key in _KEYS if f"| `{key}` |" not in page] == []


OBJECTS = """
[logs]
url = "s3://bucket/logs"
[object_store]
allow_http = true
[object_store.options]
aws_endpoint = "http://127.0.0.1:9000"
aws_secret_access_key = "s3cret-Key"
"""


def test_the_credentials_of_an_object_store_are_read_and_never_shown(tmp_path, capsys):
    file = tmp_path / "runyard.toml"
    file.write_text(OBJECTS)
    settings = load(file)
    assert settings.object_store.options["aws_secret_access_key"].get_secret_value() == "s3cret-Key"
    assert "s3cret-Key" not in repr(settings)
    for json in (False, True):
        config_command.show(config=file, json=json)
    assert "s3cret-Key" not in capsys.readouterr().out


def test_options_of_an_object_store_may_be_variables(monkeypatch):
    monkeypatch.setenv("RUNYARD_OBJECT_STORE__OPTIONS__AWS_SECRET_ACCESS_KEY", "s3cret-Key")

    assert load().object_store.options["aws_secret_access_key"].get_secret_value() == "s3cret-Key"


@pytest.mark.parametrize(
    "text",
    [
        '[object_store.options]\nsecret = "s3cret-Key"',
        '[object_store.options]\naws_allow_http = "s3cret-Key"',
        '[object_store.options]\naws_secret_access_key = ["s3cret-Key"]',
    ],
)
def test_a_wrong_option_is_refused_without_its_value(tmp_path, text):
    file = tmp_path / "runyard.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(file)
    assert "object_store.options" in caught.value.message
    assert "s3cret-Key" not in caught.value.message


@pytest.mark.parametrize("section", ["logs", "artifacts"])
def test_an_address_that_is_no_object_store_is_refused_before_anything_starts(tmp_path, section):
    file = tmp_path / "runyard.toml"
    file.write_text(f'[{section}]\nurl = "ftp://host/folder"\n')
    with pytest.raises(ConfigError, match=f"{section}.url: 'ftp://host/folder' is no address"):
        check_settings(load(file))
