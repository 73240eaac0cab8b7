"""A job as a command and as a call of the API, to be copied into a terminal. Pure."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any


def as_command(document: Mapping[str, Any]) -> str:
    """Submits the same again, as a new job."""
    return f"runyard submit - <<'RUNYARD_JOB'\n{_text(document, indent=2)}\nRUNYARD_JOB"


def as_call(document: Mapping[str, Any]) -> str:
    """The address and the token stay in the terminal's environment: neither is the page's to give away."""
    body = shlex.quote(_text(document))
    return (
        'curl -X POST "$RUNYARD_URL/api/v1/jobs" -H "Authorization: Bearer $RUNYARD_TOKEN" \\\n'
        f"  -H 'Content-Type: application/json' --data {body}"
    )


def _text(document: Mapping[str, Any], *, indent: int | None = None) -> str:
    """Without the id: under it the job is there already."""
    return json.dumps(
        {key: value for key, value in document.items() if key != "id"}, indent=indent, ensure_ascii=False
    )
