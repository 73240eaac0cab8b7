"""docs/kubernetes.md names every key of the pool, and none that is not there."""

import re
from pathlib import Path

from runyard.providers.kubernetes.options import _KEYS

PAGE = (Path(__file__).parents[2] / "docs" / "kubernetes.md").read_text()


def test_the_page_names_every_key_of_the_pool():
    table = PAGE.partition("## Keys of the pool")[2].partition("###")[0]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    named = {key for row in rows for key in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert named == set(_KEYS)
