from __future__ import annotations

from collections.abc import Iterator

import pytest

from runyard.object_store import ObjectStore, open_object_store
from tests.s3_server import S3Server, running_s3


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    with running_s3() as server:
        yield server


@pytest.fixture
def bucket(s3: S3Server) -> ObjectStore:
    """An empty bucket of a real S3 server."""
    return open_object_store(s3.make_bucket(), s3.options, allow_http=True, field="logs.url")
