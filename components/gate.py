"""Decide whether the challenger may meet customers."""

from __future__ import annotations

import logging
from pathlib import Path

from clients.notification import Notifier
from clients.settings import load_settings
from clients.tracking import Tracking
from tenure.evaluation import EvaluationReport
from tenure.gate import decide
from tenure.project import parse_project

logger = logging.getLogger("tenure.gate")

GATE = "gate"
"""Tag of run and version: `approved` or `rejected`."""


def run(project: str, evaluation_path: str, run_id: str, decision_path: str) -> bool:
    """Write the decision with every reason (Markdown), tag the study's run with it, and tell people of a no.

    Args:
        project: The project as JSON.
        evaluation_path: What `evaluate` wrote.
        run_id: The MLflow run of the challenger's study.
        decision_path: Where the Markdown goes.

    Returns:
        Whether the challenger may meet customers.
    """
    settings = parse_project(project)
    report = EvaluationReport.model_validate_json(Path(evaluation_path).read_text(encoding="utf-8"))
    decision = decide(report, settings.gate)
    text = decision.to_markdown()
    Path(decision_path).write_text(text, encoding="utf-8")
    platform = load_settings()
    tracking = Tracking.connect(platform)
    reasons = [reason for reason in decision.reasons if reason.passed == decision.approved]
    tracking.set_tags(
        run_id,
        {
            GATE: "approved" if decision.approved else "rejected",
            "gate.reasons": "\n".join(f"{reason.rule}: {reason.text}" for reason in reasons),
        },
    )
    tracking.log_text(run_id, text, "decision.md")
    for reason in decision.reasons:
        logger.info("%s %s: %s", "passed" if reason.passed else "FAILED", reason.rule, reason.text)
    if not decision.approved:
        failed = "\n".join(f"{reason.rule}: {reason.text}" for reason in reasons)
        body = f"{failed}\nThe model that serves stays. Study: MLflow run {run_id}"
        Notifier.connect(platform).notify("gate", f"{settings.name}: the gate rejected a challenger", body)
    return decision.approved
