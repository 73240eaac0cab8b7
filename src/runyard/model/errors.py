"""Every error Runyard raises on purpose.

    RunyardError
    ├── UserError                 the asker can cure it: says the field, the value and the cure
    │   ├── Invalid               the request is wrong; the same request will always fail
    │   ├── NotFound              no such job, queue, pool, token
    │   ├── Ambiguous             the id exists in several tenants
    │   ├── Conflict              the world already holds something else under that name
    │   ├── Denied                the token may not do this
    │   └── TooMany               a bound is reached; the same request may pass later
    ├── OperatorError             whoever runs the service can cure it
    │   ├── ConfigError           the configuration is wrong; lists every problem at once
    │   ├── SecretsUnavailable    no key for a secret here, or its row is not what was sealed
    │   ├── StoreUnavailable      the object store cannot be reached, or refuses us; what waits is kept and sent later
    │   ├── LedgerUnavailable     the database cannot be reached, written or understood
    │   └── IsolationUnavailable  this host cannot isolate as demanded; nothing was run
    ├── Fenced                    this process no longer owns the pool; stop acting for it, touch nothing
    ├── RegistryError             an image registry gave us no image
    │   ├── RegistryNotFound      no such repository, tag, manifest or blob
    │   ├── RegistryDenied        no rights with these credentials, or an address that may not be reached
    │   ├── RegistryThrottled     too many requests; wait `after_s`
    │   ├── RegistryUnreachable   no answer, or one of its own faults; the same request may pass later
    │   ├── RegistryCorrupt       what came is not what its digest or size said
    │   └── ImageUnsupported      an image, but none that runs here: platform, format, size
    └── ProviderError             a place failed us; the class says what dispatch does next
        ├── QuotaExceeded         wait; the user is told
        ├── NoCapacity            wait, or spill to another pool
        ├── Throttled             wait `after_s`
        ├── ProviderDenied        our credentials or rights; an operator must act
        ├── Unreachable           the world may or may not have changed; ask again, conclude nothing
        └── InvalidRequest        this job can never run there

Three questions choose the class: will a retry help, may the world have changed, whose turn is it.
"""

from __future__ import annotations


class RunyardError(Exception):
    """Root of the tree. `code` is the published word for it in the API's error document."""

    code = "internal"

    def __init__(self, message: str, *, field: str | None = None, cure: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.cure = cure


class UserError(RunyardError):
    code = "invalid"


class Invalid(UserError):
    code = "invalid"


class NotFound(UserError):
    code = "not_found"


class Ambiguous(UserError):
    code = "ambiguous"


class Conflict(UserError):
    code = "conflict"


class Denied(UserError):
    code = "denied"


class TooMany(UserError):
    code = "too_many"

    def __init__(
        self, message: str, *, field: str | None = None, cure: str | None = None, retry_after_s: float = 5.0
    ) -> None:
        super().__init__(message, field=field, cure=cure)
        self.retry_after_s = retry_after_s


class OperatorError(RunyardError):
    code = "operator"


class ConfigError(OperatorError):
    code = "config"


class LedgerUnavailable(OperatorError):
    code = "ledger_unavailable"


class SecretsUnavailable(OperatorError):
    code = "secrets_unavailable"


class StoreUnavailable(OperatorError):
    code = "store_unavailable"


class IsolationUnavailable(OperatorError):
    code = "isolation_unavailable"


class Fenced(RunyardError):
    code = "fenced"


class RegistryError(RunyardError):
    code = "registry"


class RegistryNotFound(RegistryError):
    code = "registry_not_found"


class RegistryDenied(RegistryError):
    code = "registry_denied"


class RegistryThrottled(RegistryError):
    code = "registry_throttled"

    def __init__(
        self, message: str, *, field: str | None = None, cure: str | None = None, after_s: float
    ) -> None:
        super().__init__(message, field=field, cure=cure)
        self.after_s = after_s


class RegistryUnreachable(RegistryError):
    code = "registry_unreachable"


class RegistryCorrupt(RegistryError):
    code = "registry_corrupt"


class ImageUnsupported(RegistryError):
    code = "image_unsupported"


class ProviderError(RunyardError):
    code = "provider"


class QuotaExceeded(ProviderError):
    code = "quota"


class NoCapacity(ProviderError):
    code = "no_capacity"


class Throttled(ProviderError):
    code = "throttled"

    def __init__(self, message: str, *, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


class ProviderDenied(ProviderError):
    code = "provider_denied"


class Unreachable(ProviderError):
    code = "unreachable"


class InvalidRequest(ProviderError):
    code = "provider_invalid"
