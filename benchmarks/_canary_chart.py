"""The curves of `canary_error_rates.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

import numpy as np


class Play(Protocol):
    """How one rollout ended: `action`, after so many answers of the canary."""

    action: str
    answers: int


def draw_chart(results: Mapping[str, Sequence[Play]], alpha: float, file: Path) -> None:
    """Draw, for each harmful canary, which share was taken back after how many of its answers."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context({"svg.hashsalt": "tenure", "svg.fonttype": "none", "font.size": 9}):
        figure = Figure(figsize=(7.2, 4.2), layout="constrained", facecolor="white")
        axes = figure.subplots()
        for index, (name, outcomes) in enumerate(results.items()):
            taken = sorted(o.answers for o in outcomes if o.action == "rollback")
            shares = np.arange(1, len(taken) + 1) / len(outcomes)
            longest = max(o.answers for o in outcomes)
            axes.step(
                [1, *taken, longest],
                [0, *shares, shares[-1] if taken else 0],
                where="post",
                label=name,
                color=f"C{index}",
                linestyle="--" if name.startswith("A/A") else "-",
            )
        axes.axhline(alpha, color="0.5", linewidth=0.8, linestyle=":")
        axes.set(
            xscale="log",
            xlabel="answers of the canary",
            ylabel="share of rollouts taken back",
            ylim=(-0.02, 1.02),
            title="When canaries are taken back",
        )
        axes.grid(alpha=0.25)
        axes.legend(fontsize=7.5, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
        figure.savefig(file, metadata={"Date": None})
