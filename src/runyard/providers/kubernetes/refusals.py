"""What the API server said no with, as the provider's errors. Told by code and reason; by words only where Kubernetes
has no code of its own (a quota's 403)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from runyard.model.errors import (
    InvalidRequest,
    ProviderDenied,
    ProviderError,
    QuotaExceeded,
    Throttled,
    Unreachable,
)

WORDS_MAX = 600
RETRY_AFTER_S = 1.0
RETRY_AFTER_S_MAX = 60.0
_QUOTA = ("exceeded quota", "failed quota")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is no success: HTTP code, the Status object's reason and message, the wait it asks for."""

    code: int
    reason: str = ""
    message: str = ""
    retry_after_s: float | None = None

    @property
    def is_quota(self) -> bool:
        return self.code == 403 and any(words in self.message for words in _QUOTA)

    @property
    def is_throttled(self) -> bool:
        """Turned away before anything was done: also a server that is starting or shutting down says so by 429."""
        return self.code == 429

    @property
    def is_missing(self) -> bool:
        return self.code == 404

    @property
    def is_expired(self) -> bool:
        """The place in the history that was asked for is no longer kept."""
        return self.code == 410 or self.reason in ("Expired", "Gone")


def parse_refusal(code: int, body: bytes, headers: Mapping[str, str]) -> Refusal:
    """From an answer of the API server, or of whatever stands before it: the body need not be a Status."""
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if not isinstance(document, dict):
        document = {"message": body[:WORDS_MAX].decode(errors="replace").strip()}
    details = document.get("details") or {}
    wait = headers.get("retry-after") or details.get("retryAfterSeconds")
    return Refusal(
        code=code,
        reason=str(document.get("reason") or ""),
        message=str(document.get("message") or "")[:WORDS_MAX],
        retry_after_s=_seconds(wait),
    )


def of_status(status: Mapping[str, object]) -> Refusal:
    """From a Status object within a stream (a watch's ERROR event)."""
    code = status.get("code")
    return Refusal(
        code=code if isinstance(code, int) else 500,
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or "")[:WORDS_MAX],
    )


def error_of(refusal: Refusal, what: str) -> ProviderError:
    """`what` was tried (`create Job runyard-…-1`). A refusal (all but Unreachable) changed nothing in the cluster."""
    words = (
        f"Kubernetes: {what}: {refusal.message or refusal.reason or 'no reason given'} (HTTP {refusal.code})"
    )
    if refusal.is_throttled:
        return Throttled(words, after_s=refusal.retry_after_s or RETRY_AFTER_S)
    if refusal.is_quota:
        return QuotaExceeded(words)
    match refusal.code:
        case 401:
            cure = "renew the kubeconfig's credentials, or the service account's token"
            return ProviderDenied(words, cure=cure)
        case 403:
            return ProviderDenied(
                words, cure="grant the verb to our account: see deploy/kubernetes, the Role"
            )
        case 404:  # whoever minds a missing object asked for it: here it is the namespace, or the API itself
            return ProviderDenied(
                words, cure="create the namespace, or name another one in the pool's options"
            )
        case 409:  # two writers met (often the quota's own counter): nothing was changed, and again is right
            return Throttled(words, after_s=RETRY_AFTER_S)
        case 400 | 405 | 406 | 413 | 415 | 422:
            return InvalidRequest(words)
        case _:
            return Unreachable(words)


def _seconds(value: object) -> float | None:
    try:
        return min(RETRY_AFTER_S_MAX, max(0.0, float(str(value))))
    except ValueError:
        return None
