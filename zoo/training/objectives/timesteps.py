"""Sampling of timesteps: densities over t, and importance sampling by past losses.

Each draw is stratified over the global batch: with `place` the sample's place and u its own uniform number, (place + u)
/ batch is one number in each share of [0, 1), mapped through the density's inverse distribution function. So a batch
covers all noise levels, and its loss varies less.

| name | t | who uses it |
|---|---|---|
| `uniform` | uniform | DDPM |
| `logit-normal` | logit(t) ~ N(mean, deviation^2) | Esser et al. 2024, eq. 19 |
| `log-normal` | ln(sigma / alpha) ~ N(mean, deviation^2) | EDM: -1.2 and 1.2 (Karras et al. 2022, table 1) |
| `importance` | p ~ sqrt(E[loss^2]) at each point, weighted by 1 / (T p) | Nichol & Dhariwal 2021, section 3.3 |

On a discrete schedule t is one of its points.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor

from zoo.diffusion.types import NoiseSchedule
from zoo.schema.errors import ConfigError, WeightsError
from zoo.training.engine.objective import Batch
from zoo.training.objectives.arguments import USUAL, Times, times_of


def stratified(batch: Batch) -> np.ndarray:
    """(B,) in [0, 1): each sample's number in its own share."""
    return (batch.places + batch.uniform("t")) / batch.of


def to_point(place: np.ndarray, points: int | None) -> np.ndarray:
    """A uniform number in [0, 1) -> t in (0, 1], a point of the schedule where it has any."""
    return 1.0 - place if points is None else (np.floor(place * points) + 1) / points


class Drawn:
    """t by a fixed density."""

    def __init__(
        self, schedule: NoiseSchedule, times: Times = "uniform", *, mean: float | None = None,
        deviation: float | None = None,
    ) -> None:  # fmt: skip
        self.schedule, self.times = schedule, times
        usual = USUAL.get(times, (0.0, 1.0))
        self.mean = usual[0] if mean is None else mean
        self.deviation = usual[1] if deviation is None else deviation
        if times in USUAL:
            times_of(times=times, mean=self.mean, deviation=self.deviation)

    def __call__(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """t (B,) in (0, 1] and the weight of each sample's loss (B,)."""
        place, points = stratified(batch), self.schedule.T
        if self.times == "uniform":
            return to_point(place, points), np.ones(len(place))
        normal = torch.special.ndtri(torch.from_numpy(place.clip(1e-12, 1.0 - 1e-12))).numpy()
        value = self.mean + self.deviation * normal
        t = 1.0 / (1.0 + np.exp(-value)) if self.times == "logit-normal" else self.schedule.t_from_log_snr(-2.0 * value)
        if points is not None:  # the nearest point, and the first where t is below it
            t = np.clip(np.round(t * points), 1, points) / points
        return np.clip(t, 1e-9, 1.0), np.ones(len(place))


class Importance:
    """t in proportion to the root of the mean square of the last losses at each point.

    Uniform until each point has `HISTORY` losses, and and by a share of `UNIFORM` always. The losses of a step are
    gathered over all processes and count from the next step on, so the draws don't depend on how a batch was split.
    They are state of the run: `state` goes into its checkpoints.
    """

    HISTORY = 10
    UNIFORM = 0.001

    def __init__(self, schedule: NoiseSchedule) -> None:
        if schedule.T is None:
            raise ConfigError(
                "objective.times 'importance' keeps losses by the schedule's points and this schedule has none; use "
                "a discrete schedule, or times uniform",
                code="schedule-not-discrete",
            )
        self.points = schedule.T
        self.losses = np.zeros((self.points, self.HISTORY))
        self.counts = np.zeros(self.points, dtype=np.int64)
        self._step = -1
        self._pending: list[tuple[int, int, float]] = []  # of the step being taken: (sample, point, loss)

    def density(self) -> np.ndarray:
        """(T,) probabilities."""
        if (self.counts < self.HISTORY).any():
            return np.full(self.points, 1.0 / self.points)
        p = np.sqrt((self.losses**2).mean(axis=1))
        if not p.sum() > 0.0:
            return np.full(self.points, 1.0 / self.points)
        return (1.0 - self.UNIFORM) * p / p.sum() + self.UNIFORM / self.points

    def __call__(self, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
        """t (B,) and 1 / (T p) (B,); of a validation batch uniform ones."""
        place = stratified(batch)
        if not batch.training:
            return to_point(place, self.points), np.ones(len(place))
        step = int(batch.samples[0]) // batch.of
        if step != self._step:
            self._learn()
            self._step = step
        density = self.density()
        edges = np.cumsum(density)
        point = np.searchsorted(edges / edges[-1], place, side="right").clip(max=self.points - 1)
        return (point + 1) / self.points, 1.0 / (self.points * density[point])

    def record(self, batch: Batch, t: np.ndarray, losses: Tensor) -> None:
        """Take note of a training batch's losses (B,), each before its weight; they count from the next step on."""
        if not batch.training or not torch.is_grad_enabled():
            return
        points = np.round(t * self.points).astype(np.int64) - 1
        values = losses.detach().double().cpu().tolist()
        found = zip(batch.samples.tolist(), points.tolist(), values, strict=True)
        known = {sample for sample, _, _ in self._pending}  # a share taken again, by activation checks, counts once
        self._pending += [entry for entry in found if np.isfinite(entry[2]) and entry[0] not in known]

    def _learn(self) -> None:
        """Put the last step's losses of all processes into the history, oldest out, in the samples' order."""
        pending = self._pending
        if dist.is_available() and dist.is_initialized():
            parts: list[list[tuple[int, int, float]]] = [[] for _ in range(dist.get_world_size())]
            dist.all_gather_object(parts, pending)
            pending = [entry for part in parts for entry in part]
        for _, point, loss in sorted(pending):
            self.losses[point] = np.append(self.losses[point, 1:], loss)
            self.counts[point] += 1
        self._pending = []

    def state(self) -> dict[str, Tensor]:
        """The history; every process must call it."""
        self._learn()
        return {"losses": torch.from_numpy(self.losses.copy()), "counts": torch.from_numpy(self.counts.copy())}

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """Go on with a history."""
        if tensors.keys() != {"losses", "counts"} or tuple(tensors["losses"].shape) != self.losses.shape:
            raise WeightsError(
                "the checkpoint's loss history is of another schedule; resume with its own recipe",
                code="run-of-another-recipe",
            )
        self.losses, self.counts = tensors["losses"].double().numpy().copy(), tensors["counts"].numpy().copy()
        self._pending, self._step = [], -1


def draw_of(
    times: Times, schedule: NoiseSchedule, *, mean: float | None, deviation: float | None
) -> Drawn | Importance:
    """The draw of a name; ConfigError for an unknown one."""
    times_of(times=times, mean=mean, deviation=deviation)
    return Importance(schedule) if times == "importance" else Drawn(schedule, times, mean=mean, deviation=deviation)
