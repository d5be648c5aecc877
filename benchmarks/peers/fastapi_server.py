"""FastAPI in two ways: the usual one, and one that predicts with a bundle's trees.

    python -m benchmarks.peers.fastapi_server --bundle DIR --port 8080 [--pipeline FILE]

Both take a JSON list of customers, a pydantic model each, and answer a list of predictions, at /predict.
The usual way, with --pipeline: a `def` route, which FastAPI runs in its threads, makes a DataFrame for a
scikit-learn Pipeline that joblib has stored. Without: an `async def` route that encodes the columns for
XGBoost's `inplace_predict`. FastAPI has no gRPC and no binary tensors.
"""

import argparse
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel, create_model

from benchmarks.peers.bundle import read_datatypes, read_document

LOOPBACK = "127.0.0.1"
TYPES: dict[str, type] = {"BYTES": str, "FP64": float, "INT64": int, "BOOL": bool}


class Prediction(BaseModel):
    churn_probability: float
    churn: bool


def make_customer(datatypes: dict[str, str]) -> type[BaseModel]:
    """Return the pydantic model of a row; any feature may be missing."""
    fields: dict[str, Any] = {name: (TYPES[datatype] | None, None) for name, datatype in datatypes.items()}
    return create_model("Customer", **fields)


def make_predictions(scores: Iterable[float], threshold: float) -> list[Prediction]:
    return [Prediction(churn_probability=score, churn=score >= threshold) for score in scores]


def serve_pipeline(app: FastAPI, bundle: Path, file: Path) -> None:
    """Add the usual route."""
    import joblib
    import pandas as pd

    datatypes = read_datatypes(bundle)
    numbers = [name for name, datatype in datatypes.items() if datatype != "BYTES"]
    threshold = float(read_document(bundle, "metadata.json")["threshold"])
    pipeline = joblib.load(file)  # what many do; the file is one that this benchmark has just written
    customer = make_customer(datatypes)

    @app.post("/predict")
    def predict(customers: list[customer]) -> list[Prediction]:  # type: ignore[valid-type]
        frame = pd.DataFrame([entry.model_dump() for entry in customers])  # type: ignore[attr-defined]
        scores = pipeline.predict_proba(frame.astype(dict.fromkeys(numbers, float)))[:, 1]
        return make_predictions(scores.tolist(), threshold)


def serve_trees(app: FastAPI, bundle: Path) -> None:
    """Add the route that uses the bundle's own trees."""
    from benchmarks.peers.trees import Trees

    trees = Trees(bundle)
    customer = make_customer(trees.datatypes)

    @app.post("/predict")
    async def predict(customers: list[customer]) -> list[Prediction]:  # type: ignore[valid-type]
        columns = {name: [getattr(entry, name) for entry in customers] for name in trees.datatypes}
        return make_predictions(trees.score(columns).tolist(), trees.threshold)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--pipeline", type=Path)
    options = parser.parse_args()
    app = FastAPI()
    if options.pipeline is not None:
        serve_pipeline(app, options.bundle, options.pipeline)
    else:
        serve_trees(app, options.bundle)

    @app.get("/health")
    def tell_health() -> dict[str, str]:
        return {"status": "ok"}

    uvicorn.run(app, host=LOOPBACK, port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
