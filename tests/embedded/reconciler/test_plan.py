"""Variants and the commands of their processes."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from embedded.errors import SpecError
from embedded.kubernetes.runtimes import load_runtimes
from embedded.reconciler.plan import Replica, Sink, Variant, make_program, plan_variants

SINK = Sink("http://127.0.0.1:7", "secret")


def make_body(**predictor: Any) -> dict[str, Any]:
    model = {"modelFormat": {"name": "tenure"}, "storageUri": "s3://tenure/bundles/1"}
    return {
        "metadata": {"name": "telco", "namespace": "default"},
        "spec": {"predictor": {"model": model, **predictor}},
    }


def make_replica(variant: Variant) -> Replica:
    return Replica(
        program=variant.name_program(0),
        namespace=variant.namespace,
        service=variant.service,
        owner=variant.owner,
        revision=variant.revision,
        http_port=1111,
        grpc_port=2222,
        directory="/models/x",
    )


def test_the_manifest_becomes_a_local_command():
    logger = {"mode": "all", "url": "http://127.0.0.1:9/events/telco/1"}
    (variant,) = plan_variants(make_body(logger=logger), load_runtimes())
    program = make_program(variant, make_replica(variant), SINK)
    assert program.command[0] == sys.executable
    assert "--model_name=telco" in program.command
    assert "--model_dir=/models/x" in program.command
    assert "--http_port=1111" in program.command
    assert "--grpc_port=2222" in program.command
    assert not any("/mnt/models" in part or "{{" in part for part in program.command)
    assert program.environment["TENURE_LOGGER_URL"] == logger["url"]
    assert program.environment["TENURE_LOGGER_MODE"] == "all"
    assert program.environment["TENURE_HTTP_HOST"] == "127.0.0.1"


@pytest.mark.parametrize(
    ("url", "trusted"),
    [
        ("http://127.0.0.1:7/events/telco/1", True),
        ("http://127.0.0.1:77/events/telco/1", False),
        ("http://127.0.0.1:7.example.com/events", False),
        ("https://example.com/", False),
        (None, False),
    ],
)
def test_only_who_logs_to_the_platforms_own_sink_gets_its_token(url: str | None, trusted: bool):
    logger = None if url is None else {"mode": "all", "url": url}
    (variant,) = plan_variants(make_body(logger=logger), load_runtimes())
    program = make_program(variant, make_replica(variant), SINK)
    assert program.environment.get("TENURE_LOGGER_TOKEN") == ("secret" if trusted else None)
    assert "secret" not in repr(SINK)


def test_a_promoted_canary_keeps_its_processes():
    runtimes = load_runtimes()
    body = make_body()
    green = {
        "name": "green",
        "model": {
            "name": "kserve-container",
            "modelFormat": {"name": "tenure"},
            "storageUri": "s3://tenure/bundles/2",
        },
    }
    body["spec"]["canary"] = [{"predictor": green, "trafficPercent": 20}]
    _, canary = plan_variants(body, runtimes)
    assert (canary.service, canary.percent, canary.stable) == ("telco-green-predictor", 20, False)
    promoted = make_body(name="green")
    promoted["spec"]["predictor"]["model"]["storageUri"] = "s3://tenure/bundles/2"
    (stable,) = plan_variants(promoted, runtimes)
    assert stable.stable
    assert stable.name_program(0) == canary.name_program(0)


@pytest.mark.parametrize(
    "change",
    [
        {"logger": {"url": "http://127.0.0.1:9"}},
        {"model": {"modelFormat": {"name": "tenure"}, "storageUri": "s3://tenure/bundles/2"}},
        {
            "model": {
                "modelFormat": {"name": "tenure"},
                "storageUri": "s3://tenure/bundles/1",
                "env": [{"name": "A", "value": "1"}],
            }
        },
    ],
)
def test_what_a_process_is_made_of_makes_another_revision(change: dict[str, Any]):
    runtimes = load_runtimes()
    (before,) = plan_variants(make_body(), runtimes)
    (after,) = plan_variants(make_body(**change), runtimes)
    assert before.revision != after.revision
    (same,) = plan_variants(make_body(minReplicas=3), runtimes)
    assert same.revision == before.revision


def test_names_differ_between_namespaces_and_are_never_too_long():
    runtimes = load_runtimes()
    body = make_body()
    (short,) = plan_variants(body, runtimes)
    assert short.name_program(0).startswith("telco-predictor-")
    body["metadata"]["namespace"] = "n" * 63
    body["metadata"]["name"] = "a" * 53
    (long,) = plan_variants(body, runtimes)
    assert len(long.name_program(0)) <= 120


def test_a_format_that_no_runtime_serves():
    with pytest.raises(SpecError, match="no ServingRuntime serves"):
        plan_variants(make_body(), [])


@pytest.mark.parametrize("args", [["--grpc_port=1"], ["--http_port", "--grpc_port=1"]])
def test_a_runtime_without_ports_to_choose_is_refused(args: list[str]):
    (variant,) = plan_variants(make_body(), load_runtimes())
    broken = Variant(**{**vars(variant), "container": {"command": ["python"], "args": args}})
    with pytest.raises(SpecError, match="--http_port=PORT"):
        make_program(broken, make_replica(variant), SINK)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "no ServingRuntime"),
        ("a: [", "not YAML"),
        (yaml.safe_dump({"kind": "ServingRuntime", "apiVersion": "v2"}), "apiVersion"),
        (
            yaml.safe_dump(
                {"kind": "ServingRuntime", "apiVersion": "serving.kserve.io/v1alpha1", "spec": {}}
            ),
            "needs a command",
        ),
    ],
)
def test_a_manifest_that_cannot_be_run_is_refused(tmp_path: Path, content: str, problem: str):
    file = tmp_path / "runtime.yaml"
    file.write_text(content)
    with pytest.raises(SpecError, match=problem):
        load_runtimes(file)
    with pytest.raises(SpecError, match="cannot be read"):
        load_runtimes(tmp_path / "none.yaml")
