"""Where step grids put their nodes: dots on a line of log-SNR, from noise on the left to the clean sample."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from zoo.diffusion.types import NoiseSchedule
from zoo.inspection.plots.style import INK, MARGIN, SOFT, frame, look_of, note, page, plain, styled, width_of
from zoo.samplers.grid import Grid
from zoo.schema.errors import UsageError

_ROW = 0.36
_WIDTH = 9.0


@styled
def plot_grids(grids: Mapping[str, Grid], schedule: NoiseSchedule, *, steps: int, name: str = "") -> Figure:
    """One row a grid; `name` is the schedule's, for the title. Raises UsageError where a grid can't have the steps."""
    if not grids:
        raise UsageError("no grid was given; name one or more, see `zoo list grid`", code="plot-subject-missing")
    rows = {label: _log_snr(schedule, grid(schedule, steps)) for label, grid in grids.items()}
    left = MARGIN + 0.2 + max(width_of(n) for n in rows)
    top, high = 0.78, _ROW * len(rows)
    pure = "" if all(np.isfinite(r).all() for r in rows.values()) else "; \u25c2 is pure noise, infinitely far left"
    on = f", on {plain(name)}" if name else ""
    figure = page(
        _WIDTH, top + high + 0.66, f"Where {steps} steps ask the network{on}",
        "each dot is one node; a run goes from noise, left, to the clean sample, right" + pure,
    )  # fmt: skip
    axes = frame(figure, left, top, _WIDTH - left - MARGIN - 0.1, high)
    finite = np.concatenate([r[np.isfinite(r)] for r in rows.values()] + [np.zeros(1)])  # 0 is always in sight
    low, highest = float(finite.min()), float(finite.max())
    room = 0.04 * max(1.0, highest - low)
    edge = low - 2.5 * room
    for number, (label, nodes) in enumerate(rows.items()):
        colour = look_of(number)["color"]
        axes.axhline(number, color="#dfe3e8", linewidth=1.0, zorder=1)
        inside = nodes[np.isfinite(nodes)]
        axes.scatter(
            inside, np.full(len(inside), number), s=30, color=colour, edgecolor="white", linewidth=0.7, zorder=3
        )
        if len(inside) < len(nodes):  # pure noise, infinitely far away
            axes.scatter([edge], [number], s=34, marker="<", color=colour, edgecolor="white", linewidth=0.7, zorder=3)
        height = top + (number + 0.5) * _ROW + 0.04
        note(figure, left - 0.14, height, plain(label), ha="right", color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks([])
    axes.set_xlim((edge if pure else low) - room, highest + room)
    axes.spines["left"].set_visible(False)
    axes.grid(True, axis="x")
    axes.set_xlabel(r"log-SNR  $\ln(\alpha_t^2 / \sigma_t^2)$", color=SOFT, labelpad=5)
    return figure


def _log_snr(schedule: NoiseSchedule, nodes: np.ndarray) -> np.ndarray:
    """ln(alpha^2 / sigma^2) at the nodes; minus infinity for pure noise."""
    alpha, sigma = schedule(np.minimum(np.asarray(nodes, dtype=np.float64), 1.0))
    with np.errstate(divide="ignore"):
        return 2.0 * (np.log(alpha) - np.log(sigma))
