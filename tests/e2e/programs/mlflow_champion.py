"""What a person does with MLflow: load the champion from the registry and predict a DataFrame.

Arguments: model address, Parquet file with customers. Writes {id: [probability, churn]} as JSON.
"""

from __future__ import annotations

import json
import sys

import mlflow
import pandas as pd


def main() -> None:
    address, file = sys.argv[1:]
    customers = pd.read_parquet(file).set_index("customer_id")
    answer = mlflow.pyfunc.load_model(address).predict(customers)
    rows = zip(answer.index, answer["churn_probability"], answer["churn"], strict=True)
    json.dump({identity: [float(score), bool(churn)] for identity, score, churn in rows}, sys.stdout)


if __name__ == "__main__":
    main()
