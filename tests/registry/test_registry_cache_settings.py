"""`[registry_cache]`: what a file may say, every problem at once, no password shown."""

from pathlib import Path

import pytest

from runyard.app import check_settings
from runyard.cli.config import show
from runyard.config import load
from runyard.metrics import render_cache_metrics
from runyard.model.errors import ConfigError
from runyard.registry.cache.counters import Counters
from runyard.registry_cache import cache_settings, public_only


@pytest.fixture(autouse=True)
def _no_outside_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNYARD_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("RUNYARD_CONFIG", raising=False)


def written(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "runyard.toml"
    file.write_text(text)
    return file


def test_it_is_off_until_it_has_an_address() -> None:
    assert load().registry_cache.listen is None


def test_with_an_address_alone_it_serves_the_default_registry(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNYARD_REGISTRY_CACHE__LISTEN", "0.0.0.0:7710")
    settings = cache_settings(load().registry_cache, tmp_path)
    assert settings.default == "docker.io"
    assert settings.upstreams["docker.io"].host == "registry-1.docker.io"
    assert settings.directory == tmp_path / "registry-cache"


def test_upstreams_are_read_and_their_passwords_are_not_shown(tmp_path: Path, capsys) -> None:
    file = written(
        tmp_path,
        """
        [registry_cache]
        listen = "127.0.0.1:7710"
        bytes_max = "10Gi"
        tag_ttl = "1m"
        [registry_cache.upstreams.inner]
        url = "http://registry.inner:5000"
        username = "ci"
        password = "s3cret"
        [registry_cache.upstreams."quay.example"]
        url = "https://quay.example"
        login = "request"
        """,
    )
    settings = cache_settings(load(file).registry_cache, tmp_path)
    assert settings.upstreams["inner"].is_plain_http
    assert settings.upstreams["quay.example"].needs_login
    assert settings.default is None
    assert [rule.username for rule in settings.rules] == ["ci"]
    assert (settings.bytes_max, settings.tag_ttl_s) == (10 << 30, 60)
    show(config=file)
    shown = capsys.readouterr().out
    assert "registry.inner:5000" in shown
    assert "s3cret" not in shown


def test_every_problem_is_said_at_once(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        """
        [registry_cache]
        default = "missing"
        [registry_cache.upstreams."A/B"]
        url = "https://x.example"
        [registry_cache.upstreams.path]
        url = "https://x.example/v2"
        [registry_cache.upstreams.half]
        url = "https://x.example"
        username = "ci"
        """,
    )
    with pytest.raises(ConfigError) as raised:
        check_settings(load(file))
    for text in (
        "upstreams.A/B",
        "upstreams.path.url",
        "upstreams.half",
        "registry_cache.default: 'missing'",
    ):
        assert text in raised.value.message


@pytest.mark.parametrize(
    "text",
    [
        'listen = "7710"',
        'rights_ttl = "1h"',
        '[registry_cache.upstreams.x]\nurl = "https://x.example"\nlogin = "nobody"',
        '[registry_cache.upstreams.x]\nurl = "https://x.example"\nlogin = "request"\npassword = "s3cret"',
    ],
)
def test_what_cannot_hold_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(written(tmp_path, f"[registry_cache]\n{text}"))
    assert "s3cret" not in raised.value.message


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "fd00::1", "::ffff:10.0.0.1", "x"],
)
def test_a_host_that_nobody_wrote_down_is_not_reached_at_home(address: str) -> None:
    assert not public_only()(address)


def test_what_it_counts_is_exposed() -> None:
    text = render_cache_metrics(Counters(hits=3, upstream_bytes=7)).decode()
    assert 'runyard_registry_cache_answers_total{how="hits"} 3.0' in text
    assert 'runyard_registry_cache_bytes_total{way="fetched"} 7.0' in text
