"""Project files: what they say when they are wrong."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tenure.errors import ProjectError
from tenure.project import Metric, Project, load_project, parse_project


@pytest.fixture
def document(project_file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(project_file.read_text(encoding="utf-8"))
    return copy.deepcopy(loaded)


@pytest.fixture
def fail(tmp_path: Path) -> Callable[[dict[str, Any] | str], list[str]]:
    """Load a document that is wrong; return the error's lines without the file's name, which starts each."""

    def load(document: dict[str, Any] | str) -> list[str]:
        file = tmp_path / "project.yaml"
        text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
        file.write_text(text, encoding="utf-8")
        with pytest.raises(ProjectError) as caught:
            load_project(file)
        lines = str(caught.value).split("\n")
        assert lines[0].startswith(f"{file}: ")
        return [line.removeprefix(f"{file}: ") for line in lines]

    return load


def test_the_telco_project_loads(project: Project) -> None:
    assert project.name == "telco-churn"
    assert len(project.contract.features) == 19
    assert Path(project.source.uri).is_absolute()
    assert Path(project.source.uri).is_file()


def test_it_travels_as_one_string(project: Project) -> None:
    assert parse_project(project.model_dump_json()) == project


def test_an_address_stays_as_it_is(document: dict[str, Any], tmp_path: Path) -> None:
    document["source"]["uri"] = "s3://customers/telco.csv"
    file = tmp_path / "project.yaml"
    file.write_text(yaml.safe_dump(document), encoding="utf-8")
    assert load_project(file).source.uri == "s3://customers/telco.csv"


def test_unknown_keys_name_the_allowed_ones(document: dict[str, Any], fail: Any) -> None:
    document["trainng"] = {}
    document["gate"]["metrics"] = "roc_auc"
    document["contract"]["columns"][3]["nulable"] = True
    document["training"]["threshold"]["valeu"] = 1
    lines = fail(document)
    assert len(lines) == 4
    top = next(line for line in lines if line.startswith("trainng"))
    assert "not a known key" in top
    assert ", ".join(Project.model_fields) in top
    assert "did you mean training?" in top
    column = next(line for line in lines if line.startswith("contract"))
    assert column.startswith("contract.columns[3].nulable (of 'senior_citizen'): is not a known key, allowed")
    assert "nullable, minimum, maximum, categories" in column
    assert any(line.startswith("training.threshold.valeu: ") and "rule, value" in line for line in lines)
    assert any(line.startswith("gate.metrics: ") and "slice_margin" in line for line in lines)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        (("gate", "metric"), "auc", "gate.metric: should be 'roc_auc', 'average_precision', "),
        (("gate", "floors"), {"auc": 0.8}, "gate.floors.auc: should be 'roc_auc', "),
        (("gate", "floors"), {"roc_auc": "high"}, "gate.floors.roc_auc: should be a valid number"),
        (("gate", "margin"), -1, "gate.margin: should be greater than or equal to 0, found -1"),
        (("source", "format"), "xml", "source.format: should be 'csv' or 'parquet', found 'xml'"),
        (("training", "imbalance"), ["smote"], "training.imbalance[0]: should be 'none' or 'weight'"),
        (("training", "trials"), 0, "training.trials: should be greater than or equal to 1, found 0"),
        (("training", "threshold"), {"rule": "fixed"}, "training.threshold: top_fraction and fixed need"),
        (("split",), 5, "split: should be a mapping with the keys train, held_out, stream, found 5"),
        (("split", "train"), 0.7, "split: train + held_out + stream must be 1"),
        (("rollout", "service"), "Telco!", "rollout.service: should match pattern "),
        (("rollout", "canary_replicas"), 2, "rollout: canary_replicas may not exceed replicas"),
        (("evaluation", "slices"), ["nope"], "(top level): evaluation.slices: 'nope' is not a feature"),
        (
            ("contract", "columns", 1, "role"),
            "target",
            "contract.columns[1].role (of 'churn'): should be 'id', 'time', 'feature' or 'label', found 'tar",
        ),
        (
            ("contract", "columns", 2, "unseen"),
            "ignore",
            "contract.columns[2].unseen (of 'female'): should be 'accept' or 'reject', found 'ignore'",
        ),
        (("contract", "columns", 6, "minimum"), 9e9, "contract.columns[6] (of 'tenure'): minimum 9000000000"),
        (
            ("contract", "columns", 8, "categories"),
            [False, True],
            "contract.columns[8].categories[0] (of 'multiple_lines'): should be a valid string, found False "
            "(YAML takes it for another type: put it in quotes)",
        ),
    ],
)
def test_wrong_values_name_the_allowed_ones(
    document: dict[str, Any], fail: Any, path: tuple[Any, ...], value: Any, expected: str
) -> None:
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    lines = fail(document)
    assert lines[0].startswith(expected)


def test_each_problem_has_one_line(document: dict[str, Any], fail: Any) -> None:
    for column in document["contract"]["columns"]:
        column["type"] = "text"
    assert len(fail(document)) == len(document["contract"]["columns"])


def test_a_missing_key_is_named(document: dict[str, Any], fail: Any) -> None:
    del document["rollout"]["service"]
    del document["name"]
    assert fail(document) == ["name: is required, but missing", "rollout.service: is required, but missing"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a project is a mapping with the keys name, source"),
        ("- a\n", "a project is a mapping"),
        ("a: [", "is not YAML"),
        ("name: a\nname: b\n", "the key 'name' stands twice"),
        ("!!python/object/apply:os.getcwd []\n", "is not YAML"),
    ],
)
def test_files_that_are_no_project(fail: Any, text: str, message: str) -> None:
    assert message in "\n".join(fail(text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ProjectError, match="No such file"):
        load_project(tmp_path / "none.yaml")
    (tmp_path / "latin.yaml").write_bytes(b"name: \xe9\n")
    with pytest.raises(ProjectError, match="is not YAML"):
        load_project(tmp_path / "latin.yaml")


def test_text_that_is_no_json_is_refused() -> None:
    with pytest.raises(ProjectError, match=r"pipeline parameter: .*Invalid JSON"):
        parse_project("{", where="pipeline parameter")


def test_only_log_loss_is_better_lower() -> None:
    assert [metric for metric in Metric if not metric.higher_is_better] == [Metric.LOG_LOSS]
