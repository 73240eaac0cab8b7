"""The way to a cluster: from a kubeconfig or a pod's service account to an HTTP client. The only file that imports
lightkube.

lightkube brings the kubeconfig, credential plugins, rotated tokens and TLS. Its typed verbs are not used: its log is
decoded text and loses bytes, its watch decides by itself what a dropped connection means, and its objects drop the
fields of servers newer than itself.
"""

from __future__ import annotations

import json
import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx2
import msgspec
import yaml
from lightkube.config.client_adapter import user_auth, verify_cluster
from lightkube.config.kubeconfig import DEFAULT_KUBECONFIG, SERVICE_ACCOUNT, KubeConfig, SingleConfig
from lightkube.config.models import NameValue, User
from lightkube.core.exceptions import ConfigError as CredentialsError

from runyard.model.errors import ConfigError

__all__ = ["CONNECT_S", "ClusterAccess", "CredentialsError", "reach_cluster"]

CONNECT_S = 5.0
ANSWER_S = 20.0
CONNECTIONS_MAX = 1000
"""A followed log holds a connection for as long as its container runs."""

KEEP_ALIVE_S = 30.0
_EXEC_API = "client.authentication.k8s.io/v1"
# What a file that is no kubeconfig brings up in lightkube, which takes it for one.
_WRONG = (
    CredentialsError,
    KeyError,
    ValueError,
    TypeError,
    AttributeError,
    OSError,
    msgspec.MsgspecError,
    yaml.YAMLError,
)


@dataclass(frozen=True, slots=True)
class ClusterAccess:
    """`namespace` is the context's own; `context` names it."""

    http: httpx2.AsyncClient
    namespace: str
    context: str


def reach_cluster(*, kubeconfig: str | None, context: str | None, field: str) -> ClusterAccess:
    """Reads the configuration: the named kubeconfig, else the pod's service account, else KUBECONFIG, else
    ~/.kube/config. Blocks for files. Raises ConfigError with the cure."""
    try:
        config = _configuration(kubeconfig, context)
        user = _with_plugin_environment(config.user) if config.user else None
        tls: ssl.SSLContext = verify_cluster(config.cluster, user or User(), config.abs_file)
        auth = user_auth(user)
    except _WRONG as error:
        raise ConfigError(
            f"{field}: no cluster can be reached with this configuration: {error}",
            field=field,
            cure="give the path of a kubeconfig that `kubectl` works with, or run in a pod with a service account",
        ) from None
    limits = httpx2.Limits(
        max_connections=CONNECTIONS_MAX, max_keepalive_connections=50, keepalive_expiry=KEEP_ALIVE_S
    )
    http = httpx2.AsyncClient(
        base_url=config.cluster.server,
        auth=auth,
        transport=httpx2.AsyncHTTPTransport(verify=tls, limits=limits, retries=1),
        timeout=httpx2.Timeout(ANSWER_S, connect=CONNECT_S),
    )
    return ClusterAccess(http, namespace=config.namespace, context=config.context_name)


def _configuration(kubeconfig: str | None, context: str | None) -> SingleConfig:
    if kubeconfig is None and context is None and Path(SERVICE_ACCOUNT, "token").exists():
        found = KubeConfig.from_service_account()
    else:
        found = KubeConfig.from_file(kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_KUBECONFIG)
    config = found.get(context)
    if config is None:
        raise CredentialsError("the kubeconfig names no current context")
    return config


def _with_plugin_environment(user: User) -> User:
    """lightkube knows the beta of credential plugins, whose answer is the same, and does not tell a plugin what is
    asked for, which newer ones insist on."""
    if user.exec is None or user.exec.apiVersion != _EXEC_API:
        return user
    info = {"apiVersion": _EXEC_API, "kind": "ExecCredential", "spec": {"interactive": False}}
    env = [*(user.exec.env or ()), NameValue("KUBERNETES_EXEC_INFO", json.dumps(info))]
    plugin = msgspec.structs.replace(user.exec, apiVersion=f"{_EXEC_API}beta1", env=env)
    return msgspec.structs.replace(user, exec=plugin)
