"""What results are cached under: another image, snapshot, project or code is another key, on both runners."""

from __future__ import annotations

import hashlib
import json
import warnings
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kfp.local.cache import LocalCache
    from kfp.local.io import IOStore
    from kfp.local.orchestrator.orchestrator_utils import OrchestratorUtils
    from kfp.pipeline_spec import pipeline_spec_pb2

    from pipelines.training import PACKAGE

A, B = (f"registry.example.com/tenure-components@sha256:{digit * 64}" for digit in "ab")
ARGUMENTS = {"project": "{}", "source": "", "image": A, "reason": "test"}
INGESTED = {"digest": "d" * 64, "code_version": "v1"}
CACHED = ("validate", "tune")


@pytest.fixture(scope="module")
def pipeline() -> Any:
    document = next(iter(yaml.safe_load_all(PACKAGE.read_text())))
    return json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())


def fill_store(arguments: dict[str, str], ingested: dict[str, str]) -> Any:
    from kfp.dsl import Dataset

    store = IOStore()
    for name, value in arguments.items():
        store.put_parent_input(name, value)
    for name, value in ingested.items():
        store.put_task_output("ingest", name, value)
    store.put_task_output("validate", "rows", Dataset(name="rows", uri="/runs/1/rows"))
    return store


def read_inputs(pipeline: Any, step: str, arguments: dict[str, str], ingested: dict[str, str]) -> Any:
    """Return a task's inputs as the orchestrator resolves them, image and all."""
    return OrchestratorUtils.make_task_arguments(
        task_inputs_spec=pipeline.root.dag.tasks[step].inputs, io_store=fill_store(arguments, ingested)
    )


def compute_local_key(pipeline: Any, step: str, arguments: Any, ingested: Any, tmp_path: Any) -> str:
    """Compute the key as kfp.local does."""
    container = read_container(pipeline, step)
    key: str = LocalCache(str(tmp_path)).compute_key(
        component_name=f"comp-{step}",
        image=container.image,
        full_command=[*container.command, *container.args],
        arguments=read_inputs(pipeline, step, arguments, ingested),
        env_vars={},
    )
    return key


def compute_fingerprint(pipeline: Any, step: str, arguments: Any, ingested: Any, tmp_path: Any) -> str:
    """Compute the key as the backend's driver does (GenerateCacheKey, GenerateFingerPrint).

    It takes the image as it stands in the package, before the parameter is filled in, and the names of input
    artifacts without their content; but all input parameters with their values.
    """
    del tmp_path
    container = read_container(pipeline, step)
    inputs = read_inputs(pipeline, step, arguments, ingested)
    outputs = pipeline.components[f"comp-{step}"].output_definitions
    document = {
        "inputArtifactNames": {name: ["rows"] for name, value in inputs.items() if hasattr(value, "uri")},
        "inputParameterValues": {name: value for name, value in inputs.items() if not hasattr(value, "uri")},
        "outputArtifactsSpec": sorted(outputs.artifacts),
        "outputParametersSpec": {name: part.parameter_type for name, part in outputs.parameters.items()},
        "containerSpec": {"image": container.image, "cmdArgs": [*container.command, *container.args]},
    }
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def read_container(pipeline: Any, step: str) -> Any:
    executor = json_format.MessageToDict(pipeline.deployment_spec["executors"][f"exec-{step}"])
    spec = pipeline_spec_pb2.PipelineDeploymentConfig.ExecutorSpec()
    return json_format.ParseDict(executor, spec).container


@pytest.mark.parametrize("compute", [compute_local_key, compute_fingerprint])
@pytest.mark.parametrize("step", CACHED)
def test_whatever_decides_a_result_is_in_its_key(
    pipeline: Any, step: str, compute: Any, tmp_path: Any
) -> None:
    def key(arguments: dict[str, str] | None = None, ingested: dict[str, str] | None = None) -> str:
        found: str = compute(
            pipeline, step, ARGUMENTS | (arguments or {}), INGESTED | (ingested or {}), tmp_path
        )
        return found

    assert key() == key()
    assert key({"image": B}) != key(), "another image"
    assert key({"project": '{"name": "other"}'}) != key()
    assert key(ingested={"digest": "e" * 64}) != key()
    assert key(ingested={"code_version": "v2"}) != key()
    # Why and from where is asked for changes nothing: the snapshot's digest says what was read.
    assert key({"reason": "drift", "source": "s3://other"}) == key()


def test_the_image_is_in_the_key_because_it_is_an_input(pipeline: Any) -> None:
    """The container's own image is the same text in every run."""
    for step in CACHED:
        assert read_container(pipeline, step).image == "{{$.inputs.parameters['pipelinechannel--image']}}"
        assert read_inputs(pipeline, step, ARGUMENTS, INGESTED)["pipelinechannel--image"] == A


def test_no_step_has_a_key_of_its_own(pipeline: Any) -> None:
    """A `cache_key` would stand in place of everything above."""
    for task in pipeline.root.dag.tasks.values():
        assert not task.caching_options.cache_key
