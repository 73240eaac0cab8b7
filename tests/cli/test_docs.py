"""docs/cli.md and docs/job-file.md hold everything there is, and nothing that is not."""

import re
import types
import typing
from pathlib import Path

import pytest
import yaml
from pydantic import BaseModel

from runyard.cli.commands import COMMANDS, create_app
from runyard.wire import job_document
from runyard.wire.job_document import JobDocument
from runyard.wire.units import format_duration

DOCS = Path(__file__).parents[2] / "docs"
SECTIONS = {
    "JobDocument": "## The job",
    "StepDocument": "## steps",
    "WorkspaceDocument": "## workspace",
    "GitDocument": "### workspace.git",
    "FileContentDocument": "### workspace.files",
    "RequirementsDocument": "## requirements",
    "LimitsDocument": "## limits",
    "RetryDocument": "## retry",
    "NetworkAllowDocument": "## network",
    "CacheDocument": "## cache",
    "SecretDocument": "## secrets",
    "ServiceDocument": "## services",
    "ReadyDocument": "### services.ready",
}


def sections(text):
    """Heading line -> what stands below it, down to the next heading."""
    parts = re.split(r"^(#{1,3} .+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


CLI = sections((DOCS / "cli.md").read_text())
JOB_FILE = sections((DOCS / "job-file.md").read_text())


def flags_of(path):
    app = create_app()
    for word in path.split():
        app = app[word]
    names = [name for argument in app.assemble_argument_collection() for name in argument.names]
    return {name for name in names if name.startswith("-") and not name.startswith(("--no-", "--empty-"))}


@pytest.mark.parametrize("path", [command.path for command in COMMANDS])
def test_every_command_and_flag_is_in_the_page_and_no_other(path):
    text = CLI[f"### runyard {path}"]
    rows = "".join(line for line in text.splitlines() if line.startswith("| `"))
    documented = set(re.findall(r"`(--?[a-z][-a-z]*)", rows.replace("`--`", "")))
    assert documented == flags_of(path)


def test_the_page_has_no_command_that_is_not_registered():
    headings = {heading.removeprefix("### runyard ") for heading in CLI if heading.startswith("### runyard ")}
    assert headings == {command.path for command in COMMANDS}


def models_beneath(kind, found):
    """Every model of the document, by name."""
    if isinstance(kind, type) and not isinstance(kind, types.GenericAlias) and issubclass(kind, BaseModel):
        if kind.__name__ not in found:
            found[kind.__name__] = kind
            for field in kind.model_fields.values():
                models_beneath(field.annotation, found)
        return found
    for part in typing.get_args(kind):
        models_beneath(part, found)
    return found


MODELS = models_beneath(JobDocument, {})


def test_every_part_of_the_document_has_its_section():
    assert set(MODELS) == set(SECTIONS)
    assert set(MODELS) == {name for name in vars(job_document) if name.endswith("Document")} - {
        "Document",
        "BatchDocument",
    }


@pytest.mark.parametrize("name", sorted(SECTIONS))
def test_every_key_has_a_row_with_type_default_and_example(name):
    rows = {}
    for line in JOB_FILE[SECTIONS[name]].splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `"):
            rows[cells[0].strip("`")] = cells[1:]
    keys = {field.alias or key: field for key, field in MODELS[name].model_fields.items()}
    assert set(rows) == set(keys)
    for key, field in keys.items():
        written_type, default, *_ = rows[key]
        assert written_type
        assert default == "required" if field.is_required() else default != "required"
        if isinstance(field.default, str | int | float) and not isinstance(field.default, bool):
            assert default.strip("`") == as_written(key, field.default)


def as_written(key, default):
    if key == "cpu":
        return f"{default / 1000:g}"
    if key == "memory":
        return f"{default >> 30}Gi"
    return format_duration(default) if isinstance(default, float) else str(default)


def test_the_examples_of_the_page_are_valid():
    blocks = re.findall(r"(?:^    .*\n)+", (DOCS / "job-file.md").read_text(), flags=re.MULTILINE)
    documents = [yaml.safe_load(block) for block in blocks if "steps:" in block]
    assert len(documents) == 2
    for document in documents:
        JobDocument.model_validate(document)
