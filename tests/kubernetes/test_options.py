"""A Kubernetes pool's keys, and the pod template: what is taken, what is refused and by which words."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runyard.model.errors import ConfigError
from runyard.model.requirements import Isolation
from runyard.providers.kubernetes.options import parse_options


def problem(**options) -> str:
    with pytest.raises(ConfigError) as raised:
        parse_options("gpu", options)
    return raised.value.message


def test_a_pool_needs_no_key():
    assert parse_options("gpu", {}).isolation is Isolation.CONTAINER


def test_every_wrong_key_is_named_at_once():
    message = problem(namespace="Not A Name", isolation="none", nmespace="x")
    for words in (
        "pools.gpu.namespace = 'Not A Name'",
        "pools.gpu.isolation = 'none'",
        "pools.gpu.nmespace is not known",
    ):
        assert words in message


def test_a_microvm_needs_the_runtime_class_that_gives_it():
    assert "runtime_class" in problem(isolation="microvm")
    options = parse_options("gpu", {"isolation": "microvm", "runtime_class": "kata"})
    assert options.isolation is Isolation.MICROVM


def test_the_jobs_labels_cannot_be_ours():
    assert "job_labels" in problem(job_labels={"runyard.dev/job": "x"})


@pytest.mark.parametrize(
    ("template", "path"),
    [
        ({"spec": {"restartPolicy": "Always"}}, "spec.restartPolicy"),
        ({"spec": {"hostPID": True}}, "spec.hostPID"),
        ({"spec": {"shareProcessNamespace": True}}, "spec.shareProcessNamespace"),
        ({"spec": {"automountServiceAccountToken": True}}, "spec.automountServiceAccountToken"),
        ({"spec": {"securityContext": {"runAsUser": 0}}}, "spec.securityContext.runAsUser"),
        ({"spec": {"containers": [{"name": "step", "command": ["x"]}]}}, "spec.containers[step].command"),
        ({"spec": {"containers": [{"name": "helper", "image": "x"}]}}, "spec.containers[helper]"),
        ({"spec": {"containers": [{"image": "x"}]}}, "spec.containers[0]"),
        ({"spec": {"volumes": [{"name": "files", "emptyDir": {"medium": "Memory"}}]}}, "spec.volumes[files]"),
        (
            {
                "spec": {
                    "containers": [
                        {"name": "step", "volumeMounts": [{"name": "x", "mountPath": "/run/runyard/bin/"}]}
                    ]
                }
            },
            "spec.containers[step].volumeMounts[/run/runyard/bin]",
        ),
        (
            {
                "spec": {
                    "containers": [
                        {"name": "step", "volumeMounts": [{"name": "x", "mountPath": "/workspace"}]}
                    ]
                }
            },
            "spec.containers[step].volumeMounts[/workspace]",
        ),
        (
            {"spec": {"containers": [{"name": "step", "securityContext": {"privileged": True}}]}},
            "spec.containers[step].securityContext.privileged",
        ),
        (
            {
                "spec": {
                    "containers": [{"name": "step", "securityContext": {"allowPrivilegeEscalation": True}}]
                }
            },
            "spec.containers[step].securityContext.allowPrivilegeEscalation",
        ),
        (
            {"spec": {"containers": [{"name": "step", "resources": {"limits": {"memory": "9Gi"}}}]}},
            "spec.containers[step].resources.limits.memory",
        ),
        ({"spec": {"$patch": "replace"}}, "spec.$patch"),
        ({"metadata": {"name": "mine"}}, "metadata.name"),
        ({"metadata": {"labels": {"runyard.dev/job": "x"}}}, "metadata.labels[runyard.dev/job]"),
        ({"kind": "Pod"}, "kind"),
    ],
)
def test_what_runyard_needs_cannot_be_overwritten_and_the_path_is_named(template, path):
    assert f"pools.gpu.pod_template.{path}: " in problem(pod_template=template)


def test_a_template_may_add_beside_ours():
    parse_options(
        "gpu",
        {
            "pod_template": {
                "metadata": {"annotations": {"example.test/x": "y"}},
                "spec": {
                    "initContainers": [{"name": "database", "image": "db:1", "restartPolicy": "Always"}],
                    "containers": [
                        {
                            "name": "step",
                            "env": [{"name": "PROXY", "value": "x"}],
                            "resources": {"limits": {"nvidia.com/gpu": "1"}},
                            "volumeMounts": [{"name": "mine", "mountPath": "/mine"}],
                            "securityContext": {"seLinuxOptions": {"level": "s0"}},
                        }
                    ],
                    "volumes": [{"name": "mine", "emptyDir": {}}],
                    "dnsPolicy": "None",
                },
            }
        },
    )


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["metadata", "spec", "containers", "name", "volumes", "labels", "env", "volumeMounts", "x"]),
        inner, max_size=4,
    ),
    max_leaves=10,
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from(["pod_template", "labels", "tolerations", "job_labels", "cpu"]), anything)
)
def test_whatever_a_config_holds_is_taken_or_refused_with_words(options):
    try:
        parse_options("gpu", options)
    except ConfigError as error:
        words = error.message
    else:
        return
    assert "pools.gpu." in words
