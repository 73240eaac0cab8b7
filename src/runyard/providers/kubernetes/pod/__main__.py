"""What the containers of the platform's image are asked for: prepare | hold | read | done."""

from __future__ import annotations

import sys


def main(arguments: list[str]) -> int:
    """Imports only what the word needs: each millisecond here is one of the job's start."""
    match arguments:
        case ["prepare", containers, message_bytes]:
            from runyard.providers.kubernetes.pod.prepare import prepare

            return prepare(int(containers), int(message_bytes))
        case ["hold" | "read" | "done" as word]:
            from runyard.providers.kubernetes.pod import collect

            return {"hold": collect.hold, "read": collect.read, "done": collect.done}[word]()
        case _:
            print("prepare N BYTES | hold | read | done", file=sys.stderr)  # noqa: T201
            return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
