"""The pool option that says with what to fetch what, and for whose jobs."""

import pytest

from runyard.model.errors import ConfigError
from runyard.providers.local.options import parse_options

HTTPS = {"url": "https://h.org/team", "tenants": ["a"], "username": "u", "password_file": "/p"}
SSH = {"url": "ssh://git@h.org/", "tenants": ["*"], "ssh_key_file": "/k", "known_hosts_file": "/h"}


def test_a_credential_is_for_the_tenants_that_it_names():
    first, second = parse_options("p", {"git_credentials": [HTTPS, SSH]}).git_credentials
    assert (first.is_for("a"), first.is_for("b"), second.is_for("b")) == (True, False, True)


@pytest.mark.parametrize(
    "wrong",
    [
        "text", [1], [{**HTTPS, "tenants": []}], [{**HTTPS, "tenants": "a"}], [{**HTTPS, "password": "x"}],
        [{**HTTPS, "password_file": "relative"}], [{**HTTPS, "url": "https://u:p@h.org"}], [{**HTTPS, "url": "file:///x"}],
        [{key: value for key, value in HTTPS.items() if key != "tenants"}], [{**HTTPS, "url": "nothing"}],
        [{**SSH, "password_file": "/p"}], [{key: value for key, value in SSH.items() if key != "known_hosts_file"}],
    ],
)  # fmt: skip
def test_what_is_no_list_of_credentials_is_refused_with_what_is_wanted(wrong):
    with pytest.raises(ConfigError, match="known_hosts_file"):
        parse_options("p", {"git_credentials": wrong})


def test_repositories_have_a_budget_and_authorities_of_the_operators_choice():
    options = parse_options("p", {"repository_disk_max": "5Gi", "git_ca_file": "/ca.pem"})
    assert (options.repository_bytes_max, options.git_ca_file) == (5 << 30, "/ca.pem")
    with pytest.raises(ConfigError, match="git_ca_file"):
        parse_options("p", {"git_ca_file": "ca.pem"})
