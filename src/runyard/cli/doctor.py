"""`runyard doctor`: what this host can isolate, and the cure for what it cannot."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from runyard.cli.exit_codes import DONE, FAILED, UsageError
from runyard.cli.operations import print_finding
from runyard.cli.words import print_json

if TYPE_CHECKING:
    from runyard.model.finding import Finding


def doctor(*, json: bool = False) -> int:
    """Say what this host can isolate, and the cure for what it cannot. Exit code 1 if something is not well.

    Parameters
    ----------
    json
        Print JSON.
    """
    if not sys.platform.startswith("linux"):
        raise UsageError("doctor looks at a host that runs jobs, and those are Linux")
    from runyard.host.findings import findings
    from runyard.host.probe import probe

    found = [_plain(finding) for finding in findings(probe())]
    if json:
        print_json(found)
    else:
        for finding in found:
            print_finding(finding)
    return DONE if all(finding["ok"] for finding in found) else FAILED


def _plain(finding: Finding) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in ("name", "ok", "message", "cure")}
