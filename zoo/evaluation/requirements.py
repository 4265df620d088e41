"""What reproducing a published value takes: weights, extractor, reference, images, network evaluations, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch

from zoo.config.cards import Card, read_card
from zoo.config.check import resolve
from zoo.config.presets import SUFFIXES, read_preset, weights_of
from zoo.config.published import Published
from zoo.diffusion.types import source_of
from zoo.evaluation.inputs.generated import evaluations_of
from zoo.evaluation.inputs.sources import open_source
from zoo.evaluation.processes import own_device
from zoo.evaluation.published import Claim, claims, of_split
from zoo.evaluation.selection import build
from zoo.evaluation.weights import measure_weights
from zoo.pipeline.pipeline import Pipeline, Progress
from zoo.schema.errors import ZooError
from zoo.schema.registry import registry

SCHEMA = "zoo.reproduction/1"
TRIED = 64  # images by which weights are timed


@dataclass(frozen=True, kw_only=True)
class Need:
    """What reproducing a claim takes; nothing of it was run but a few timed steps."""

    pipeline: str
    published: Published
    weights: Sequence[Mapping[str, Any]]  # name, bytes, there, lacking
    extractor: str  # its name and hash, or what it needs
    reference: str
    images: int
    evaluations: int | None  # of the denoisers, of all images; None if weights are missing, or none draws
    seconds: float | None  # of drawing them on this device, extrapolated; None if unknown
    again: bool = False  # the same images as those of a need before, which are drawn once

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"schema": SCHEMA, **asdict(self)}


def needs(
    name: str, *, reference: Any = None, data: Any = None, protocol: str | None = None, device: Any = None,
    dtype: Any = None, batch_size: int = 8,
) -> list[Need]:  # fmt: skip
    """What every claim of a pipeline or of weights takes."""
    place, found = own_device(device), []
    timed: dict[str, tuple[int | None, float | None]] = {}
    for claim in claims(name):
        compared = of_split(data if reference is None else reference, claim.published.split)
        weights = _weights(claim)
        again = claim.pictures in timed
        if not again:
            there = all(w["there"] for w in weights)
            timed[claim.pictures] = _cost(claim, compared, place, dtype, batch_size) if there else (None, None)
        evaluations, seconds = timed[claim.pictures]
        found.append(Need(
            pipeline=claim.name, published=claim.published, weights=weights, extractor=_extractor(claim, place),
            reference=_reference(compared, protocol), images=claim.published.n * claim.published.ranges,
            evaluations=evaluations, seconds=seconds, again=again,
        ))  # fmt: skip
    return found


def _cost(
    claim: Claim, compared: Any, device: torch.device, dtype: Any, batch_size: int
) -> tuple[int | None, float | None]:
    """Network evaluations and seconds of a claim's images."""
    images = claim.published.n * claim.published.ranges
    if claim.weights:
        return None, seconds_of_weights(claim, compared, device)
    import zoo

    pipe = zoo.build(config_of(claim.pipeline), device=device, dtype=dtype, **claim.chosen)
    return images * evaluations_of(pipe), seconds_of(pipe, images, batch_size=min(batch_size, images))


def config_of(name: str) -> str | Path:
    """A pipeline's name, or the path of its config."""
    return Path(name) if name.endswith(SUFFIXES) else name


def _weights(claim: Claim) -> list[dict[str, Any]]:
    """Every weight file of a claim, and whether it is there and as large as its card says."""
    names = [claim.weights] if claim.weights else weights_of(read_preset(config_of(claim.pipeline))[0])
    found = [_file(read_card(name)) for name in names]
    if claim.pipeline and all(f["there"] for f in found):
        resolve(config_of(claim.pipeline))  # all else that can be wrong with the pipeline
    return found


def _file(card: Card) -> dict[str, Any]:
    size = card.file.stat().st_size if card.file.is_file() else None
    return {
        "name": card.name, "file": card.file.name, "bytes": card.bytes, "sha256": card.sha256,
        "there": size == card.bytes,
    }  # fmt: skip


def _extractor(claim: Claim, device: torch.device) -> str:
    """Its name and hash, or the sentence that says what is missing."""
    if claim.weights:
        return "none: the weights are measured by themselves"
    try:
        found = build(claim.extractor, registry(), device)
    except ZooError as error:
        return str(error)
    return f"{found.name}@{found.sha256[:8]}, there"


def _reference(reference: Any, protocol: str | None) -> str:
    if reference is None:
        return "none was given: the data with captions, or reference statistics, of the published protocol"
    try:
        source = open_source(reference, protocol=protocol)
    except ZooError as error:
        return str(error)
    return f"'{source.name}' with {source.count or 'an unknown number of'} pictures, there"


def seconds_of_weights(claim: Claim, data: Any, device: torch.device) -> float | None:
    """How long measuring weights takes, from some images of the data; None without data."""
    if data is None:
        return None
    begun = perf_counter()
    try:
        count = min(TRIED, claim.published.n, open_source(data).count)
        measure_weights(claim.weights, data, n=count, seed=claim.published.seed, device=device)
    except ZooError:
        return None
    return (perf_counter() - begun) * claim.published.n / count


def seconds_of(pipe: Pipeline, images: int, *, batch_size: int) -> float | None:
    """How long drawing takes, from a run of three steps a stage; None where that can't be run.

    A stage's evaluation costs what passes between its first and last step; all else is run once a batch.
    """
    asked: dict[str, Any] = {"n": batch_size}
    stage = pipe.stages[0]
    if any(source_of(c) == "labels" for c in pipe.conditioners.values()):
        asked["labels"] = 0
    if stage.enlarges:
        asked["image"] = torch.full((3, stage.small_size or stage.size, stage.small_size or stage.size), 0.5)
    clocks: dict[str, list[float]] = {s.name: [] for s in pipe.stages}

    def watch(progress: Progress) -> None:
        clocks[progress.stage].append(perf_counter())

    try:
        pipe(**asked, steps=1, batch_size=batch_size)  # warms up
        begun = perf_counter()
        made = pipe(**asked, steps=3, batch_size=batch_size, callback=watch)
        whole = perf_counter() - begun
    except ZooError:  # a sampler whose table can't be so short, a network that gives NaN
        return None
    batch, steady = whole, 0.0
    for s, run in zip(pipe.stages, made.record["stages"], strict=True):
        clock, ran = clocks[s.name], int(run["evaluations"])
        if len(clock) < 2 or ran < 1:
            return None
        each = (clock[-1] - clock[0]) / (len(clock) - 1) * len(clock) / ran
        batch -= each * ran
        steady += each * s.sampler.plan(s.denoiser.schedule, interval=s.interval).evaluations
    return images / batch_size * (max(0.0, batch) + steady)
