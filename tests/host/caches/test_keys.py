"""The hash of files in a key."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runyard.host.caches.keys import KeyTemplates
from runyard.host.caches.store import CacheFailed


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    folder = tmp_path / "workspace"
    folder.mkdir()
    return folder


def write(workspace: Path, **contents: str) -> None:
    for path, text in contents.items():
        (workspace / path).parent.mkdir(parents=True, exist_ok=True)
        (workspace / path).write_text(text)


def filled(workspace: Path, template: str) -> str:
    return KeyTemplates(str(workspace), lambda: None).fill(template)


def test_the_same_files_give_the_same_key_and_a_change_another(workspace):
    write(workspace, **{"a/lock": "1", "b/lock": "2", "other": "x"})
    before = filled(workspace, "pip-{sha256:**/lock}")
    write(workspace, other="y")
    assert filled(workspace, "pip-{sha256:**/lock}") == before
    assert before.startswith("pip-")
    write(workspace, **{"b/lock": "3"})

    assert filled(workspace, "pip-{sha256:**/lock}") != before


def test_a_file_that_is_moved_changes_the_key(workspace):
    write(workspace, **{"a/lock": "1"})
    before = filled(workspace, "{sha256:**/lock}")
    (workspace / "a").rename(workspace / "b")

    assert filled(workspace, "{sha256:**/lock}") != before


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("lock", 1),
        ("**/lock", 3),
        ("*/lock", 1),
        ("a/**", 2),
        ("a/*/lock", 1),
        ("**/**/lock", 3),
        ("x*", 0),
        ("a", 0),
    ],
)
def test_patterns_match_as_those_of_artifacts_do(workspace, pattern, count):
    write(workspace, **{"lock": "0", "a/lock": "1", "a/b/lock": "2"})
    templates = KeyTemplates(str(workspace), lambda: None)
    with_all = templates.fill(f"{{sha256:{pattern}}}")
    for path in ("lock", "a/lock", "a/b/lock"):
        (workspace / path).write_text("changed")

    changed = KeyTemplates(str(workspace), lambda: None).fill(f"{{sha256:{pattern}}}") != with_all
    assert changed == bool(count)
    assert templates.unmatched == (set() if count else {pattern})


def test_links_and_pipes_are_not_read(workspace, tmp_path):
    (tmp_path / "secret").write_text("secret")
    (workspace / "lock").symlink_to(tmp_path / "secret")
    (workspace / "folder").symlink_to(tmp_path)
    os.mkfifo(workspace / "pipe")
    before = filled(workspace, "{sha256:**}")
    (tmp_path / "secret").write_text("changed")

    assert filled(workspace, "{sha256:**}") == before


def test_a_pattern_does_not_climb_out(workspace, tmp_path):
    (tmp_path / "secret").write_text("secret")
    templates = KeyTemplates(str(workspace), lambda: None)
    templates.fill("{sha256:../secret}{sha256:/etc/passwd}")

    assert templates.unmatched == {"../secret", "/etc/passwd"}


def test_too_much_to_hash_is_an_error_that_says_so(workspace, monkeypatch):
    monkeypatch.setattr("runyard.host.caches.keys.FILES_MAX", 2)
    write(workspace, a="1", b="2", c="3")
    with pytest.raises(CacheFailed, match="more than 2 files"):
        filled(workspace, "{sha256:*}")


def test_a_key_without_a_template_is_itself(workspace):
    assert filled(workspace, "pip-1 ${HOME} {x}") == "pip-1 ${HOME} {x}"
