"""What `[secrets]` may hold, and what is said of it before the service starts."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from runyard.app import check_settings, settings_notes
from runyard.clock import SystemClock
from runyard.config import Settings, load
from runyard.installation import Folders
from runyard.ledger.opening import create_ledger
from runyard.model.errors import ConfigError
from runyard.secret_keys import open_secrets

KEY = base64.b64encode(b"k" * 32).decode()


def a_file(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "runyard.toml"
    file.write_text(text)
    return file


def test_a_key_pasted_into_the_file_is_refused_and_not_repeated(tmp_path: Path):
    for pasted in (KEY, (b"k" * 32).hex(), "relative.key"):
        with pytest.raises(ConfigError) as error:
            load(a_file(tmp_path, f'[secrets]\nkeys = ["{pasted}"]'))
        assert "neither the absolute path" in error.value.message
        assert pasted not in error.value.message


def test_every_key_that_cannot_be_read_is_told_at_once(tmp_path: Path):
    (tmp_path / "short.key").write_text("c2hvcnQ=")
    settings = load(a_file(tmp_path, f'[secrets]\nkeys = ["{tmp_path}/short.key", "env:NOT_SET_HERE"]'))
    with pytest.raises(ConfigError) as error:
        check_settings(settings)
    assert "short.key holds no key" in error.value.message
    assert "env:NOT_SET_HERE the variable is not set" in error.value.message
    assert "c2hvcnQ=" not in error.value.message


def test_a_shared_ledger_without_a_key_is_valid_and_says_that_secrets_are_off(tmp_path: Path):
    shared = load(a_file(tmp_path, '[ledger]\nurl = "postgresql://u@127.0.0.1/db"'))
    [note] = settings_notes(shared)
    assert "secrets are off" in note
    assert settings_notes(Settings()) == ()


async def test_a_key_is_made_once_and_goes_on_opening_behind_a_configured_one(tmp_path: Path):
    ledger = create_ledger("sqlite://:memory:", clock=SystemClock())
    await ledger.open()
    try:
        folders = Folders(tmp_path)
        first = await open_secrets(Settings(data=tmp_path), folders, ledger)
        assert folders.secrets_key.stat().st_mode & 0o777 == 0o600
        await first.put("acme", "TOKEN", b"hunter2", queues=None, by="x")
        (tmp_path / "own.key").write_text(KEY)
        settings = Settings(data=tmp_path, secrets={"keys": [str(tmp_path / "own.key")]})  # type: ignore[arg-type]
        second = await open_secrets(settings, folders, ledger)
        assert await second.unreadable() == {}
        assert (await second.rotate()).resealed == 1
    finally:
        await ledger.close()


async def test_a_shared_ledger_that_holds_secrets_is_not_served_without_a_key(tmp_path: Path):
    """The ledger of these two services is one in memory; that it counts as shared is the url's word."""
    ledger = create_ledger("sqlite://:memory:", clock=SystemClock())
    await ledger.open()
    try:
        first = await open_secrets(Settings(data=tmp_path / "a"), _made(tmp_path / "a"), ledger)
        await first.put("acme", "TOKEN", b"hunter2", queues=None, by="x")
        shared = Settings(data=tmp_path / "b", ledger={"url": "postgresql://u@127.0.0.1/db"})  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="1 sealed secrets") as error:
            await open_secrets(shared, _made(tmp_path / "b"), ledger)
        assert "secrets.keys" in (error.value.cure or "")
    finally:
        await ledger.close()


def _made(folder: Path) -> Folders:
    folder.mkdir()
    return Folders(folder)
