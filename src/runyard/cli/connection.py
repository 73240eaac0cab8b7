"""The client that commands use: found as the SDK finds it, with less patience than a program has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from runyard.sdk.retrying import RetryPolicy

if TYPE_CHECKING:
    from runyard.sdk.client import Client

AT_A_TERMINAL = RetryPolicy(tries_max=6, wait_s_max=60.0)
"""About three seconds for a service that is not there: enough for its restart, short for someone who waits."""


def open_client(tenant: str | None = None) -> Client:
    from runyard.sdk.client import Client

    return Client(tenant=tenant, policy=AT_A_TERMINAL)
