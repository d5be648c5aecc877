"""What one prediction costs without a server: our scorer beside a pandas and scikit-learn pipeline.

Both start from the columns of a request and hold the same number of trees of the same depth, fitted on the
same customers in this run. CPU time of this process is measured, on one thread each, so that a busy machine
changes little; blocks of the two alternate, and the median block counts.

The trees alone are also run by XGBoost, by treelite's interpreter (GTIL) and, where there is a C compiler, by
the C that tl2cgen makes of them.

Run: python benchmarks/scoring.py
"""

from __future__ import annotations

import contextlib
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import tl2cgen
import treelite
from sklearn.compose import ColumnTransformer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder
from xgboost import XGBClassifier

from tenure.booster import load_booster
from tenure.bundle import TREES, Bundle, load_bundle, write_bundle
from tenure.contract import Contract, Type
from tenure.featuriser import encode_labels
from tenure.graph import open_session, run_session
from tenure.partition import Part, assign_parts
from tenure.project import Project, load_project
from tenure.scorer import Scorer, to_columns
from tenure.snapshot import read_source
from tenure.training import train
from tenure.validation import validate_frame

ROOT = Path(__file__).resolve().parents[1]
BLOCKS = 7
BLOCK_SECONDS = 0.06
COUNTS = (1, 100, 10_000)


def main() -> None:
    project = load_project(ROOT / "projects" / "telco.yaml")
    training = project.training.model_copy(update={"trials": 4})
    project = project.model_copy(update={"training": training})
    good = validate_frame(
        read_source(Path(project.source.uri), None, project.contract), project.contract
    ).good
    parts = assign_parts(good, project.contract, project.split, project.name)
    fitted, asked = good[parts == Part.TRAIN.value], good[parts == Part.HELD_OUT.value]

    bundle = make_bundle(project, fitted)
    pipeline = fit_pipeline(project.contract, fitted, bundle)
    scorer = Scorer(bundle)
    rows = describe_rows(asked, project.contract)
    rows = (rows * (COUNTS[-1] // len(rows) + 1))[: COUNTS[-1]]
    print(
        f"{bundle.metadata.rounds} trees of depth {bundle.metadata.params['max_depth']}, "
        f"{len(bundle.featuriser.names)} columns; CPU microseconds a call, median of {BLOCKS} blocks\n"
    )
    print(f"{'':48}" + "".join(f"{f'{count:,} rows':>14}" for count in COUNTS))
    with tempfile.TemporaryDirectory() as folder:
        compiled = compile_trees(bundle, Path(folder))
        table = {count: measure_all(scorer, pipeline, rows[:count], compiled) for count in COUNTS}
    for name in table[1]:
        print(f"{name:48}" + "".join(f"{table[count][name]:14,.1f}" for count in COUNTS))
    ours, theirs = next(iter(table[1])), list(table[1])[-1]
    ratios = [table[count][theirs] / table[count][ours] for count in COUNTS]
    print(f"\n{'ratio: pipeline / scorer':48}" + "".join(f"{ratio:14,.1f}" for ratio in ratios))


def make_bundle(project: Project, frame: pd.DataFrame) -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "bundle"
        write_bundle(
            directory, train(frame, project), project=project, snapshot="0" * 64, code_version="benchmark"
        )
        return load_bundle(directory)


def fit_pipeline(contract: Contract, frame: pd.DataFrame, bundle: Bundle) -> Pipeline:
    """The usual pipeline: one-hot categories, numbers as they are, the same trees' parameters."""
    texts = [column.name for column in contract.features if column.type is Type.STRING]
    others = [column.name for column in contract.features if column.type is not Type.STRING]
    params = bundle.metadata.params
    pipeline = Pipeline(
        [
            (
                "columns",
                ColumnTransformer(
                    [
                        ("text", OneHotEncoder(handle_unknown="ignore", sparse_output=False), texts),
                        ("other", "passthrough", others),
                    ]
                ),
            ),
            (
                "trees",
                XGBClassifier(
                    n_estimators=bundle.metadata.rounds,
                    max_depth=int(params["max_depth"]),
                    learning_rate=float(params["eta"]),
                    n_jobs=1,
                ),
            ),
        ]
    )
    rows = describe_rows(frame, contract)
    plain = pd.DataFrame(to_columns(rows, bundle.featuriser.names)).astype(dict.fromkeys(others, float))
    return pipeline.fit(plain, encode_labels(frame, contract))


def describe_rows(frame: pd.DataFrame, contract: Contract) -> list[dict[str, Any]]:
    """Rows as a request holds them."""
    names = [column.name for column in contract.features]
    records = frame[names].astype(object).where(frame[names].notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]


def compile_trees(bundle: Bundle, folder: Path) -> tl2cgen.Predictor | None:
    """The trees as a library that a C compiler made, or None if there is no compiler."""
    if shutil.which("gcc") is None:
        print("tl2cgen is not measured: there is no gcc on the PATH\n")
        return None
    model = treelite.frontend.from_xgboost(load_booster(bundle.read(TREES)))
    library = folder / "trees.so"
    # quantize: thresholds become whole numbers, which tl2cgen's makers name as the faster way.
    with contextlib.redirect_stdout(None):  # it says how many files of C it writes
        tl2cgen.export_lib(model, toolchain="gcc", libpath=library, params={"quantize": 1})
    return tl2cgen.Predictor(library, nthread=1)


def measure_all(
    scorer: Scorer, pipeline: Pipeline, rows: list[dict[str, Any]], compiled: tl2cgen.Predictor | None
) -> dict[str, float]:
    """Return CPU microseconds a call of each way, by name: ours first, the pipeline last."""
    bundle = scorer.bundle
    columns = to_columns(rows, bundle.featuriser.names)
    X = bundle.featuriser.transform(columns)
    session = open_session(bundle.read("model.onnx"))
    margins = run_session(session, X)
    booster = load_booster(bundle.read(TREES))
    numbers = [
        column.name for column in bundle.contract.features if column.type in (Type.FLOAT, Type.INTEGER)
    ]
    frame = pd.DataFrame(columns).astype(dict.fromkeys(numbers, float))
    np.testing.assert_allclose(
        bundle.calibrator.apply(booster.inplace_predict(X, predict_type="margin")),
        scorer.score_columns(columns),
        atol=1e-6,
    )

    arrays = read_arrays(columns, bundle)
    np.testing.assert_array_equal(bundle.featuriser.transform(arrays), X)

    def ask_pipeline() -> Any:
        return pipeline.predict_proba(pd.DataFrame(columns).astype(dict.fromkeys(numbers, float)))

    ways: dict[str, Callable[[], Any]] = {
        "scorer: columns to probability": lambda: scorer.score_columns(columns),
        "  featuriser": lambda: bundle.featuriser.transform(columns),
        "  featuriser, numbers in arrays (binary)": lambda: bundle.featuriser.transform(arrays),
        "  trees (ONNX Runtime)": lambda: run_session(session, X),
        "  calibrator": lambda: bundle.calibrator.apply(margins),
        "trees by XGBoost's inplace_predict instead": lambda: booster.inplace_predict(
            X, predict_type="margin"
        ),
        **find_treelite(bundle, X, compiled),
        "pipeline, DataFrame given": lambda: pipeline.predict_proba(frame),
        "pipeline: columns to probability": ask_pipeline,
    }
    calls = {name: count_calls(way) for name, way in ways.items()}
    blocks: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(BLOCKS):
        for name, way in ways.items():
            blocks[name].append(time_block(way, calls[name]))
    return {name: statistics.median(times) * 1e6 for name, times in blocks.items()}


def read_arrays(columns: dict[str, list[Any]], bundle: Bundle) -> dict[str, Any]:
    """Columns as binary tensors hold them: numbers and truth values in arrays, where none is missing."""
    arrays: dict[str, Any] = dict(columns)
    for column in bundle.contract.features:
        values = columns[column.name]
        if column.type is not Type.STRING and None not in values:
            arrays[column.name] = np.array(values)
    return arrays


def find_treelite(bundle: Bundle, X: Any, compiled: tl2cgen.Predictor | None) -> dict[str, Callable[[], Any]]:
    """The trees in treelite's interpreter and compiled; both must say what XGBoost says."""
    booster = load_booster(bundle.read(TREES))
    model = treelite.frontend.from_xgboost(booster)
    ways: dict[str, Callable[[], Any]] = {
        "trees by treelite's GTIL instead": lambda: treelite.gtil.predict(
            model, X, nthread=1, pred_margin=True
        )
    }
    if compiled is not None:
        ways["trees compiled by tl2cgen instead"] = lambda: compiled.predict(
            tl2cgen.DMatrix(X, dtype="float32"), pred_margin=True
        )
    margins = booster.inplace_predict(X, predict_type="margin")
    for way in ways.values():
        np.testing.assert_allclose(np.ravel(way()), margins, atol=1e-5)
    return ways


def count_calls(way: Callable[[], Any]) -> int:
    """Warm up, and return how many calls fill a block."""
    way()
    calls = 1
    while True:
        seconds = time_block(way, calls) * calls
        if seconds > BLOCK_SECONDS / 4:
            return max(1, round(calls * BLOCK_SECONDS / seconds))
        calls *= 4


def time_block(way: Callable[[], Any], calls: int) -> float:
    """Return CPU seconds of one call."""
    start = time.process_time()
    for _ in range(calls):
        way()
    return (time.process_time() - start) / calls


if __name__ == "__main__":
    main()
