"""The key ring: AES-256-GCM under the first key, opening with any, each value bound to where it belongs."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from runyard.model.errors import ConfigError, SecretsUnavailable

KEY_BYTES = 32
VARIABLE = "env:"
MAKE_KEY = "head -c 32 /dev/urandom | base64"
_NONCE_BYTES = 12
_FILE_BYTES_MAX = 4096


@dataclass(frozen=True, slots=True)
class Place:
    """Where a sealed value belongs. Copied to any other row, ledger or version, it does not open."""

    realm: str
    tenant: str
    name: str
    version: str

    def associated_data(self) -> bytes:
        return json.dumps([self.realm, self.tenant, self.name, self.version]).encode()


class KeyRing:
    """`keys` of KEY_BYTES each; the first one seals. A key's id is a hash of it, so nobody has to number them."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {key_id(key): AESGCM(key) for key in keys}
        self.sealing_id = key_id(keys[0])

    @property
    def ids(self) -> tuple[str, ...]:
        return tuple(self._ciphers)

    def seal(self, value: bytes, place: Place) -> bytes:
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._ciphers[self.sealing_id].encrypt(nonce, value, place.associated_data())

    def open(self, sealed: bytes, place: Place, *, sealed_by: str) -> bytes:
        """Raises SecretsUnavailable where its key is not here, or the row is not what was sealed."""
        shown = f"secret '{place.name}' of tenant '{place.tenant}'"
        cipher = self._ciphers.get(sealed_by)
        if cipher is None:
            raise SecretsUnavailable(
                f"{shown} is sealed by the key {sealed_by}, which this service does not have",
                field="secrets.keys",
                cure="add that key to secrets.keys and restart, or set the secret again",
            )
        try:
            return cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], place.associated_data())
        except InvalidTag:
            raise SecretsUnavailable(
                f"{shown} does not open: its row in the ledger was changed, or is another one's",
                cure="set the secret again",
            ) from None


def key_id(key: bytes) -> str:
    """16 hexadecimal digits that tell nothing of the key."""
    return hashlib.sha256(b"runyard secret key\0" + key).hexdigest()[:16]


def new_key_text() -> str:
    return base64.b64encode(os.urandom(KEY_BYTES)).decode()


def read_key_ring(sources: Sequence[str], environ: Mapping[str, str]) -> KeyRing | None:
    """From what `secrets.keys` names: a file each, or `env:VARIABLE`. None for none. Raises ConfigError that names the
    source, never what is in it."""
    keys = [_read_key(source, environ) for source in sources]
    return KeyRing(keys) if keys else None


def _read_key(source: str, environ: Mapping[str, str]) -> bytes:
    if source.startswith(VARIABLE):
        text = environ.get(source.removeprefix(VARIABLE))
        if text is None:
            raise _wrong(source, "the variable is not set", "set it, or drop it from secrets.keys")
    else:
        try:
            with Path(source).open("rb") as file:
                text = file.read(_FILE_BYTES_MAX).decode("ascii", errors="replace")
        except OSError as error:
            cure = f"make it with `{MAKE_KEY}`, readable by the service's user alone"
            raise _wrong(source, f"cannot be read: {error.strerror}", cure) from None
    key = _decoded(text.strip())
    if key is None:
        raise _wrong(
            source, f"holds no key of {KEY_BYTES} bytes in base64 or hex", f"make one with `{MAKE_KEY}`"
        )
    return key


def _decoded(text: str) -> bytes | None:
    try:
        key = bytes.fromhex(text) if len(text) == 2 * KEY_BYTES else base64.b64decode(text, validate=True)
    except (ValueError, binascii.Error):
        return None
    return key if len(key) == KEY_BYTES else None


def _wrong(source: str, what: str, cure: str) -> ConfigError:
    return ConfigError(f"secrets.keys: {source} {what}", field="secrets.keys", cure=cure)
