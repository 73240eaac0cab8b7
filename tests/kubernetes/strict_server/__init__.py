"""A Kubernetes API server for unit tests: in memory, on a loopback port, strict about all a client may lean on.

What it answers was read off a real 1.36.2 server; tests/kubernetes/test_api_contract.py runs on both. It keeps no
managedFields, speaks JSON over HTTP/1.1 only, and knows Jobs of one pod with restartPolicy Never.
"""

from tests.kubernetes.strict_server.clock import FakeClock, LoopClock
from tests.kubernetes.strict_server.faults import Fault, Kind
from tests.kubernetes.strict_server.features import CURRENT, OLD, Features
from tests.kubernetes.strict_server.programs import (
    ExecCall,
    ExecResult,
    Exit,
    Pause,
    Program,
    Say,
    Waiting,
    by_last_word,
)
from tests.kubernetes.strict_server.server import StrictServer

__all__ = [
    "CURRENT",
    "OLD",
    "ExecCall",
    "ExecResult",
    "Exit",
    "FakeClock",
    "Fault",
    "Features",
    "Kind",
    "LoopClock",
    "Pause",
    "Program",
    "Say",
    "StrictServer",
    "Waiting",
    "by_last_word",
]
