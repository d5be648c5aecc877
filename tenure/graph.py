"""The trees as an ONNX graph: from the matrix to the margin in one node.

The graph is built here from the booster's own dump. onnxmltools was tried: its output is a float32
probability, which near 0 and 1 has too few digits to calibrate, and its time grows exponentially with depth
where a column has many categories (60 of them at depth 6 took minutes). The walk below takes each node once.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xgboost as xgb
    from numpy.typing import NDArray

INPUT = "X"
OUTPUT = "margin"
OPSET = 15
ML_OPSET = 3
IR_VERSION = 8


def convert_booster(booster: xgb.Booster, features: int, base_score: float) -> bytes:
    """Convert trees to ONNX; the same trees always give the same bytes.

    Args:
        booster: Trees of objective binary:logistic, whose features have no names (f0 and up).
        features: Number of columns of the matrix.
        base_score: The starting probability that the trees were fitted with.

    Returns:
        A serialised model with input `X` float32 [rows, features] and output `margin` float32 [rows, 1].
    """
    import onnx
    from onnx import helper

    ensemble = _Ensemble()
    # The start is a tree of one leaf, so that floats are added up in the order in which XGBoost does it;
    # ONNX Runtime adds `base_values` last, and the last bits of the sum differ.
    one = np.float32(1)
    start = -np.log(one / np.float32(base_score) - one)
    ensemble.add_tree({"nodeid": 0, "leaf": float(start)})
    for tree in booster.get_dump(dump_format="json"):
        ensemble.add_tree(json.loads(tree))
    attributes: dict[str, Any] = {**ensemble.nodes, **ensemble.targets}
    node = helper.make_node(
        "TreeEnsembleRegressor",
        [INPUT],
        [OUTPUT],
        name="trees",
        domain="ai.onnx.ml",
        **attributes,
        n_targets=1,
        aggregate_function="SUM",
        post_transform="NONE",
    )
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info(INPUT, onnx.TensorProto.FLOAT, [None, features])],
        [helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, [None, 1])],
    )
    model = helper.make_model(
        graph,
        producer_name="tenure",
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
    )
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString(deterministic=True))


class _Ensemble:
    """The flat attribute lists of a TreeEnsembleRegressor, filled tree by tree."""

    def __init__(self) -> None:
        self.trees = 0
        self.nodes: dict[str, list[Any]] = {
            f"nodes_{name}": []
            for name in (
                "treeids",
                "nodeids",
                "featureids",
                "modes",
                "values",
                "truenodeids",
                "falsenodeids",
                "missing_value_tracks_true",
            )
        }
        self.targets: dict[str, list[Any]] = {
            f"target_{name}": [] for name in ("treeids", "nodeids", "ids", "weights")
        }

    def add_tree(self, root: dict[str, Any]) -> None:
        """Append one tree of XGBoost's JSON dump; its root must come first."""
        # A split on a set of categories becomes a chain of equality tests: the nodes that it needs beyond its
        # own get ids above all of XGBoost's.
        stack, ids = [root], []
        while stack:
            item = stack.pop()
            ids.append(int(item["nodeid"]))
            stack.extend(item.get("children", ()))
        spare = max(ids) + 1
        stack = [root]
        while stack:
            item = stack.pop()
            if "leaf" in item:
                self._add_leaf(item)
                continue
            stack.extend(reversed(item["children"]))
            condition = item["split_condition"]
            feature = int(str(item["split"]).removeprefix("f"))
            yes, no, missing_is_yes = int(item["yes"]), int(item["no"]), item["missing"] == item["yes"]
            if not isinstance(condition, list):
                self._add_node(item["nodeid"], feature, "BRANCH_LT", condition, yes, no, missing_is_yes)
                continue
            own = int(item["nodeid"])
            for position, category in enumerate(condition):
                last = position == len(condition) - 1
                # A missing value that goes to `yes` does so at the first test; else it falls through all.
                self._add_node(
                    own, feature, "BRANCH_EQ", category, yes, no if last else spare, missing_is_yes
                )
                if not last:
                    own, spare = spare, spare + 1
        self.trees += 1

    def _add_leaf(self, item: dict[str, Any]) -> None:
        self._add_node(item["nodeid"], 0, "LEAF", 0.0, 0, 0, False)
        for name, value in (
            ("treeids", self.trees),
            ("nodeids", int(item["nodeid"])),
            ("ids", 0),
            ("weights", float(item["leaf"])),
        ):
            self.targets[f"target_{name}"].append(value)

    def _add_node(
        self, own: int, feature: int, mode: str, value: float, yes: int, no: int, missing_is_yes: bool
    ) -> None:
        row = (self.trees, int(own), feature, mode, float(value), yes, no, int(missing_is_yes))
        for column, cell in zip(self.nodes.values(), row, strict=True):
            column.append(cell)


def open_session(data: bytes, threads: int = 1) -> Any:
    """Open an ONNX Runtime session on the bytes of `convert_booster`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_session(session: Any, X: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the margin of each row, shape [rows]."""
    margins: NDArray[np.float32] = session.run([OUTPUT], {INPUT: X})[0]
    return margins.ravel().astype(np.float64)
