"""A job as a user writes it, in YAML or JSON: every key known, every wrong one refused by name."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

from runyard.wire.units import CpuMillis, Duration, Size

JOB_ID_PATTERN = r"^[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?$"
NAME_PATTERN = r"^[a-z0-9]([-_.a-z0-9]{0,61}[a-z0-9])?$"
ENV_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,254}$"
SECRET_NAME_PATTERN = r"^[A-Za-z_][A-Za-z0-9_]{0,62}$"
LABEL_KEY_PATTERN = r"^[A-Za-z0-9]([-_./A-Za-z0-9]{0,61}[A-Za-z0-9])?$"
SHA256_PATTERN = r"^[0-9a-f]{64}$"
SECRETS_DIRECTORY = "/run/secrets"
SECRETS_MAX = 100
STEPS_MAX = 200
FILES_MAX = 1000
TEXT_BYTES_MAX = 128 * 1024
DOCUMENT_BYTES_MAX = 4 << 20


@dataclass(frozen=True, slots=True)
class Shape:
    """A pattern in plain language: what it is the shape of, and what is allowed."""

    noun: str
    rule: str


SHAPES = {
    JOB_ID_PATTERN: Shape(
        "job id", "use 1 to 40 lower-case letters, digits and dashes, with no dash at either end"
    ),
    NAME_PATTERN: Shape(
        "name",
        "use 1 to 63 lower-case letters, digits, dashes, dots and underscores, with a letter or digit at either end",
    ),
    ENV_NAME_PATTERN: Shape(
        "variable name", "use 1 to 255 letters, digits and underscores, with no digit at the beginning"
    ),
    SECRET_NAME_PATTERN: Shape(
        "name of a secret", "use 1 to 63 letters, digits and underscores, with no digit at the beginning"
    ),
    LABEL_KEY_PATTERN: Shape(
        "label key",
        "use 1 to 63 letters, digits, dashes, dots, slashes and underscores, with a letter or digit at either end",
    ),
    SHA256_PATTERN: Shape("SHA-256 sum", "write its 64 hexadecimal digits, in lower case"),
}


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("holds a NUL character, which no command, path or variable can carry; remove it")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds a lone surrogate; write valid Unicode") from None
    return text


def _within_workspace(path: str) -> str:
    _without_nul(path)
    if path.startswith("/") or not path or any(part == ".." for part in path.split("/")):
        raise ValueError(f"{path[:200]!r} leaves the workspace; write a path relative to it, without '..'")
    return path


def _secret_path(path: str) -> str:
    """A file beneath the folder of secrets, without it."""
    beneath = posixpath.normpath(_without_nul(path).removeprefix(f"{SECRETS_DIRECTORY}/"))
    if path.endswith("/") or beneath.startswith(("/", "../")) or beneath in (".", ".."):
        raise ValueError(
            f"{path[:200]!r} is no file beneath {SECRETS_DIRECTORY}; write a path relative to it, without '..'"
        )
    return beneath


def _cache_key(key: str) -> str:
    rest = re.sub(r"\{sha256:[^{}]+\}", "", key)
    if "{" in rest or "}" in rest:
        raise ValueError(
            f"{key[:200]!r} holds a brace; write {{sha256:PATTERN}} for the hash of files, or no brace"
        )
    return key


def _cache_path(path: str) -> str:
    """A folder beneath the workspace or, written with ~/, beneath HOME; never one of the two itself."""
    beneath = path.removeprefix("~/")
    if beneath.startswith("/") or not posixpath.normpath(beneath).strip("."):
        raise ValueError(
            f"{path[:200]!r} is no folder of its own; write one relative to the workspace, or, with ~/, to HOME"
        )
    _within_workspace(beneath)
    return path


JobId = Annotated[str, StringConstraints(pattern=JOB_ID_PATTERN)]
Name = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
SecretName = Annotated[str, StringConstraints(pattern=SECRET_NAME_PATTERN)]
EnvName = Annotated[str, StringConstraints(pattern=ENV_NAME_PATTERN)]
Text = Annotated[str, StringConstraints(max_length=TEXT_BYTES_MAX), AfterValidator(_without_nul)]
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_without_nul)]
WorkspacePath = Annotated[str, StringConstraints(max_length=1000), AfterValidator(_within_workspace)]
SecretPath = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_secret_path)]
CacheKey = Annotated[ShortText, AfterValidator(_cache_key)]
CachePath = Annotated[ShortText, AfterValidator(_cache_path)]
LabelKey = Annotated[str, StringConstraints(pattern=LABEL_KEY_PATTERN)]
LabelValue = Annotated[str, StringConstraints(max_length=200), AfterValidator(_without_nul)]


class Document(BaseModel):
    """Strict: an unknown key is an error that names it."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretDocument(Document):
    """As the variable `env`, by default the name in capitals, or as the file `file` beneath /run/secrets."""

    name: SecretName
    env: EnvName | None = None
    file: SecretPath | None = None

    @model_validator(mode="after")
    def _one_way(self) -> SecretDocument:
        if self.env is not None and self.file is not None:
            raise ValueError("a secret comes as `env` or as `file`; write one of the two")
        return self


def _named(secret: object) -> object:
    """A name alone is short for a mapping that holds nothing else."""
    return {"name": secret} if isinstance(secret, str) else secret


Secrets = Annotated[
    list[
        Annotated[SecretDocument, BeforeValidator(_named, json_schema_input_type=SecretName | SecretDocument)]
    ],
    Field(max_length=SECRETS_MAX),
]


class StepDocument(Document):
    """`run` is a script for /bin/sh -e -c (or bash), `command` an argument vector; exactly one of them."""

    name: ShortText | None = None
    image: ShortText | None = None
    run: Text | None = None
    command: Annotated[list[Text], Field(min_length=1, max_length=1000)] | None = None
    shell: Literal["sh", "bash"] = "sh"
    dir: Annotated[Text, StringConstraints(min_length=1, max_length=1000)] | None = None
    env: Annotated[dict[EnvName, Text], Field(max_length=500)] = Field(default_factory=dict)
    timeout: Duration | None = None
    condition: Literal["success", "failure", "always"] = Field(default="success", alias="if")
    secrets: Secrets = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_way_to_run(self) -> StepDocument:
        if (self.run is None) == (self.command is None):
            raise ValueError(
                "a step has either `run` (a script) or `command` (a list of arguments); write one of the two"
            )
        return self


class GitDocument(Document):
    url: Annotated[Text, StringConstraints(min_length=1, max_length=2000)]
    ref: Annotated[Text, StringConstraints(min_length=1, max_length=500)] | None = None
    depth: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    fetch_tags: bool = False
    sparse: Annotated[list[WorkspacePath], Field(max_length=1000)] = Field(default_factory=list)
    submodules: bool = False
    lfs: bool = False


class FileContentDocument(Document):
    """`{base64: …}` or `{url: …, sha256: …}`."""

    base64: Annotated[str, StringConstraints(max_length=DOCUMENT_BYTES_MAX)] | None = None
    url: Annotated[str, StringConstraints(max_length=2000)] | None = None
    sha256: Annotated[str, StringConstraints(pattern=SHA256_PATTERN)] | None = None

    @model_validator(mode="after")
    def _one_source(self) -> FileContentDocument:
        if (self.base64 is None) == (self.url is None):
            raise ValueError("a file has either `base64`, or `url` with `sha256`; write one of the two")
        if (self.url is None) != (self.sha256 is None):
            raise ValueError("`url` and `sha256` go together; write both")
        return self


class WorkspaceDocument(Document):
    git: GitDocument | None = None
    files: Annotated[dict[WorkspacePath, Text | FileContentDocument], Field(max_length=FILES_MAX)] = Field(
        default_factory=dict
    )


class RequirementsDocument(Document):
    isolation: Literal["none", "container", "microvm"] = "container"
    cpu: CpuMillis = 1000
    memory: Size = 1 << 30
    disk: Size | None = None
    arch: Name | None = None
    os: Name | None = None
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=50)] = Field(default_factory=dict)


class LimitsDocument(Document):
    queue: Duration | None = None
    start: Duration = 600.0
    run: Duration = 3600.0


class RetryDocument(Document):
    infrastructure: Annotated[int, Field(ge=0, le=100)] = 3
    failure: Annotated[int, Field(ge=0, le=100)] = 0


class NetworkAllowDocument(Document):
    allow: Annotated[list[ShortText], Field(max_length=200)]


class CacheDocument(Document):
    """`key` and the prefixes in `restore` may hold `{sha256:PATTERN}`: the hash of what matches in the workspace."""

    key: CacheKey
    restore: Annotated[list[CacheKey], Field(max_length=20)] = Field(default_factory=list)
    path: CachePath


class ReadyDocument(Document):
    """`port` or `command`; with neither, the ports that the image exposes."""

    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    command: Annotated[list[Text], Field(min_length=1, max_length=1000)] | None = None
    timeout: Duration = 60.0

    @model_validator(mode="after")
    def _one_way(self) -> ReadyDocument:
        if self.port is not None and self.command is not None:
            raise ValueError("a service is ready by its `port` or by a `command`; write one of the two")
        return self


class ServiceDocument(Document):
    image: ShortText
    env: Annotated[dict[EnvName, Text], Field(max_length=500)] = Field(default_factory=dict)
    command: Annotated[list[Text], Field(min_length=1, max_length=1000)] | None = None
    ready: ReadyDocument = Field(default_factory=ReadyDocument)
    memory: Size | None = None
    cpu: CpuMillis | None = None


class JobDocument(Document):
    """The whole of a job. Defaults here are the published ones; a queue's own defaults are merged in before."""

    id: JobId | None = None
    name: ShortText | None = None
    queue: Name = "default"
    tenant: Name = "default"
    priority: Annotated[int, Field(ge=-100, le=100)] = 0
    labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=50)] = Field(default_factory=dict)
    image: ShortText | None = None
    env: Annotated[dict[EnvName, Text], Field(max_length=500)] = Field(default_factory=dict)
    dir: Annotated[Text, StringConstraints(min_length=1, max_length=1000)] | None = None
    steps: Annotated[list[StepDocument], Field(min_length=1, max_length=STEPS_MAX)]
    workspace: WorkspaceDocument = Field(default_factory=WorkspaceDocument)
    requirements: RequirementsDocument = Field(default_factory=RequirementsDocument)
    limits: LimitsDocument = Field(default_factory=LimitsDocument)
    retry: RetryDocument = Field(default_factory=RetryDocument)
    network: Literal["none", "open"] | NetworkAllowDocument = "none"
    artifacts: Annotated[list[WorkspacePath], Field(max_length=200)] = Field(default_factory=list)
    outputs: Annotated[dict[EnvName, WorkspacePath], Field(max_length=200)] = Field(default_factory=dict)
    secrets: Secrets = Field(default_factory=list)
    cache: Annotated[list[CacheDocument], Field(max_length=50)] = Field(default_factory=list)
    services: Annotated[dict[Name, ServiceDocument], Field(max_length=20)] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _step_names_are_unique(self) -> JobDocument:
        names = [step.name or f"step-{index}" for index, step in enumerate(self.steps, start=1)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two steps are named {twice[0]!r}; each step needs a name of its own")
        return self


class BatchDocument(Document):
    """`jobs` are taken one by one: a wrong one does not hold back the others."""

    jobs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=1000)]
