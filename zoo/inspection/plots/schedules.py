"""alpha_t, sigma_t and log-SNR over t: what a noise schedule is (Kingma et al. 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zoo.inspection.plots.style import MARGIN, frame, key, key_height, look_of, page, styled
from zoo.schema.errors import UsageError

if TYPE_CHECKING:  # torch is not needed to draw a curve
    from zoo.diffusion.types import NoiseSchedule

LOG_SNR = 16.0  # beyond it x_t can't be distinguished from clean data or noise
_WIDTH, _PANEL, _GAP, _HIGH = 9.6, 2.52, 0.56, 2.2


@styled
def plot_schedules(schedules: Mapping[str, NoiseSchedule]) -> Figure:
    """Three panels, one line a schedule."""
    if not schedules:
        raise UsageError(
            "no schedule was given; name one or more, see `zoo list schedule`", code="plot-subject-missing"
        )
    names = list(schedules)
    top = 0.74 + key_height(names, _WIDTH) + 0.42
    figure = page(
        _WIDTH, top + _HIGH + 0.62, "Noise schedules",
        r"$x_t = \alpha_t\,x_0 + \sigma_t\,\epsilon$:  how much of the sample is left at t, and how much noise it has",
    )  # fmt: skip
    key(figure, 0.74, names)
    curves = {name: _curve(schedule) for name, schedule in schedules.items()}
    explodes = max(float(sigma.max()) for _, _, sigma in curves.values()) > 2.0
    titles = (r"signal $\alpha_t$", r"noise $\sigma_t$", r"log-SNR  $\ln(\alpha_t^2 / \sigma_t^2)$")
    panels = [frame(figure, MARGIN + 0.30 + i * (_PANEL + _GAP), top, _PANEL, _HIGH) for i in range(3)]
    for axes, title in zip(panels, titles, strict=True):
        _walls(axes, title)
    for number, (t, alpha, sigma) in enumerate(curves.values()):
        look = look_of(number)
        panels[0].plot(t, alpha, **look)
        panels[1].plot(t, np.where(sigma > 0.0, sigma, np.nan) if explodes else sigma, **look)
        with np.errstate(divide="ignore", invalid="ignore"):
            log_snr = 2.0 * (np.log(alpha) - np.log(sigma))
        panels[2].plot(t, np.where(np.abs(log_snr) <= 2.0 * LOG_SNR, log_snr, np.nan), **look)
    panels[0].set_ylim(-0.02, 1.04)
    if explodes:
        panels[1].set_yscale("log")
        panels[1].set_ylim(bottom=1e-3)
    else:
        panels[1].set_ylim(-0.02, 1.04)
    panels[2].axhline(0.0, color="#b9c0c9", linewidth=0.9, zorder=1)  # as much of each
    panels[2].set_ylim(-LOG_SNR, LOG_SNR)
    panels[2].set_yticks([-15, -10, -5, 0, 5, 10, 15])
    return figure


def _curve(schedule: NoiseSchedule) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(t, alpha, sigma) at the points of a schedule and at t = 0, or evenly where it is continuous."""
    t = np.linspace(0.0, 1.0, (schedule.T or 1000) + 1)
    if schedule.T is None:
        # The logarithm changes fast near t = 0.
        t = np.unique(np.concatenate([t, np.geomspace(1e-6, 1e-2, 60)]))
    return t, *schedule(t)


def _walls(axes: Axes, title: str) -> None:
    axes.set_title(title)
    axes.set_xlim(0.0, 1.0)
    axes.set_xticks([0.0, 0.25, 0.5, 0.75, 1.0], ["0\nclean", "0.25", "0.5\nt", "0.75", "1\nnoise"])
