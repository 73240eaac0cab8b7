"""What a browser does, without one."""

from __future__ import annotations

from typing import Any

import httpx2

HOME = {"Sec-Fetch-Site": "same-origin"}
"""What a browser sends along with a form of the page's own."""


async def signed_in(client: httpx2.AsyncClient, token: str) -> httpx2.AsyncClient:
    answer = await send(client, "/sign-in", token=token)
    assert answer.status_code == 303, answer.text
    return client


async def send(client: httpx2.AsyncClient, path: str, **fields: Any) -> httpx2.Response:
    """A form of the page's own."""
    return await client.post(path, data=fields, headers=HOME)
