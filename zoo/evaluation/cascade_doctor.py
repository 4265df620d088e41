"""The cascade doctor: how much quality each stage of a cascade loses, and the effect of its augmentation.

Every upscaling stage is run twice on the same captions and noise: from the true small image, where the output
has a true image to compare with, and from the output of the stages below, as in the pipeline. The whole is taken
apart: Q_k is the Fréchet distance of the final images where stages k, k + 1, ... run from the true image below
stage k; Q_0 is the pipeline itself. What is lost by stage k is Q_k - Q_(k+1) (the last: Q_k - 0), so that the
losses sum to the distance of the pipeline.

| word | measure |
|---|---|
| `psnr` | to the truth, where the truth's small image was given; beside it that of bicubic enlargement |
| `fd` | Fréchet distance to the true images of that size; its key names the extractor and N |
| `floor` | the distance of as many other true images, which a perfect stage would have |

Stages are run alone (`Pipeline.stage`): one with truncated conditioning is given a finished small image, noised to
where the stage below would stop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.image_folder import ImageFolder
from zoo.data.pixels import grid
from zoo.diffusion.draws import stream
from zoo.diffusion.types import source_of
from zoo.evaluation.metrics.frechet import distance_key, frechet_distance
from zoo.evaluation.metrics.reconstruction import psnr
from zoo.pipeline.pipeline import Pipeline
from zoo.schema.errors import UsageError

LEVELS = (0.0, 0.05, 0.1, 0.2, 0.4)  # of the sweep


class Extractor(Protocol):
    """uint8 images (N, 3, H, W) -> features (N, D)."""

    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class LevelReport:
    """A stage at one level of augmentation."""

    level: float
    psnr: float  # from the true small image
    fd_true: float  # from the true small image
    fd_generated: float | None  # from what the stages below drew; None where there are none


@dataclass(frozen=True, kw_only=True)
class StageReport:
    """One stage; what is None doesn't apply to it."""

    name: str
    size: int
    low_res: int | None = None  # pixels a side of the small image
    level: float | None = None
    psnr: float | None = None
    psnr_bicubic: float | None = None
    fd_true: float | None = None
    fd_generated: float | None = None
    fd_bicubic: float | None = None
    floor: float | None = None
    lost: float  # of the final images' quality: Q_k - Q_(k+1)
    sweep: tuple[LevelReport, ...] = ()


@dataclass(frozen=True, kw_only=True)
class CascadeReport:
    """The doctor's findings; `picture` is a sheet, one row a caption."""

    pipeline: str
    count: int
    seed: int
    key: str  # of every Fréchet distance here
    total: float  # the distance of the whole pipeline's images
    stages: tuple[StageReport, ...]
    columns: tuple[str, ...]  # what the sheet shows
    picture: Tensor = field(repr=False)  # uint8 (3, H, W)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        plain = asdict(self)
        del plain["picture"]
        return {"schema": "zoo.doctor/1", **plain}


class _Patient:
    """A pipeline with the true images of its captions at every size."""

    def __init__(
        self, pipe: Pipeline, data: ImageFolder, rows: Sequence[int], *, extractor: Extractor, seed: int,
        batch_size: int, progress: Callable[[str], Any] | None,
    ) -> None:  # fmt: skip
        self.pipe, self.extractor, self.seed, self.batch_size = pipe, extractor, seed, batch_size
        self.progress = progress
        self.asked = _words(pipe, [data.rows[i] for i in rows])
        pictures = torch.stack([torch.from_numpy(data.image(i)) for i in rows])
        self.truth = pictures.float() / 255  # (N, 3, H, W) in [0, 1] at the largest size

    def at(self, size: int) -> Tensor:
        """The true images made smaller by area average."""
        return self.truth if size == self.truth.shape[-1] else F.interpolate(self.truth, (size, size), mode="area")

    def run(self, number: int, small: Tensor | None, level: float | None = None) -> Tensor:
        """What one stage draws, (N, 3, H, W) in [0, 1]."""
        stage = self.pipe.stage(number, augmentation=level)
        name = stage.stages[0].name
        if self.progress is not None:
            self.progress(f"stage {name}" + ("" if level is None else f" at {level:g}"))
        asked: dict[str, Any] = self.asked or {"n": len(self.truth)}
        return stage(**asked, image=small, seed=self.seed, batch_size=self.batch_size).tensor

    def features(self, pictures: Tensor) -> Tensor:
        return self.extractor.images(pictures.mul(255).round().to(torch.uint8))

    def distance(self, pictures: Tensor) -> float:
        """The Fréchet distance to the true images of the same size."""
        return frechet_distance(self.features(pictures), self.features(self.at(pictures.shape[-1])))


def examine(
    pipe: Pipeline, data: ImageFolder, *, extractor: Extractor, extractor_name: str, extractor_sha256: str,
    count: int = 64, seed: int = 0, levels: Sequence[float] = LEVELS, batch_size: int = 16,
    progress: Callable[[str], Any] | None = None,
) -> CascadeReport:  # fmt: skip
    """Measure every stage of a cascade; `data` is at the size of its last stage."""
    stages = pipe.stages
    if not any(stage.enlarges for stage in stages):
        raise UsageError(
            "no stage of this pipeline enlarges a smaller picture; the cascade doctor has nothing to do",
            code="cascade-unfit",
        )
    if any(stage.takes != "noise" for stage in stages) or any(stage.feeds == "latent" for stage in stages):
        raise UsageError(
            "stages that hand on latents or images can't be run alone; give a cascade of low_res stages",
            code="cascade-unfit",
        )
    if stages[-1].size != data.size:
        raise UsageError(
            f"the data has size {data.size} and the last stage {stages[-1].size}; load it at that size",
            code="image-sizes-differ",
        )
    if not 2 <= count <= len(data):
        raise UsageError(
            f"n is {count} and the data has {len(data)} pictures; give 2 to {len(data)}", code="count-out-of-range"
        )
    order = [int(i) for i in stream(0, "captions").permutation(len(data))]
    patient = _Patient(
        pipe, data, order[:count], extractor=extractor, seed=seed, batch_size=batch_size, progress=progress
    )
    others = order[count : 2 * count]
    spare = torch.stack([torch.from_numpy(data.image(i)) for i in others]) if len(others) == count else None

    # runs[k][i]: stage i's images where stages k, k + 1, ... run from the true image below stage k.
    runs: list[dict[int, Tensor]] = []
    for first, stage in enumerate(stages):
        small = patient.at(_small_size(pipe, first)) if stage.enlarges else None
        drawn: dict[int, Tensor] = {}
        for number in range(first, len(stages)):
            small = drawn[number] = patient.run(number, small)
        runs.append(drawn)
    ends = [patient.distance(drawn[len(stages) - 1]) for drawn in runs]
    reports = []
    for number, stage in enumerate(stages):
        lost = ends[number] - (ends[number + 1] if number + 1 < len(stages) else 0.0)
        reports.append(_report(patient, number, runs, lost, spare, levels if stage.enlarges else ()))
    columns, picture = _sheet(patient, runs)
    name = str((pipe.record.get("config") or {}).get("name") or "pipeline")
    return CascadeReport(
        pipeline=name, count=count, seed=seed, key=distance_key(extractor_name, extractor_sha256, count),
        total=ends[0], stages=tuple(reports), columns=columns, picture=picture,
    )  # fmt: skip


def _report(
    patient: _Patient, number: int, runs: Sequence[Mapping[int, Tensor]], lost: float, spare: Tensor | None,
    levels: Sequence[float],
) -> StageReport:  # fmt: skip
    stage = patient.pipe.stages[number]
    truth, generated = patient.at(stage.size), runs[0][number]
    floor = None
    if spare is not None:
        resized = F.interpolate(spare.float() / 255, (stage.size,) * 2, mode="area")
        floor = frechet_distance(patient.features(resized), patient.features(truth))
    if not stage.enlarges:
        return StageReport(
            name=stage.name, size=stage.size, fd_generated=patient.distance(generated), floor=floor, lost=lost
        )
    size = _small_size(patient.pipe, number)
    small, alone = patient.at(size), runs[number][number]
    below = runs[0][number - 1] if number else None
    bicubic = F.interpolate(small, (stage.size,) * 2, mode="bicubic", align_corners=False).clamp(0, 1)
    sweep = []
    for level in levels if getattr(stage.denoiser.low_res, "noises", False) else ():
        drawn = patient.run(number, small, level)
        sweep.append(LevelReport(
            level=level, psnr=psnr(drawn, truth), fd_true=patient.distance(drawn),
            fd_generated=None if below is None else patient.distance(patient.run(number, below, level)),
        ))  # fmt: skip
    return StageReport(
        name=stage.name, size=stage.size, low_res=size, level=patient.pipe.stage(number).stages[0].augmentation or 0.0,
        psnr=psnr(alone, truth), psnr_bicubic=psnr(bicubic, truth), fd_true=patient.distance(alone),
        fd_generated=None if below is None else patient.distance(generated), fd_bicubic=patient.distance(bicubic),
        floor=floor, lost=lost, sweep=tuple(sweep),
    )  # fmt: skip


def _small_size(pipe: Pipeline, number: int) -> int:
    """Pixels a side of the small image of a stage, or of its own where it has none."""
    small = pipe.stage(number).stages[0].small_size
    if small is None:
        raise UsageError(
            f"stage '{pipe.stages[number].name}' doesn't say how small its pictures are; set small_size",
            code="small-size-missing",
        )
    return small


def _words(pipe: Pipeline, rows: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """Captions and groups of the rows, where the pipeline is conditioned on them."""
    heard = {source_of(c) for c in pipe.conditioners.values()}
    asked: dict[str, list[str]] = {}
    if "prompts" in heard:
        asked["prompts"] = [row["text"] for row in rows]
    if "labels" in heard:
        if not all(isinstance(row.get("group"), str) for row in rows):
            raise UsageError(
                "this pipeline hears labels and not every row of the data has a 'group'; add it",
                code="metadata-key-missing",
            )
        asked["labels"] = [row["group"] for row in rows]
    return asked


def _sheet(patient: _Patient, runs: Sequence[Mapping[int, Tensor]], rows: int = 8) -> tuple[tuple[str, ...], Tensor]:
    """Columns: the truth, each stage as in the pipeline, and the enlarging ones from the true small image."""
    stages, size = patient.pipe.stages, patient.truth.shape[-1]
    columns = {"true": patient.truth}
    columns |= {stage.name: runs[0][number] for number, stage in enumerate(stages)}
    columns |= {f"{s.name} from true": runs[i][i] for i, s in enumerate(stages) if i and s.enlarges}
    shown = [F.interpolate(pictures[:rows], (size, size), mode="nearest") for pictures in columns.values()]
    flat = torch.stack(shown, 1).flatten(0, 1).mul(255).round().to(torch.uint8)
    return tuple(columns), grid(flat, columns=len(columns))
