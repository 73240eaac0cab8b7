"""The syntax of names, labels and keys, with the server's words for what is wrong."""

import re

LABEL_NAME = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
SUBDOMAIN = rf"{LABEL_NAME}(\.{LABEL_NAME})*"
QUALIFIED_NAME = r"([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
CONFIG_KEY = r"[-._a-zA-Z0-9]+"


def examples(regex: str, *given: str) -> str:
    named = ",  or ".join(f"'{each}'" for each in given)
    return f"(e.g. {named}, regex used for validation is '{regex}')"


def wrong_subdomain(value: str) -> str | None:
    if len(value) > 253:
        return "must be no more than 253 characters"
    if re.fullmatch(SUBDOMAIN, value):
        return None
    return (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
        f"and end with an alphanumeric character {examples(SUBDOMAIN, 'example.com')}"
    )


def wrong_label_name(value: str) -> str | None:
    """RFC 1123 label: containers, volumes, namespaces."""
    if len(value) > 63:
        return "must be no more than 63 characters"
    if re.fullmatch(LABEL_NAME, value):
        return None
    return (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end "
        f"with an alphanumeric character {examples(LABEL_NAME, 'my-name', '123-abc')}"
    )


def wrong_label_value(value: str) -> str | None:
    if len(value.encode()) > 63:
        return "must be no more than 63 bytes"
    if re.fullmatch(rf"({QUALIFIED_NAME})?", value):
        return None
    return (
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
        f"and end with an alphanumeric character {examples(f'({QUALIFIED_NAME})?', 'MyValue', 'my_value', '12345')}"
    )


def wrong_qualified_name(key: str) -> str | None:
    """A label's or annotation's key: an optional DNS prefix, a slash, a name of at most 63."""
    prefix, slash, name = key.rpartition("/")
    if slash and (not prefix or wrong_subdomain(prefix)):
        return f"prefix part {wrong_subdomain(prefix) or 'must be non-empty'}"
    if len(name) > 63:
        return "name part must be no more than 63 bytes"
    if re.fullmatch(QUALIFIED_NAME, name):
        return None
    return (
        "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
        f"alphanumeric character {examples(QUALIFIED_NAME, 'MyName', 'my.name', '123-abc')}"
    )


def wrong_config_key(key: str) -> str | None:
    if re.fullmatch(CONFIG_KEY, key) and key not in {".", ".."} and len(key) <= 253:
        return None
    return (
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' "
        f"{examples(CONFIG_KEY, 'key.name', 'KEY_NAME', 'key-name')}"
    )
