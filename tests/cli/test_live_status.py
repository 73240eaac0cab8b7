"""On a terminal, `run` says what a silent job is doing, and takes the line away again."""

import os
import pty
import re

from runyard.cli.status_line import describe, waiting_words
from runyard.sdk.client import Client
from runyard.wire.answers import WaitReasonAnswer, WhyAnswer


def reason(code, message, **more):
    return WaitReasonAnswer(code=code, message=message, **more)


def why(*reasons, ahead=None):
    return WhyAnswer(
        id="one", tenant="t", queue="q", state="queued", class_key="k", ahead=ahead, reasons=reasons
    )


def read_to_end(terminal):
    seen = b""
    while True:
        try:
            seen += os.read(terminal, 4096)
        except OSError:  # how Linux says that the other side is closed
            os.close(terminal)
            return seen


def test_the_pool_that_is_ready_first_is_the_one_that_is_named():
    answer = why(
        reason("pool_full", "a is full", pool="a"),
        reason("place_starting", "b starts a machine", pool="b", eta_s=20),
        ahead=3,
    )
    assert waiting_words(answer) == ", place_starting: b starts a machine, about 3 before it, in about 20s"


def test_an_unknown_eta_is_not_invented():
    assert "in about" not in waiting_words(why(reason("pool_full", "full")))
    assert waiting_words(why()) == ""


def test_a_running_job_is_described_by_its_last_phase(served, client: Client):
    client.submit({"steps": [{"run": "true"}]}, "one")
    served.claim()
    assert describe(client.get("one"), why) == "one: running, running in local"


def test_a_job_whose_place_prepares_is_described_by_what_that_is_busy_with(served, client: Client):
    client.submit({"steps": [{"run": "true"}]}, "one")
    run = served.claim(is_running=False)
    run.prepares("pulling debian:12", fraction=0.4)
    assert describe(client.get("one"), why) == "one: starting in local: pulling debian:12, 40%"


def test_the_line_comes_while_the_job_waits_and_goes_when_it_speaks(served, start):
    ours, theirs = pty.openpty()
    process = start("run", "--id", "one", "--", "x", stderr=theirs)
    os.close(theirs)
    seen = b""
    while b"one: queued" not in seen:
        seen += os.read(ours, 4096)
    served.claim().prints(b"hello\n").ends()
    assert process.stdout.read() == b"hello\n"
    assert process.wait(30) == 0
    seen += read_to_end(ours)
    assert re.search(rb"\r\x1b\[K\Z", seen)


def test_a_batch_shows_a_bar_on_a_terminal_and_ids_alone_on_stdout(served, start, tmp_path):
    jobs = "".join(f"- {{id: j{number}, steps: [{{run: x}}]}}\n" for number in range(450))
    (tmp_path / "jobs.yaml").write_text(jobs)
    ours, theirs = pty.openpty()
    process = start("submit", str(tmp_path / "jobs.yaml"), stderr=theirs, env={"TERM": "xterm"})
    os.close(theirs)
    seen = read_to_end(ours)
    out = process.stdout.read().decode().split()
    assert process.wait(30) == 0
    assert out == [f"j{number}" for number in range(450)]
    assert b"submitting" in seen
