"""The compiled pipeline against the published protos, and what it asks of a cluster."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from pydantic import SecretStr

from clients.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kfp.kubernetes import kubernetes_executor_config_pb2
    from kfp.pipeline_spec import pipeline_spec_pb2

    from pipelines.pod import LEDGER, NOTIFICATIONS, SECRETS, STORE, TRACKING
    from pipelines.training import PACKAGE, PODS

STEPS = tuple(PODS)
UNITS = {"Mi": 2**20, "Gi": 2**30}


@dataclass(frozen=True)
class Package:
    """The two documents, read strictly: a field that the protos do not know is an error."""

    pipeline: Any
    platform: Any
    text: str

    def read_pod(self, step: str) -> Any:
        """Return what the Kubernetes part says of a step."""
        executors = self.platform.platforms["kubernetes"].deployment_spec.executors
        found = json_format.MessageToDict(executors[f"exec-{step}"])
        return json_format.ParseDict(found, kubernetes_executor_config_pb2.KubernetesExecutorConfig())

    def read_container(self, step: str) -> Any:
        executors = self.pipeline.deployment_spec["executors"]
        config = pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec()
        return json_format.ParseDict(json_format.MessageToDict(executors[f"exec-{step}"]), config).container

    def read_tasks(self) -> dict[str, Any]:
        tasks = dict(self.pipeline.root.dag.tasks)
        return tasks | dict(self.pipeline.components["comp-condition-1"].dag.tasks)


@pytest.fixture(scope="module")
def package() -> Package:
    text = PACKAGE.read_text()
    pipeline, platform = (json.loads(json.dumps(part)) for part in yaml.safe_load_all(text))
    return Package(
        json_format.ParseDict(pipeline, pipeline_spec_pb2.PipelineSpec()),
        json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec()),
        text,
    )


def test_the_protos_know_every_field_and_lose_none(package: Package) -> None:
    assert package.pipeline.schema_version == "2.1.0"
    assert set(package.platform.platforms) == {"kubernetes"}
    executors = package.platform.platforms["kubernetes"].deployment_spec.executors
    assert set(executors) == set(package.pipeline.deployment_spec["executors"])
    assert set(executors) == {f"exec-{step}" for step in STEPS}
    for step in STEPS:
        found = json_format.MessageToDict(package.read_pod(step))
        assert found == json_format.MessageToDict(executors[f"exec-{step}"])


@pytest.mark.parametrize("step", STEPS)
def test_a_restricted_namespace_lets_every_step_in(package: Package, step: str) -> None:
    context = package.read_pod(step).security_context
    assert (context.run_as_user, context.run_as_group, context.run_as_non_root) == (65532, 65532, True)
    (scratch,) = package.read_pod(step).empty_dir_mounts
    assert (scratch.mount_path, scratch.size_limit) == ("/tmp", "2Gi")  # noqa: S108


@pytest.mark.parametrize("step", STEPS)
def test_every_step_has_a_share_and_limits(package: Package, step: str) -> None:
    resources = package.read_container(step).resources
    assert 0 < read_cpu(resources.resource_cpu_request) <= read_cpu(resources.resource_cpu_limit)
    memory = read_memory(resources.resource_memory_request), read_memory(resources.resource_memory_limit)
    assert 0 < memory[0] <= memory[1]
    # Two cores carry the whole cluster; only one step of a run is at work at a time.
    assert read_cpu(resources.resource_cpu_request) <= 0.5
    assert memory[0] <= UNITS["Gi"]


def read_cpu(text: str) -> float:
    return int(text[:-1]) / 1000 if text.endswith("m") else float(text)


def read_memory(text: str) -> int:
    return int(text[:-2]) * UNITS[text[-2:]]


@pytest.mark.parametrize("step", STEPS)
def test_every_step_ends_and_is_tried_again(package: Package, step: str) -> None:
    seconds = package.read_pod(step).active_deadline_seconds
    policy = package.read_tasks()[step].retry_policy
    assert seconds > 0
    assert policy.max_retry_count >= 1
    assert policy.backoff_duration.seconds == 10
    # Argo reads the factor as an integer, and ends the attempts so long after the first began.
    assert policy.backoff_factor == int(policy.backoff_factor) > 1
    assert policy.backoff_max_duration.seconds > (policy.max_retry_count + 1) * seconds


def test_the_roll_out_may_take_as_long_as_a_project_may_ask(package: Package) -> None:
    from tenure.canary import Rollout

    (longest,) = [
        rule.le
        for rule in Rollout.model_fields["ready_timeout_seconds"].metadata
        if getattr(rule, "le", None) is not None
    ]
    assert package.read_pod("rollout").active_deadline_seconds > longest


def iterate_variables(pod: Any) -> Iterator[tuple[str, str, str]]:
    """Yield the variable, where it comes from, and under which key."""
    for source in pod.config_map_as_env:
        assert source.optional
        assert source.config_map_name_parameter.runtime_value.constant.string_value == source.config_map_name
        for pair in source.key_to_env:
            yield pair.env_var, source.config_map_name, pair.config_map_key
    for source in pod.secret_as_env:
        assert source.optional
        assert source.secret_name_parameter.runtime_value.constant.string_value == source.secret_name
        for pair in source.key_to_env:
            yield pair.env_var, source.secret_name, pair.secret_key


@pytest.mark.parametrize("step", STEPS)
def test_settings_come_by_reference(package: Package, step: str) -> None:
    """Every variable is a setting; those that must be set are; what is secret comes from a Secret."""
    found = {variable: (source, key) for variable, source, key in iterate_variables(package.read_pod(step))}
    known = {f"TENURE_{name.upper()}": field for name, field in Settings.model_fields.items()}
    assert set(found) <= set(known)
    required = {variable for variable, field in known.items() if field.is_required()}
    assert required <= set(found)
    for variable, (source, key) in found.items():
        field = known[variable]
        secret = field.annotation is SecretStr or SecretStr in getattr(field.annotation, "__args__", ())
        if secret or variable == "TENURE_TRACKING_USERNAME":
            assert SECRETS[source][key] == variable
        else:
            assert (source, key) == ("tenure-settings", variable)
    assert not list(package.read_container(step).env), "a value in the package is in everybody's hands"


def test_each_step_has_only_the_secrets_that_it_needs(package: Package) -> None:
    found = {step: {source.secret_name for source in package.read_pod(step).secret_as_env} for step in STEPS}
    assert found == {
        "ingest": {STORE, LEDGER},
        "validate": {STORE},
        "tune": {STORE, TRACKING},
        "evaluate": {STORE, TRACKING},
        "gate": {STORE, TRACKING, NOTIFICATIONS},
        "rollout": {STORE, TRACKING},
    }


def test_outputs_have_the_types_that_the_web_page_draws(package: Package) -> None:
    drawn = {
        "validate": {"profile": "system.HTML", "counts": "system.Metrics"},
        "evaluate": {
            "metrics": "system.Metrics",
            "roc": "system.ClassificationMetrics",
            "confusion": "system.ClassificationMetrics",
            "report": "system.HTML",
        },
        "gate": {"decision": "system.Markdown"},
        "rollout": {"rollout": "system.Markdown"},
    }
    for step, artifacts in drawn.items():
        outputs = package.pipeline.components[f"comp-{step}"].output_definitions.artifacts
        for name, kind in artifacts.items():
            assert outputs[name].artifact_type.schema_title == kind
            # The page leaves out what has no name, and takes one name for its own older format.
            assert re.sub(r"[\W_]", "-", name).lower() != "mlpipeline-ui-metadata"


def test_the_launcher_finds_no_placeholder_in_a_function(package: Package) -> None:
    """It replaces them in every argument, the functions' source among them."""
    for step in STEPS:
        container = package.read_container(step)
        assert list(container.args) == ["--executor_input", "{{$}}", "--function_to_execute", step]
        assert not any("{{" in part for part in container.command)
