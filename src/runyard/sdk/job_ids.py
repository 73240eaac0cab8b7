"""A job's id where the caller names none: readable, and random enough that no two ever meet."""

from __future__ import annotations

import secrets

_FIRST = (
    "amber ample brave brisk calm clear cool crisp deft eager early easy fair fine fond glad"
    " keen kind lucid mild neat nimble plain proud quick quiet ready sharp sound swift warm wise"
).split()
_SECOND = (
    "alder aspen birch cedar clover crane curlew dove elm falcon fern finch fox hare hazel heron"
    " ivy lark linden lynx maple marten otter pine plover robin rowan sorrel stork tern thrush wren"
).split()
_ALPHABET = "abcdefghjkmnpqrstuvwxyz023456789"


def choose_job_id() -> str:
    """Like `calm-otter-7k2m9qxw`: 50 random bits, since the same id with the same document means the same job."""
    tail = "".join(secrets.choice(_ALPHABET) for _ in range(8))
    return f"{secrets.choice(_FIRST)}-{secrets.choice(_SECOND)}-{tail}"
