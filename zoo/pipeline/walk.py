"""A walk: the runs of those samples of a request that have one plan, and the record of all walks of a request."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.acceleration.accelerated import step_cache_of
from zoo.acceleration.fast import Fast
from zoo.diffusion.noise import SeededSamples
from zoo.images.inputs import hash_of
from zoo.pipeline.parts import Parts, Saving, dtype_of
from zoo.pipeline.prepared import Prepared
from zoo.pipeline.stage import Stage
from zoo.pipeline.stage_run import StageRun
from zoo.schema.errors import NumericError
from zoo.schema.version import __version__


@dataclass(frozen=True, kw_only=True)
class Walk:
    """Samples of one plan, through all stages, `batch` at a time.

    `changed` is the part of the pipeline's record that differs for them: the config of another sampler.
    """

    group: Prepared
    runs: Sequence[StageRun]
    batch: int
    changed: Mapping[str, Any]

    @property
    def parts(self) -> list[slice]:
        """Its batches."""
        total = len(self.group.rows)
        return [slice(i, min(i + self.batch, total)) for i in range(0, total, self.batch)]

    @property
    def length(self) -> int:
        """Steps of all its batches."""
        return sum(len(run.table) for run in self.runs) * len(self.parts)


def decoded(parts: Parts, stage: Stage, x: Tensor) -> Tensor:
    """Samples of the last stage in the units of its space, on the CPU; NumericError for NaN."""
    found = parts.decode(stage, x)
    if not bool(torch.isfinite(found).all()):
        who = "autoencoder" if bool(torch.isfinite(x).all()) else "network"
        raise NumericError(
            f"the {who} of stage '{stage.name}' gave NaN or infinity; run it in float32", code="network-not-finite"
        )
    return stage.space.finish(found).cpu()


def with_known(drawn: Tensor, group: Prepared) -> Tensor:
    """Outside a mask the image itself, which latents can't hold to the pixel."""
    if group.mask is None or group.image is None or group.start.measured:
        return drawn
    return torch.lerp(group.image * 0.5 + 0.5, drawn, group.mask)


def in_order(parts: Sequence[Tensor], order: Tensor) -> Tensor:
    """Samples drawn plan by plan, in the order of the request."""
    whole = torch.cat(list(parts))
    return whole.clone() if len(order) < 2 or bool((order[1:] > order[:-1]).all()) else whole[order]


def record_of_run(
    walks: Sequence[Walk], verdicts: Sequence[Mapping[str, Any]] | None, seconds: float, *, of: Mapping[str, Any],
    fast: Fast, saving: Saving, parts: Parts,
) -> dict[str, Any]:  # fmt: skip
    """The record of a request; its keys hold for the first sample, an entry's `run` has what differs for it.

    of: the pipeline's own record.
    `zoo.records.reading.record_of` puts the two together again, so a sample's own record is one of a request of it
    alone.
    """
    of_row = {row: (walk, i) for walk in walks for i, row in enumerate(walk.group.rows)}
    first, run = walks[0].group, walks[0].runs[0]
    dtype = dtype_of(run.stage.denoiser.network)
    shared = {**of, **_of_sample(*of_row[0], whole=True)}
    images = []
    for row in sorted(of_row):
        walk, i = of_row[row]
        entry = _entry(walk.group, i)
        if verdicts is not None:
            entry["safety"] = verdicts[row]
        own = {**of, **_of_sample(walk, i, whole=False)}
        otherwise = {key: value for key, value in own.items() if value != shared.get(key)}
        images.append(entry | ({"run": otherwise} if otherwise else {}))
    return {
        "schema": "zoo.generation/1",
        **shared,
        "seed": getattr(first.source, "seed", None),
        "noise": type(first.source).__name__,
        "device": str(run.device),
        "dtype": str(dtype).removeprefix("torch."),
        **({} if fast == Fast() else {"fast": fast.record()}),
        **({} if saving == Saving() else {"memory": saving.record()}),
        **parts.record(run.device, dtype),
        "versions": {"zoo": __version__, "torch": torch.__version__, "python": platform.python_version()},
        "seconds": round(seconds, 3),
        "images": images,
    }


def _of_sample(walk: Walk, i: int, *, whole: bool) -> dict[str, Any]:
    """What a record says of a sample's run. whole: inputs are those of all samples, as given to their walk."""
    group = walk.group
    inputs = {"image": group.image, "mask": group.mask, "depth": group.depth}
    return {
        **walk.changed,
        "asked": {
            "size": group.size, "steps": group.steps, "guidance": group.scales[i],
            "strength": group.start.strength if group.image is not None else None, "batch_size": walk.batch,
        },
        "inputs": {k: hash_of(_shared(v) if whole else _row(v, i)) for k, v in inputs.items() if v is not None},
        "stages": [
            {"name": r.stage.name, "evaluations": r.table.evaluations}
            | ({"augmentation": r.stage.augmentation} if r.stage.enlarges else {})
            | _shortened(r)
            for r in walk.runs
        ],
    }  # fmt: skip


def _entry(group: Prepared, i: int) -> dict[str, Any]:
    spec, sample = group.specs[i], group.samples[i]
    entry: dict[str, Any] = {"prompt": spec.prompt, "negative": spec.negative, "sample": sample}
    if isinstance(group.source, SeededSamples):
        entry |= {"seed": group.source.seeds[sample], "sample": group.source.numbers[sample]}
    if spec.label is not None:
        entry["label"] = spec.label
    return entry


def _shortened(run: StageRun) -> dict[str, int]:
    """How many evaluations are of the whole network, where a step cache shortens the others."""
    cache = step_cache_of(run.stage.denoiser)
    return {} if cache is None else {"full_evaluations": cache.full_evaluations(run.table.evaluations)}


def _shared(rows: Tensor) -> Tensor:
    """One row where all are the same tensor's: an input's record doesn't depend on how many samples use it."""
    return rows[:1] if rows.stride(0) == 0 else rows


def _row(rows: Tensor, i: int) -> Tensor:
    """A sample's own row; or the one shared by all."""
    return rows[:1] if rows.stride(0) == 0 or len(rows) == 1 else rows[i : i + 1]
