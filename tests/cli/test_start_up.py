"""The command starts fast because it imports late, and it works where there is no Linux."""

import subprocess
import sys

import pytest

HEAVY = (
    "pydantic",
    "httpx2",
    "fastapi",
    "yaml",
    "asyncio",
    "runyard.wire.answers",
    "runyard.api",
    "runyard.config",
)
ELSEWHERE = ("fcntl", "resource", "termios", "pwd", "grp", "uvloop", "asyncinotify", "syslog")


def imported_by(code, names):
    check = f"import sys\n{code}\nprint([name for name in {names!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    "code",
    [
        "import runyard.cli, runyard.sdk",
        "from runyard.cli.commands import create_app; create_app()",
        "from runyard.cli import run_command; run_command(['run'])",
        "from runyard.cli import run_command; run_command(['jobs', '--nope'])",
    ],
)
def test_nothing_heavy_is_imported_before_a_request_is_made(code):
    assert imported_by(code, HEAVY) == "[]"


def test_run_reads_no_models_before_its_command_speaks():
    code = "import runyard.cli.run, runyard.cli.run_session, runyard.sdk.client, runyard.sdk.transport"
    assert imported_by(code, ("pydantic", "runyard.wire.answers")) == "[]"


def test_the_clients_commands_import_nothing_that_only_unix_has():
    local = {"serve", "bench", "doctor", "config", "simulate"}
    code = (
        "import importlib\nfrom runyard.cli.commands import COMMANDS\n"
        f"modules = {{c.function.partition(':')[0] for c in COMMANDS}} - {local!r}\n"
        "before = set(sys.modules)\n"
        "for module in modules: importlib.import_module('runyard.cli.' + module)\n"
        "import runyard.sdk.client, runyard.sdk.async_client, runyard.wire.answers\n"
        "ours = [m for n, m in sys.modules.items() if n.startswith('runyard.')]\n"
        f"found = [n for m in ours for n in {ELSEWHERE!r} if n in vars(m)]\n"
        "assert not found, found"
    )
    assert imported_by(code, ("runyard.config", "runyard.model", "runyard.api")) == "[]"


def test_simulate_and_bench_import_their_rooms_only_when_called():
    code = "import runyard.cli.simulate, runyard.cli.bench"
    assert imported_by(code, ("pydantic", "runyard.testing", "runyard.bench", "runyard.ledger")) == "[]"
