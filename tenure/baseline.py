"""The models that every challenger must face: a logistic regression, and XGBoost as it comes out of the box.

Both are fitted on the training part the challenger was trained on and never see the held-out part. Their
thresholds follow the project's rule on out-of-fold scores, as the challenger's does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tenure.errors import EvaluationError
from tenure.featuriser import Featuriser, encode_labels
from tenure.metrics import Floats
from tenure.project import Project
from tenure.threshold import choose_threshold

if TYPE_CHECKING:
    import pandas as pd

FOLDS = 5
Features = NDArray[np.float32]


@dataclass(frozen=True)
class Baseline:
    """A fitted baseline's judgement of the held-out rows.

    Attributes:
        name: Its name in reports.
        scores: Probabilities, shape [held-out rows].
        threshold: The probability from which a row counts as leaving.
    """

    name: str
    scores: Floats
    threshold: float


def score_baselines(
    train_frame: pd.DataFrame, frame: pd.DataFrame, project: Project
) -> tuple[Baseline, Baseline]:
    """Fit the logistic regression and the default XGBoost, and score the held-out rows with them.

    Args:
        train_frame: Canonical rows of the training part; those without a label are left out.
        frame: Canonical rows to score.
        project: Gives the contract, the threshold's rule and the seed.

    Returns:
        `baseline` (logistic regression) and `default_xgboost`.

    Raises:
        EvaluationError: The training part has too few rows of a class.
        ContractError: A column is missing, or a held-out value was unseen where the contract rejects that.
    """
    labels = encode_labels(train_frame, project.contract)
    known = ~np.isnan(labels)
    y = labels[known]
    rarer = int(min(y.sum(), len(y) - y.sum()))
    if rarer < FOLDS:
        raise EvaluationError(
            f"the baselines need at least {FOLDS} training rows of each class, but the rarer has {rarer}: "
            "pass the labelled rows that the challenger was trained on"
        )
    fit_frame = train_frame.loc[known]
    featuriser = Featuriser.fit(fit_frame, project.contract)
    X, held_out = featuriser.transform_frame(fit_frame), featuriser.transform_frame(frame)
    seed = project.training.seed

    def judge(name: str, build: Callable[[Sequence[str], int], Any]) -> Baseline:
        threshold = _find_threshold(lambda: build(featuriser.types, seed), X, y, project)
        model = build(featuriser.types, seed).fit(X, y)
        return Baseline(name, _predict(model, held_out), threshold)

    return judge("baseline", build_logistic_regression), judge("default_xgboost", build_default_xgboost)


def build_logistic_regression(types: Sequence[str], seed: int) -> Any:
    """Build scikit-learn's logistic regression (its default L2 penalty) on the featuriser's matrix.

    Categories are one-hot encoded, missing ones being a category of their own. Numbers are standardised;
    missing ones become the median, and a column says that they were missing.

    Args:
        types: "c" or "q" per column of the matrix.
        seed: Not needed: the fit is deterministic.
    """
    from sklearn.compose import ColumnTransformer
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import OneHotEncoder, StandardScaler

    categories = [index for index, kind in enumerate(types) if kind == "c"]
    numbers = [index for index, kind in enumerate(types) if kind != "c"]
    impute = SimpleImputer(strategy="median", add_indicator=True, keep_empty_features=True)
    columns = ColumnTransformer(
        [
            ("categories", OneHotEncoder(handle_unknown="ignore", dtype=np.float64), categories),
            ("numbers", make_pipeline(impute, StandardScaler()), numbers),
        ]
    )
    return make_pipeline(columns, LogisticRegression(max_iter=2000))


def build_default_xgboost(types: Sequence[str], seed: int) -> Any:
    """Build XGBoost with no parameter of ours, on native categoricals; one thread: reproducible.

    Args:
        types: "c" or "q" per column of the matrix.
        seed: XGBoost's random state.
    """
    from xgboost import XGBClassifier

    return XGBClassifier(enable_categorical=True, feature_types=list(types), random_state=seed, n_jobs=1)


def _find_threshold(build: Callable[[], Any], X: Features, y: Floats, project: Project) -> float:
    """Choose the threshold on out-of-fold scores."""
    from sklearn.model_selection import StratifiedKFold

    rule = project.training.threshold
    if rule.rule == "fixed":
        return choose_threshold(rule, y, y)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=project.training.seed)
    scores = np.empty(len(y))
    for fitted, judged in folds.split(X, y):
        scores[judged] = _predict(build().fit(X[fitted], y[fitted]), X[judged])
    return choose_threshold(rule, y, scores)


def _predict(model: Any, X: Features) -> Floats:
    return np.asarray(model.predict_proba(X)[:, 1], dtype=np.float64)
