"""An image as it is noised: x_t = alpha_t x0 + sigma_t eps at some t, with one eps for all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from zoo.diffusion.noise import AddressedNoise
from zoo.diffusion.types import NoiseSchedule
from zoo.images.inputs import read_image
from zoo.inspection.plots.style import MARGIN, SOFT, cell, cell_side, note, page, plain, styled, width_of
from zoo.schema.errors import UsageError

_BETWEEN = 0.0625
_UNDER = 0.375  # for the text below a row


@styled
def plot_noising(
    image: Any, schedules: Mapping[str, NoiseSchedule], *, columns: int = 9, size: int = 64, seed: int = 0
) -> Figure:
    """One row a schedule. image: a path, PIL image or tensor (3, size, size) in [0, 1]; columns: how many t.

    Where x_t has more than unit variance it is drawn scaled down to it, as a network takes it.
    """
    if columns < 2 or not schedules:
        raise UsageError(
            "a picture of noising needs two columns or more and a schedule; give them", code="plot-subject-missing"
        )
    if not 1 <= size <= 512:
        raise UsageError(f"a size of {size} pixels can't be drawn in a row; give 1 to 512", code="size-invalid")
    x0 = read_image(image, size=(size, size), count=1)[0].numpy()
    eps = AddressedNoise(seed)((3, size, size), purpose="start", samples=[0])[0].numpy()
    side = cell_side(size, size)
    # Whole sixteenths of an inch are whole dots.
    left, top = MARGIN + math.ceil(16 * (0.1 + max(1.1 * width_of(n) for n in schedules))) / 16, 1.0
    step = side[0] + _BETWEEN
    height = top + len(schedules) * (side[1] + _UNDER) + 0.0625
    subtitle = (
        r"$x_t = \alpha_t\,x_0 + \sigma_t\,\epsilon$  with the same $\epsilon$ throughout; below each its log-SNR"
    )
    figure = page(left + columns * step + MARGIN, height, "A picture on its way to noise", subtitle)
    times = np.linspace(0.0, 1.0, columns)
    for k, t in enumerate(times):
        note(figure, left + k * step + side[0] / 2, top - 0.10, f"t = {t:.3g}", ha="center", size=8.0)
    for row, (name, schedule) in enumerate(schedules.items()):
        above = top + row * (side[1] + _UNDER)
        note(figure, MARGIN, above + side[1] / 2 + 0.04, plain(name), weight="bold", size=8.5)
        for k, t in enumerate(times):
            alpha, sigma = (float(v) for v in schedule(float(t)))
            x_t = (alpha * x0 + sigma * eps) / max(1.0, float(np.hypot(alpha, sigma)))
            cell(figure, left + k * step, above, side, (x_t.transpose(1, 2, 0) + 1.0) / 2.0)
            told = log_snr(alpha, sigma)
            note(figure, left + k * step + side[0] / 2, above + side[1] + 0.15, told, ha="center", size=7.5, color=SOFT)
    return figure


def log_snr(alpha: float, sigma: float) -> str:
    """ln(alpha^2 / sigma^2) in a word."""
    if sigma <= 0.0:
        return "clean"
    if alpha <= 0.0:
        return "no signal"
    value = round(2.0 * math.log(alpha / sigma), 1)
    return f"{value:+.1f}".replace("-", "\N{MINUS SIGN}") if value else "0"
