"""Grids that are given as data: OpenAI's sections, tables of noise levels such as Align Your Steps, LCM's points.

Sections cut the schedule's points into equal parts and take a number of evenly spaced ones from each, so that "10,8,6"
spends most steps where it is clean (Nichol & Dhariwal 2021, section 4). A table lists sigma / alpha found by
optimisation (Sabour et al. 2024); for other numbers of steps it is interpolated linearly in the logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from zoo.diffusion.types import NoiseSchedule
from zoo.samplers.grid import noise_ratio, refuse_below
from zoo.schema.errors import ConfigError, UsageError

# Sabour et al. 2024: ten steps, and the level below the last.
TABLES = {
    "ays-sd1": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029),
    "ays-sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029),
}


@dataclass(frozen=True, kw_only=True)
class Sections:
    """OpenAI's spacing: counts as "10,8,6", cleanest first, or "ddim25" for one stride; steps are their sum."""

    papers = ("2102.09672 Improved Denoising Diffusion Probabilistic Models",)

    sections: str

    def __call__(self, schedule: NoiseSchedule, steps: int) -> np.ndarray:
        points = schedule.T
        if points is None:
            raise UsageError(
                "sections count points, which a continuous schedule has not; use trailing or karras",
                code="schedule-not-discrete",
            )
        if self.sections.startswith("ddim"):
            count = _whole(self.sections[4:], self.sections)
            stride = next((s for s in range(1, points + 1) if len(range(0, points, s)) == count), None)
            if stride is None:
                raise ConfigError(
                    f"no whole stride gives {count} of {points} points; choose another than {self.sections}",
                    code="sections-unfit",
                )
            indices = list(range(0, points, stride))
        else:
            counts = [_whole(part, self.sections) for part in self.sections.split(",")]
            indices, begin = [], 0
            for k, count in enumerate(counts):
                size = points // len(counts) + (k < points % len(counts))
                if count > size:
                    raise ConfigError(
                        f"a section of {size} points can't give {count} steps; mend '{self.sections}'",
                        code="sections-unfit",
                    )
                stride = (size - 1) / (count - 1) if count > 1 else 1.0
                indices += [begin + round(j * stride) for j in range(count)]
                begin += size
        if len(indices) != steps:
            raise UsageError(
                f"sections '{self.sections}' are {len(indices)} steps, not {steps}; set steps to that",
                code="steps-unfit",
            )
        return (np.array(indices[::-1], dtype=np.float64) + 1.0) / points


@dataclass(frozen=True, kw_only=True)
class Distilled:
    """Some of the `origin` points, evenly spaced, that a latent consistency model was distilled at, from t = 1 down.

    The i-th of n steps is at the floor(i origin / n)-th of them, as diffusers' LCMScheduler takes it: 999, 759, 499,
    259 of 1000 for four.
    """

    papers = ("2310.04378 Latent Consistency Models: Synthesizing High-Resolution Images with Few-Step Inference",)

    origin: int = 50

    def __post_init__(self) -> None:
        if self.origin < 1:
            raise ConfigError(
                f"origin is {self.origin}, how many points a model was distilled at; give 1 or more (LCM: 50)",
                code="number-out-of-range",
            )

    def __call__(self, schedule: NoiseSchedule, steps: int) -> np.ndarray:
        points = schedule.T or 1000 * self.origin
        if not steps <= self.origin <= points:
            raise UsageError(
                f"{steps} steps are to be among {self.origin} points of a schedule with {points}; use at most "
                f"{min(self.origin, points)} steps, or the grid trailing",
                code="steps-too-many",
            )
        places = self.origin - np.floor(np.arange(steps) * self.origin / steps)
        return places * (points // self.origin) / points


@dataclass(frozen=True, kw_only=True)
class Table:
    """Noise levels from a table: `ays-sd1`, `ays-sdxl`, or sigmas (sigma / alpha, one more than steps).

    The first is clipped to the schedule's noisiest.
    """

    papers = ("2404.14507 Align Your Steps: Optimizing Sampling Schedules in Diffusion Models",)

    table: Literal["ays-sd1", "ays-sdxl"] = "ays-sd1"
    sigmas: tuple[float, ...] | list[float] | None = None

    def __post_init__(self) -> None:
        if self.sigmas is None and self.table not in TABLES:
            raise ConfigError(
                f"unknown table '{self.table}'; choose one of {', '.join(TABLES)} or give sigmas", code="choice-unknown"
            )
        given = self._sigmas()
        if len(given) < 2 or min(given) <= 0.0 or bool(np.any(np.diff(given) >= 0.0)):
            raise ConfigError(
                f"a table's sigmas are two or more, positive and descending, not {given}; mend them",
                code="sigmas-invalid",
            )

    def _sigmas(self) -> tuple[float, ...]:
        return TABLES[self.table] if self.sigmas is None else tuple(self.sigmas)

    def __call__(self, schedule: NoiseSchedule, steps: int) -> np.ndarray:
        given = self._sigmas()
        if self.sigmas is not None and len(given) == steps:
            raise UsageError(
                f"a table of {steps} levels is one of {steps - 1} steps, as the last step leads to the last level, and "
                f"would be stretched to {steps}; add the level that is missing, or set steps to {steps - 1}",
                code="steps-unfit",
            )
        logs = np.log(given)
        nodes = np.interp(np.linspace(0.0, 1.0, steps + 1)[:-1], np.linspace(0.0, 1.0, len(logs)), logs)
        noisiest = noise_ratio(schedule, 1.0)
        if steps > 1 and np.exp(nodes[1]) >= noisiest:
            raise UsageError(
                f"a table with more than one level above the schedule's noisiest (sigma / alpha {noisiest:.4g}) has no "
                "place for them; use the grid karras, which takes the schedule's own levels",
                code="sigmas-invalid",
            )
        refuse_below(schedule, float(np.exp(nodes[-1])), "a table")
        return schedule.t_from_log_snr(-2.0 * nodes)


def _whole(text: str, whole: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(
            f"sections are counts like '10,8,6' or 'ddim25', not '{whole}'; mend them", code="sections-invalid"
        )
    return int(text)
