"""`runyard token …`."""

from __future__ import annotations

from typing import Any, Literal

from runyard.cli.connection import open_client
from runyard.cli.words import age_of, print_json, print_table, say, time_of


def create(
    name: str,
    /,
    *,
    scope: Literal["read", "submit", "operate", "admin"] = "submit",
    tenant: list[str] | None = None,
    expires_in: str | None = None,
    json: bool = False,
) -> None:
    """Make a token and print it; it is shown this once.

    Parameters
    ----------
    name
        What it is for, to tell tokens apart.
    scope
        What it may do; each includes those before it.
    tenant
        Tenant it is for; may be repeated (default: all).
    expires_in
        How long it holds, like 90d or 12h (default: until it is revoked).
    json
        Print JSON.
    """
    settings: dict[str, Any] = {"scope": scope, "tenants": tenant, "expires_in": expires_in}
    with open_client() as client:
        token = client.tokens.create(name, **settings)
    if json:
        print_json(token)
        return
    print(token.token)
    until = f", until {time_of(token.expires_at)}" if token.expires_at else ""
    say(f"token '{token.id}' may {token.scope} for {', '.join(token.tenants or ['all tenants'])}{until}")
    say("it is not shown again; clients take it as RUNYARD_TOKEN")


def list_tokens(*, json: bool = False) -> None:
    """List tokens, without their secrets.

    Parameters
    ----------
    json
        Print JSON.
    """
    with open_client() as client:
        listed = client.tokens.list()
    if json:
        print_json(listed)
        return
    rows = (
        (t.id, t.name, t.scope, ",".join(t.tenants or ["*"]), age_of(t.created_at), age_of(t.expires_at))
        for t in listed
    )
    print_table(("ID", "NAME", "SCOPE", "TENANTS", "CREATED", "EXPIRES"), rows)


def revoke(id: str, /) -> None:
    """Make a token worthless, at once.

    Parameters
    ----------
    id
        The token's id, as `runyard token list` shows it.
    """
    with open_client() as client:
        client.tokens.revoke(id)
    print(f"{id}  revoked")
