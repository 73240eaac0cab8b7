"""The Kubernetes API as far as Runyard leans on it: one suite for the strict server and for a real cluster.

The expectations are what a 1.36.2 server answered. Where a real server's words carry its internals, only the code, the
reason and the fields are compared.
"""

import asyncio
import base64
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from tests.kubernetes.contract_worlds import (
    LONG_MESSAGE,
    OBEDIENT,
    SAY_AND_FAIL,
    STUBBORN,
    SUCCEED,
    TALKATIVE,
    UNPULLABLE,
    UNSTARTABLE,
    World,
    condition_of,
    container,
    has_state,
    job,
    states,
)

pytestmark = pytest.mark.timeout(180)
Json = dict[str, Any]
NO_UID = "11111111-1111-1111-1111-111111111111"


async def make_secret(world: World, name: str = "s", **metadata: Any) -> Json:
    answer = await world.call("POST", f"{world.core}/secrets", {"metadata": {"name": name, **metadata}})
    assert answer.code == 201, answer.text
    made: Json = answer.body
    return made


async def make_job(world: World, body: Json) -> Json:
    answer = await world.call("POST", world.jobs, body)
    assert answer.code == 201, answer.text
    made: Json = answer.body
    return made


# --- discovery --------------------------------------------------------------------------------------------------


async def test_discovery_names_the_verbs_and_subresources(world: World) -> None:
    batch = (await world.call("GET", "/apis/batch/v1")).body
    core = (await world.call("GET", "/api/v1")).body

    jobs = next(each for each in batch["resources"] if each["name"] == "jobs")
    assert (jobs["kind"], jobs["namespaced"]) == ("Job", True)
    assert set(jobs["verbs"]) >= {"create", "delete", "get", "list", "patch", "watch"}
    assert {"pods", "pods/log", "pods/exec", "secrets"} <= {each["name"] for each in core["resources"]}
    assert "batch" in {group["name"] for group in (await world.call("GET", "/apis")).body["groups"]}
    assert (await world.call("GET", "/version")).body["major"] == "1"


async def test_what_is_not_served_is_not_found(world: World) -> None:
    for path in (f"{world.core}/nosuchthings", "/apis/batch/v9", f"{world.core}/pods/p/nosuchthing"):
        answer = await world.call("GET", path)
        assert (answer.code, answer.reason) == (404, "NotFound")
        assert answer.message == "the server could not find the requested resource"
    for path in ("/nowhere", "/apis/no.such.group/v1", "/apis/no.such.group/v1/namespaces/n/things"):
        answer = await world.call("GET", path)
        assert (answer.code, answer.text) == (404, "404 page not found\n")
    assert (await world.call("PUT", f"{world.core}/secrets", {})).reason == "MethodNotAllowed"


# --- objects ----------------------------------------------------------------------------------------------------


async def test_a_created_secret_holds_its_words_in_base64(world: World) -> None:
    body = {"metadata": {"name": "s"}, "stringData": {"key": "value"}}
    answer = await world.call("POST", f"{world.core}/secrets", body)

    made = answer.body
    assert (answer.code, made["kind"], made["type"]) == (201, "Secret", "Opaque")
    assert base64.b64decode(made["data"]["key"]) == b"value"
    assert "stringData" not in made
    assert made["metadata"]["uid"]
    assert made["metadata"]["namespace"] == world.namespace
    assert (await world.call("GET", f"{world.core}/secrets/s")).body["metadata"]["uid"] == made["metadata"][
        "uid"
    ]


async def test_a_name_that_is_taken_collides(world: World) -> None:
    await make_secret(world)

    again = await world.call("POST", f"{world.core}/secrets", {"metadata": {"name": "s"}})

    assert (again.code, again.reason, again.message) == (409, "AlreadyExists", 'secrets "s" already exists')
    assert again.body["details"] == {"name": "s", "kind": "secrets"}


async def test_a_job_that_is_taken_collides_by_its_qualified_name(world: World) -> None:
    await make_job(world, job("j", spec={"suspend": True}))

    again = await world.call("POST", world.jobs, job("j", container(STUBBORN)))

    assert (again.code, again.message) == (409, 'jobs.batch "j" already exists')
    assert again.body["details"] == {"name": "j", "group": "batch", "kind": "jobs"}


async def test_a_dry_run_stores_nothing(world: World) -> None:
    answer = await world.call("POST", world.jobs, job("dry"), dryRun="All")

    assert (answer.code, answer.body["spec"]["completions"]) == (201, 1)
    assert (await world.call("GET", f"{world.jobs}/dry")).message == 'jobs.batch "dry" not found'


async def test_a_missing_namespace_is_not_found(world: World) -> None:
    answer = await world.call("POST", "/api/v1/namespaces/nowhere/secrets", {"metadata": {"name": "s"}})

    assert (answer.code, answer.message) == (404, 'namespaces "nowhere" not found')


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"name": "Upper_Case"}, "metadata.name"),
        ({"name": "x" * 254}, "metadata.name"),
        ({"name": "s", "labels": {"bad key": "x"}}, "metadata.labels"),
        ({"name": "s", "labels": {"key": "-bad-"}}, "metadata.labels"),
        ({"name": "s", "labels": {"key": "x" * 64}}, "metadata.labels"),
        ({"name": "s", "annotations": {"bad key": "x"}}, "metadata.annotations"),
    ],
)
async def test_bad_names_and_labels_are_invalid(world: World, metadata: Json, field: str) -> None:
    answer = await world.call("POST", f"{world.core}/secrets", {"metadata": metadata})

    assert (answer.code, answer.reason) == (422, "Invalid")
    assert answer.causes() == [(field, "FieldValueInvalid")]
    assert answer.message.startswith(f'Secret "{metadata["name"]}" is invalid: {field}: Invalid value: ')


async def test_several_causes_stand_in_brackets(world: World) -> None:
    labels = {"a": "-bad-", "b": "x" * 64}
    answer = await world.call("POST", f"{world.core}/secrets", {"metadata": {"name": "s", "labels": labels}})

    assert len(answer.causes()) == 2
    assert answer.message.startswith('Secret "s" is invalid: [metadata.labels: Invalid value: ')
    assert "must be no more than 63 bytes" in answer.message  # a server tells them in any order
    assert answer.message.endswith("]")


async def test_a_secret_has_a_bound_and_keys_with_a_syntax(world: World) -> None:
    path = f"{world.core}/secrets"
    big = await world.call("POST", path, {"metadata": {"name": "s"}, "stringData": {"k": "x" * 1_050_000}})
    key = await world.call("POST", path, {"metadata": {"name": "s"}, "stringData": {"a/b": "x"}})
    text = await world.call("POST", path, {"metadata": {"name": "s"}, "data": {"k": "$$$"}})

    assert big.causes() == [("data", "FieldValueTooLong")]
    assert key.causes() == [("data[a/b]", "FieldValueInvalid")]
    assert (text.code, text.reason) == (400, "BadRequest")
    assert "illegal base64 data at input byte 0" in text.message


def main(body: Json) -> Json:
    found: Json = body["spec"]["template"]["spec"]["containers"][0]
    return found


def pod_spec(body: Json) -> Json:
    found: Json = body["spec"]["template"]["spec"]
    return found


def twice(items: list[Json]) -> list[Json]:
    return [*items, *items]


IN_POD = "spec.template.spec"
BAD_JOBS: dict[str, tuple[Callable[[Json], Any], list[tuple[str, str]]]] = {
    "restart policy": (
        lambda body: pod_spec(body).update(restartPolicy="Always"),
        [(f"{IN_POD}.restartPolicy", "FieldValueRequired")],
    ),
    "no container": (
        lambda body: pod_spec(body).update(containers=[]),
        [(f"{IN_POD}.containers", "FieldValueRequired")],
    ),
    "container twice": (
        lambda body: pod_spec(body).update(containers=twice(pod_spec(body)["containers"])),
        [(f"{IN_POD}.containers[1].name", "FieldValueDuplicate")],
    ),
    "container as init container": (
        lambda body: pod_spec(body).update(initContainers=[container(SUCCEED)]),
        [(f"{IN_POD}.initContainers[0].name", "FieldValueDuplicate")],
    ),
    "container name": (
        lambda body: main(body).update(name="A_b"),
        [(f"{IN_POD}.containers[0].name", "FieldValueInvalid")],
    ),
    "no image": (
        lambda body: main(body).pop("image"),
        [(f"{IN_POD}.containers[0].image", "FieldValueRequired")],
    ),
    "pull policy": (
        lambda body: main(body).update(imagePullPolicy="Sometimes"),
        [(f"{IN_POD}.containers[0].imagePullPolicy", "FieldValueNotSupported")],
    ),
    "env name": (
        lambda body: main(body).update(env=[{"name": "A=B", "value": "1"}]),
        [(f"{IN_POD}.containers[0].env[0].name", "FieldValueInvalid")],
    ),
    "request above limit": (
        lambda body: main(body).update(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
        [(f"{IN_POD}.containers[0].resources.requests", "FieldValueInvalid")],
    ),
    "negative limit": (
        lambda body: main(body).update(resources={"limits": {"cpu": "-1"}}),
        [(f"{IN_POD}.containers[0].resources.limits[cpu]", "FieldValueInvalid")],
    ),
    "unknown volume": (
        lambda body: main(body).update(volumeMounts=[{"name": "nope", "mountPath": "/x"}]),
        [(f"{IN_POD}.containers[0].volumeMounts[0].name", "FieldValueNotFound")],
    ),
    "volume twice": (
        lambda body: pod_spec(body).update(volumes=twice([{"name": "a", "emptyDir": {}}])),
        [(f"{IN_POD}.volumes[1].name", "FieldValueDuplicate")],
    ),
    "path of a secret's item": (
        lambda body: pod_spec(body).update(
            volumes=[{"name": "a", "secret": {"secretName": "s", "items": [{"key": "k", "path": "../x"}]}}]
        ),
        [(f"{IN_POD}.volumes[0].secret.items[0].path", "FieldValueInvalid")],
    ),
    "backoff": (
        lambda body: body["spec"].update(backoffLimit=-1),
        [("spec.backoffLimit", "FieldValueInvalid")],
    ),
    "node selector": (
        lambda body: pod_spec(body).update(nodeSelector={"a": "x y"}),
        [(f"{IN_POD}.nodeSelector", "FieldValueInvalid")],
    ),
    "toleration": (
        lambda body: pod_spec(body).update(tolerations=[{"key": "a", "operator": "Foo"}]),
        [(f"{IN_POD}.tolerations[0].operator", "FieldValueNotSupported")],
    ),
    "runtime class": (
        lambda body: pod_spec(body).update(runtimeClassName="Ka_ta"),
        [(f"{IN_POD}.runtimeClassName", "FieldValueInvalid")],
    ),
    "a uid below 0": (
        lambda body: main(body).update(securityContext={"runAsUser": -1}),
        [(f"{IN_POD}.containers[0].securityContext.runAsUser", "FieldValueInvalid")],
    ),
    "seccomp": (
        lambda body: main(body).update(securityContext={"seccompProfile": {"type": "Foo"}}),
        [(f"{IN_POD}.containers[0].securityContext.seccompProfile.type", "FieldValueNotSupported")],
    ),
    # The Job's own name becomes a label of its pods: 63 and not 253, under both names of that label.
    "a name above 63": (
        lambda body: body["metadata"].update(name="x" * 64),
        [("spec.template.labels", "FieldValueInvalid")] * 2,
    ),
}


async def test_a_job_that_cannot_be_is_invalid_with_its_field(world: World) -> None:
    found: dict[str, list[tuple[str, str]]] = {}
    for what, (spoil, _) in BAD_JOBS.items():
        body = job("j")
        spoil(body)
        answer = await world.call("POST", world.jobs, body, dryRun="All")
        assert (answer.code, answer.reason) == (422, "Invalid"), what
        assert answer.body["details"]["group"] == "batch"
        found[what] = answer.causes()

    assert found == {what: causes for what, (_, causes) in BAD_JOBS.items()}


async def test_types_and_quantities_are_decoded_before_anything_is_validated(world: World) -> None:
    number = await world.call(
        "POST", world.jobs, job("j", container(SUCCEED, env=[{"name": "A", "value": 1}]))
    )
    limits = container(SUCCEED, resources={"limits": {"cpu": "much"}})
    quantity = await world.call("POST", world.jobs, job("j", limits))
    kind = await world.call(
        "POST", world.jobs, {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "x"}}
    )

    assert (number.code, number.message) == (
        400,
        'Job in version "v1" cannot be handled as a Job: json: cannot unmarshal number into Go struct field '
        "EnvVar.spec.template.spec.containers.env.value of type string",
    )
    assert quantity.code == 400
    assert "quantities must match the regular expression" in quantity.message
    assert kind.code == 400


async def test_an_unknown_field_is_dropped_and_told_of(world: World) -> None:
    body = job("j", pod={"noSuchField": 1})

    told = await world.call("POST", world.jobs, body, dryRun="All")
    ignored = await world.call("POST", world.jobs, body, dryRun="All", fieldValidation="Ignore")
    strict = await world.call("POST", world.jobs, body, dryRun="All", fieldValidation="Strict")

    assert (told.code, ignored.code, strict.code) == (201, 201, 400)
    assert told.headers["warning"] == '299 - "unknown field \\"spec.template.spec.noSuchField\\""'
    assert "warning" not in ignored.headers
    assert 'strict decoding error: unknown field "spec.template.spec.noSuchField"' in strict.message
    assert "noSuchField" not in pod_spec(told.body)


async def test_a_variable_that_stands_twice_is_only_warned_of(world: World) -> None:
    doubled = container(SUCCEED, env=twice([{"name": "A", "value": "1"}]))

    answer = await world.call("POST", world.jobs, job("j", doubled), dryRun="All")

    assert answer.code == 201
    assert 'hides previous definition of \\"A\\"' in answer.headers["warning"]


# --- replacing and patching -------------------------------------------------------------------------------------


async def test_a_stale_revision_conflicts(world: World) -> None:
    made = await make_secret(world)
    await world.call("PATCH", f"{world.core}/secrets/s", {"metadata": {"labels": {"a": "b"}}})

    put = await world.call("PUT", f"{world.core}/secrets/s", made)
    stale = {"metadata": {"resourceVersion": made["metadata"]["resourceVersion"], "labels": {"a": "c"}}}
    patched = await world.call("PATCH", f"{world.core}/secrets/s", stale)

    for answer in (put, patched):
        assert (answer.code, answer.reason) == (409, "Conflict")
        assert answer.message == (
            'Operation cannot be fulfilled on secrets "s": the object has been modified; please apply your changes to '
            "the latest version and try again"
        )


async def test_a_patch_that_changes_nothing_makes_no_revision(world: World) -> None:
    await make_secret(world, annotations={"a": "1", "b": "2"})
    path = f"{world.core}/secrets/s"

    first = await world.call("PATCH", path, {"metadata": {"annotations": {"a": None, "b": "2"}}})
    again = await world.call("PATCH", path, {"metadata": {"annotations": {"a": None, "b": "2"}}})

    assert first.body["metadata"]["annotations"] == {"b": "2"}
    assert again.body["metadata"]["resourceVersion"] == first.body["metadata"]["resourceVersion"]


async def test_of_two_patches_that_test_the_same_revision_one_wins(world: World) -> None:
    made = await make_secret(world, annotations={"owner": "none"})
    path, revision = f"{world.core}/secrets/s", made["metadata"]["resourceVersion"]

    def claim(owner: str) -> list[Json]:
        return [
            {"op": "test", "path": "/metadata/resourceVersion", "value": revision},
            {"op": "replace", "path": "/metadata/annotations/owner", "value": owner},
        ]

    answers = [await world.call("PATCH", path, claim(owner), patch="json") for owner in ("a", "b")]

    assert [answer.code for answer in answers] == [200, 422]
    assert answers[1].message == "the server rejected our request due to an error in our request"
    assert answers[1].reason == "Invalid"
    assert (await world.call("GET", path)).body["metadata"]["annotations"] == {"owner": "a"}


async def test_a_json_patch_without_its_place_is_rejected(world: World) -> None:
    await make_secret(world)
    path = f"{world.core}/secrets/s"

    for operation in (
        {"op": "test", "path": "/metadata/annotations/none", "value": "1"},
        {"op": "remove", "path": "/metadata/labels/none"},
        {"op": "add", "path": "/metadata/labels/none", "value": "1"},
    ):
        assert (await world.call("PATCH", path, [operation], patch="json")).code == 422
    plain = await world.client.patch(path, json={})
    assert plain.status_code == 415
    assert (await world.call("PATCH", f"{world.core}/secrets/none", {})).code == 404


async def test_status_changes_by_its_subresource_only(world: World) -> None:
    await make_job(world, job("j", spec={"suspend": True}))

    await world.call("PATCH", f"{world.jobs}/j", {"status": {"active": 7}})

    assert (await world.call("GET", f"{world.jobs}/j")).body["status"].get("active") != 7


async def test_a_jobs_template_is_immutable(world: World) -> None:
    await make_job(world, job("j", container(STUBBORN)))
    await world.running_pod("j")

    for change in ({"template": {"spec": {"priority": 7}}}, {"completions": 3}):
        answer = await world.call("PATCH", f"{world.jobs}/j", {"spec": change})
        assert (answer.code, answer.reason) == (422, "Invalid")
        assert "field is immutable" in answer.message
    answer = await world.call("PATCH", f"{world.jobs}/j", {"metadata": {"annotations": {"a": "b"}}})
    assert answer.code == 200


async def test_a_delete_by_another_uid_conflicts(world: World) -> None:
    made = await make_secret(world)
    path = f"{world.core}/secrets/s"

    other = await world.call("DELETE", path, {"preconditions": {"uid": NO_UID}})
    right = await world.call("DELETE", path, {"preconditions": {"uid": made["metadata"]["uid"]}})
    gone = await world.call("DELETE", path)

    assert (other.code, other.reason) == (409, "Conflict")
    assert other.message == (
        f'Operation cannot be fulfilled on Secret "s": the UID in the precondition ({NO_UID}) does not match the UID '
        f"in record ({made['metadata']['uid']}). The object might have been deleted and then recreated"
    )
    assert right.body["details"] == {"name": "s", "kind": "secrets", "uid": made["metadata"]["uid"]}
    assert (gone.code, gone.message) == (404, 'secrets "s" not found')


# --- lists and watches ------------------------------------------------------------------------------------------


async def test_a_list_comes_in_pages_of_one_revision(world: World) -> None:
    for name in ("a", "b", "c"):
        await make_secret(world, name, labels={"l": "1"})
    await make_secret(world, "d", labels={"l": "2"})
    path = f"{world.core}/secrets"

    first = (await world.call("GET", path, labelSelector="l=1", limit="2")).body
    await world.call("DELETE", f"{path}/c")
    token = first["metadata"]["continue"]
    second = (await world.call("GET", path, labelSelector="l=1", limit="2", **{"continue": token})).body

    assert [item["metadata"]["name"] for item in first["items"]] == ["a", "b"]
    assert [item["metadata"]["name"] for item in second["items"]] == ["c"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in second["metadata"]
    assert (first["kind"], "kind" in first["items"][0]) == ("SecretList", False)


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"labelSelector": "l in (1, 2),kind!=x"}, ["a", "b"]),
        ({"labelSelector": "!l"}, ["c"]),
        ({"labelSelector": "l,l!=1"}, ["b"]),
        ({"fieldSelector": "metadata.name=b"}, ["b"]),
    ],
)
async def test_selectors_choose(world: World, query: dict[str, str], names: list[str]) -> None:
    for name, labels in {"a": {"l": "1"}, "b": {"l": "2"}, "c": {}}.items():
        await make_secret(world, name, labels=labels)

    found = (await world.call("GET", f"{world.core}/secrets", **query)).body

    assert [item["metadata"]["name"] for item in found["items"]] == names


async def test_bad_questions_are_told_so(world: World) -> None:
    path = f"{world.core}/secrets"
    label = await world.call("GET", path, labelSelector="a=b=c")
    field = await world.call("GET", path, fieldSelector="spec.foo=1")
    revision = await world.call("GET", path, resourceVersion="abc")
    token = await world.call("GET", path, **{"continue": "abc"})

    assert (label.code, label.message) == (400, "found '=', expected: ',' or 'end of string'")
    assert (field.code, field.message) == (400, "field label not supported: spec.foo")
    assert revision.code == token.code == 400


async def test_a_revision_of_the_future_times_out(world: World) -> None:
    answer = await world.call("GET", f"{world.core}/secrets", resourceVersion="99999999")

    assert (answer.code, answer.reason, answer.headers["retry-after"]) == (504, "Timeout", "1")
    assert answer.message.startswith("Timeout: Too large resource version: 99999999, current: ")


async def test_a_watch_tells_what_became_of_what_it_selects(world: World) -> None:
    """An object that stops to fit is DELETED in its last fitting state, one that fits again ADDED."""
    path = f"{world.core}/secrets"
    since = (await world.call("GET", path)).body["metadata"]["resourceVersion"]
    await make_secret(world, "s", labels={"l": "1"})
    await make_secret(world, "other", labels={"l": "2"})
    changes: list[Json] = [{"annotations": {"a": "b"}}, {"labels": {"l": "2"}}, {"labels": {"l": "1"}}]
    revisions = [
        (await world.call("PATCH", f"{path}/s", {"metadata": change})).body["metadata"] for change in changes
    ]
    await world.call("DELETE", f"{path}/s")

    events = await world.watch(path, resourceVersion=since, labelSelector="l=1")

    assert [each["type"] for each in events] == ["ADDED", "MODIFIED", "DELETED", "ADDED", "DELETED"]
    assert events[2]["object"]["metadata"]["labels"] == {"l": "1"}
    assert events[2]["object"]["metadata"]["resourceVersion"] == revisions[1]["resourceVersion"]
    numbers = [int(each["object"]["metadata"]["resourceVersion"]) for each in events]
    assert numbers == sorted(numbers)


async def test_a_watch_without_a_revision_begins_with_what_is_there(world: World) -> None:
    await make_secret(world, "s")

    events = await world.watch(f"{world.core}/secrets", allowWatchBookmarks="true")

    assert [each["type"] for each in events[:2]] == ["ADDED", "BOOKMARK"]
    mark = events[1]["object"]
    assert mark["kind"] == "Secret"
    assert mark["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert int(mark["metadata"]["resourceVersion"]) >= int(events[0]["object"]["metadata"]["resourceVersion"])


async def test_a_watch_of_a_forgotten_revision_is_told_that_it_is_gone(world: World) -> None:
    """Leases change all the time, so that a server forgets their first revision within minutes of its start."""
    path = "/apis/coordination.k8s.io/v1/leases"
    events = await world.watch(path, resourceVersion="1")
    listed = await world.call("GET", path, resourceVersion="1", resourceVersionMatch="Exact")
    if world.is_real and events[:1] and events[0]["type"] != "ERROR":
        pytest.skip("the cluster is too young: it still knows its first revision")

    assert len(events) == 1
    gone = events[0]["object"]
    assert (events[0]["type"], gone["kind"], gone["code"], gone["reason"]) == (
        "ERROR",
        "Status",
        410,
        "Expired",
    )
    assert gone["message"].startswith("too old resource version: 1 (")
    assert (listed.code, listed.reason) == (410, "Expired")


async def test_a_watch_of_no_number_is_refused(world: World) -> None:
    answer = await world.call("GET", f"{world.core}/secrets", watch="true", resourceVersion="abc")

    assert answer.code == 500


# --- jobs -------------------------------------------------------------------------------------------------------


async def test_a_job_makes_one_pod_that_carries_its_labels(world: World) -> None:
    made = await make_job(world, job("j", container(STUBBORN)))

    pod = await world.running_pod("j")

    own = {"job-name": "j", "controller-uid": made["metadata"]["uid"]}
    assert pod["metadata"]["labels"] == own | {
        f"batch.kubernetes.io/{key}": value for key, value in own.items()
    }
    assert pod["metadata"]["generateName"] == "j-"
    owner = pod["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["uid"], owner["controller"]) == ("Job", made["metadata"]["uid"], True)
    assert pod["metadata"]["finalizers"] == ["batch.kubernetes.io/job-tracking"]
    assert pod["spec"]["nodeName"]
    assert condition_of(pod, "PodScheduled")


async def test_a_failed_container_is_told_before_its_job_is(world: World) -> None:
    await make_job(world, job("j", container(SAY_AND_FAIL)))

    pod = await world.pod_of("j", lambda pod: has_state(pod, "terminated"), "terminated")
    found = (await world.call("GET", f"{world.jobs}/j")).body
    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]

    assert (ended["exitCode"], ended["reason"], ended["message"]) == (7, "Error", "why")
    assert condition_of(found, "Failed") is None
    failed = await world.job_with("j", "Failed")
    assert condition_of(failed, "Failed")["reason"] == "BackoffLimitExceeded"  # type: ignore[index]
    assert condition_of(failed, "FailureTarget")
    assert failed["status"]["failed"] == 1
    assert (await world.pod_of("j"))["metadata"].get("finalizers") is None


async def test_a_succeeded_job_is_complete(world: World) -> None:
    await make_job(world, job("j", container(SUCCEED)))

    found = await world.job_with("j", "Complete")

    assert condition_of(found, "Complete")["reason"] == "CompletionsReached"  # type: ignore[index]
    assert (found["status"]["succeeded"], found["status"].get("active")) == (1, None)
    assert (await world.pod_of("j"))["status"]["phase"] == "Succeeded"


async def test_containers_start_together_after_the_init_container(world: World) -> None:
    initial = {"initContainers": [container(SUCCEED, "first")]}
    await make_job(world, job("j", container(STUBBORN, "one"), container(STUBBORN, "two"), pod=initial))

    before = await world.pod_of("j", states, "statuses")
    pod = await world.pod_of(
        "j", lambda pod: states(pod) and all("running" in each for each in states(pod)), "both running"
    )

    assert [each["waiting"]["reason"] for each in states(before)] == ["PodInitializing"] * 2
    first = pod["status"]["initContainerStatuses"][0]
    assert (first["state"]["terminated"]["reason"], first["ready"]) == ("Completed", True)
    assert pod["status"]["phase"] == "Running"


async def test_the_messages_of_a_pods_containers_share_a_bound(world: World) -> None:
    """4 KiB for each, 12 KiB for the pod: six containers have 2 KiB each."""
    await make_job(world, job("j", *[container(LONG_MESSAGE, f"c{number}") for number in range(6)]))

    pod = await world.pod_of(
        "j", lambda pod: states(pod) and all("terminated" in each for each in states(pod)), "all ended"
    )

    assert [len(each["terminated"]["message"]) for each in states(pod)] == [2048] * 6


async def test_a_program_that_cannot_start_ends_with_128(world: World) -> None:
    broken = container(UNSTARTABLE) | ({"command": ["/no/such/program"]} if world.is_real else {})
    await make_job(world, job("j", broken))

    pod = await world.pod_of("j", lambda pod: has_state(pod, "terminated"), "terminated")

    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], ended["reason"]) == (128, "StartError")


async def test_an_image_that_is_not_there_waits_for_ever(world: World) -> None:
    missing = container(UNPULLABLE) | {"image": "example.test/no-such:1", "imagePullPolicy": "Never"}
    await make_job(world, job("j", missing))

    pod = await world.pod_of(
        "j",
        lambda pod: any(each.get("waiting", {}).get("reason") == "ErrImageNeverPull" for each in states(pod)),
        "ErrImageNeverPull",
    )

    assert pod["status"]["phase"] == "Pending"
    log = await world.call("GET", f"{world.core}/pods/{pod['metadata']['name']}/log")
    assert log.code == 400
    assert log.message.endswith("is waiting to start: ErrImageNeverPull")
    assert (await world.call("GET", f"{world.jobs}/j")).body["status"]["active"] == 1


async def test_a_suspended_job_waits_and_starts_when_it_is_resumed(world: World) -> None:
    await make_job(world, job("j", container(STUBBORN), spec={"suspend": True}))
    suspended = await world.job_with("j", "Suspended")

    assert condition_of(suspended, "Suspended")["reason"] == "JobSuspended"  # type: ignore[index]
    assert "startTime" not in suspended["status"]
    pods = await world.call("GET", f"{world.core}/pods", labelSelector="job-name=j")
    assert pods.body["items"] == []

    await world.call("PATCH", f"{world.jobs}/j", {"spec": {"suspend": False}})
    await world.running_pod("j")
    resumed = (await world.call("GET", f"{world.jobs}/j")).body
    assert condition_of(resumed, "Suspended") is None
    assert resumed["status"]["startTime"]


async def test_where_a_suspended_job_may_run_can_change_before_its_start(world: World) -> None:
    await make_job(world, job("j", spec={"suspend": True}))
    await world.job_with("j", "Suspended")

    place = {"spec": {"template": {"spec": {"nodeSelector": {"zone": "b"}}}}}
    image = [{"op": "replace", "path": "/spec/template/spec/containers/0/image", "value": "other:1"}]

    assert (await world.call("PATCH", f"{world.jobs}/j", place)).code == 200
    assert (await world.call("PATCH", f"{world.jobs}/j", image, patch="json")).code == 422


async def test_suspending_a_running_job_deletes_its_pod(world: World) -> None:
    await make_job(world, job("j", container(OBEDIENT)))
    pod = await world.running_pod("j")

    await world.call("PATCH", f"{world.jobs}/j", {"spec": {"suspend": True}})
    suspended = await world.job_with("j", "Suspended")

    await world.gone(f"{world.core}/pods/{pod['metadata']['name']}")
    assert "startTime" not in suspended["status"]
    assert condition_of((await world.call("GET", f"{world.jobs}/j")).body, "Failed") is None


async def test_the_deadline_deletes_the_pod_and_fails_the_job(world: World) -> None:
    await make_job(world, job("j", container(OBEDIENT), spec={"activeDeadlineSeconds": 2}))
    pod = await world.running_pod("j")

    failed = await world.job_with("j", "Failed")

    assert condition_of(failed, "Failed")["reason"] == "DeadlineExceeded"  # type: ignore[index]
    assert (await world.call("GET", f"{world.core}/pods/{pod['metadata']['name']}")).code == 404


async def test_a_job_with_a_time_to_live_goes_with_its_pod(world: World) -> None:
    await make_job(world, job("j", container(SUCCEED), spec={"ttlSecondsAfterFinished": 1}))
    pod = await world.pod_of("j")

    await world.gone(f"{world.jobs}/j")

    await world.gone(f"{world.core}/pods/{pod['metadata']['name']}")


# --- deleting ---------------------------------------------------------------------------------------------------


async def test_a_raw_delete_of_a_job_orphans_its_pod(world: World) -> None:
    await make_job(world, job("j", container(STUBBORN)))
    pod = await world.running_pod("j")

    answer = await world.call("DELETE", f"{world.jobs}/j")

    assert (answer.code, answer.body["kind"]) == (200, "Job")
    assert answer.body["metadata"]["finalizers"] == ["orphan"]
    assert "child pods are preserved by default" in answer.headers["warning"]
    await world.gone(f"{world.jobs}/j")
    path = f"{world.core}/pods/{pod['metadata']['name']}"

    async def is_free() -> bool:
        metadata = (await world.call("GET", path)).body["metadata"]
        return not metadata.get("ownerReferences") and not metadata.get("finalizers")

    await world.until(is_free, "a pod without an owner")
    orphan = (await world.call("GET", path)).body
    assert (orphan["status"]["phase"], orphan["metadata"].get("deletionTimestamp")) == ("Running", None)
    assert (await world.call("DELETE", path, {"gracePeriodSeconds": 0})).code == 200


async def test_a_background_delete_ends_the_job_first_and_the_pod_in_two_phases(world: World) -> None:
    made = await make_job(world, job("j", container(STUBBORN)))
    pod = await world.running_pod("j")
    path = f"{world.core}/pods/{pod['metadata']['name']}"

    answer = await world.call("DELETE", f"{world.jobs}/j", {"propagationPolicy": "Background"})

    assert answer.body["status"] == "Success"
    assert answer.body["details"] == {
        "name": "j",
        "group": "batch",
        "kind": "jobs",
        "uid": made["metadata"]["uid"],
    }
    assert (await world.call("GET", f"{world.jobs}/j")).code == 404

    async def is_going() -> Json | None:
        found = await world.call("GET", path)
        return (
            found.body["metadata"]
            if found.code == 200 and "deletionTimestamp" in found.body["metadata"]
            else None
        )

    metadata = await world.until(is_going, "a pod that is going")
    assert metadata["deletionGracePeriodSeconds"] == 1
    await world.gone(path)


async def test_a_foreground_delete_keeps_the_job_until_its_pod_is_gone(world: World) -> None:
    await make_job(world, job("j", container(STUBBORN)))
    pod = await world.running_pod("j")

    answer = await world.call("DELETE", f"{world.jobs}/j", {"propagationPolicy": "Foreground"})

    assert answer.body["metadata"]["finalizers"] == ["foregroundDeletion"]
    assert answer.body["metadata"]["deletionTimestamp"]
    assert (await world.call("GET", f"{world.jobs}/j")).code == 200
    assert (await world.call("POST", world.jobs, job("j"))).reason == "AlreadyExists"
    await world.gone(f"{world.jobs}/j")
    assert (await world.call("GET", f"{world.core}/pods/{pod['metadata']['name']}")).code == 404


async def test_an_unknown_propagation_policy_is_invalid(world: World) -> None:
    answer = await world.call("DELETE", f"{world.jobs}/none", {"propagationPolicy": "Sideways"})

    assert answer.causes() == [("propagationPolicy", "FieldValueNotSupported")]


async def test_a_pod_that_obeys_ends_with_its_own_code_before_it_goes(world: World) -> None:
    body = job("j", container(OBEDIENT), pod={"terminationGracePeriodSeconds": 20})
    await make_job(world, body)
    pod = await world.running_pod("j")
    path = f"{world.core}/pods/{pod['metadata']['name']}"
    await world.log_holds(pod["metadata"]["name"], "main", "up")

    await world.call("DELETE", path)

    ended = await world.pod_of("j", lambda found: has_state(found, "terminated"), "terminated")
    assert ended["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 3
    failed = await world.job_with("j", "Failed")
    assert condition_of(failed, "Failed")["reason"] == "BackoffLimitExceeded"  # type: ignore[index]
    await world.gone(path)


async def test_an_evicted_pod_says_so_in_a_condition(world: World) -> None:
    await make_job(world, job("j", container(STUBBORN)))
    pod = await world.running_pod("j")
    name = pod["metadata"]["name"]

    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    answer = await world.call("POST", f"{world.core}/pods/{name}/eviction", body)

    assert answer.code == 201
    found = await world.pod_of("j", lambda pod: condition_of(pod, "DisruptionTarget"), "DisruptionTarget")
    assert condition_of(found, "DisruptionTarget")["reason"] == "EvictionByEvictionAPI"  # type: ignore[index]
    assert found["metadata"]["deletionTimestamp"]


# --- rights ---------------------------------------------------------------------------------------------------


async def test_what_the_role_does_not_hold_is_forbidden_in_known_words(world: World) -> None:
    await make_secret(world)
    where = f'in the namespace "{world.namespace}"'

    async with world.as_user(
        "somebody", [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]}]
    ) as somebody:
        allowed = await somebody.call("GET", f"{world.core}/secrets/s")
        listed = await somebody.call("GET", f"{world.core}/secrets")
        deleted = await somebody.call("DELETE", f"{world.jobs}/j")
        log = await somebody.call("GET", f"{world.core}/pods/p/log")
        elsewhere = await somebody.call("GET", "/api/v1/nodes")
        version = await somebody.call("GET", "/version")

    assert (allowed.code, version.code) == (200, 200)
    assert (listed.code, listed.reason) == (403, "Forbidden")
    assert listed.message == (
        f'secrets is forbidden: User "somebody" cannot list resource "secrets" in API group "" {where}'
    )
    assert deleted.message == (
        f'jobs.batch "j" is forbidden: User "somebody" cannot delete resource "jobs" in API group "batch" {where}'
    )
    assert deleted.body["details"] == {"name": "j", "group": "batch", "kind": "jobs"}
    assert log.message == (
        f'pods "p" is forbidden: User "somebody" cannot get resource "pods/log" in API group "" {where}'
    )
    assert elsewhere.message == (
        'nodes is forbidden: User "somebody" cannot list resource "nodes" in API group "" at the cluster scope'
    )


async def test_a_review_says_what_one_may(world: World) -> None:
    def question(verb: str) -> Json:
        wanted = {"namespace": world.namespace, "verb": verb, "group": "batch", "resource": "jobs"}
        return {"spec": {"resourceAttributes": wanted}}

    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    async with world.as_user(
        "somebody", [{"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]}]
    ) as somebody:
        answers = [await somebody.call("POST", path, question(verb)) for verb in ("get", "create")]

    assert [answer.code for answer in answers] == [201, 201]
    assert [answer.body["status"]["allowed"] for answer in answers] == [True, False]


async def test_an_unknown_token_is_unauthorized(world: World) -> None:
    async with world.as_user("somebody", []) as somebody:
        headers = {"authorization": "Bearer no-such-token"}
        response = await somebody.anonymous.get(f"{world.core}/secrets", headers=headers)

    assert response.status_code == 401
    assert response.json() == {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "Unauthorized", "reason": "Unauthorized", "code": 401,
    }  # fmt: skip


# --- quota ------------------------------------------------------------------------------------------------------


async def set_quota(world: World, hard: Json) -> None:
    body = {"metadata": {"name": "q"}, "spec": {"hard": hard}}
    assert (await world.call("POST", f"{world.core}/resourcequotas", body)).code == 201
    if world.is_real:  # the real one counts what is there first

        async def counted() -> bool:
            found = (await world.call("GET", f"{world.core}/resourcequotas/q")).body
            return set(found.get("status", {}).get("used", {})) == set(hard)

        await world.until(counted, "a counted quota")


async def test_a_job_beyond_the_quota_is_forbidden_in_known_words(world: World) -> None:
    await set_quota(world, {"count/jobs.batch": "0"})

    answer = await world.call("POST", world.jobs, job("j"))

    assert (answer.code, answer.reason) == (403, "Forbidden")
    assert answer.message == (
        'jobs.batch "j" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=0, '
        "limited: count/jobs.batch=0"
    )
    assert answer.body["details"] == {"name": "j", "group": "batch", "kind": "jobs"}


async def test_a_pod_beyond_the_quota_leaves_its_job_without_one(world: World) -> None:
    await set_quota(world, {"requests.cpu": "1"})
    await make_job(world, job("unsaid"))
    await make_job(world, job("much", container(SUCCEED, resources={"requests": {"cpu": "2"}})))

    async def refusals() -> dict[str, str] | None:
        events = (await world.call("GET", f"{world.core}/events", fieldSelector="reason=FailedCreate")).body[
            "items"
        ]
        found = {each["involvedObject"]["name"]: each["message"] for each in events}
        return found if len(found) == 2 else None

    found = await world.until(refusals, "two refusals")

    assert "failed quota: q: must specify requests.cpu for: main" in found["unsaid"]
    assert (
        "exceeded quota: q, requested: requests.cpu=2, used: requests.cpu=0, limited: requests.cpu=1"
        in found["much"]
    )
    assert (await world.call("GET", f"{world.jobs}/much")).body["status"].get("active", 0) == 0


# --- logs -------------------------------------------------------------------------------------------------------


async def talkative_pod(world: World) -> str:
    await make_job(world, job("j", container(TALKATIVE), container(STUBBORN, "other")))
    pod = await world.running_pod("j")
    await world.log_holds(pod["metadata"]["name"], "main", "line 9")
    return f"{world.core}/pods/{pod['metadata']['name']}/log"


async def test_a_log_is_cut_by_lines_and_bytes(world: World) -> None:
    path = await talkative_pod(world)

    assert (await world.call("GET", path, container="main", tailLines="2")).text == "line 8\nline 9\n"
    assert (await world.call("GET", path, container="main", tailLines="0")).text == ""
    assert (await world.call("GET", path, container="main", limitBytes="9")).text == "line 0\nli"
    stamped = (await world.call("GET", path, container="main", limitBytes="40", timestamps="true")).text
    assert len(stamped) == 40
    assert (await world.call("GET", path, container="other")).text == ""


async def test_times_have_nine_digits_and_since_is_cut_to_the_second(world: World) -> None:
    path = await talkative_pod(world)

    stamped = (await world.call("GET", path, container="main", timestamps="true")).text.splitlines()
    last = stamped[-1].split(" ")[0]
    since = (
        await world.call("GET", path, container="main", timestamps="true", sinceTime=last)
    ).text.splitlines()

    assert stamped[-1].endswith("Z line 9")
    assert len(last) == len("2026-11-24T12:00:00.123456789Z")
    datetime.fromisoformat(last)
    # All ten lines were printed at once, most often within one second: what comes is the second, not the line.
    assert since[-1] == stamped[-1]
    assert [line for line in stamped if line[:19] >= last[:19]] == since


async def test_bad_questions_about_a_log_are_told_so(world: World) -> None:
    path = await talkative_pod(world)
    name = path.split("/")[-2]

    nameless = await world.call("GET", path)
    unknown = await world.call("GET", path, container="none")
    tail = await world.call("GET", path, container="main", tailLines="-1")
    limit = await world.call("GET", path, container="main", limitBytes="0")
    both = await world.call("GET", path, container="main", sinceSeconds="1", sinceTime="2026-01-01T00:00:00Z")
    word = await world.call("GET", path, container="main", tailLines="x")
    previous = await world.call("GET", path, container="main", previous="true")
    missing = await world.call("GET", f"{world.core}/pods/none/log")

    assert (nameless.code, nameless.message) == (
        400,
        f"a container name must be specified for pod {name}, choose one of: [main other]",
    )
    assert (unknown.code, unknown.message) == (400, f"container none is not valid for pod {name}")
    assert tail.causes() == [("tailLines", "FieldValueInvalid")]
    assert limit.causes() == [("limitBytes", "FieldValueInvalid")]
    assert both.causes() == [("[]", "FieldValueForbidden")]
    assert (word.code, word.message) == (400, 'strconv.ParseInt: parsing "x": invalid syntax')
    assert previous.message == f'previous terminated container "main" in pod "{name}" not found'
    assert (missing.code, missing.message) == (404, 'pods "none" not found')


async def test_a_container_that_waits_has_no_log_yet(world: World) -> None:
    body = job("j", container(SUCCEED), pod={"initContainers": [container(STUBBORN, "first")]})
    await make_job(world, body)
    pod = await world.pod_of(
        "j", lambda pod: any("running" in each for each in states(pod, "initContainerStatuses")), "init runs"
    )
    name = pod["metadata"]["name"]

    for query in ({}, {"follow": "true"}):
        answer = await world.call("GET", f"{world.core}/pods/{name}/log", container="main", **query)
        assert answer.code == 400
        assert answer.message == f'container "main" in pod "{name}" is waiting to start: PodInitializing'


async def test_a_pod_without_a_node_has_an_empty_log(world: World) -> None:
    if world.server:
        world.server.kubelet.places = False
    await make_job(world, job("j", pod={"nodeSelector": {"no": "where"}}))
    pod = await world.pod_of("j")
    name = pod["metadata"]["name"]
    if world.server:
        words = "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
        world.server.kubelet.mark_unschedulable(name, words)

    found = await world.pod_of("j", lambda pod: pod["status"].get("conditions"), "conditions")
    scheduled = found["status"]["conditions"][0]
    answer = await world.call("GET", f"{world.core}/pods/{name}/log")

    assert (scheduled["type"], scheduled["status"], scheduled["reason"]) == (
        "PodScheduled",
        "False",
        "Unschedulable",
    )
    assert scheduled["message"].startswith(
        "0/1 nodes are available: 1 node(s) didn't match Pod's node affinity/selector."
    )
    assert (answer.code, answer.text) == (204, "")


async def test_a_follower_gets_the_open_line_and_the_end_with_the_container(world: World) -> None:
    await make_job(world, job("j", container(SAY_AND_FAIL)))
    pod = await world.pod_of(
        "j", lambda pod: has_state(pod, "running") or has_state(pod, "terminated"), "started"
    )
    path = f"{world.core}/pods/{pod['metadata']['name']}/log"

    following = asyncio.ensure_future(world.call("GET", path, follow="true"))
    while not following.done():
        await world.tick()

    assert (await following).text == "one\ntwo\npart"


async def test_the_log_goes_with_the_pod(world: World) -> None:
    path = await talkative_pod(world)

    await world.call("DELETE", f"{world.jobs}/j", {"propagationPolicy": "Background"})
    await world.gone(path.removesuffix("/log"))

    assert (await world.call("GET", path, container="main")).code == 404


# --- exec -------------------------------------------------------------------------------------------------------


async def exec_pod(world: World) -> str:
    await make_job(world, job("j", container(STUBBORN), container(SUCCEED, "done")))
    pod = await world.pod_of(
        "j", lambda pod: has_state(pod, "running") and has_state(pod, "terminated"), "one running, one ended"
    )
    return str(pod["metadata"]["name"])


async def test_an_exec_answers_by_channel_and_ends_with_a_status(world: World) -> None:
    name = await exec_pod(world)
    shell = ("/bin/busybox", "sh", "-c")

    both = await world.exec(name, "main", *shell, "echo out; echo err >&2; exit 3")
    older = await world.exec(name, "main", *shell, "exit 0", protocols=("v4.channel.k8s.io",))
    much = await world.exec(name, "main", *shell, "dd if=/dev/zero bs=1024 count=300 2>/dev/null")

    assert (both.protocol, both.stdout, both.stderr) == ("v5.channel.k8s.io", b"out\n", b"err\n")
    assert both.status["status"] == "Failure"
    assert both.status["reason"] == "NonZeroExitCode"
    assert both.status["details"] == {"causes": [{"reason": "ExitCode", "message": "3"}]}
    assert (older.protocol, older.status) == ("v4.channel.k8s.io", {"metadata": {}, "status": "Success"})
    assert much.stdout == bytes(300 << 10)


async def test_a_websocket_needs_the_right_to_create_an_exec_beside_that_to_get_it(world: World) -> None:
    name = await exec_pod(world)
    rule = {"apiGroups": [""], "resources": ["pods/exec"], "verbs": ["get"]}

    async with world.as_user("somebody", [rule]) as somebody:
        with pytest.raises(InvalidStatus) as refused:
            await somebody.exec(name, "main", "/bin/busybox", "true")

    assert refused.value.response.status_code == 403


async def test_stdin_ends_by_the_close_channel(world: World) -> None:
    name = await exec_pod(world)

    answer = await world.exec(name, "main", "/bin/busybox", "cat", stdin=b"to and fro")

    assert (answer.stdout, answer.status["status"]) == (b"to and fro", "Success")


async def test_a_program_that_is_not_there_fails_in_the_status(world: World) -> None:
    name = await exec_pod(world)

    answer = await world.exec(name, "main", "/no/such/program")

    assert (answer.status["status"], answer.status["reason"]) == ("Failure", "InternalError")
    assert "no such file or directory" in answer.status["message"]


async def test_an_exec_that_cannot_be_is_refused_before_the_upgrade(world: World) -> None:
    name = await exec_pod(world)

    async def refused(pod: str, container: str, **more: Any) -> int:
        with pytest.raises(InvalidStatus) as caught:
            await world.exec(pod, container, "true", **more)
        return caught.value.response.status_code

    assert await refused(name, "none") == 400
    assert await refused("none", "main") == 404
    assert await refused(name, "done") == 500
    assert await refused(name, "main", protocols=("no.such.protocol",)) == 403
    plain = await world.call("GET", f"{world.core}/pods/{name}/exec", command="true", container="main")
    assert (plain.code, plain.message) == (400, "Upgrade request required")
