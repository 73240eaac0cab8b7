"""The service that client tests talk to."""

from collections.abc import Iterator

import pytest

from runyard.sdk import Client
from tests.sdk.served import TOKEN, Served


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    served = Served(tmp_path_factory.mktemp("served"))
    yield served
    served.close()


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.url, TOKEN) as client:
        yield client
