"""The two clients are one: same methods, same parameters. Names come late, and ids are what the API takes."""

import inspect
import re
import subprocess
import sys

import pytest

import runyard.sdk
from runyard.sdk import admin, async_admin
from runyard.sdk.async_client import AsyncClient
from runyard.sdk.client import Client
from runyard.sdk.job_ids import choose_job_id
from runyard.wire.job_document import JOB_ID_PATTERN

PAIRS = [(Client, AsyncClient)] + [
    (getattr(admin, name), getattr(async_admin, f"Async{name}"))
    for name in ("Queues", "Tenants", "Pools", "Machines", "Tokens", "Secrets")
]


def surface(kind):
    methods = {name: one for name, one in vars(kind).items() if not name.startswith("_") and callable(one)}
    return {name: [(p.name, p.kind, p.default) for p in inspect.signature(one).parameters.values()]
            for name, one in methods.items()}  # fmt: skip


@pytest.mark.parametrize(("sync", "asynchronous"), PAIRS)
def test_both_clients_have_the_same_methods_with_the_same_parameters(sync, asynchronous):
    assert surface(sync) == surface(asynchronous)
    assert surface(sync)


def test_every_public_name_can_be_imported():
    assert all(getattr(runyard.sdk, name) for name in runyard.sdk.__all__)
    assert set(runyard.sdk.__all__) == set(runyard.sdk._HOME)


def test_importing_the_sdk_and_its_client_imports_neither_pydantic_nor_httpx2():
    code = "import sys, runyard.sdk; runyard.sdk.Client; print([m for m in ('pydantic', 'httpx2') if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_a_chosen_id_is_readable_valid_and_never_the_same():
    ids = {choose_job_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(re.fullmatch(JOB_ID_PATTERN.strip("^$"), one) and len(one) <= 40 for one in ids)
