"""Job files are read as they are meant, and a wrong one is named by file and place."""

import json

import pytest

from runyard.cli.exit_codes import UsageError
from runyard.cli.job_files import read_job_file

JOB = {"steps": [{"run": "true"}]}


@pytest.fixture
def written(tmp_path):
    def write(text, name="jobs.yaml"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return [job.document for job in read_job_file(str(path))]

    return write


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("steps: [{run: 'true'}]", 1),
        ("steps: [{run: 'true'}]\n---\nsteps: [{run: 'false'}]\n---\n", 2),
        ("- steps: [{run: 'true'}]\n- steps: [{run: 'true'}]\n", 2),
        ("jobs:\n- steps: [{run: 'true'}]\n", 1),
        (json.dumps(JOB), 1),
        (json.dumps([JOB, JOB, JOB]), 3),
        (json.dumps({"jobs": [JOB, JOB]}), 2),
        ("\ufeff{steps: [{run: 'true'}]}", 1),
    ],
)
def test_every_form_gives_its_jobs(written, text, count):
    documents = written(text)
    assert len(documents) == count
    assert all("steps" in document for document in documents)


def test_values_are_as_json_has_them(written):
    [document] = written(
        "env: {A: 2026-11-24, B: on, C: no}\nretry: {failure: 1}\nworkspace: {git: {lfs: true}}"
    )
    assert document["env"] == {"A": "2026-11-24", "B": "on", "C": "no"}
    assert document["workspace"]["git"]["lfs"] is True


def test_anchors_may_be_used_within_reason(written):
    [document] = written("env: &e {A: b}\nsteps:\n- {run: x, env: *e}\n- {run: y, env: *e}\n")
    assert document["steps"][1]["env"] == {"A": "b"}


def test_a_billion_laughs_is_refused_and_not_expanded(written):
    lines = ["a0: &a0 [lol,lol,lol,lol,lol,lol,lol,lol,lol]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(UsageError, match="aliases written out"):
        written("\n".join(lines))


def test_a_document_that_holds_itself_is_refused(written):
    with pytest.raises(UsageError, match="aliases written out"):
        written("&a [*a]")


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("steps: [", "a.yaml", "a.yaml: is no YAML"),
        ("{", "a.json", "a.json: is no JSON"),
        ("[" * 200_000, "a.json", "a.json: is nested too deeply"),
        ("[" * 200_000, "a.yaml", "a.yaml: is nested too deeply"),
        ("", "a.yaml", "holds no job"),
        ("hello", "a.yaml", "job 1: is str, not an object"),
        ("[1]", "a.json", "job 1: is int, not an object"),
        (b"\xff\xfe", "a.yaml", "byte 0 is not UTF-8"),
        ("!!python/object:os.system {}", "a.yaml", "is no YAML"),
    ],
)
def test_what_is_wrong_is_named(written, text, name, message):
    with pytest.raises(UsageError, match=message):
        written(text, name)


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(UsageError, match=r"/nowhere.yaml: cannot be read \(No such file"):
        read_job_file("/nowhere.yaml")
