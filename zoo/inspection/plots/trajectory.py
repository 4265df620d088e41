"""A sampling run: the network's input x_t above its estimate of x0 (from the sampler's callback)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from zoo.inspection.plots.style import MARGIN, SOFT, cell, cell_side, note, page, plain, styled
from zoo.pipeline.parts import dtype_of
from zoo.pipeline.pipeline import Pipeline, Progress
from zoo.pipeline.stage import Stage
from zoo.schema.errors import UsageError

_BETWEEN = 0.0625
_UNDER = 0.3125


@dataclass(frozen=True)
class Frame:
    """One step: images (H, W, 3) in [0, 1] of x_t and of the estimate of x0."""

    step: int  # from 1
    x_t: np.ndarray
    x0: np.ndarray


@dataclass(frozen=True)
class Trajectory:
    """Some steps of a run, stage by stage, and the final image."""

    asked: str
    stages: dict[str, tuple[list[Frame], int]]  # frames, and how many network evaluations the stage has
    result: np.ndarray  # (H, W, 3) in [0, 1]
    decoded: bool  # whether x_t and x0 are latents, shown as the autoencoder decodes them


def watch(pipe: Pipeline, prompt: str | None = None, *, columns: int = 8, **call: Any) -> Trajectory:
    """Draw one image and keep `columns` evenly chosen steps of each stage; `call` is for the pipeline (seed, steps).

    Latents are shown as the autoencoder decodes them, x_t too; x_t of more than unit variance is scaled down to it.
    """
    if columns < 2:
        raise UsageError(f"a trajectory of {columns} columns shows no way; give 2 or more", code="columns-too-few")
    kept: dict[str, list[tuple[int, Tensor, Tensor]]] = {}
    totals: dict[str, int] = {}

    def keep(now: Progress) -> None:
        totals[now.stage] = now.steps
        if now.step - 1 in _chosen(now.steps, columns):
            kept.setdefault(now.stage, []).append((now.step, now.x_t[:1].clone(), now.x0[:1].clone()))

    made = pipe(prompt, callback=keep, **call)
    drawn = made.tensor[0]  # raises for arrays
    stages = {}
    for stage in pipe.stages:
        frames = [Frame(step, _picture(stage, _unit(x_t)), _picture(stage, x0)) for step, x_t, x0 in kept[stage.name]]
        stages[stage.name] = (frames, totals[stage.name])
    asked = str(prompt or call.get("labels") or "")
    decoded = any(stage.autoencoder.factor > 1 for stage in pipe.stages)
    return Trajectory(asked, stages, drawn.permute(1, 2, 0).numpy(), decoded)


@styled
def plot_trajectory(trajectory: Trajectory) -> Figure:
    """Two rows a stage, x_t above x0, and the finished image at the end of the last one."""
    sides = {name: cell_side(*frames[0].x0.shape[:2]) for name, (frames, _) in trajectory.stages.items()}
    last = cell_side(*trajectory.result.shape[:2])
    left, top, lead = MARGIN + 1.0625, 0.9375, 0.3125
    ends = [left + len(f) * (sides[n][0] + _BETWEEN) for n, (f, _) in trajectory.stages.items()]
    high = sum(lead + 2 * (side[1] + _BETWEEN) + 0.25 for side in sides.values())
    latents = "; both decoded from latents" if trajectory.decoded else ""
    word = f"“{plain(trajectory.asked)}”" if trajectory.asked else "a picture"
    figure = page(
        max(ends) + 0.25 + last[0] + MARGIN, top - lead + high + 0.0625, f"How {word} is drawn",
        r"above $x_t$, the noisy sample; below $x_0$, what the network takes it for" + latents,
    )  # fmt: skip
    above = top
    for name, (frames, total) in trajectory.stages.items():
        side = sides[name]
        several = len(trajectory.stages) > 1
        for k, seen in enumerate(frames):
            at = left + k * (side[0] + _BETWEEN)
            label = f"step {seen.step}" if k else f"step {seen.step} of {total}"
            note(figure, at + side[0] / 2, above - 0.10, label, ha="center", size=7.5, color=SOFT)
            cell(figure, at, above, side, seen.x_t)
            cell(figure, at, above + side[1] + _BETWEEN, side, seen.x0)
        for row, symbol in enumerate((r"$x_t$", r"estimate of $x_0$")):
            middle = above + row * (side[1] + _BETWEEN) + side[1] / 2 + 0.04
            note(figure, left - 0.125, middle, symbol, ha="right", size=9.0)
        if several:
            note(figure, MARGIN, above - 0.10, plain(name), weight="bold")
        if name == list(trajectory.stages)[-1]:
            at = left + len(frames) * (side[0] + _BETWEEN) + 0.25 - _BETWEEN
            down = above + side[1] + _BETWEEN + (side[1] - last[1])
            note(figure, at + last[0] / 2, down - 0.10, "the picture", ha="center", size=7.5, color=SOFT)
            cell(figure, at, down, last, trajectory.result)
        above += lead + 2 * (side[1] + _BETWEEN) + 0.25
    return figure


def _chosen(total: int, columns: int) -> set[int]:
    """Evenly spaced steps of `total`, with the first and the last."""
    return {round(v) for v in np.linspace(0, total - 1, min(columns, total))}


def _unit(x: Tensor) -> Tensor:
    """x scaled to unit spread, where it has more: exploding variance."""
    return x / x.float().std().clamp(min=1.2) * 1.2 if float(x.float().std()) > 1.2 else x


@torch.inference_mode()
def _picture(stage: Stage, x: Tensor) -> np.ndarray:
    images = stage.autoencoder.decode(x.to(dtype_of(stage.autoencoder))).float()
    return (images[0] * 0.5 + 0.5).clamp(0, 1).permute(1, 2, 0).cpu().numpy()
