"""The configuration: checked whole, every problem named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

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
    assert settings.ledger_url == f"sqlite:///{tmp_path}/data/ledger.sqlite"
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
