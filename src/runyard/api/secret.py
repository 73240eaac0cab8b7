"""Secrets of tokens: made here, shown once, known to the ledger by their hash only."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets

PREFIX = "ry_"


def new_secret() -> str:
    """`ry_` and 32 random bytes: far beyond guessing, so a plain hash at rest is enough."""
    return PREFIX + secrets.token_urlsafe(32)


def hash_secret(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def new_uid() -> str:
    """16 random characters of a-z and 2-7: a job's uid, or the id of a token. 80 bits."""
    return base64.b32encode(os.urandom(10)).decode().lower()
