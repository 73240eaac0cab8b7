from __future__ import annotations

import json
import time

import pytest

from tests.api.world import a_document

YAML = {"Content-Type": "application/yaml"}
LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{','.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(12)
)
LONG_LAUGHS = "a: &a '" + "x" * 100_000 + "'\nb: [" + "*a," * 50_000 + "]\n"
STACKED = "a: &a " + "[" * 30 + "]" * 30 + "\nb: &b " + "[" * 30 + "*a" + "]" * 30 + "\n"


def file_by_url(url):
    return {"workspace": {"files": {"a": {"url": url, "sha256": "0" * 64}}}}


def field_and_value(change):
    return {**a_document(), **change}


@pytest.mark.parametrize(
    ("change", "field", "in_message"),
    [
        ({"stesp": 1}, "stesp", "no such key"),
        ({"priority": "5"}, "priority", "'5'"),
        ({"priority": True}, "priority", "True"),
        ({"priority": 101}, "priority", "101"),
        ({"priority": -(10**17)}, "priority", "-1000000"),
        ({"env": {"A": 1}}, "env.A", "1"),
        ({"env": {"A B": "x"}}, "env.A B", "A B"),
        ({"env": ["A=1"]}, "env", "list"),
        ({"steps": []}, "steps", "list of 0"),
        ({"steps": "true"}, "steps", "'true'"),
        ({"steps": [{"run": "a", "command": ["b"]}]}, "steps.0", "either"),
        ({"steps": [{"run": "a", "timeout": "-5s"}]}, "steps.0.timeout", "-5s"),
        ({"steps": [{"run": "a", "timeout": "x" * 500}]}, "steps.0.timeout", "xxx"),
        ({"steps": [{"run": "a", "dir": "../.."}]}, "steps.0.dir", "../.."),
        ({"steps": [{"run": "a\0b"}]}, "steps.0.run", "NUL"),
        ({"steps": [{"run": "a\ud800b"}]}, "steps.0.run", "ud800"),
        ({"steps": [{"run": "é" * 70_000}]}, "steps.0.run", "140000 bytes"),
        ({"steps": [{"command": [""]}]}, "steps.0.command.0", "empty"),
        ({"steps": [{"name": "a", "run": "x"}, {"name": "a", "run": "y"}]}, None, "'a'"),
        ({"limits": {"run": 0}}, "limits.run", "0"),
        ({"limits": {"run": 1e18}}, "limits.run", "1e+18"),
        ({"requirements": {"memory": "1Q"}}, "requirements.memory", "1Q"),
        ({"requirements": {"memory": 10**17}}, "requirements.memory", "100000000"),
        ({"requirements": {"cpu": -1}}, "requirements.cpu", "-1"),
        ({"requirements": {"cpu": "1e999"}}, "requirements.cpu", "1e999"),
        ({"requirements": {"isolation": "vm"}}, "requirements.isolation", "vm"),
        ({"network": "closed"}, "network", "closed"),
        ({"artifacts": ["/etc/passwd"]}, "artifacts.0", "/etc/passwd"),
        ({"artifacts": ["a/../../b"]}, "artifacts.0", ".."),
        ({"outputs": {"x": "../y"}}, "outputs.x", "../y"),
        ({"workspace": {"files": {"../x": "y"}}}, "workspace.files.../x", "../x"),
        ({"workspace": {"files": {"/x": "y"}}}, "workspace.files./x", "/x"),
        ({"workspace": {"files": {"a": "1", "a/b": "2"}}}, "workspace.files.a/b", "'a'"),
        ({"workspace": {"files": {"a": "1", "./a": "2"}}}, "workspace.files../a", "twice"),
        ({"workspace": {"files": {"a/": "1"}}}, "workspace.files.a/", "folder"),
        ({"workspace": {"files": {"a": {"base64": "###"}}}}, "workspace.files.a.base64", "base64"),
        ({"workspace": {"files": {"a": {"url": "https://h.org/x"}}}}, "workspace.files.a", "go together"),
        ({"workspace": {"files": {"a": {"ulr": "https://h.org/x"}}}}, "workspace.files.a.ulr", "no such key"),
        (file_by_url("https://u:hunter2@h.org/x"), "workspace.files.a.url", "no address"),
        (file_by_url("file:///etc/passwd"), "workspace.files.a.url", "no address"),
        (file_by_url("https://h.org/a b"), "workspace.files.a.url", "character"),
        ({"workspace": {"git": {"url": "--upload-pack=x"}}}, "workspace.git.url", "--upload"),
        ({"workspace": {"git": {"url": "ext::sh -c x"}}}, "workspace.git.url", "ext::"),
        ({"workspace": {"git": {"url": "https://h℀.com/x"}}}, "workspace.git.url", "character"),
        ({"workspace": {"git": {"url": "https://$(id).com/x"}}}, "workspace.git.url", "character"),
        ({"workspace": {"git": {"url": "u", "ref": "-x"}}}, "workspace.git.ref", "-x"),
        ({"env": {f"V{n}": "x" * 60_000 for n in range(3)}}, "steps.0.env", "131072"),
        ({"id": "UPPER"}, "id", "UPPER"),
        ({"tenant": None}, "tenant", "None"),
    ],
)  # fmt: skip
async def test_a_wrong_document_is_refused_with_field_value_and_cure(admin, change, field, in_message):
    answer = await admin.post("/api/v1/jobs", content=json.dumps(field_and_value(change)))

    error = answer.json()["error"]
    assert answer.status_code == 422, error
    assert error["code"] == "invalid"
    assert error["field"] == field
    assert in_message in error["message"]
    assert error["cure"]
    assert len(error["message"]) < 2000
    assert (await admin.get("/api/v1/jobs")).json()["jobs"] == []


@pytest.mark.parametrize(
    ("change", "message", "in_cure"),
    [
        ({"id": "-x"}, "id: '-x' is no job id", "1 to 40 lower-case letters"),
        ({"queue": "No Queue"}, "queue: 'No Queue' is no name", "1 to 63 lower-case letters"),
        ({"env": {"1A": "x"}}, "env.1A: '1A' is no variable name", "no digit at the beginning"),
        ({"labels": {"a b": "x"}}, "labels.a b: 'a b' is no label key", "1 to 63 letters"),
        ({"name": "x" * 201}, None, "at most 200 characters"),
        ({"steps": []}, "steps: a list of 0 is not accepted", "at least 1"),
        ({"priority": 101}, "priority: 101 is not accepted", "100 or less"),
        ({"limits": {"run": 0}}, "limits.run: duration 0 is out of range", "above 0 and at most 366d"),
        ({"steps": [{}]}, None, "write one of the two"),
    ],
)  # fmt: skip
async def test_a_refusal_is_in_words_of_our_own_and_the_cure_is_more_than_the_message(
    admin, change, message, in_cure
):
    error = (await admin.post("/api/v1/jobs", json=a_document(**change))).json()["error"]

    assert message is None or error["message"] == message
    assert in_cure in error["cure"]
    assert error["cure"] not in error["message"]
    for leaked in ("should", "pattern", "Input", "^["):
        assert leaked not in error["message"] + error["cure"]


@pytest.mark.parametrize(
    ("method", "path", "in_cure"),
    [
        ("PUT", "/api/v1/jobs/UPPER", "1 to 40 lower-case letters"),
        ("PUT", "/api/v1/queues/No", "1 to 63 lower-case letters"),
        ("GET", "/api/v1/pools/No", "1 to 63 lower-case letters"),
        ("GET", "/api/v1/jobs?tenant=No", "1 to 63 lower-case letters"),
        ("GET", "/api/v1/jobs?limit=x", "a whole number"),
        ("GET", "/api/v1/jobs?limit=501", "500 or less"),
        ("GET", "/api/v1/jobs?state=asleep", "'queued'"),
    ],
)
async def test_a_wrong_name_in_an_address_is_told_in_the_same_words(admin, method, path, in_cure):
    answer = await admin.request(method, path, json=a_document() if method == "PUT" else None)

    error = answer.json()["error"]
    assert answer.status_code == 422
    assert in_cure in error["cure"]
    assert "should" not in error["message"] + error["cure"]
    assert "^[" not in error["message"] + error["cure"]


async def test_every_problem_of_a_document_is_told_at_once(admin):
    document = {"steps": [{"ruN": "x", "timeout": "soon"}], "priorty": 1}
    error = (await admin.put("/api/v1/jobs/x", json=document)).json()["error"]

    fields = {error["field"], *(problem["field"] for problem in error["more"])}
    assert fields == {"steps.0.timeout", "steps.0.ruN", "priorty"}
    assert "did you mean 'priority'?" in {problem["cure"] for problem in error["more"]}


@pytest.mark.parametrize(
    ("body", "headers", "status", "in_message"),
    [
        (b"", {}, 400, "empty"),
        (b"{", {}, 400, "line 1"),
        (b"[]", {}, 422, "list"),
        (b"null", {}, 422, "None"),
        (b'"x"', {}, 422, "'x'"),
        (b"\xff\xfe{}", {}, 400, "UTF-8"),
        (b'{"steps":[{"run":"\xe9"}]}', {}, 400, "0xe9"),
        (b'{"a":1,"a":2}', {}, 422, "twice"),
        (b'{"steps":[{"run":"x","run":"y"}]}', {}, 422, "twice"),
        (b'{"priority":NaN}', {}, 422, "NaN"),
        (b'{"priority":Infinity}', {}, 422, "Infinity"),
        (b'{"priority":1e999}', {}, 422, "1e999"),
        (b'{"priority":' + b"9" * 5000 + b"}", {}, 422, "digits"),
        (b"[" * 100_000, {}, 422, "deep"),
        (b"[" * 60 + b"]" * 60, {}, 422, "deep"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, {}, 422, "deep"),
        (b"x", {"Content-Type": "text/html"}, 415, "text/html"),
        (b"steps: []", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "is read as JSON"),
        (b"a=1&b=2", {"Content-Type": "application/x-www-form-urlencoded"}, 415, "line 1"),
        (b"steps: [", YAML, 400, "YAML"),
        (b"a: 1\n---\nb: 2\n", YAML, 422, "several"),
        (b"a: 1\na: 2\n", YAML, 422, "twice"),
        (b"? [a]\n: 1\n", YAML, 422, "key"),
        (b"a: !!python/object/apply:os.system [id]\n", YAML, 422, "tag"),
        (b"a: &a\n  <<: *a\n", YAML, 422, "merge"),
        (b"a: &a [*a]\n", YAML, 422, "*a"),
        (b"a: \x00\n", YAML, 400, "YAML"),
        (b"a: 99999999999999999999\n", YAML, 422, "large"),
        (b"[" * 100_000, YAML, 422, "deep"),
        (b"- " * 5000, YAML, 422, "deep"),
        (LAUGHS.encode(), YAML, 422, "too large"),
        (LONG_LAUGHS.encode(), YAML, 422, "too large"),
        (STACKED.encode(), YAML, 422, "deep"),
        (b"# only a comment\n", YAML, 400, "empty"),
    ],
)  # fmt: skip
async def test_bytes_that_are_no_document_are_refused_fast(admin, body, headers, status, in_message):
    began = time.process_time()
    answer = await admin.post("/api/v1/jobs", content=body, headers=headers)

    assert answer.status_code == status, answer.text
    assert in_message in answer.json()["error"]["message"]
    assert time.process_time() - began < 2


async def test_yaml_keeps_as_text_what_only_looks_like_something_else(admin):
    text = "steps: [{run: x}]\nenv: {A: yes, B: 12:30, C: 2026-01-01, D: '1', E: 0x10, F: 1_000}\n"
    job = await admin.post("/api/v1/jobs", content=text, headers=YAML)

    assert job.json()["effective"]["env"] == {
        "A": "yes", "B": "12:30", "C": "2026-01-01", "D": "1", "E": "0x10", "F": "1_000",
    }  # fmt: skip


async def test_an_anchor_may_be_used_where_it_stays_small(admin):
    text = "steps:\n- &a {name: one, run: x}\n- {name: two, run: y, env: &e {K: v}}\nenv: *e\n"
    job = await admin.post("/api/v1/jobs", content=text, headers=YAML)

    assert job.json()["effective"]["env"] == {"K": "v"}


@pytest.mark.parametrize("path", ["/api/v1/jobs", "/api/v1/jobs:batch"])
async def test_a_body_beyond_the_bound_is_refused_before_it_is_read_to_the_end(admin, path):
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b"x" * (1 << 20)

    answer = await admin.post(path, content=endless())

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "too_large"
    assert sent < 20


async def test_a_declared_size_beyond_the_bound_is_refused_at_once(admin):
    answer = await admin.post("/api/v1/jobs", content=b"x", headers={"Content-Length": "10000000"})

    assert answer.status_code == 413


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/jobs/a%00b", "/api/v1/jobs/%ff%fe", "/api/v1/jobs/..%2f..%2fetc", "/api/v1/jobs/" + "x" * 5000,
        "/api/v1/jobs?text=%00", "/api/v1/jobs?queue=%ff", "/api/v1/jobs?cursor=%00", "/api/v1/jobs?cursor=nonsense",
        "/api/v1/jobs?label=x", "/api/v1/jobs?limit=0", "/api/v1/jobs?limit=99999999999999999999999",
        "/api/v1/jobs?state=sleeping", "/api/v1/jobs?tenant=%00", "/api/v1/jobs?tenant=UPPER",
        "/api/v1/jobs/a?wait=-1s", "/api/v1/jobs/a?wait=nonsense", "/api/v1/queues/a%00", "/api/v1/pools/%ff",
        "/api/v1/events?after=-1", "/api/v1/events?after=x", "/api/v1/tenants/%00", "/api/v1/machines/%00",
        "/%00", "/api/v1/jobs/%F0%9F%92%A9/log", "/api/v1/jobs/a/artifacts/%00",
    ],
)  # fmt: skip
async def test_an_address_that_no_name_can_have_is_refused_and_never_a_fault(admin, path):
    answer = await admin.get(path)

    assert answer.status_code in (404, 410, 422), answer.text
    assert answer.json()["error"]["message"]


async def test_a_fault_of_ours_tells_an_id_and_nothing_else(service, admin, monkeypatch):
    async def broken():
        raise RuntimeError("the password is hunter2")

    object.__setattr__(service.app.state.context.services, "render_metrics", broken)
    answer = await admin.get("/metrics")

    assert answer.status_code == 500
    assert answer.json()["error"]["code"] == "internal"
    assert "hunter2" not in answer.text
