"""Bearer tokens and RBAC: who asks, whether the rules allow it, and which of the granted verbs nobody used."""

from dataclasses import dataclass, field
from typing import Any

from tests.kubernetes.strict_server.resources import ACCESS_REVIEWS, RULES_REVIEWS, Resource
from tests.kubernetes.strict_server.status import Refusal, forbidden, unauthorized

Json = dict[str, Any]


@dataclass
class Account:
    """`rules` are those of a Role (in `namespace`) or of a ClusterRole (`namespace` None), as in its manifest."""

    user: str
    rules: list[Json]
    namespace: str | None = None
    used: set[tuple[str, str, str]] = field(default_factory=set)
    refused: set[tuple[str, str, str]] = field(default_factory=set)

    def allows(self, verb: str, group: str, resource: str, namespace: str | None, name: str = "") -> bool:
        if self.namespace is not None and namespace != self.namespace:
            return False
        return any(
            verb_listed(verb, rule.get("verbs", []))
            and verb_listed(group, rule.get("apiGroups", []))
            and verb_listed(resource, rule.get("resources", []))
            and (not rule.get("resourceNames") or name in rule["resourceNames"])
            for rule in self.rules
        )

    def granted(self) -> set[tuple[str, str, str]]:
        """(group, resource[/subresource], verb) of every rule."""
        return {
            (group, resource, verb)
            for rule in self.rules
            for group in rule.get("apiGroups", [])
            for resource in rule.get("resources", [])
            for verb in rule.get("verbs", [])
        }

    def unused(self) -> set[tuple[str, str, str]]:
        return self.granted() - self.used


def verb_listed(wanted: str, listed: list[str]) -> bool:
    return "*" in listed or wanted in listed


@dataclass
class AccessTable:
    """Without any account everybody may do everything."""

    accounts: dict[str, Account] = field(default_factory=dict)

    def grant(self, token: str, user: str, rules: list[Json], namespace: str | None = None) -> Account:
        account = self.accounts[token] = Account(user, rules, namespace)
        return account

    def account_of(self, headers: dict[str, str]) -> Account | None:
        if not self.accounts:
            return None
        scheme, _, token = headers.get("authorization", "").partition(" ")
        if not token:
            return Account("system:anonymous", [])
        if scheme.lower() != "bearer" or token not in self.accounts:
            raise unauthorized()
        return self.accounts[token]

    def check(
        self,
        account: Account | None,
        verb: str,
        resource: Resource,
        *,
        subresource: str,
        namespace: str | None,
        name: str,
    ) -> None:
        """403 in the server's words for what the account's rules do not hold."""
        if account is None:
            return
        asked = f"{resource.plural}/{subresource}" if subresource else resource.plural
        # system:basic-user: whoever is known may ask about himself.
        if resource in (ACCESS_REVIEWS, RULES_REVIEWS) and account.user != "system:anonymous":
            return
        if account.allows(verb, resource.group, asked, namespace, name):
            account.used.add((resource.group, asked, verb))
            return
        account.refused.add((resource.group, asked, verb))
        raise self._refusal(account, verb, resource, asked, namespace, name)

    def _refusal(
        self, account: Account, verb: str, resource: Resource, asked: str, namespace: str | None, name: str
    ) -> Refusal:
        where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
        why = (
            f'User "{account.user}" cannot {verb} resource "{asked}" in API group "{resource.group}" {where}'
        )
        return forbidden(resource, name, why)

    def review(self, account: Account | None, wanted: Json) -> bool:
        """SelfSubjectAccessReview's answer. It is a question, so it uses up nothing."""
        resource = wanted.get("resource", "") + (
            f"/{wanted['subresource']}" if wanted.get("subresource") else ""
        )
        place = wanted.get("namespace") or None
        return account is None or account.allows(
            wanted.get("verb", ""), wanted.get("group", ""), resource, place, wanted.get("name", "")
        )
