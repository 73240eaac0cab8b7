"""`runyard run` behaves as if the command ran here: its bytes, its exit code, its signals."""

import base64
import os
import signal
import socket

import pytest

from runyard.model.outcome import OutcomeKind, Reason, ReasonCode, refused

ALL_BYTES = bytes(range(256)) * 4


def words(process):
    out, err = process.communicate(timeout=30)
    return process.returncode, out, err.decode()


def test_the_jobs_bytes_come_out_as_they_are_and_nothing_else(served, start):
    process = start("run", "--", "true")
    served.claim().prints(ALL_BYTES).prints(b"e\xfe\n", "stderr").ends()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, ALL_BYTES, b"e\xfe\n")


def test_its_exit_code_is_passed_on_without_a_word(served, start):
    process = start("run", "--", "false")
    served.claim().fails(7)
    assert words(process) == (7, b"", "")


@pytest.mark.parametrize(
    ("kind", "outcome", "code", "word"),
    [
        (OutcomeKind.FAILED, {"signal": 9, "reason": Reason(code=ReasonCode.MEMORY, message="out of memory at 1Gi")},
         137, "out of memory"),
        (OutcomeKind.TIMED_OUT, {"reason": Reason(code=ReasonCode.RUN_TIMEOUT, message="ran longer than 1h")}, 124,
         "longer than 1h"),
        (OutcomeKind.CANCELED, {"reason": Reason(code=ReasonCode.CANCELED, message="by admin")}, 130, "by admin"),
        (OutcomeKind.FAILED, {"reason": Reason(code=ReasonCode.WORKSPACE, message="no such ref")}, 125, "no such ref"),
    ],
)  # fmt: skip
def test_other_ends_have_their_code_and_their_reason_on_stderr(served, start, kind, outcome, code, word):
    process = start("run", "--", "x")
    served.claim().ends(kind, **outcome)
    status, out, err = words(process)
    assert (status, out) == (code, b"")
    assert word in err


def test_a_job_that_its_pool_refuses_is_125(served, start):
    process = start("run", "--", "x")
    served.claim().settle(refused(ReasonCode.ISOLATION, "no user namespaces here"))
    status, _, err = words(process)
    assert status == 125
    assert "no user namespaces" in err


def test_the_flags_become_the_document(served, start, client, tmp_path):
    client.queues.put("q")
    (tmp_path / "a.bin").write_bytes(b"\0\1")
    process = start(
        "run", "--id", "mine", "--queue", "q", "--env", "A=b=c", "--env", "FROM_HERE", "--cpu", "500m",
        "--memory", "256Mi", "--timeout", "90s", "--label", "team=search", "--artifact", "out/*", "--network", "none",
        "--file", f"{tmp_path}/a.bin:in/a.bin", "--isolation", "container", "--", "sh", "-c", "exit 0", "--detach",
        env={"FROM_HERE": "yes"},
    )  # fmt: skip
    run = served.claim()
    run.ends()
    assert words(process) == (0, b"", "")
    spec = run.job.spec
    assert run.job.id == "mine"
    assert {"A": "b=c", "FROM_HERE": "yes"}.items() <= client.get("mine").effective["env"].items()
    assert spec.queue == "q"
    assert dict(spec.labels) == {"team": "search"}
    assert spec.steps[0].command == ("sh", "-c", "exit 0", "--detach")
    assert (spec.requirements.cpu_millis, spec.requirements.memory_bytes) == (500, 256 << 20)


def test_detach_prints_the_id_and_leaves(served, start, client):
    process = start("run", "--detach", "--", "true")
    status, out, err = words(process)
    assert (status, err) == (0, "")
    assert client.get(out.decode().strip()).state == "queued"


def test_ctrl_c_cancels_and_shows_the_rest(served, start, client):
    process = start("run", "--id", "one", "--", "x")
    run = served.claim().prints(b"before\n")
    assert process.stdout.readline() == b"before\n"
    process.send_signal(signal.SIGINT)
    assert b"canceling job 'one'" in process.stderr.readline()
    served.act(wait_for_state(served, run.key.uid, "canceling"))
    run.prints(b"bye\n").ends(OutcomeKind.CANCELED)
    status, out, err = words(process)
    assert (status, out) == (130, b"bye\n")
    assert "canceled" in err


def test_ctrl_c_before_the_answer_cancels_what_may_have_been_taken(start):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(30)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        process = start("run", "--id", "one", "--", "x", env={"RUNYARD_URL": url})
        first, _ = listener.accept()
        assert first.recv(1000).startswith(b"PUT /api/v1/jobs/one ")
        process.send_signal(signal.SIGINT)
        second, _ = listener.accept()
        assert second.recv(1000).startswith(b"POST /api/v1/jobs/one:cancel ")
        second.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        assert process.wait(30) == 130
        first.close()
        second.close()


def test_a_job_of_before_whose_log_was_swept_still_ends_as_it_did(served, start, client):
    client.submit({"steps": [{"name": "run", "command": ["x"]}]}, "one")
    run = served.claim()
    run.fails(9)
    served.act(served.ledger.mark_logs_deleted([run.key]))
    status, _, err = words(start("run", "--id", "one", "--", "x"))
    assert status == 9
    assert "follow the log" in err


def test_a_second_ctrl_c_detaches_at_once(served, start, client):
    process = start("run", "--id", "one", "--", "x")
    served.claim().prints(b"before\n")
    process.stdout.readline()
    process.send_signal(signal.SIGINT)
    process.stderr.readline()
    process.send_signal(signal.SIGINT)
    status, _, err = words(process)
    assert status == 130
    assert "detached" in err
    assert client.get("one").state in ("running", "canceling")


def test_when_nobody_reads_any_more_it_leaves_quietly_and_the_job_goes_on(served, start, client):
    reader, writer = os.pipe()
    process = start("run", "--id", "one", "--", "x", stdout=writer)
    os.close(writer)
    os.close(reader)
    served.claim().prints(b"x" * 1000)
    assert process.wait(30) == 141
    assert process.stderr.read() == b""
    assert client.get("one").state == "running"


def test_a_restart_of_the_service_costs_no_byte(served, start):
    process = start("run", "--", "x")
    run = served.claim().prints(b"1" * 5000)
    assert process.stdout.read(5000) == b"1" * 5000
    served.restart()
    run.prints(b"2" * 5000)
    assert process.stdout.read(5000) == b"2" * 5000
    served.stop()
    run.prints(b"3" * 5000).ends()
    assert b"trying to reach the service again" in process.stderr.readline()
    served.start(served.port)
    status, out, err = words(process)
    assert (status, out) == (0, b"3" * 5000)
    assert "connected again" in err


def test_what_runyard_refuses_is_125_with_field_and_cure(start, served):
    status, out, err = words(start("run", "--cpu", "many", "--", "true"))
    assert (status, out) == (125, b"")
    assert "requirements.cpu" in err
    assert "cure:" in err


def test_a_service_that_is_not_there_is_125(start, served):
    status, _, err = words(start("run", "--", "true", env={"RUNYARD_URL": "http://127.0.0.1:1"}))
    assert status == 125
    assert "cannot submit job" in err


@pytest.mark.parametrize(
    "arguments", [["run"], ["run", "--nope", "--", "true"], ["run", "--ref", "main", "--", "true"]]
)
def test_wrong_use_of_run_is_125(runyard, arguments):
    said = runyard(*arguments)
    assert said.code == 125
    assert "runyard run --help" in said.err


async def wait_for_state(served, uid, state):
    subscription = served.ledger.subscribe(f"job:{uid}")
    while (await served.ledger.get_job(uid)).state.value != state:
        await subscription.wait(0.5)
    subscription.close()


def test_files_are_sent_byte_for_byte(tmp_path):
    from runyard.cli.run_document import RunFlags, build_document

    (tmp_path / "x").write_bytes(ALL_BYTES)
    document = build_document(RunFlags(command=["true"], file=[str(tmp_path / "x")]), {})
    assert base64.b64decode(document["workspace"]["files"]["x"]["base64"]) == ALL_BYTES
