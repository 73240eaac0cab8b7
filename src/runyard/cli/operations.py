"""What a pool's owner answered, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runyard.cli.exit_codes import DONE, FAILED
from runyard.cli.words import coloured, print_json, printable, say

if TYPE_CHECKING:
    from runyard.sdk.client import Client
    from runyard.wire.answers import OperationAnswer


def print_operation(client: Client, operation: OperationAnswer, *, json: bool) -> int:
    """The exit code: failed if nobody answered, or the answer says so (`ok` false, or an `error`)."""
    if json:
        print_json(operation)
    elif operation.result is not None:
        _print_result(operation.result)
    if operation.finished_at is None:
        _say_unanswered(client, operation)
        return FAILED
    result = operation.result or {}
    return FAILED if result.get("ok") is False or result.get("error") else DONE


def _say_unanswered(client: Client, operation: OperationAnswer) -> None:
    """A pool whose host cannot isolate has no owner; its description holds the reason and the cure."""
    name = operation.pool
    pool = client.pools.get(name)
    if pool.owner is not None:
        say(f"the owner of pool '{name}' has not answered yet; ask again, or see `runyard pools`")
        return
    say(f"no running service acts for pool '{name}'")
    if pool.description:
        say(f"  it is described as: {printable(pool.description)}")
    if operation.kind == "forget_pool":
        say("  it is given up as soon as a running service sees the request; see `runyard pools`")
    else:
        say(f"  cure: start `runyard serve` on its host; if that host is dead, `runyard pool forget {name}`")


def _print_result(result: dict[str, Any]) -> None:
    """Findings one a line; lists below their name; the rest as name and value."""
    import sys

    for name, value in result.items():
        if name == "findings" and isinstance(value, list):
            for finding in value:
                print_finding(finding)
        elif isinstance(value, list):
            print(f"{name}: {len(value)}")
            for one in value:
                print(f"  {printable(str(one))}")
        else:
            word = {True: "yes", False: "no"}.get(value, value) if isinstance(value, bool) else value
            print(f"{name}: {coloured(printable(str(word)), sys.stdout)}")


def print_finding(finding: dict[str, Any]) -> None:
    """`ok      bubblewrap: 0.12 …`; the cure below what is not well."""
    import sys

    word = "ok" if finding.get("ok") else "failed"
    print(f"{coloured(word.ljust(6), sys.stdout)}  {finding.get('name')}: {finding.get('message')}")
    if not finding.get("ok") and finding.get("cure"):
        print(f"        cure: {finding['cure']}")
