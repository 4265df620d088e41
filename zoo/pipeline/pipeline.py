"""A pipeline: named conditioners and a list of stages, run one after another.

Latent and cascaded diffusion, image to image, inpainting and upscaling are all this loop; which of them a pipeline is
stands in its config, and where a run starts in `zoo.tasks`.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.acceleration.accelerated import speed_up, step_cache_of
from zoo.acceleration.device import resolve
from zoo.acceleration.fast import Fast, choose, compiled_decoder, lay_out_weights
from zoo.diffusion.noise import SeededSamples
from zoo.diffusion.types import Conditioner, Guidance, NoiseSource, StepReport
from zoo.images.inputs import hash_of
from zoo.pipeline.conditioning import Conditioning
from zoo.pipeline.display import table_html
from zoo.pipeline.generation import Generation
from zoo.pipeline.request import Request, read_request, whole_number
from zoo.pipeline.safety import SafetyCheck
from zoo.pipeline.stage import Stage
from zoo.pipeline.stage_run import StageRun, dtype_of
from zoo.schema.errors import NumericError, UsageError
from zoo.schema.progress import mode, shown
from zoo.schema.version import __version__

__all__ = ["Pipeline", "Progress", "Stage"]
BLANK = 0.5  # the grey that stands in for a picture a safety check refused


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What a pipeline's callback receives after each step of each batch."""

    stage: str
    step: int
    steps: int
    done: int  # steps done of the whole call
    total: int  # steps of the whole call
    x_t: Tensor
    x0: Tensor


@dataclass
class Pipeline:
    """See the module; `record` is the resolved config and the hashes of the weights.

    `first` is the number of the first stage in the noise's address: a stage alone draws with the noise it has in the
    whole pipeline.
    """

    conditioners: Mapping[str, Conditioner]
    stages: Sequence[Stage]
    safety: SafetyCheck | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0
    fast: Fast = field(default_factory=Fast)

    def __post_init__(self) -> None:
        for stage in self.stages:
            stage.space.check_pipeline(stage.name, stages=len(self.stages), safety=self.safety, guidance=stage.guidance)

    def __repr__(self) -> str:
        name = (self.record.get("config") or {}).get("name", "")
        return (
            f"Pipeline({name or 'put together by hand'}: {' -> '.join(s.name for s in self.stages)} on {self.device})"
        )

    def _repr_html_(self) -> str:
        """The stages, for a notebook."""
        rows = [
            (s.name, "x".join(map(str, s.lengths(None))), type(s.denoiser.network).__name__,
             type(s.denoiser.schedule).__name__, type(s.denoiser.parameterization).__name__,
             f"{type(s.sampler).__name__}, {getattr(s.sampler, 'steps', '-')} steps",
             ", ".join(type(g).__name__ for g in s.guidance) or "-")
            for s in self.stages
        ]  # fmt: skip
        columns = ("stage", "size", "network", "schedule", "parameterization", "sampler", "guidance")
        return table_html(columns, rows, repr(self))

    def modules(self) -> list[nn.Module]:
        """Every network of the pipeline, once."""
        parts: list[Any] = list(self.conditioners.values())
        for stage in self.stages:
            parts += [stage.denoiser, stage.autoencoder]
            held = list(stage.guidance)  # a classifier, a weaker denoiser; one guidance may hold another
            while held:
                inside = list(vars(held.pop()).values())
                parts += inside
                held += [value for value in inside if isinstance(value, Guidance) and hasattr(value, "__dict__")]
        return list({id(p): p for p in parts if isinstance(p, nn.Module)}.values())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Pipeline:
        """Move every network, to the best device there is with `auto`; returns this pipeline.

        Samples stay float32 whatever the networks' dtype.
        """
        device = None if device is None else resolve(device)
        for module in self.modules():
            module.to(device=device, dtype=dtype)
        if self.fast != Fast():
            self._speed_up(self.fast)  # what was recorded of the weights is where they were
        return self

    def compile(
        self, *, precompute: bool | None = None, channels_last: bool | None = None, compile: bool | None = None,
        graphs: bool | None = None, dtype: torch.dtype | None = None,
    ) -> Pipeline:  # fmt: skip
        """Turn the fast path on (zoo.acceleration.fast); returns this pipeline.

        Pictures change by rounding alone. Each part can be switched; None is what helps on this device. `dtype` moves
        the networks to another precision first. The first call after is slower where something is compiled.
        """
        if dtype is not None:
            self.to(dtype=dtype)
        self._speed_up(choose(
            self.device, precompute=precompute, channels_last=channels_last, compile=compile, graphs=graphs
        ))  # fmt: skip
        return self

    def _speed_up(self, fast: Fast) -> None:
        self.fast = fast
        for stage in self.stages:
            speed_up(stage.denoiser, fast)
            lay_out_weights(stage.autoencoder, fast)
            compiled_decoder(stage.autoencoder, fast)

    @property
    def device(self) -> torch.device:
        """Where the first network lives."""
        parameters = (p for m in self.modules() for p in m.parameters())
        return next((p.device for p in parameters), torch.device("cpu"))

    def stage(self, which: int | str, *, augmentation: float | None = None) -> Pipeline:
        """One stage alone, by number or name, as a pipeline of its own that draws to the end.

        A super-resolution stage is called with the small picture as `image`; its level is `augmentation`, or else
        the one it has here (of truncated conditioning, where the stage before it stops).
        """
        names = [s.name for s in self.stages]
        number = names.index(which) if which in names else which
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(names):
            raise UsageError(f"this pipeline has no stage {which!r}; there are {', '.join(names)}, counted from 0")
        stage = self.stages[number]
        if stage.enlarges:
            before = self.stages[number - 1] if number else None
            if augmentation is None:
                truncated = before is not None and before.feeds == "low_res" and before.interval[1] > 0.0
                augmentation = before.interval[1] if truncated and before is not None else stage.augmentation
            if stage.small_size is None and before is not None:
                stage = dataclasses.replace(stage, small_size=before.size)
            if augmentation is not None and not 0.0 <= augmentation <= 1.0:
                raise UsageError(f"augmentation is {augmentation}; give a noise level from 0 (none) to 1")
        elif augmentation is not None:
            raise UsageError(f"stage '{stage.name}' is conditioned on no smaller picture; leave augmentation out")
        low = 0.0 if stage.feeds != "latent" else stage.interval[1]
        alone = dataclasses.replace(
            stage, takes="noise", feeds=stage.space.feeds, interval=(stage.interval[0], low), augmentation=augmentation
        )
        return Pipeline(self.conditioners, [alone], self.safety, self.record, self.first + number, self.fast)

    @torch.inference_mode()
    def __call__(
        self, prompts: str | Sequence[str] | None = None, *, negative: str | Sequence[str] | None = None,
        labels: int | str | Sequence[int | str] | None = None, n: int = 1, seed: int | Sequence[int] = 0,
        size: int | tuple[int, ...] | None = None, steps: int | None = None, guidance: float | None = None,
        image: Any = None, mask: Any = None, strength: float | None = None,
        noise: NoiseSource | Tensor | Mapping[Any, Any] | None = None, stages: int | None = None,
        batch_size: int | None = None, callback: Callable[[Progress], Any] | None = None,
    ) -> Generation:  # fmt: skip
        """Draw.

        Args:
            prompts: one or several; None draws without being asked for anything. negative: what to move away from.
            labels: classes by number or name, where the pipeline has such a conditioner.
            n: pictures a prompt or label. seed: 64 bits; sample i of a call always gets the same noise from it.
                A list is one a prompt or one a sample, which is then what a call with that seed alone draws.
            size: pixels a side or (height, width) of the pictures that come out; earlier stages keep their share. Of
                arrays the length of each axis.
            steps: instead of the config's, in every stage. guidance: likewise.
            image: a path, PIL picture or tensor in [0, 1] to start from, or to enlarge where the first stage does that,
                or what was measured where it has posterior guidance; mask: white where it is to be drawn anew.
            strength: how far back the picture is noised, in (0, 1]; 0.6 by default, 1 with a mask.
            noise: a noise source, or given noise: a tensor (B, C, *spatial) to start from, or see `FixedNoise`.
            stages: run only so many. batch_size: samples a network call; None means all at once.
            callback: receives a `Progress` after each step. Without one, a terminal or a notebook shows a bar.

        Raises UsageError for a request this pipeline can't do, before any network runs, and NumericError for NaN.
        """
        if callback is None and (how := mode()) != "off":
            with shown(how) as bar:
                bar.describe("drawing")
                return self(
                    prompts, negative=negative, labels=labels, n=n, seed=seed, size=size, steps=steps,
                    guidance=guidance, image=image, mask=mask, strength=strength, noise=noise, stages=stages,
                    batch_size=batch_size, callback=lambda p: bar.update(p.done, p.total),
                )  # fmt: skip
        begun = time.perf_counter()
        run = list(self.stages)[: self._count(stages)]
        request = read_request(
            run, self.conditioners, prompts=prompts, negative=negative, labels=labels, n=n, seed=seed, size=size,
            steps=steps, guidance=guidance, image=image, mask=mask, strength=strength, noise=noise,
        )  # fmt: skip
        runs = self._runs(run, request)
        total = len(request.samples)
        batch = total if batch_size is None else whole_number("batch_size", batch_size, "1 or more")
        parts = [slice(i, min(i + batch, total)) for i in range(0, total, batch)]
        whole, done = sum(len(r.table) for r in runs) * len(parts), 0
        samples, pictures = [], []
        for part in parts:
            x: Tensor | None = None
            for stage_run in runs:

                def report(r: StepReport, name: str = stage_run.stage.name, before: int = done) -> None:
                    if callback is not None:
                        callback(Progress(
                            stage=name, step=r.index + 1, steps=r.total, done=before + r.index + 1, total=whole,
                            x_t=r.x_t, x0=r.x0,
                        ))  # fmt: skip

                x = stage_run.draw(part, x, report)
                done += len(stage_run.table)
            assert x is not None
            pixels = run[-1].autoencoder.decode(x.to(dtype_of(run[-1].autoencoder))).float()
            if not bool(torch.isfinite(pixels).all()):
                who = "autoencoder" if bool(torch.isfinite(x).all()) else "network"
                raise NumericError(f"the {who} of stage '{run[-1].name}' gave NaN or infinity; run it in float32")
            samples.append(x.cpu())
            pictures.append(run[-1].space.finish(pixels).cpu())
        with torch.inference_mode(False):  # ordinary tensors, for losses and to be written to
            tensor, drawn = torch.cat(pictures).clone(), torch.cat(samples).clone()
        if request.mask is not None and request.image is not None and not request.measured:
            # Latents can't hold the known part to the pixel; the picture itself can.
            tensor = torch.lerp(request.image * 0.5 + 0.5, tensor, request.mask)
        tensor, verdicts = self._checked(tensor)
        record = self._record(request, runs, batch, verdicts, time.perf_counter() - begun)
        return Generation(samples=drawn, drawn=tensor, record=record, space=run[-1].space)

    def _count(self, stages: int | None) -> int:
        if stages is None:
            return len(self.stages)
        if isinstance(stages, bool) or not isinstance(stages, int) or not 1 <= stages <= len(self.stages):
            raise UsageError(
                f"stages is {stages!r}; this pipeline has {len(self.stages)}: give 1 to {len(self.stages)}"
            )
        return stages

    def _runs(self, stages: Sequence[Stage], request: Request) -> list[StageRun]:
        runs: list[StageRun] = []
        conditioning = Conditioning(self.conditioners, stages, request, self.device)
        for number, stage in enumerate(stages):
            high, low = stage.interval
            if number == 0 and request.image is not None:
                high = min(high, request.strength)
            if number == len(stages) - 1 and stage.feeds == "low_res":
                low = 0.0  # nobody takes its noisy picture, so it is drawn to the end
            table = stage.sampler.plan(stage.denoiser.schedule, request.steps, interval=(high, low))
            runs.append(StageRun(
                stage=stage, table=table, number=number, address=self.first + number, before=runs[-1] if runs else None,
                conditioning=conditioning, request=request, device=self.device,
            ))  # fmt: skip
        return runs

    def _checked(self, tensor: Tensor) -> tuple[Tensor, list[dict[str, Any]] | None]:
        if self.safety is None:
            return tensor, None
        verdicts = self.safety(tensor)
        refused = torch.tensor([not v.allowed for v in verdicts]).view(-1, 1, 1, 1)
        return torch.where(refused, torch.full_like(tensor, BLANK), tensor), [dataclasses.asdict(v) for v in verdicts]

    def _record(
        self, request: Request, runs: Sequence[StageRun], batch: int, verdicts: list[dict[str, Any]] | None,
        seconds: float,
    ) -> dict[str, Any]:  # fmt: skip
        images = []
        for i, sample in enumerate(request.samples):
            entry: dict[str, Any] = {"prompt": request.prompts[i], "negative": request.negative[i], "sample": sample}
            if isinstance(request.source, SeededSamples):
                entry |= {"seed": request.source.seeds[sample], "sample": request.source.numbers[sample]}
            if request.labels[i] is not None:
                entry["label"] = request.labels[i]
            if verdicts is not None:
                entry["safety"] = verdicts[i]
            images.append(entry)
        inputs = {"image": request.image, "mask": request.mask}
        return {
            "schema": "zoo.generation/1",
            **self.record,
            "seed": getattr(request.source, "seed", None),
            "noise": type(request.source).__name__,
            "asked": {
                "size": request.size, "steps": request.steps, "guidance": request.guidance,
                "strength": request.strength if request.image is not None else None, "batch_size": batch,
            },
            "inputs": {k: hash_of(_shared(v)) for k, v in inputs.items() if v is not None},
            "stages": [
                {"name": r.stage.name, "evaluations": r.table.evaluations}
                | ({"augmentation": r.stage.augmentation} if r.stage.enlarges else {})
                | _shortened(r)
                for r in runs
            ],
            "device": str(self.device),
            "dtype": str(dtype_of(self.stages[0].denoiser.network)).removeprefix("torch."),
            **({} if self.fast == Fast() else {"fast": self.fast.record()}),
            "versions": {"zoo": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "seconds": round(seconds, 3),
            "images": images,
        }  # fmt: skip


def _shortened(run: StageRun) -> dict[str, int]:
    """How many evaluations are of the whole network, where a step cache shortens the others."""
    cache = step_cache_of(run.stage.denoiser)
    return {} if cache is None else {"full_evaluations": cache.full_evaluations(run.table.evaluations)}


def _shared(rows: Tensor) -> Tensor:
    """One row where all are the same tensor's: what a call was given doesn't depend on how many it drew from it."""
    return rows[:1] if rows.stride(0) == 0 else rows
