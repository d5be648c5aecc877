from __future__ import annotations

from pathlib import Path

import pytest

from installer.errors import OptionError
from installer.options import SWITCHES, read_options, read_versions
from installer.sources import SOURCES


def test_the_default_is_a_kind_cluster_with_everything() -> None:
    options = read_options({}, read_versions())
    assert options.cluster == "kind"
    assert options.kubectl_context == "kind-tenure"
    assert options.install == frozenset(SWITCHES)


def test_an_existing_cluster_is_the_current_context_unless_named() -> None:
    assert read_options({"CLUSTER": "existing"}, {}).kubectl_context is None
    named = read_options({"CLUSTER": "existing", "CONTEXT": "arn:aws:eks/prod"}, {})
    assert named.kubectl_context == "arn:aws:eks/prod"
    assert named.place == "arn-aws-eks-prod"


def test_a_switch_leaves_its_piece_out() -> None:
    options = read_options({"CLUSTER": "existing", "WITH_KFP": "no", "WITH_KSERVE": "yes"}, {})
    assert not options.installs("KFP")
    assert options.installs("KSERVE")


def test_the_command_that_loads_images_is_split_as_a_shell_would() -> None:
    options = read_options({"IMAGE_LOAD": "ctl 'my images' import"}, {})
    assert options.image_load == ("ctl", "my images", "import")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"CLUSTER": "minikube"}, "CLUSTER=minikube"),
        ({"CONTEXT": "x"}, "CONTEXT"),
        ({"WITH_KFP": "true"}, "WITH_KFP=true: it is yes or no"),
        ({"WITH_GATEWAY_API": "no"}, "WITH_GATEWAY_API=no: a new kind cluster has no Gateway API"),
        ({"WITH_ENVOY_GATEWAY": "no"}, "WITH_ENVOY_GATEWAY=no: a new kind cluster has no Envoy Gateway"),
        ({"WITH_CERT_MANAGER": "no"}, "WITH_CERT_MANAGER=no: a new kind cluster has no cert-manager"),
        ({"WITH_KSERVE": "no"}, "WITH_KSERVE=no: a new kind cluster has no KServe"),
        ({"GATEWAY": "other/name"}, "GATEWAY=other/name: with Envoy Gateway the Gateway kserve/"),
        ({"CLUSTER": "existing", "GATEWAY": "other/name"}, "say WITH_ENVOY_GATEWAY=no"),
        ({"NAME": "My Cluster"}, "NAME=My Cluster"),
        ({"OVERLAY": "../x"}, "OVERLAY"),
        ({"GATEWAY": "gateway"}, "GATEWAY=gateway"),
        ({"REGISTRY": "https://registry.example.com"}, "no scheme"),
        ({"MANIFESTS": "/nowhere"}, "there is no such directory"),
        ({"TIMEOUT": "10m"}, "a number of seconds"),
    ],
)
def test_a_value_without_meaning_is_refused_by_name(variables: dict[str, str], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        read_options(variables, {})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "no configuration of Docker"),
        ("no json", "no configuration of Docker"),
        ('{"auths": []}', "no configuration of Docker"),
        ('{"auths": {"r.example.com": {}}, "credsStore": "desktop"}', "no login is in it"),
    ],
)
def test_a_login_that_is_none_is_refused(tmp_path: Path, content: str, words: str) -> None:
    file = tmp_path / "config.json"
    file.write_text(content)
    with pytest.raises(OptionError, match=f"PULL_SECRET=.*{words}"):
        read_options({"PULL_SECRET": str(file)}, {})
    with pytest.raises(OptionError, match="PULL_SECRET=/nowhere"):
        read_options({"PULL_SECRET": "/nowhere"}, {})


def test_every_piece_has_a_pin() -> None:
    versions = read_versions()
    assert set(SWITCHES) < set(SOURCES)
    for switch in SOURCES:
        assert versions[f"{switch}_VERSION"]
        assert f"{switch}_SHA256" in versions
    assert "@sha256:" in versions["NODE_IMAGE"]
    assert versions["KUBERNETES_VERSION"] in versions["NODE_IMAGE"]


def test_the_environment_wins_over_a_pin() -> None:
    assert read_versions(environment={"KSERVE_VERSION": "v9"})["KSERVE_VERSION"] == "v9"
    assert read_versions(environment={"KSERVE_VERSION": ""})["KSERVE_VERSION"] != ""


def test_a_hash_is_not_asked_of_another_version() -> None:
    assert read_versions()["ENVOY_GATEWAY_SHA256"]
    other = {"ENVOY_GATEWAY_VERSION": "v9"}
    assert read_versions(environment=other)["ENVOY_GATEWAY_SHA256"] == ""
    assert read_versions(environment={**other, "ENVOY_GATEWAY_SHA256": "1"})["ENVOY_GATEWAY_SHA256"] == "1"


def test_a_line_that_is_no_assignment_is_refused_with_its_place(tmp_path: Path) -> None:
    file = tmp_path / "versions.env"
    file.write_text("# a comment\nA=1\nexport B=2\n")
    with pytest.raises(OptionError, match=r"versions\.env:3: 'export B=2'"):
        read_versions(file)
