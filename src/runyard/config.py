"""One frozen settings object, from a TOML file and RUNYARD_… variables, checked whole before anything starts.

A variable is named by its path with two underscores between the parts (`RUNYARD_SERVER__LISTEN`) and wins over the
file. With neither, the defaults give a working service: SQLite in the data folder and one `local` pool.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from runyard.model.errors import ConfigError
from runyard.model.queue import QueueSettings
from runyard.wire.job_document import Name
from runyard.wire.requests import Bound, QueuePut, TenantPut
from runyard.wire.units import Duration, Size

SYSTEM_FILE = Path("/etc/runyard/runyard.toml")
SERVICE_ACCOUNT_TOKEN = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")
DAY_S = 86400.0
_KEY_ITSELF = re.compile(r"[0-9a-fA-F]{64}|[A-Za-z0-9+/_-]{43}=?")


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def checked_address(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise ValueError(f"{value!r} is no address; write host:port, like 127.0.0.1:7700")
    return value


class ServerSection(Section):
    """`listen` is host:port; `advertise_url` what agents and pods call back, derived from it where it is None. The
    others bound what this service keeps open at once: streams (pages that move, logs that are followed, the feed of
    events) and searches through logs, in all and for one token with its sessions."""

    listen: str = "127.0.0.1:7700"
    advertise_url: str | None = None
    streams_max: Annotated[int, Field(ge=1)] = 4_000
    streams_per_token_max: Annotated[int, Field(ge=1)] = 1_000
    searches_max: Annotated[int, Field(ge=1)] = 16
    searches_per_token_max: Annotated[int, Field(ge=1)] = 4

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        return checked_address(value)

    @property
    def host(self) -> str:
        return self.listen.rpartition(":")[0].strip("[]")

    @property
    def port(self) -> int:
        return int(self.listen.rpartition(":")[2])


class LedgerSection(Section):
    """`url` None is the SQLite file in the data folder. `lease`: how long a pool stays its owner's after the last sign
    of it; another service takes it then. All services on one ledger have the same."""

    url: str | None = None
    lease: Annotated[Duration, Field(ge=2, le=300)] = 15.0


class LogsSection(Section):
    """`attempt_bytes_max`: what is kept of one attempt's log, head and tail together. `directory` None: DATA/logs;
    services that share a ledger share it, on a common file system, or have a `url` of an object store, and each a
    directory of its own for what is not shipped yet."""

    directory: Path | None = None
    url: str | None = None
    attempt_bytes_max: Size = 1 << 30


class ArtifactsSection(Section):
    """`directory` and `url` as those of the logs; None: DATA/artifacts."""

    directory: Path | None = None
    url: str | None = None


class ObjectStoreSection(Section):
    """How the object stores of `logs.url` and `artifacts.url` are reached. `options` are obstore's own names
    (`aws_endpoint`, `aws_secret_access_key`, `google_…`, `azure_…`); what is not there comes from the usual variables
    (`AWS_ACCESS_KEY_ID`, …)."""

    allow_http: bool = False
    options: dict[str, SecretStr] = {}

    @field_validator("options")
    @classmethod
    def _are_names_of_options(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name in value:
            if not name.startswith(("aws_", "google_", "azure_")) or name.endswith("_allow_http"):
                raise ValueError(
                    f"{name!r} is no option; write aws_…, google_… or azure_… (plain HTTP: object_store.allow_http)"
                )
        return value


class SecretsSection(Section):
    """`keys` seal what is stored: an absolute path each, or `env:VARIABLE`. The first one seals, all of them open. With
    none a key is made in the data folder on SQLite, and on a shared ledger there are no secrets."""

    keys: list[str] = []

    @field_validator("keys")
    @classmethod
    def _are_places(cls, value: list[str]) -> list[str]:
        """What stands here may be a key, pasted in the wrong place: it is never repeated (I11)."""
        for number, source in enumerate(value, start=1):
            is_key = _KEY_ITSELF.fullmatch(source) is not None
            if is_key or not source.startswith(("/", "env:")):
                raise ValueError(
                    f"entry {number} is neither the absolute path of a file nor env:VARIABLE; put the key into one"
                )
        return value


class WorkspacesSection(Section):
    """`git_protocols`: how repositories and files may be fetched on pools that do not say it themselves."""

    git_protocols: list[Literal["https", "ssh", "http", "git", "file"]] = ["https", "ssh"]


class RetentionSection(Section):
    """How long, and how many bytes at most, finished things are kept; None is no bound."""

    jobs: Duration = 90 * DAY_S
    logs: Duration = 30 * DAY_S
    artifacts: Duration = 30 * DAY_S
    logs_bytes_max: Size | None = None
    artifacts_bytes_max: Size | None = None


class TenantDefault(Section):
    """What each tenant may do in a queue."""

    running_max: Bound | None = None


class QueueSection(QueuePut):
    """As by API, and `tenant_default`, the bound of each tenant in the queue, by its other name."""

    tenant_default: TenantDefault | None = None

    @model_validator(mode="after")
    def _one_bound_for_tenants(self) -> QueueSection:
        if self.tenant_default is not None and self.tenant_running_max is not None:
            raise ValueError("`tenant_default` and `tenant_running_max` say the same; keep one")
        return self

    def settings_of(self, name: str) -> QueueSettings:
        """The queue as the ledger takes it."""
        default = self.tenant_default
        return QueueSettings(
            name=name,
            weight=self.weight,
            running_max=self.running_max,
            queued_max=self.queued_max,
            tenant_running_max=default.running_max if default is not None else self.tenant_running_max,
            defaults=self.defaults,
            is_configured=True,
        )


class PoolSection(BaseModel):
    """What all pools have; further keys are the provider's own and checked by it."""

    model_config = ConfigDict(extra="allow", frozen=True)

    provider: str
    queues: Annotated[list[str], Field(min_length=1)] = ["*"]
    slots: Annotated[int, Field(ge=1, le=10_000)] | None = None

    @property
    def options(self) -> Mapping[str, Any]:
        return self.model_extra or {}


class UpstreamSection(Section):
    """A registry behind the cache. `login`: `cache` serves it to whoever reaches the cache, under these credentials or
    none; `request` only under each request's own."""

    url: str
    username: str | None = None
    password: SecretStr | None = None
    password_file: Path | None = None
    docker_config: Path | None = None
    login: Literal["cache", "request"] = "cache"

    @model_validator(mode="after")
    def _one_source(self) -> UpstreamSection:
        has_login = (self.username, self.password, self.password_file) != (None, None, None)
        if has_login and self.docker_config is not None:
            raise ValueError("`docker_config` and `username` say the same; keep one")
        if (self.login == "request") and (has_login or self.docker_config is not None):
            raise ValueError('with `login = "request"` the cache uses no credentials of its own; remove them')
        return self


class RegistryCacheSection(Section):
    """The pull-through cache of image registries; off while `listen` is None. `directory` None: DATA/registry-cache.

    `upstreams` by the first part of a path; none is Docker's default registry. `default` is for names without it.
    """

    listen: str | None = None
    directory: Path | None = None
    upstreams: dict[str, UpstreamSection] = {}
    default: str | None = None
    any_upstream: bool = False
    bytes_max: Size = 50 << 30
    tag_ttl: Duration = 300.0
    stale_if_error: Duration = 7 * DAY_S
    rights_ttl: Annotated[Duration, Field(le=600)] = 60.0
    asks_login: bool = False

    @field_validator("listen")
    @classmethod
    def _is_an_address(cls, value: str | None) -> str | None:
        return value if value is None else checked_address(value)


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="RUNYARD_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    data: Path = Field(default_factory=lambda: default_data_directory(os.environ))
    server: ServerSection = ServerSection()
    ledger: LedgerSection = LedgerSection()
    logs: LogsSection = LogsSection()
    artifacts: ArtifactsSection = ArtifactsSection()
    workspaces: WorkspacesSection = WorkspacesSection()
    object_store: ObjectStoreSection = ObjectStoreSection()
    secrets: SecretsSection = SecretsSection()
    retention: RetentionSection = RetentionSection()
    registry_cache: RegistryCacheSection = RegistryCacheSection()
    queues: dict[Name, QueueSection] = {}
    tenants: dict[Name, TenantPut] = {}
    pools: dict[Name, PoolSection] = {}

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Variables win over what `load` read from the file; nothing else is looked at."""
        assert isinstance(env_settings, EnvSettingsSource)
        assert isinstance(init_settings, InitSettingsSource)
        return env_settings, init_settings

    @property
    def pools_in_force(self) -> Mapping[str, PoolSection]:
        """The configured pools; with none, one that works: `kubernetes` in a pod with a service account, `local`
        elsewhere. What holds for all workspaces is in each."""
        pools = self.pools or _pool_of_this_place(os.environ)
        return {name: self._with_protocols(section) for name, section in pools.items()}

    def _with_protocols(self, section: PoolSection) -> PoolSection:
        protocols = self.workspaces.git_protocols
        if section.provider != "local" or "git_protocols" in section.options:
            return section
        return section.model_copy(update={"git_protocols": list(protocols)})

    @property
    def is_ledger_shared(self) -> bool:
        """Whether other services may be on the same ledger."""
        return not self.ledger_url.startswith("sqlite:")

    @property
    def ledger_url(self) -> str:
        return self.ledger.url or f"sqlite://{(self.data / 'ledger.sqlite').absolute()}"


def _pool_of_this_place(environ: Mapping[str, str]) -> dict[str, PoolSection]:
    is_pod = bool(environ.get("KUBERNETES_SERVICE_HOST")) and SERVICE_ACCOUNT_TOKEN.exists()
    name = "kubernetes" if is_pod else "local"
    return {name: PoolSection(provider=name)}


def default_data_directory(environ: Mapping[str, str]) -> Path:
    """/var/lib/runyard for root, else the user's state folder."""
    if os.geteuid() == 0:
        return Path("/var/lib/runyard")
    state = environ.get("XDG_STATE_HOME") or str(Path.home() / ".local" / "state")
    return Path(state) / "runyard"


def load(path: Path | None = None) -> Settings:
    """The settings of `path`, else of the file that RUNYARD_CONFIG names, else of /etc/runyard/runyard.toml if it is
    there, else the defaults. Raises ConfigError that lists every problem with its key, value and cure."""
    file = path or _named_file()
    document = _read(file) if file is not None else {}
    try:
        return Settings(**document)
    except ValidationError as error:
        where = str(file) if file is not None else "the RUNYARD_… variables"
        raise ConfigError(
            f"{where} has {_problems(error)}", cure="`runyard config check` tells all"
        ) from None


def _named_file() -> Path | None:
    named = os.environ.get("RUNYARD_CONFIG")
    if named:
        return Path(named)
    return SYSTEM_FILE if SYSTEM_FILE.exists() else None


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read {file}: {error.strerror}", cure="name an existing, readable file"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is no valid TOML: {error}", cure="correct the line it names") from None


def _problems(error: ValidationError) -> str:
    lines = []
    for problem in error.errors(include_url=False):
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}: no such key; remove it or correct its name")
        else:
            lines.append(f"{key}: {problem['msg'].removeprefix('Value error, ')}{_given(problem)}")
    count = len(lines)
    return f"{count} problem{'s' if count > 1 else ''}:\n  " + "\n  ".join(lines)


def _given(problem: ErrorDetails) -> str:
    """The value, but no password or key (I11), nor a whole table, which may hold one."""
    value, place = problem["input"], [str(part) for part in problem["loc"]]
    if isinstance(value, dict) or "password" in place or place[0] in ("object_store", "secrets"):
        return ""
    return f" (given: {value!r:.80})"
