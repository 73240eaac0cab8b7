"""Every command against the real API: what it prints, what it exits with."""

import json
import re
import subprocess
import sys
from dataclasses import replace

import pytest

from tests.factories import a_pool_settings

DOCUMENT = {"steps": [{"name": "run", "run": "echo hello"}]}


def table(text):
    return [line.split() for line in text.splitlines()]


def test_jobs_lists_the_newest_first_as_a_table_or_as_json(runyard, served, client):
    client.submit(DOCUMENT, "one")
    client.submit({**DOCUMENT, "labels": {"team": "a"}}, "two")
    assert [row[0] for row in table(runyard("jobs").out)] == ["ID", "two", "one"]
    assert [job["id"] for job in json.loads(runyard("jobs", "--json").out)] == ["two", "one"]
    assert [job["id"] for job in json.loads(runyard("jobs", "--label", "team=a", "--json").out)] == ["two"]


def test_jobs_by_the_time_of_submission(runyard, served, client):
    first, second = client.submit(DOCUMENT, "one"), client.submit(DOCUMENT, "two")

    def listed(*flags):
        return [job["id"] for job in json.loads(runyard("jobs", *flags, "--json").out)]

    assert listed("--since", "1h") == ["two", "one"]
    assert listed("--until", "1h") == []
    assert listed("--since", second.submitted_at.isoformat()) == ["two"]
    assert listed("--since", first.submitted_at.isoformat(), "--until", second.submitted_at.isoformat()) == [
        "one"
    ]
    said = runyard("jobs", "--since", "soon")
    assert said.code == 2
    assert "--since: 'soon' is no moment; write how long ago, like 30m or 2d" in said.err


def test_jobs_says_when_there_are_more(runyard, served, client):
    client.submit_batch([DOCUMENT] * 3)
    said = runyard("jobs", "--limit", "2")
    assert len(table(said.out)) == 3
    assert "--limit 0 shows all" in said.err
    assert len(table(runyard("jobs", "--limit", "0").out)) == 4


def test_job_shows_attempts_phases_outcome_and_reason(runyard, served, client):
    client.submit(DOCUMENT, "one")
    served.claim().fails(3)
    said = runyard("job", "one")
    assert said.code == 0
    for word in ("failed", "step 'run' ended with 3", "attempt", "local, slot 0", "running", "echo hello"):
        assert word in said.out
    assert json.loads(runyard("job", "one", "--json").out)["exit_code"] == 3


def test_job_shows_where_an_attempt_runs_and_what_is_prepared(runyard, served, client):
    client.submit(DOCUMENT, "one")
    served.claim(is_running=False).prepares("pulling debian:12", node="n-17")
    said = runyard("job", "one").out
    assert "n-17" in said
    assert "pulling debian:12" in said


def test_why_says_it_pool_by_pool(runyard, served, client):
    client.submit(DOCUMENT, "one")
    client.pools.pause("local")
    said = runyard("why", "one")
    assert "job 'one' is queued in 'default'" in said.out
    assert "pool_paused" in said.out
    assert json.loads(runyard("why", "one", "--json").out)["reasons"][0]["code"] == "pool_paused"


def test_why_of_a_job_that_does_not_wait_says_what_it_is(runyard, served, client):
    client.submit(DOCUMENT, "one")
    served.claim()
    assert runyard("why", "one").out == "job 'one' does not wait: it is running\n"


def test_logs_keep_the_streams_apart_and_end_where_the_log_ends(runyard, served, client):
    client.submit(DOCUMENT, "one")
    run = served.claim().prints(b"out\n").prints(b"err\n", "stderr")
    assert runyard("logs", "one")[1:] == ("out\n", "err\n")
    run.prints(b"more\n").ends()
    assert runyard("logs", "one")[1:] == ("out\nmore\n", "err\n")
    assert runyard("logs", "-f", "one", "--attempt", "1", "--step", "run").out == "out\nmore\n"


def test_cancel_goes_through_all_and_exits_with_the_first_failure(runyard, served, client):
    client.submit(DOCUMENT, "one")
    said = runyard("cancel", "none", "one")
    assert (said.code, said.out) == (1, "one  canceled\n")
    assert "cancel job 'none'" in said.err


def test_retry_prints_the_new_id_and_delete_deletes(runyard, served, client):
    client.submit(DOCUMENT, "one")
    client.cancel("one")
    new = runyard("retry", "one").out.strip()
    assert client.get(new).retry_of == "one"
    assert runyard("delete", new).code == 4
    assert runyard("delete", "one").out == "one  deleted\n"


def test_artifacts_are_listed_and_downloaded(runyard, served, client, tmp_path):
    client.submit(DOCUMENT, "one")
    served.claim().leaves("a/b.txt", b"hello").ends()
    assert table(runyard("artifacts", "one").out)[1] == ["a/b.txt", "5", "1"]
    assert runyard("artifacts", "one", "--get", str(tmp_path)).out == f"{tmp_path}/a/b.txt\n"
    assert (tmp_path / "a" / "b.txt").read_text() == "hello"


def test_queue_set_changes_only_what_is_named(runyard, served):
    runyard("queue", "set", "night", "--weight", "2", "--running-max", "3")
    queue = json.loads(runyard("queue", "set", "night", "--queued-max", "9", "--json").out)
    assert (queue["weight"], queue["running_max"], queue["queued_max"]) == (2.0, 3, 9)
    queue = json.loads(runyard("queue", "set", "night", "--running-max", "none", "--json").out)
    assert queue["running_max"] is None
    assert runyard("queue", "pause", "night").out == "night  paused\n"
    assert "paused" in runyard("queue", "show", "night").out
    assert runyard("queue", "resume", "night").out == "night  open\n"
    assert ["night", "open"] in [row[:2] for row in table(runyard("queues").out)]
    assert runyard("queue", "delete", "night").code == 0
    assert runyard("queue", "show", "night").code == 1


def test_tenants_are_set_and_shown(runyard, served):
    assert json.loads(runyard("tenant", "set", "acme", "--weight", "3", "--json").out)["weight"] == 3.0
    assert "acme" in runyard("tenants").out
    assert "weight" in runyard("tenant", "show", "acme").out


def test_pools_and_machines_are_shown(runyard, served):
    assert "local" in runyard("pools").out
    assert "tests, epoch" in runyard("pool", "show", "local").out
    assert runyard("pool", "pause", "local").out == "local  paused\n"
    assert runyard("pool", "resume", "local").out == "local  open\n"
    assert runyard("machines").code == 0
    assert runyard("machine", "show", "m").code == 1


@pytest.mark.parametrize(
    ("arguments", "answer", "code", "word"),
    [
        (["pool", "check", "local"], {"ok": False, "findings": [
            {"name": "bwrap", "ok": False, "message": "too old", "cure": "install a newer one"}]}, 1, "cure: install"),
        (["prune", "--dry-run"], {"ok": True, "destroyed": ["runyard-x-1"], "kept": {}}, 0, "runyard-x-1"),
        (["pool", "forget", "local"], {"ok": True, "lost": []}, 0, "lost: 0"),
    ],
)  # fmt: skip
def test_what_the_owner_answers_is_shown(runyard, served, arguments, answer, code, word):
    owner = served.begin(served.fulfil(answer))
    said = runyard(*arguments)
    owner.result(10)
    assert said.code == code
    assert word in said.out


def test_a_token_is_printed_alone_on_stdout_and_can_be_revoked(runyard, served):
    said = runyard("token", "create", "ci", "--scope", "read", "--tenant", "acme")
    assert len(said.out.split()) == 1
    assert "not shown again" in said.err
    [token] = [row for row in table(runyard("token", "list").out) if row[1] == "ci"]
    assert token[2:4] == ["read", "acme"]
    assert runyard("token", "revoke", token[0]).code == 0
    assert runyard("token", "revoke", token[0]).code == 1


def test_submit_prints_ids_alone_and_says_what_was_refused_and_where(runyard, served, client, tmp_path):
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.json"
    good.write_text("id: a\nsteps: [{run: x}]\n---\nid: b\nsteps: [{run: y}]\n")
    bad.write_text(json.dumps({"jobs": [{"steps": [{"run": "x"}], "id": "c"}, {"steps": [], "id": "d"}]}))
    said = runyard("submit", str(good), str(bad))
    assert (said.code, said.out) == (4, "a\nb\nc\n")
    assert f"{bad}, job 2 ('d')" in said.err
    assert "field: steps" in said.err
    assert "1 of 4 jobs were refused" in said.err


def test_submit_wait_fails_when_a_job_does(runyard, served, tmp_path):
    (tmp_path / "jobs.yaml").write_text("- {id: a, steps: [{run: x}]}\n- {id: b, steps: [{run: x}]}\n")
    played = served.begin(served.play_two())
    said = runyard("submit", str(tmp_path / "jobs.yaml"), "--wait")
    played.result(10)
    assert (said.code, said.out) == (1, "a\nb\n")
    assert "job 'b' failed" in said.err


def test_a_service_that_is_not_there_is_3_and_no_token_is_4(runyard, monkeypatch, tmp_path):
    monkeypatch.setenv("RUNYARD_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("RUNYARD_TOKEN", "t")
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert runyard("queues").code == 3
    monkeypatch.setenv("RUNYARD_URL", "http://example.org:1")
    monkeypatch.delenv("RUNYARD_TOKEN")
    said = runyard("queues")
    assert said.code == 4
    assert "runyard token create" in said.err


@pytest.mark.parametrize("arguments", [["-"], ["--wait", "-"], ["-", "--wait"]])
def test_submit_reads_stdin(start, served, arguments):
    process = start("submit", *arguments, stdin=subprocess.PIPE)
    process.stdin.write(b"id: piped\nsteps: [{run: x}]\n")
    process.stdin.close()
    process.stdin = None
    served.claim().ends()
    out, err = process.communicate(timeout=30)
    assert (process.returncode, out, err) == (0, b"piped\n", b"")


def test_every_problem_of_a_refused_document_is_said(runyard, served, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text("priority: 1000\nsteps: [{run: x, shel: bash}]\nrequirements: {cpu: many}\n")
    said = runyard("submit", str(file))
    assert said.code == 4
    for field in ("priority", "shel", "requirements.cpu"):
        assert re.search(rf"field: .*{re.escape(field)}", said.err)
    assert said.err.count(f"{file}, job 1: ") == 3


def test_every_problem_of_a_refused_run_is_said(runyard, served):
    said = runyard("run", "--detach", "--cpu", "many", "--memory", "lots", "--", "x")
    assert said.code == 125
    assert "requirements.cpu" in said.err
    assert "requirements.memory" in said.err


def test_a_queue_that_is_not_there_is_refused_with_the_command_that_makes_it(runyard, served, tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("queue: ci\nsteps: [{run: x}]\n")
    for said in (
        runyard("submit", str(file)),
        runyard("run", "--detach", "--queue", "ci", "--", "x"),
        runyard("queue", "show", "ci"),
    ):
        assert said.code != 0
        assert "cure: `runyard queue set ci` makes it" in said.err
        assert "PUT" not in said.err
    assert runyard("queue", "set", "ci", "--weight", "2").code == 0
    assert runyard("submit", str(file)).code == 0


def test_cures_name_flags_and_commands_not_http(runyard, served, client, monkeypatch):
    client.submit(DOCUMENT, "one", tenant="acme")
    client.submit(DOCUMENT, "one", tenant="beta")
    assert "cure: say which with --tenant" in runyard("job", "one").err
    served.claim().ends()
    assert "`runyard job ID`" in runyard("artifacts", "one", "--tenant", "acme", "--attempt", "9").err
    monkeypatch.setenv("RUNYARD_TOKEN", "wrong")
    assert "set RUNYARD_TOKEN" in runyard("jobs").err


@pytest.mark.parametrize(
    "arguments",
    [
        ["jobs", "--limit", "-3"],
        ["jobs", "--limit", "99999999999999999999"],
        ["jobs", "--limit", "many"],
        ["logs", "one", "--attempt", "0"],
        ["artifacts", "one", "--attempt", "-1"],
        ["queue", "set", "q", "--weight", "-1"],
        ["queue", "set", "q", "--weight", "nan"],
        ["queue", "set", "q", "--weight", "inf"],
        ["queue", "set", "q", "--running-max", "-1"],
        ["queue", "set", "q", "--queued-max", "99999999999999999999"],
        ["tenant", "set", "t", "--weight", "0"],
        ["tenant", "set", "t", "--running-max", "1.5"],
        ["submit", "--nope"],
        ["submit", "-w", "x.yaml"],
    ],
)
def test_a_number_or_flag_that_cannot_be_is_wrong_use_and_says_which(runyard, served, arguments):
    said = runyard(*arguments)
    assert said.code == 2
    assert next(word for word in arguments if word.startswith("-")) in said.err
    assert "Traceback" not in said.err


def test_a_pool_that_nobody_acts_for_is_said_to_be_so_with_what_it_lacks(runyard, served):
    lame = replace(
        a_pool_settings(), name="lame", description="no bubblewrap; cure: apt-get install bubblewrap"
    )
    served.act(served.ledger.put_pool(lame))
    for verb in (["pool", "check", "lame"], ["prune", "--pool", "lame"]):
        said = runyard(*verb)
        assert said.code == 1
        assert "no running service acts for pool 'lame'" in said.err
        assert "cure: apt-get install bubblewrap" in said.err


@pytest.mark.parametrize(
    "arguments", [["cancel"], ["queue", "show"], ["jobs", "--nope"], ["submit"], ["nope"]]
)
def test_wrong_use_is_2(runyard, arguments):
    assert runyard(*arguments).code == 2


def test_version_and_help_are_0(runyard):
    assert runyard("--version").code == 0
    assert "Usage: runyard" in runyard("--help").out


def test_config_check_lists_every_problem(runyard, tmp_path):
    file = tmp_path / "runyard.toml"
    file.write_text('[server]\nlisten = "nowhere"\n[retention]\njobs = "soon"\n')
    said = runyard("config", "check", "--config", str(file))
    assert said.code == 1
    assert "listen" in said.err
    assert "retention" in said.err
    file.write_text("[retention]\njobs = '5d'\n")
    assert runyard("config", "check", "--config", str(file)).code == 0
    assert "retention.jobs = 432000" in runyard("config", "show", "--config", str(file)).out
    assert (
        json.loads(runyard("config", "show", "--json", "--config", str(file)).out)["retention"]["jobs"]
        == 432000
    )


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ('[pools.a]\nprovider = "nowhere"\n', "nowhere"),
        ('[pools.a]\nprovider = "local"\nnonsense = 1\n', "nonsense"),
        ('[ledger]\nurl = "mysql://x"\n', "mysql"),
        ("[queues.a.defaults]\nnonsense = 1\n", "nonsense"),
        ("[queues.'No Name']\nweight = 2\n", "No Name"),
    ],
)
def test_config_check_finds_what_serve_would_refuse(runyard, tmp_path, text, word):
    file = tmp_path / "runyard.toml"
    file.write_text(text)
    said = runyard("config", "check", "--config", str(file))
    assert said.code == 1
    assert word in said.err
    assert runyard("serve", "--config", str(file), "--data", str(tmp_path / "data"), "--port", "0").code == 1


def test_config_check_lists_the_problems_of_all_parts_at_once(runyard, tmp_path):
    file = tmp_path / "runyard.toml"
    file.write_text('[pools.a]\nprovider = "nowhere"\n[pools.b]\nprovider = "elsewhere"\n')
    said = runyard("config", "check", "--config", str(file))
    assert "nowhere" in said.err
    assert "elsewhere" in said.err


def test_config_show_shows_what_is_in_force(runyard, monkeypatch, tmp_path):
    monkeypatch.setenv("RUNYARD_DATA", str(tmp_path))
    shown = runyard("config", "show").out
    assert f"{tmp_path}/ledger.sqlite" in shown
    assert "pools.local.provider = 'local'" in shown
    monkeypatch.setenv("RUNYARD_LEDGER__URL", "postgresql://me:hunter2@db/runyard?sslpassword=hunter3")
    shown = runyard("config", "show").out
    assert "postgresql://me:…@db/runyard" in shown
    assert "hunter" not in shown


def test_doctor_names_what_this_host_has_and_the_cure_for_what_it_lacks(runyard):
    said = runyard("doctor", "--json")
    found = json.loads(said.out)
    assert found
    assert said.code == (0 if all(one["ok"] for one in found) else 1)
    assert all(one["cure"] for one in found if not one["ok"])
    assert len(runyard("doctor").out.splitlines()) >= len(found)


def test_a_command_whose_room_is_not_installed_says_so(runyard, monkeypatch):
    monkeypatch.setitem(sys.modules, "runyard.host.probe", None)
    said = runyard("doctor")
    assert said.code == 1
    assert "`runyard doctor` cannot run here" in said.err
    assert "cure:" in said.err
