"""A pipeline: named conditioners and a list of stages, run one after another.

Latent and cascaded diffusion, image to image, inpainting and upscaling are all this loop; its config says which of
them a pipeline is, and `zoo.pipeline.starts` where a run starts.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.acceleration.fast import Fast
from zoo.diffusion.types import Conditioner, NoiseSource, Sampler, StepReport
from zoo.images.display import table_html
from zoo.pipeline.call import Inputs, read_call, read_inputs
from zoo.pipeline.conditioning import Conditioning
from zoo.pipeline.generation import Generation
from zoo.pipeline.parts import Parts, Saving
from zoo.pipeline.placed import Placed
from zoo.pipeline.prepared import Given, Prepared, prepare
from zoo.pipeline.request import Request, real, whole
from zoo.pipeline.safety import SafetyCheck
from zoo.pipeline.stage import Stage
from zoo.pipeline.stage_run import StageRun
from zoo.pipeline.walk import Walk, decoded, in_order, record_of_run, with_known
from zoo.schema.errors import UsageError
from zoo.schema.progress import mode, shown

__all__ = ["Pipeline", "Progress", "Stage"]
Resampled = Callable[[str | Mapping[str, Any]], tuple[Mapping[str, Any], Mapping[str, Sampler]]]
BLANK = 0.5  # the grey that replaces an image that a safety check refused, unless the check has its own (`blank`)


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


@dataclass(frozen=True, kw_only=True)
class Checked:
    """A call that a pipeline can draw (`Pipeline.check`), with its images read and its noise."""

    stages: Sequence[Stage]
    request: Request
    given: Given


@dataclass
class Pipeline(Placed):
    """See the module; `record` is the resolved config and the hashes of the weights.

    `first` is the number of the first stage in the noise's address: a stage alone draws with the noise it has in the
    whole pipeline. `resampled` makes, of another sampler's name or block, the part of the record that changes and each
    stage's sampler by the stage's name. `adapters` are its LoRAs (zoo.families.lora.applied), which can be set anew;
    None where it was put together by hand.
    """

    conditioners: Mapping[str, Conditioner]
    stages: Sequence[Stage]
    safety: SafetyCheck | None = None
    record: Mapping[str, Any] = field(default_factory=dict)
    first: int = 0
    fast: Fast = field(default_factory=Fast)
    resampled: Resampled | None = None
    saving: Saving = field(default_factory=Saving)
    parts: Parts = None  # type: ignore[assignment] - how they are called; made of the others
    adapters: Any = None

    def __post_init__(self) -> None:
        if self.parts is None:
            self.parts = Parts(self.conditioners, self.stages)
        self.parts.changed = self.prepared_again
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

    def stage(self, which: int | str, *, augmentation: float | None = None) -> Pipeline:
        """One stage alone, by number or name, as a pipeline of its own that samples to t = 0.

        A super-resolution stage is called with the small image as `image`; its level is `augmentation`, or else
        the one it has here (of truncated conditioning, where the stage before it stops).
        """
        names = [s.name for s in self.stages]
        number = names.index(which) if which in names else which
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < len(names):
            raise UsageError(
                f"this pipeline has no stage {which!r}; there are {', '.join(names)}, counted from 0",
                code="stage-unknown",
            )
        stage = self.stages[number]
        if stage.enlarges:
            before = self.stages[number - 1] if number else None
            if augmentation is None:
                truncated = before is not None and before.feeds == "low_res" and before.interval[1] > 0.0
                augmentation = before.interval[1] if truncated and before is not None else stage.augmentation
            if stage.small_size is None and before is not None:
                stage = dataclasses.replace(stage, small_size=before.size)
            if augmentation is not None and not (real(augmentation) and 0.0 <= augmentation <= 1.0):
                raise UsageError(
                    f"augmentation is {augmentation}; give a noise level from 0 (none) to 1",
                    code="augmentation-out-of-range",
                )
        elif augmentation is not None:
            raise UsageError(
                f"stage '{stage.name}' is conditioned on no smaller picture; leave augmentation out",
                code="augmentation-unread",
            )
        low = 0.0 if stage.feeds != "latent" else stage.interval[1]
        alone = dataclasses.replace(
            stage, takes="noise", feeds=stage.space.feeds, interval=(stage.interval[0], low), augmentation=augmentation
        )
        return Pipeline(
            self.conditioners, [alone], self.safety, self.record, self.first + number, self.fast, self.resampled,
            saving=self.saving, parts=self.parts, adapters=self.adapters,
        )  # fmt: skip

    @torch.inference_mode()
    def __call__(
        self, prompts: str | Sequence[str] | None = None, *, negative: str | Sequence[str] | None = None,
        labels: int | str | Sequence[int | str] | None = None, n: int = 1, seed: int | Sequence[int] = 0,
        size: int | tuple[int, ...] | None = None, steps: int | None = None, guidance: float | None = None,
        image: Any = None, mask: Any = None, depth: Any = None, strength: float | None = None,
        noise: NoiseSource | Tensor | Mapping[Any, Any] | None = None, stages: int | None = None,
        batch_size: int | None = None, callback: Callable[[Progress], Any] | None = None, first: int = 0,
    ) -> Generation:  # fmt: skip
        """Draw.

        Args:
            prompts: one or several; None draws unconditionally. negative: what to move away from.
            labels: classes by number or name, where the pipeline has such a conditioner.
            n: images a prompt or label. seed: 64 bits; sample i of a call always gets the same noise from it.
                A list is one a prompt or one a sample, which is then what a call with that seed alone draws.
            size: pixels a side or (height, width) of the final images; earlier stages keep their share. Of
                arrays the length of each axis.
            steps: instead of the config's, in every stage. guidance: likewise.
            image: a path, PIL image or tensor in [0, 1] to start from, or to enlarge where the first stage does that,
                or what was measured where it has posterior guidance; mask: white where it is to be drawn anew.
                depth: a depth map, where the first stage draws by one: an image, white nearest, or a tensor (H, W).
            strength: how far back the image is noised, in (0, 1]; 0.6 by default, 1 with a mask.
            noise: a noise source, or given noise: a tensor (B, C, *spatial) to start from, or see `FixedNoise`.
            stages: run only the first `stages`. batch_size: samples a network call; None means all at once.
            callback: receives a `Progress` after each step. Without one, a terminal or a notebook shows a bar.
            first: number of the first sample, so that n=4, first=4 draws what n=8 draws after its first four.

        Raises UsageError for a request that can't be drawn, before any network runs, and NumericError for NaN.
        """
        if callback is None and (how := mode()) != "off":
            with shown(how) as bar:
                bar.describe("drawing")
                return self(
                    prompts, negative=negative, labels=labels, n=n, seed=seed, size=size, steps=steps,
                    guidance=guidance, image=image, mask=mask, depth=depth, strength=strength, noise=noise,
                    stages=stages, batch_size=batch_size, callback=lambda p: bar.update(p.done, p.total), first=first,
                )  # fmt: skip
        checked = self._read(
            stages, prompts=prompts, negative=negative, labels=labels, n=n, seed=seed, size=size, steps=steps,
            guidance=guidance, image=image, mask=mask, depth=depth, strength=strength, noise=noise,
            batch_size=batch_size, first=first,
        )  # fmt: skip
        return self.draw(checked, callback=callback)

    def check(
        self, prompts: str | Sequence[str] | None = None, *, negative: str | Sequence[str] | None = None,
        labels: int | str | Sequence[int | str] | None = None, n: int = 1, seed: int | Sequence[int] = 0,
        size: int | tuple[int, ...] | None = None, steps: int | None = None, guidance: float | None = None,
        image: Any = None, mask: Any = None, depth: Any = None, strength: float | None = None,
        noise: NoiseSource | Tensor | Mapping[Any, Any] | None = None, stages: int | None = None,
        batch_size: int | None = None, first: int = 0,
    ) -> Checked:  # fmt: skip
        """What a call with these arguments would refuse, refused now; no network runs and no weights are needed.

        Returns the call with its images read, for `draw`. UsageError is what a call raises.
        """
        checked = self._read(
            stages, prompts=prompts, negative=negative, labels=labels, n=n, seed=seed, size=size, steps=steps,
            guidance=guidance, image=image, mask=mask, depth=depth, strength=strength, noise=noise,
            batch_size=batch_size, first=first,
        )  # fmt: skip
        self.walks(checked)  # plans the steps
        return checked

    def walks(self, checked: Checked) -> list[Walk]:
        """The runs of a checked call, one walk for the samples of each plan."""
        groups = prepare(checked.stages, self.conditioners, checked.request, checked.given)
        return [self._walk(checked.stages, group, checked.request.batch_size) for group in groups]

    @torch.inference_mode()
    def draw(self, checked: Checked, *, callback: Callable[[Progress], Any] | None = None) -> Generation:
        """Draw a call that `check` returned; `callback` receives a `Progress` after each step."""
        return self._draw(checked, callback)

    def _read(self, stages: int | None, **call: Any) -> Checked:
        run = self._first(stages)
        request, given = read_call(run, self.conditioners, **call)
        return Checked(stages=run, request=request, given=given)

    @torch.inference_mode()
    def run(
        self, request: Request, *, inputs: Mapping[str, Tensor] | None = None, noise: NoiseSource | None = None,
        callback: Callable[[Progress], Any] | None = None,
    ) -> Generation:  # fmt: skip
        """Draw a request: samples with different prompts, negative prompts, labels, seeds, scales, steps and samplers.

        A sample is as it would be alone, within the rounding of another batch: at most 1/255 in float32. Samples
        whose steps, sampler and start (none, an image, a mask, the strength) are the same walk in one batch; those of
        other plans are runs of their own, one after the other, in this version.

        Args:
            request: see `zoo.pipeline.request.Request`. inputs: the tensors of the images and masks that it names, by
            their SHA-256 (`pipe.inputs`).
            noise: a source in place of the noise that the samples' seeds and numbers address.
            callback: receives a `Progress` after each step.

        Raises UsageError for a request that can't be drawn, before any network runs, and NumericError for NaN.
        """
        if not isinstance(request, Request):
            raise UsageError(
                f"a request is a Request of zoo.pipeline.request, and not {type(request).__name__}; make one of it",
                code="argument-type-wrong",
            )
        given = Given(tensors=inputs or {}, source=noise)
        return self._draw(Checked(stages=self._first(request.stages), request=request, given=given), callback)

    def inputs(
        self, *, image: Any = None, mask: Any = None, depth: Any = None, size: int | tuple[int, ...] | None = None,
        stages: int | None = None,
    ) -> Inputs:  # fmt: skip
        """An image, a mask and a depth map, as the samples of a request name them: `size`, `stages` are its own."""
        return read_inputs(self._first(stages), image=image, mask=mask, depth=depth, size=size)

    def _draw(self, checked: Checked, callback: Callable[[Progress], Any] | None) -> Generation:
        if callback is not None and not callable(callback):
            raise UsageError(
                f"the callback is {type(callback).__name__}; give a function of a Progress", code="callback-unfit"
            )
        begun, stages = time.perf_counter(), checked.stages
        walks = self.walks(checked)
        whole, done = sum(walk.length for walk in walks), 0
        samples, pictures = [], []
        for walk in walks:
            drawn = []
            for part in walk.parts:
                x: Tensor | None = None
                for stage_run in walk.runs:

                    def report(r: StepReport, name: str = stage_run.stage.name, before: int = done) -> None:
                        if callback is not None:
                            callback(Progress(
                                stage=name, step=r.index + 1, steps=r.total, done=before + r.index + 1, total=whole,
                                x_t=r.x_t, x0=r.x0,
                            ))  # fmt: skip

                    x = stage_run.draw(part, x, report)
                    done += len(stage_run.table)
                assert x is not None
                samples.append(x.cpu())
                drawn.append(decoded(self.parts, stages[-1], x))
            pictures.append(with_known(torch.cat(drawn), walk.group))
        order = torch.tensor([row for walk in walks for row in walk.group.rows]).argsort()
        with torch.inference_mode(False):  # ordinary tensors, for losses and to be written to
            tensor, sampled = (in_order(parts, order) for parts in (pictures, samples))
        tensor, verdicts = self._checked(tensor)
        self.parts.leave()
        seconds = time.perf_counter() - begun
        record = record_of_run(
            walks, verdicts, seconds, of=self.record, fast=self.fast, saving=self.saving, parts=self.parts
        )
        return Generation(samples=sampled, drawn=tensor, record=record, space=stages[-1].space)

    def _first(self, stages: int | None) -> list[Stage]:
        """The stages that run."""
        return list(self.stages)[: self._count(stages)]

    def _count(self, stages: int | None) -> int:
        if stages is None:
            return len(self.stages)
        if not whole(stages) or not 1 <= stages <= len(self.stages):
            raise UsageError(
                f"stages is {stages!r}; this pipeline has {len(self.stages)}: give 1 to {len(self.stages)}",
                code="stages-out-of-range",
            )
        return int(stages)

    def _walk(self, stages: Sequence[Stage], group: Prepared, batch_size: int | None) -> Walk:
        """The runs of the samples of one plan."""
        runs: list[StageRun] = []
        changed: Mapping[str, Any] = {}
        if group.sampler is not None:
            if self.resampled is None:
                raise UsageError(
                    "this pipeline was put together by hand and finds no sampler by name; leave it out",
                    code="sampler-by-hand",
                )
            changed, samplers = self.resampled(group.sampler)
            stages = [dataclasses.replace(stage, sampler=samplers[stage.name]) for stage in stages]
        conditioning = Conditioning(self.conditioners, stages, group, self.device, self.parts)
        for number, stage in enumerate(stages):
            high, low = stage.interval
            if number == 0 and group.image is not None:
                high = min(high, group.start.strength)
            if number == len(stages) - 1 and stage.feeds == "low_res":
                low = 0.0  # no stage takes its noisy image, so it is sampled to t = 0
            table = stage.sampler.plan(stage.denoiser.schedule, group.steps, interval=(high, low))
            runs.append(StageRun(
                stage=stage, table=table, number=number, address=self.first + number, before=runs[-1] if runs else None,
                conditioning=conditioning, request=group, device=self.device_of(stage), parts=self.parts,
            ))  # fmt: skip
        return Walk(group=group, runs=runs, batch=batch_size or len(group.rows), changed=changed)

    def _checked(self, tensor: Tensor) -> tuple[Tensor, list[dict[str, Any]] | None]:
        if self.safety is None:
            return tensor, None
        verdicts = self.safety(tensor)
        refused = torch.tensor([not v.allowed for v in verdicts]).view(-1, 1, 1, 1)
        blank = torch.full_like(tensor, getattr(self.safety, "blank", BLANK))
        return torch.where(refused, blank, tensor), [dataclasses.asdict(v) for v in verdicts]
