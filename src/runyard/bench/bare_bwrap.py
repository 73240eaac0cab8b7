"""The reference for rates: `xargs` over bubblewrap with an attempt's flags and binds, and nothing of ours around it."""

from __future__ import annotations

import shlex
import subprocess
import time
from pathlib import Path

from runyard.host.sandbox_bench import Reference

_SECCOMP_FD = 9


def rate_by_xargs(reference: Reference, *, count: int, at_a_time: int, folder: Path) -> float:
    """Runs a second when `xargs -P` runs it `count` times, as the user id that a slot has."""
    filter_file = folder / "reference.bpf"
    filter_file.write_bytes(reference.filter)
    filter_file.chmod(0o644)
    # A run costs what it must: one exec of the shell that opens the filter, one of bubblewrap.
    script = f"exec {shlex.join(reference.argv(_SECCOMP_FD))} {_SECCOMP_FD}<{shlex.quote(str(filter_file))}"
    command = ["xargs", "-P", str(at_a_time), "-n", "1", "sh", "-c", script]
    numbers = "\n".join(str(number) for number in range(count)).encode()
    began = time.perf_counter()
    subprocess.run(
        command,
        input=numbers,
        check=True,
        stdout=subprocess.DEVNULL,
        user=reference.user_id,
        group=reference.user_id,
        extra_groups=[] if reference.user_id is not None else None,
    )
    return count / (time.perf_counter() - began)
