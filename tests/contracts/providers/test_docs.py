"""The example of docs/providers.md passes the suite that it tells about."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from runyard.testing.conformance import ProviderConformance

PAGE = Path(__file__).parents[3] / "docs" / "providers.md"


def test_the_example_passes_the_whole_suite(tmp_path: Path) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (tmp_path / "test_paper.py").write_text("\n".join(blocks))
    (tmp_path / "pytest.ini").write_text("[pytest]\nanyio_mode = auto\n")
    ran = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-n0",
            "-p",
            "no:randomly",
            "-p",
            "no:cacheprovider",
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    promises = sum(name.startswith("test_") for name in dir(ProviderConformance))
    assert ran.returncode == 0, ran.stdout
    assert f"{promises} passed" in ran.stdout
