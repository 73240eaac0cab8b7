from __future__ import annotations

import base64
from dataclasses import replace
from pathlib import Path

import pytest

from runyard.model.errors import ConfigError, SecretsUnavailable
from runyard.secrets.sealing import KeyRing, Place, key_id, new_key_text, read_key_ring

OLD, NEW = b"o" * 32, b"n" * 32
PLACE = Place("realm", "acme", "TOKEN", "v1")


def test_a_value_opens_under_any_key_of_the_ring_and_the_first_one_seals():
    sealed = KeyRing([OLD]).seal(b"value", PLACE)
    ring = KeyRing([NEW, OLD])
    assert ring.sealing_id == key_id(NEW)
    assert ring.open(sealed, PLACE, sealed_by=key_id(OLD)) == b"value"
    assert b"value" not in sealed


def test_the_same_value_is_never_sealed_the_same_twice():
    ring = KeyRing([OLD])
    assert ring.seal(b"value", PLACE) != ring.seal(b"value", PLACE)


@pytest.mark.parametrize("field", ["realm", "tenant", "name", "version"])
def test_a_value_that_was_moved_elsewhere_does_not_open(field):
    ring = KeyRing([OLD])
    sealed = ring.seal(b"value", PLACE)
    with pytest.raises(SecretsUnavailable, match="does not open"):
        ring.open(sealed, replace(PLACE, **{field: "other"}), sealed_by=ring.sealing_id)


@pytest.mark.parametrize("at", [0, 12, -1])
def test_a_value_that_was_altered_does_not_open(at):
    ring = KeyRing([OLD])
    sealed = bytearray(ring.seal(b"value", PLACE))
    sealed[at] ^= 1
    with pytest.raises(SecretsUnavailable):
        ring.open(bytes(sealed), PLACE, sealed_by=ring.sealing_id)


def test_a_key_that_is_not_there_is_named_with_the_cure():
    sealed = KeyRing([OLD]).seal(b"value", PLACE)
    with pytest.raises(SecretsUnavailable, match=key_id(OLD)) as error:
        KeyRing([NEW]).open(sealed, PLACE, sealed_by=key_id(OLD))
    assert "secrets.keys" in (error.value.cure or "")


def test_keys_are_read_from_files_and_variables_in_base64_or_hex(tmp_path: Path):
    (tmp_path / "a.key").write_text(base64.b64encode(OLD).decode() + "\n")
    ring = read_key_ring([str(tmp_path / "a.key"), "env:K"], {"K": NEW.hex()})
    assert ring is not None
    assert ring.ids == (key_id(OLD), key_id(NEW))
    assert read_key_ring([], {}) is None
    assert len(base64.b64decode(new_key_text())) == 32


@pytest.mark.parametrize("text", ["", "c2hvcnQ=", "not a key at all, but a password"])
def test_what_is_no_key_is_refused_and_never_repeated(tmp_path: Path, text: str):
    (tmp_path / "a.key").write_text(text)
    for source in (str(tmp_path / "a.key"), "env:K"):
        with pytest.raises(ConfigError) as error:
            read_key_ring([source], {"K": text})
        assert source in error.value.message
        assert not text or text not in error.value.message + str(error.value.cure)


def test_a_missing_file_or_variable_is_named(tmp_path: Path):
    for source in (str(tmp_path / "none"), "env:NONE"):
        with pytest.raises(ConfigError, match=source):
            read_key_ring([source], {})
