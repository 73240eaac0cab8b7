"""What the pages tell a reader to type can be typed; what the README shows as a first job runs."""

import itertools
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from runyard.cli.commands import create_app
from tests.journeys.conftest import RunningService

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
ENDS_A_COMMAND = {"|", "||", "&", "&&", ";", ">", ">>", "<", "(", ")"}


def commands_of(line):
    """The words behind each `runyard` of one shell line."""
    lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words = list(lexer)
    for begin, word in enumerate(words):
        if word == "runyard" and (begin == 0 or words[begin - 1] in {*ENDS_A_COMMAND, "sudo"}):
            yield list(itertools.takewhile(lambda one: one not in ENDS_A_COMMAND, words[begin + 1 :]))


def typed():
    """(page, words) of every command line that stands in a block; what shows a command's form (`[flags]`) is none."""
    for page in PAGES:
        for line in re.findall(r"^    (.+)$", page.read_text(), re.MULTILINE):
            if re.search(r"(^|\s)runyard\s", line) and "…" not in line and "[flags]" not in line:
                try:
                    yield from ((page.name, words) for words in commands_of(line))
                except ValueError:
                    continue  # prose with an apostrophe, in a list


TYPED = list(typed())


def test_there_is_something_to_type():
    assert len(TYPED) > 10
    assert {"README.md", "cli.md"} <= {page for page, _ in TYPED}


@pytest.mark.parametrize(
    ("page", "words"), TYPED, ids=[f"{page}: {' '.join(words)}" for page, words in TYPED]
)
def test_every_command_line_of_a_page_can_be_parsed(page, words):
    create_app().parse_args(words, exit_on_error=False, print_error=False)


@pytest.mark.service
def test_the_first_job_of_the_readme_runs_as_it_stands(tmp_path):
    text = (ROOT / "README.md").read_text()
    [job] = re.findall(r"^    # hello\.yaml\n((?:    .*\n)+)", text, re.MULTILINE)
    lines = re.findall(r"^    \$ (runyard .+)$", text, re.MULTILINE)
    assert [line.split()[1] for line in lines] == ["submit", "logs", "artifacts"]
    work = tmp_path / "work"
    work.mkdir()
    (work / "hello.yaml").write_text(re.sub(r"^    ", "", job, flags=re.MULTILINE))
    (tmp_path / "runyard").write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m runyard "$@"\n')
    (tmp_path / "runyard").chmod(0o755)
    service = RunningService(tmp_path / "data").start()
    try:
        environment = {**service.client_environment(), "PATH": f"{tmp_path}:{os.environ['PATH']}"}

        def shell(line):
            return subprocess.run(["sh", "-ec", line], cwd=work, env=environment, capture_output=True, text=True,
                                  check=True, timeout=60).stdout  # fmt: skip

        job_id = shell(lines[0]).strip()
        assert "compiling in /workspace" in shell(lines[1].replace("ID", job_id))
        shell(lines[2].replace("ID", job_id))
        assert (work / "result.txt").read_text() == "done\n"
        [first] = re.findall(r"^    (runyard run -- .+)$", text, re.MULTILINE)
        assert shell(first) == "hi\n"
        assert len(json.loads(shell("runyard jobs --json"))) == 2
    finally:
        service.close()
