"""The API in plain documents, and its refusals as the provider's errors."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from runyard.model.errors import (
    ConfigError,
    InvalidRequest,
    ProviderDenied,
    QuotaExceeded,
    Throttled,
    Unreachable,
)
from runyard.providers.kubernetes.client import JOBS, PODS, SECRETS, KubernetesClient
from runyard.providers.kubernetes.cluster_access import reach_cluster
from tests.kubernetes.strict_server import Kind, StrictServer
from tests.kubernetes.strict_server.resources import QUOTAS


def secret(name: str = "one", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "labels": labels},
        "stringData": {"plan": "x"},
    }


async def test_a_created_object_can_be_read_and_a_second_create_finds_the_name_taken(
    client: KubernetesClient,
) -> None:
    made = await client.create(SECRETS, secret())
    assert made is not None
    assert await client.create(SECRETS, secret()) is None
    found = await client.read(SECRETS, "one")
    assert found is not None
    assert found["metadata"]["uid"] == made["metadata"]["uid"]


async def test_missing_is_none_and_deleting_it_again_is_false(client: KubernetesClient) -> None:
    assert await client.read(SECRETS, "one") is None
    assert await client.patch(SECRETS, "one", {"metadata": {"labels": {"a": "b"}}}) is None
    await client.create(SECRETS, secret())
    assert await client.delete(SECRETS, "one") is True
    assert await client.delete(SECRETS, "one") is False


async def test_a_delete_of_another_object_under_the_name_deletes_nothing(client: KubernetesClient) -> None:
    await client.create(SECRETS, secret())
    assert await client.delete(SECRETS, "one", uid="00000000-0000-4000-8000-000000000000") is False
    assert await client.read(SECRETS, "one") is not None


async def test_of_two_writers_who_read_the_same_the_first_wins(client: KubernetesClient) -> None:
    made = await client.create(SECRETS, secret())
    assert made is not None
    version = made["metadata"]["resourceVersion"]
    first = await client.compare_and_patch(
        SECRETS, "one", {"metadata": {"annotations": {"a": "1"}}}, version=version
    )
    second = await client.compare_and_patch(
        SECRETS, "one", {"metadata": {"annotations": {"a": "2"}}}, version=version
    )
    assert first is not None
    assert second is None
    found = await client.read(SECRETS, "one")
    assert found is not None
    assert found["metadata"]["annotations"]["a"] == "1"


async def test_a_listing_goes_through_all_pages_and_minds_its_labels(
    client: KubernetesClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runyard.providers.kubernetes.client.PAGE_ITEMS", 3)
    for number in range(8):
        await client.create(SECRETS, secret(f"s{number}", ours="yes"))
    await client.create(SECRETS, secret("other", ours="no"))
    listing = await client.list(SECRETS, labels="ours=yes")
    assert [one["metadata"]["name"] for one in listing.items] == [f"s{number}" for number in range(8)]


async def test_a_throttled_call_is_repeated_and_its_caller_hears_nothing_of_it(
    server: StrictServer, client: KubernetesClient
) -> None:
    busy = server.faults.busy("POST .*/secrets", times=2, retry_after_s=0)
    assert await client.create(SECRETS, secret()) is not None
    assert busy.hits == 2


async def test_a_call_that_stays_throttled_says_when_to_ask_again(
    server: StrictServer, client: KubernetesClient
) -> None:
    server.faults.busy("POST .*/secrets", times=None, retry_after_s=30)
    with pytest.raises(Throttled) as caught:
        await client.create(SECRETS, secret())
    assert caught.value.after_s == 30


@pytest.mark.parametrize("kind", [Kind.RESET, Kind.DROP_REPLY, Kind.TRUNCATE])
async def test_a_create_without_an_answer_is_unreachable(
    server: StrictServer, client: KubernetesClient, kind: Kind
) -> None:
    server.faults.plan("POST .*/secrets", kind)
    with pytest.raises(Unreachable):
        await client.create(SECRETS, secret())


@pytest.mark.parametrize("code", [500, 503])
async def test_a_server_in_trouble_is_unreachable(
    server: StrictServer, client: KubernetesClient, code: int
) -> None:
    server.faults.broken("GET .*/secrets", code=code)
    with pytest.raises(Unreachable):
        await client.read(SECRETS, "one")


async def test_a_used_up_quota_is_told_apart_from_a_missing_right(
    server: StrictServer, client: KubernetesClient
) -> None:
    server.cluster.create(
        QUOTAS, "default", {"metadata": {"name": "team"}, "spec": {"hard": {"count/secrets": "0"}}}
    )
    with pytest.raises(QuotaExceeded, match="team"):
        await client.create(SECRETS, secret())


async def test_an_object_that_the_server_finds_wrong_is_an_invalid_request(client: KubernetesClient) -> None:
    with pytest.raises(InvalidRequest, match="Not_A_Name"):
        await client.create(SECRETS, secret("Not_A_Name"))


async def test_a_missing_namespace_is_the_operators_to_cure(
    server: StrictServer, client: KubernetesClient
) -> None:
    client.namespace = "nowhere"
    with pytest.raises(ProviderDenied, match="nowhere") as caught:
        await client.create(SECRETS, secret())
    assert caught.value.cure


async def test_what_is_in_a_secret_never_comes_back(client: KubernetesClient) -> None:
    await client.create(SECRETS, secret())
    (found,) = (await client.list(SECRETS)).items
    assert found["metadata"]["name"] == "one"


async def test_the_cluster_s_clock_is_learned_from_its_answers() -> None:
    def answer(request: httpx2.Request) -> httpx2.Response:
        told = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
        return httpx2.Response(200, json={"items": []}, headers={"Date": told})

    http = httpx2.AsyncClient(base_url="http://cluster", transport=httpx2.MockTransport(answer))
    client = KubernetesClient(http, namespace="default")
    await client.list(PODS)
    assert 7190 < client.now() - time.time() < 7210


async def test_a_job_is_always_deleted_with_what_it_made(
    server: StrictServer, client: KubernetesClient
) -> None:
    pod = {"restartPolicy": "Never", "containers": [{"name": "a", "image": "i"}]}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "one"},
        "spec": {"template": {"spec": pod}},
    }
    await client.create(JOBS, job)
    server.clock.advance(0.1)
    assert len(server.objects("pods")) == 1
    await client.delete(JOBS, "one")
    server.clock.advance(60)
    assert server.objects("pods") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "kubeconfig"),
        ("clusters: []\ncontexts: []\n", "context"),
        ("clusters: []\ncontexts: []\ncurrent-context: gone\n", "gone"),
    ],
)
def test_a_kubeconfig_that_does_not_serve_is_named_with_the_cure(
    tmp_path: Path, text: str, words: str
) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(text)
    with pytest.raises(ConfigError, match=words) as caught:
        reach_cluster(kubeconfig=str(path), context=None, field="pools.k.kubeconfig")
    assert caught.value.cure


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        reach_cluster(kubeconfig=str(tmp_path / "nowhere"), context=None, field="pools.k.kubeconfig")
