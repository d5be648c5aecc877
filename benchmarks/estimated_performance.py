"""How close performance estimated from scores alone comes to the truth, and where it cannot.

    python benchmarks/estimated_performance.py [--trials 20]

Trains the model of projects/telco.yaml, then scores customers that it has not seen, in four worlds:

- as they are: the held-out and the stream part;
- covariate drift: the held-out part drawn anew so that two thirds pay month to month on fibre (their outcomes
  stay their own, so the truth is known);
- concept drift: the same customers, but a share of the outcomes is another customer's. Scores do not change,
  so the estimate cannot either.

Windows are 500 customers drawn without replacement. Fails if an undrifted estimate is further than .02 off.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from tenure.bundle import load_bundle, write_bundle
from tenure.estimation import estimate_performance
from tenure.featuriser import encode_labels
from tenure.metrics import compute_metrics
from tenure.partition import Part, assign_parts
from tenure.project import load_project
from tenure.scorer import Scorer
from tenure.snapshot import read_source
from tenure.training import train
from tenure.validation import validate_frame

ROOT = Path(__file__).resolve().parents[1]
ALLOWED = 0.02
WINDOW, WINDOWS = 500, 200


def show(name: str, y: np.ndarray, p: np.ndarray, threshold: float) -> float:
    """Print a line about these customers; return how far the estimated ROC-AUC is off."""
    estimate, truth = estimate_performance(p, threshold, 0), compute_metrics(y, p, threshold)
    difference = estimate.roc_auc.value - truth["roc_auc"]
    cells = "  ".join(
        f"{getattr(estimate, metric).value:.3f} / {truth[metric]:.3f}"
        for metric in ("roc_auc", "log_loss", "precision", "recall")
    )
    rate = f"{estimate.churn_rate.value:.3f} / {y.mean():.3f}"
    print(f"{name:42s} {len(y):5d}  {cells}  {rate}   {difference:+.4f}")
    return difference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="of the search")
    options = parser.parse_args()
    project = load_project(ROOT / "projects" / "telco.yaml")
    training = project.training.model_copy(update={"trials": options.trials})
    project = project.model_copy(update={"training": training})
    frame = validate_frame(
        read_source(Path(project.source.uri), None, project.contract), project.contract
    ).good
    parts = assign_parts(frame, project.contract, project.split, project.name)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bundle"
        model = train(frame[parts == Part.TRAIN], project)
        write_bundle(path, model, project=project, snapshot="0" * 64, code_version="benchmark")
        bundle = load_bundle(path)
        p = Scorer(bundle).score_matrix(bundle.featuriser.transform_frame(frame))
    y, threshold = encode_labels(frame, project.contract), bundle.threshold
    rng = np.random.default_rng(5)
    heads = "".join(f"{head:15s}" for head in ("ROC-AUC", "log-loss", "precision", "recall", "churn rate"))
    print(f"{'':42s} {'rows':>5s}  {heads} AUC off")
    print(f"{'':49s}" + "  ".join(["est. / true  "] * 5))
    seen = {}
    for part in (Part.HELD_OUT, Part.STREAM):
        rows = np.asarray(parts == part)
        seen[part] = show(f"{part.value}, as it is", y[rows], p[rows], threshold)
    rows = np.flatnonzero(np.asarray(parts != Part.TRAIN))
    seen["all"] = show("both, as they are", y[rows], p[rows], threshold)

    risky = (
        (frame["contract"] == "Month-to-month") & (frame["internet_service"] == "Fiber optic")
    ).to_numpy()[rows]
    weights = np.where(risky, 2 / 3 / risky.sum(), 1 / 3 / (~risky).sum())
    drawn = rng.choice(rows, size=len(rows), p=weights)
    show("covariate drift: 2/3 monthly on fibre", y[drawn], p[drawn], threshold)
    for share in (0.1, 0.25, 0.5):
        other = y[rows].copy()
        moved = rng.random(len(rows)) < share
        other[moved] = rng.permutation(other[moved])
        show(f"concept drift: {share:.0%} leave for other reasons", other, p[rows], threshold)

    inside, off = 0, []
    for seed in range(WINDOWS):
        window = rng.choice(rows, size=WINDOW, replace=False)
        truth = compute_metrics(y[window], p[window], threshold)["roc_auc"]
        auc = estimate_performance(p[window], threshold, seed, resamples=200).roc_auc
        inside += auc.low <= truth <= auc.high
        off.append(auc.value - truth)
    print(
        f"\n{WINDOWS} windows of {WINDOW}: mean difference {np.mean(off):+.4f}, "
        f"typical size {np.std(off):.4f} (chance in the outcomes), "
        f"the 95 % interval held the truth in {inside / WINDOWS:.1%}"
    )
    worst = max(abs(value) for value in seen.values())
    print(f"undrifted: at most {worst:.4f} off, {ALLOWED} allowed")
    if worst > ALLOWED:
        raise SystemExit("the estimate is too far off")


if __name__ == "__main__":
    main()
