"""The `runyard` command. Each command lives in a file of its own that is imported when it is called."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cyclopts import CycloptsError


def main(arguments: Sequence[str] | None = None) -> None:
    """The console script."""
    sys.exit(run_command(sys.argv[1:] if arguments is None else list(arguments)))


def run_command(arguments: list[str]) -> int:
    """Runs one command line and returns its exit code; every error ends here, as words on stderr."""
    from cyclopts import CycloptsError

    from runyard.cli.commands import create_app
    from runyard.cli.exit_codes import BROKEN_PIPE, RUN_CANCELED, UsageError
    from runyard.sdk.errors import RunyardApiError

    is_run = arguments[:1] == ["run"]
    try:
        code = create_app()(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return int(code or 0)
    except CycloptsError as error:
        return _wrong_use(_usage_message(error), arguments, is_run=is_run)
    except UsageError as error:
        return _wrong_use(str(error), arguments, is_run=is_run)
    except RunyardApiError as error:
        return _failed(error, is_run=is_run)
    except ImportError as error:
        return _not_here(error, arguments, is_run=is_run)
    except KeyboardInterrupt:
        return RUN_CANCELED
    except BrokenPipeError:
        close_stdout()
        return BROKEN_PIPE


def close_stdout() -> None:
    """Nobody reads any more: what Python still holds goes nowhere, without a second complaint at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _wrong_use(message: str, arguments: list[str], *, is_run: bool) -> int:
    from runyard.cli.exit_codes import RUN_OF_RUNYARD, WRONG_USE

    name = " ".join(["runyard", *[word for word in arguments[:1] if not word.startswith("-")]])
    print(f"runyard: {message}\nrunyard: see `{name} --help`", file=sys.stderr)
    return RUN_OF_RUNYARD if is_run else WRONG_USE


def _not_here(error: ImportError, arguments: list[str], *, is_run: bool) -> int:
    """The commands of a host need rooms and packages that are there on Linux only, or not at all."""
    from runyard.cli.exit_codes import FAILED, RUN_OF_RUNYARD

    name = " ".join(["runyard", *arguments[:1]])
    print(f"runyard: `{name}` cannot run here: {error}", file=sys.stderr)
    print("runyard:   cure: install runyard whole, on Linux; a client needs no such command", file=sys.stderr)
    return RUN_OF_RUNYARD if is_run else FAILED


def _failed(error: Exception, *, is_run: bool) -> int:
    from runyard.cli.exit_codes import RUN_OF_RUNYARD, exit_code_of_error
    from runyard.cli.words import say_error
    from runyard.sdk.errors import RunyardApiError

    assert isinstance(error, RunyardApiError)
    say_error(error)
    return RUN_OF_RUNYARD if is_run else exit_code_of_error(error)


def _usage_message(error: CycloptsError) -> str:
    return " ".join(str(error).split())
