"""Steps in their image, started as the launcher of Kubeflow Pipelines does it.

Command, arguments and variables are the compiled pipeline's. What the launcher adds is played: the executor's
input, folders for the outputs under /minio, and the settings that the pod gets from ConfigMap and Secrets.
The root file system is read-only, the user is nobody's, HOME is /.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format

from clients.settings import Settings

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    from kfp.pipeline_spec import pipeline_spec_pb2

    from pipelines.pod import ADDRESSES, SECRETS, STORE
    from pipelines.training import PACKAGE, PODS


IMAGE = os.environ.get("TENURE_TEST_COMPONENTS_IMAGE", "tenure-components:dev")
ROOT = "minio://mlpipeline/v2/artifacts/tenure-training/0a2a6c0e"
USER = 65532


def find_obstacle() -> str | None:
    """Say why no step can be run in its image here."""
    docker = shutil.which("docker")
    if docker is None:
        return "docker is not installed"
    try:
        found = subprocess.run(
            [docker, "image", "inspect", IMAGE], capture_output=True, check=False, timeout=20
        )
    except subprocess.TimeoutExpired:
        return "docker does not answer"
    return None if found.returncode == 0 else f"there is no image {IMAGE}; `make images` builds it"


OBSTACLE = find_obstacle()
pytestmark = [
    pytest.mark.skipif(OBSTACLE is not None, reason=f"steps in their image: {OBSTACLE}"),
    pytest.mark.timeout(600),
]


@dataclass
class Launcher:
    """Starts steps of one run."""

    folder: Path
    settings: Settings
    pipeline: Mapping[str, Any]

    def run(
        self, step: str, parameters: Mapping[str, Any], artifacts: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a step to its end; input artifacts are named by the URI that another step wrote."""
        component = self.pipeline["components"][f"comp-{step}"]
        container = self.pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
        executor_input = self.make_input(step, component, parameters, artifacts or {})
        arguments = [part.replace("{{$}}", json.dumps(executor_input)) for part in container["args"]]
        environment = self.make_environment(step)
        command = [
            *("docker", "run", "--rm", "--network", "host", "--read-only", "--user", f"{USER}:{USER}"),
            *("--cap-drop", "ALL", "--security-opt", "no-new-privileges", "--env", "HOME=/"),
            *("--tmpfs", f"/.cache:uid={USER}", "--tmpfs", f"/.config:uid={USER}"),
            *("--volume", f"{self.folder / 'tmp'}:/tmp", "--volume", f"{self.folder / 'minio'}:/minio"),
            *("--volume", f"{self.folder / 'data'}:/data:ro"),
            *(part for name in environment for part in ("--env", name)),
            *(IMAGE, *container["command"], *arguments),
        ]
        return subprocess.run(
            command,
            env={**os.environ, **environment},  # by name only: no secret in an argument
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    def make_input(
        self,
        step: str,
        component: Mapping[str, Any],
        parameters: Mapping[str, Any],
        artifacts: Mapping[str, str],
    ) -> dict[str, Any]:
        """Return the executor's input, and make the folders that it speaks of."""
        inputs, outputs = component.get("inputDefinitions", {}), component.get("outputDefinitions", {})
        (self.folder / "tmp/kfp_outputs").mkdir(mode=0o777, parents=True, exist_ok=True)
        (self.folder / "tmp/kfp_outputs").chmod(0o777)
        (self.folder / "tmp").chmod(0o777)
        place = self.folder / "minio" / ROOT.removeprefix("minio://") / step
        for path in (place, *place.relative_to(self.folder / "minio").parents):
            whole = self.folder / "minio" / path
            whole.mkdir(mode=0o777, parents=True, exist_ok=True)
            whole.chmod(0o777)

        def describe(name: str, definition: Mapping[str, Any], uri: str) -> dict[str, Any]:
            kind = definition["artifactType"]
            return {"artifacts": [{"name": name, "type": kind, "uri": uri, "metadata": {}}]}

        return {
            "inputs": {
                "parameterValues": dict(parameters),
                "artifacts": {
                    name: describe(name, inputs["artifacts"][name], uri) for name, uri in artifacts.items()
                },
            },
            "outputs": {
                "parameters": {
                    name: {"outputFile": f"/tmp/kfp/outputs/{name}"}  # noqa: S108 - the launcher's place
                    for name in outputs.get("parameters", {})
                },
                "artifacts": {
                    name: describe(name, definition, f"{ROOT}/{step}/{name}")
                    for name, definition in outputs.get("artifacts", {}).items()
                },
                "outputFile": "/tmp/kfp_outputs/output_metadata.json",  # noqa: S108 - as above
            },
        }

    def make_environment(self, step: str) -> dict[str, str]:
        """Return what the pod gets from ConfigMap and Secrets, and nothing else."""
        names = {
            *ADDRESSES,
            *(name for secret in (STORE, *PODS[step].secrets) for name in SECRETS[secret].values()),
        }
        found = {}
        for name, value in self.settings.model_dump(exclude_none=True).items():
            variable = f"TENURE_{name.upper()}"
            if variable in names:
                text = value.get_secret_value() if hasattr(value, "get_secret_value") else str(value)
                found[variable] = text
        return found

    def read_output(self) -> Any:
        """Return what the launcher would publish: strict JSON that the proto knows."""

        def refuse(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON; the launcher stops at it")

        text = (self.folder / "tmp/kfp_outputs/output_metadata.json").read_text()
        document = json.loads(text, parse_constant=refuse)
        json_format.ParseDict(document, pipeline_spec_pb2.ExecutorOutput())
        return document

    def read_artifact(self, step: str, name: str) -> Path:
        return self.folder / "minio" / ROOT.removeprefix("minio://") / step / name


@pytest.fixture
def launcher(tmp_path: Path, settings: Settings) -> Launcher:
    (tmp_path / "data").mkdir()
    return Launcher(tmp_path, settings, next(iter(yaml.safe_load_all(PACKAGE.read_text()))))


def check(done: subprocess.CompletedProcess[str], code: int = 0) -> None:
    assert done.returncode == code, (done.stdout + done.stderr)[-6000:]


def test_the_steps_run_as_on_a_cluster(launcher: Launcher, make: Any, part: Any) -> None:
    """From the customers to the gate's decision, each step in a container of its own."""
    project = make().model_dump_json()
    part(launcher.folder / "data" / "part.csv", 5000)

    done = launcher.run("ingest", {"project": project, "source": "/data/part.csv"})
    check(done)
    values = launcher.read_output()["parameterValues"]
    assert set(values) == {"digest", "code_version"}

    check(launcher.run("validate", {"project": project, **values}))
    assert launcher.read_output()["artifacts"]["counts"]["artifacts"][0]["metadata"]["rows"] == 5000
    assert "<html" in launcher.read_artifact("validate", "profile").read_text()[:500].lower()
    rows = f"{ROOT}/validate/rows"

    check(launcher.run("tune", {"project": project, **values}, {"rows": rows}))
    tuned = launcher.read_output()
    run_id = tuned["parameterValues"]["run_id"]
    assert len(tuned["artifacts"]["bundle"]["artifacts"][0]["metadata"]["digest"]) == 64
    bundle = f"{ROOT}/tune/bundle"

    artifacts = {"rows": rows, "bundle": bundle}
    check(launcher.run("evaluate", {"project": project, "run_id": run_id}, artifacts))
    drawn = launcher.read_output()["artifacts"]
    check_curves(drawn)
    report = launcher.read_artifact("evaluate", "report").read_text()
    # The page shows it in a frame that may load nothing.
    assert "<script src" not in report
    assert 'href="http' not in report
    assert 'src="http' not in report

    evaluation = {"evaluation": f"{ROOT}/evaluate/evaluation"}
    check(launcher.run("gate", {"project": project, "run_id": run_id}, evaluation))
    assert launcher.read_output()["parameterValues"]["Output"] is True
    assert "# Approved" in launcher.read_artifact("gate", "decision").read_text()


def check_curves(drawn: Mapping[str, Any]) -> None:
    """Check what the web page takes its plots from: names and types that it validates before it draws."""
    curve = drawn["roc"]["artifacts"][0]["metadata"]["confidenceMetrics"]
    assert len(curve) > 10
    for point in curve:
        assert set(point) == {"confidenceThreshold", "falsePositiveRate", "recall"}
        assert all(isinstance(value, int | float) for value in point.values())
    matrix = drawn["confusion"]["artifacts"][0]["metadata"]["confusionMatrix"]
    assert [spec["displayName"] for spec in matrix["annotationSpecs"]] == ["stays", "leaves"]
    assert [len(row["row"]) for row in matrix["rows"]] == [2, 2]
    metrics = drawn["metrics"]["artifacts"][0]["metadata"]
    assert metrics["challenger_roc_auc"] > 0.6
    assert all(isinstance(value, int | float) for value in metrics.values())


def test_a_missing_setting_is_said(launcher: Launcher, make: Any) -> None:
    """ConfigMap and Secrets are optional for the pod, so that the step can say what is missing."""
    launcher.settings = launcher.settings.model_copy(update={"s3_url": None, "s3_access_key": None})
    done = launcher.run("ingest", {"project": make().model_dump_json(), "source": ""})
    check(done, 65)
    assert "TENURE_S3_URL, TENURE_S3_ACCESS_KEY" in done.stdout + done.stderr


def test_hopeless_customers_end_the_step_with_its_code(launcher: Launcher, make: Any) -> None:
    (launcher.folder / "data" / "empty.csv").touch()
    done = launcher.run("ingest", {"project": make().model_dump_json(), "source": "/data/empty.csv"})
    check(done, 65)
    assert "the file is empty" in done.stdout + done.stderr
