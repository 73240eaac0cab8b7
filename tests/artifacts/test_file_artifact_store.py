from __future__ import annotations

import pytest

from runyard.artifacts.files import FileArtifactStore


@pytest.mark.parametrize("was_there", [False, True])
async def test_only_its_own_user_may_list_the_root(tmp_path, was_there):
    root = tmp_path / "new" / "artifacts"
    if was_there:
        root.mkdir(mode=0o755, parents=True)
    FileArtifactStore(root)

    assert root.stat().st_mode & 0o777 == 0o700
