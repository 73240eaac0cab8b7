from __future__ import annotations

import json
import re

import pytest

from runyard.api.job_specs import document_of, spec_of
from runyard.api.submission import merge_defaults, spec_hash
from runyard.api.validation import validate
from runyard.model.requirements import Requirements
from runyard.policy.explain import could_ever_run
from runyard.wire.job_document import JobDocument
from tests.api.world import a_document

WHOLE = {
    "name": "nightly",
    "queue": "default",
    "priority": 7,
    "labels": {"team": "search"},
    "env": {"A": "1"},
    "dir": "src",
    "steps": [
        {"name": "test", "run": "pytest -q", "shell": "bash", "timeout": "10m", "env": {"B": "2"}},
        {"command": ["tar", "czf", "out.tgz", "."], "if": "always", "dir": "/workspace/out"},
    ],
    "workspace": {
        "git": {
            "url": "https://example.org/x.git",
            "ref": "main",
            "depth": 1,
            "sparse": ["docs"],
            "submodules": True,
            "lfs": True,
        },
        "files": {
            "a.txt": "text",
            "b.bin": {"base64": "AP8="},
            "c.tgz": {"url": "https://example.org/c.tgz", "sha256": "0" * 64},
        },
    },
    "requirements": {"cpu": "500m", "memory": "512Mi", "disk": "1Gi", "labels": {"zone": "a"}},
    "limits": {"queue": "1h", "start": "5m", "run": "30m"},
    "retry": {"infrastructure": 1, "failure": 2},
    "network": {"allow": ["*.example.com", "example.org:443", "192.0.2.0/24"]},
    "artifacts": ["out/*.xml"],
    "outputs": {"digest": "out/digest"},
    "cache": [
        {"key": "pip-{sha256:**/requirements.txt}", "restore": ["pip-"], "path": "~/.cache/pip"},
        {"key": "k", "path": "a/b"},
    ],
    "services": {
        "db": {
            "image": "postgres:17",
            "env": {"A": "b"},
            "ready": {"command": ["pg_isready"], "timeout": "2m"},
            "memory": "256Mi",
            "cpu": "250m",
        },
        "cache": {"image": "redis", "command": ["--save", ""], "ready": {"port": 6379}},
    },
}


async def test_a_put_is_created_once_and_the_same_again_is_the_same_job(admin):
    first = await admin.put("/api/v1/jobs/build", json=a_document())
    again = await admin.put("/api/v1/jobs/build", json=a_document())
    other = await admin.put("/api/v1/jobs/build", json=a_document(priority=1))

    assert [first.status_code, again.status_code, other.status_code] == [201, 200, 409]
    assert first.json()["uid"] == again.json()["uid"]
    assert other.json()["error"]["code"] == "conflict"


async def test_yaml_and_json_of_the_same_document_are_the_same_spec(admin):
    yaml = "# a comment\nsteps:\n- run: 'true'\nlabels: {team: search}\n"
    first = await admin.put("/api/v1/jobs/b", json=a_document(labels={"team": "search"}))
    again = await admin.put("/api/v1/jobs/b", content=yaml, headers={"Content-Type": "application/yaml"})

    assert [first.status_code, again.status_code] == [201, 200]


def test_the_hash_is_of_the_document_as_sent_without_its_id():
    assert spec_hash({"id": "a", "steps": [1], "env": {"x": 1, "y": 2}}) == spec_hash(
        {"env": {"y": 2, "x": 1}, "steps": [1], "id": "b"}
    )
    assert spec_hash({"steps": [1]}) != spec_hash({"steps": [1], "priority": 0})


def test_the_effective_document_makes_the_same_spec_again():
    spec = spec_of(validate(JobDocument, WHOLE))
    effective = json.loads(json.dumps(document_of(spec, job_id="x")))

    assert spec_of(validate(JobDocument, effective)) == spec


async def test_a_job_answers_with_all_its_defaults_filled_in(admin):
    effective = (await admin.put("/api/v1/jobs/build", json=a_document())).json()["effective"]

    assert effective["limits"] == {"queue": None, "start": 600.0, "run": 3600.0}
    assert effective["requirements"]["isolation"] == "container"
    assert effective["steps"][0]["name"] == "step-1"
    assert effective["steps"][0]["run"] == "true"


async def test_post_gives_a_fresh_id_and_takes_one_from_the_document(admin):
    fresh = await admin.post("/api/v1/jobs", json=a_document())
    named = await admin.post("/api/v1/jobs", json=a_document(id="mine"))

    assert (await admin.get(fresh.headers["Location"])).json()["uid"] == fresh.json()["uid"]
    assert named.json()["id"] == "mine"


async def test_the_id_of_path_and_document_must_agree(admin):
    answer = await admin.put("/api/v1/jobs/a", json=a_document(id="b"))

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == "id"


async def test_a_batch_takes_the_good_and_names_the_bad_in_order(admin):
    jobs = [a_document(id="a"), {"id": "b"}, a_document(id="a", priority=1), a_document(id="c", queue="none")]
    items = (await admin.post("/api/v1/jobs:batch", json={"jobs": [*jobs, a_document(id="d")]})).json()[
        "jobs"
    ]

    assert [item["id"] for item in items] == ["a", None, None, None, "d"]
    assert [item["error"] and item["error"]["code"] for item in items] == [
        None, "invalid", "conflict", "not_found", None,
    ]  # fmt: skip
    assert items[1]["error"]["field"] == "steps"


async def test_the_defaults_of_a_queue_lie_under_its_jobs(admin):
    defaults = {"env": {"A": "queue", "B": "queue"}, "limits": {"run": "5m"}}
    await admin.put("/api/v1/queues/fast", json={"defaults": defaults})
    job = await admin.put("/api/v1/jobs/x", json=a_document(queue="fast", env={"B": "job"}))

    effective = job.json()["effective"]
    assert effective["env"] == {"A": "queue", "B": "job"}
    assert effective["limits"]["run"] == 300.0


def test_defaults_merge_mappings_and_replace_everything_else():
    merged = merge_defaults({"a": {"x": 1, "y": [1]}, "b": [1], "c": 1}, {"a": {"y": [2]}, "b": {}, "d": 4})

    assert merged == {"a": {"x": 1, "y": [2]}, "b": {}, "c": 1, "d": 4}


@pytest.mark.parametrize(
    ("defaults", "field"),
    [
        ({"limits": {"rum": "5m"}}, "defaults.limits.rum"),
        ({"id": "x"}, "defaults.id"),
        ({"tenant": "x"}, "defaults.tenant"),
        ({"image": "No Image"}, "defaults.image"),
    ],
)
async def test_wrong_defaults_are_refused_when_the_queue_is_set(admin, defaults, field):
    answer = await admin.put("/api/v1/queues/fast", json={"defaults": defaults})

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field


@pytest.mark.parametrize(
    ("services", "field"),
    [
        ({"localhost": {"image": "x"}}, "services.localhost"),
        ({"db": {"image": "x", "memory": "2Gi"}}, "services.db.memory"),
        ({"db": {"image": "x", "cpu": 2}}, "services.db.cpu"),
        ({"db": {"image": "x", "ready": {"port": 1, "command": ["x"]}}}, "services.db.ready"),
        ({"db": {"image": "x", "ready": {"port": 0}}}, "services.db.ready.port"),
        ({"db": {"image": "x", "env": {"A": "x" * 131_072}}}, "services.db.env"),
    ],
)
async def test_a_service_that_could_never_run_is_refused_with_the_field_and_a_cure(admin, services, field):
    error = (await admin.put("/api/v1/jobs/x", json=a_document(services=services))).json()["error"]

    assert error["field"] == field
    assert error["cure"]


@pytest.mark.parametrize(
    ("allow", "field"),
    [
        ([], "network.allow"),
        (["a.example", "https://a.example"], "network.allow.1"),
        (["a.example:0"], "network.allow.0"),
        (["a.*.example"], "network.allow.0"),
        (["*.com"], "network.allow.0"),
        (["10.0.0.1/8"], "network.allow.0"),
        (["2001:db8::/32"], "network.allow.0"),
        (["a b"], "network.allow.0"),
    ],
)
async def test_an_entry_that_no_egress_list_can_hold_is_refused_with_its_place_and_a_cure(
    admin, allow, field
):
    error = (await admin.put("/api/v1/jobs/x", json=a_document(network={"allow": allow}))).json()["error"]

    assert error["field"] == field
    assert error["message"].startswith(f"{field}: ")
    assert error["cure"]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"image": "Python:3.12"}, "image"),
        ({"image": "http://host/x"}, "image"),
        ({"image": "a b"}, "image"),
        ({"steps": [{"run": "true", "image": "x:"}]}, "steps.0.image"),
        ({"steps": [{"run": "true", "image": "x@sha256:12"}]}, "steps.0.image"),
        ({"services": {"db": {"image": "a b"}}}, "services.db.image"),
    ],
)
async def test_what_no_image_can_be_called_is_refused(admin, change, field):
    error = (await admin.put("/api/v1/jobs/x", json=a_document(**change))).json()["error"]

    assert error["field"] == field
    assert "python:3.12" in error["cure"]


async def test_a_job_that_no_pool_could_run_is_taken_only_with_a_queue_limit_of_its_own(admin):
    demands = {"requirements": {"cpu": 100}}
    await admin.put("/api/v1/queues/patient", json={"defaults": {"limits": {"queue": "1h"}}})

    refused = await admin.put("/api/v1/jobs/a", json=a_document(**demands))
    by_default = await admin.put("/api/v1/jobs/b", json=a_document(queue="patient", **demands))
    taken = await admin.put("/api/v1/jobs/c", json=a_document(**demands, limits={"queue": "1h"}))

    assert [refused.status_code, by_default.status_code, taken.status_code] == [422, 422, 201]
    assert "'local'" in refused.json()["error"]["message"]
    assert "limits.queue" in refused.json()["error"]["cure"]
    assert "no pool could ever run this job" in taken.json()["warnings"][0]


async def test_a_refusal_says_whole_what_is_wrong_with_an_unusable_pool_and_names_the_doctor(service, admin):
    from runyard.model.pool import Budget
    from tests.factories import a_pool_settings

    described = (
        "bubblewrap cannot make a user namespace; cure: "
        + "set the sysctl so that it can, " * 60
        + "then restart"
    )
    unusable = a_pool_settings(
        name="broken", slots=0, budget=Budget(cpu_millis=0, memory_bytes=0), description=described
    )
    document = a_document(requirements={"labels": {"gpu": "a100"}})
    usable = (await admin.put("/api/v1/jobs/a", json=document)).json()["error"]
    await service.ledger.put_pool(unusable)
    error = (await admin.put("/api/v1/jobs/a", json=document)).json()["error"]
    sentences = could_ever_run(
        Requirements(labels={"gpu": "a100"}), "default", await service.ledger.list_pools()
    )

    assert "doctor" not in usable["cure"]
    assert "`runyard doctor`" in error["cure"]
    assert "limits.queue" in error["cure"]
    assert error["message"].endswith("; ".join(sentences))


async def test_of_very_many_pools_a_refusal_tells_some_reasons_whole_and_counts_the_rest(service, admin):
    from tests.factories import a_pool_settings

    for number in range(200):
        await service.ledger.put_pool(a_pool_settings(name=f"pool-{number:03}"))
    error = (await admin.put("/api/v1/jobs/a", json=a_document(requirements={"cpu": 100}))).json()["error"]

    assert len(error["message"]) < 5000
    assert re.search(r"; nor could \d+ more pools$", error["message"])


async def test_a_pool_that_was_just_added_counts(service, admin):
    from tests.factories import a_pool_settings

    gpu = {"requirements": {"labels": {"gpu": "a100"}}}
    assert (await admin.put("/api/v1/jobs/a", json=a_document(**gpu))).status_code == 422
    await service.ledger.put_pool(a_pool_settings(name="gpu", labels={"gpu": "a100"}))

    assert (await admin.put("/api/v1/jobs/a", json=a_document(**gpu))).status_code == 201


async def test_beyond_its_queue_the_submitter_is_told_when_to_come_back(admin):
    await admin.put("/api/v1/queues/short", json={"queued_max": 1})
    await admin.put("/api/v1/jobs/a", json=a_document(queue="short"))
    answer = await admin.put("/api/v1/jobs/b", json=a_document(queue="short"))

    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    ("cache", "field"),
    [
        ({"key": "k", "path": path}, "cache.0.path")
        for path in ("../x", "/etc", ".", "a/..", "~/", "~/..", "~/../x", "~//etc", "", "a\0b", "/tmp/home/x")
    ]
    + [
        ({"key": key, "path": "p"}, "cache.0.key")
        for key in ("", "k" * 201, "${{ hashFiles('x') }}", "{md5:x}", "{sha256:}", "a\0b")
    ]
    + [({"key": "k", "path": "p", "restore": ["{x}"]}, "cache.0.restore.0")],
)
async def test_a_cache_that_could_not_be_is_refused_with_its_field(admin, cache, field):
    answer = await admin.put("/api/v1/jobs/x", json=a_document(cache=[cache]))

    assert answer.status_code == 422
    assert answer.json()["error"]["field"] == field
