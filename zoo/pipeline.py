"""A pipeline: named conditioners and a list of stages, run one after another.

Latent and cascaded diffusion, image to image and inpainting are all this loop; which of them a pipeline is stands in
its config, and where a run starts in `zoo.tasks`.
"""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo import __version__, tasks
from zoo.denoiser import Denoiser
from zoo.errors import NumericError, UsageError
from zoo.generation import Generation
from zoo.guidance.classifier_free import ClassifierFree
from zoo.guidance.mask import Mask
from zoo.noise import AddressedNoise, FixedNoise, bound
from zoo.safety import SafetyCheck
from zoo.types import Autoencoder, Condition, Conditioner, Guidance, NoiseSource, Sampler, StepReport, StepTable

BLANK = 0.5  # the grey that stands in for a picture a safety check refused
REFINE_STRENGTH = 0.6  # of image to image, where none is given


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A denoiser with its guidance, sampler and autoencoder, at one resolution.

    `takes` says what it starts from (noise, or the latent or the image of the stage before), `feeds` what it hands on;
    `listens` names its conditioners; `size` is pixels a side; `interval` is the part of t it runs over, (high, low).
    """

    name: str
    denoiser: Denoiser
    autoencoder: Autoencoder
    sampler: Sampler
    guidance: tuple[Guidance, ...] = ()
    listens: tuple[str, ...] = ()
    takes: str = "noise"
    feeds: str = "image"
    size: int = 64
    interval: tuple[float, float] = (1.0, 0.0)

    @property
    def size_multiple(self) -> int:
        """Pictures' height and width must be multiples of this."""
        return self.autoencoder.factor * int(getattr(self.denoiser.network, "size_multiple", 1))

    def pixels(self, size: int | tuple[int, int] | None) -> tuple[int, int]:
        """(height, width) of this stage's pictures; UsageError for one the networks can't do."""
        wanted = (self.size, self.size) if size is None else (size, size) if isinstance(size, int) else tuple(size)
        multiple = self.size_multiple
        if len(wanted) != 2 or any(
            isinstance(s, bool) or not isinstance(s, int) or s < 1 or s % multiple for s in wanted
        ):
            said = "x".join(str(s) for s in wanted)
            near = max(multiple, round(self.size / multiple) * multiple)
            raise UsageError(
                f"stage '{self.name}' can't do the size {said}: height and width must be multiples of {multiple}, "
                f"like {near}"
            )
        return wanted[0], wanted[1]


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


@dataclass(frozen=True)
class _Request:
    """One call, checked and laid out."""

    prompts: list[str]  # one a sample
    negative: list[str]
    samples: list[int]  # global sample numbers, addresses of the noise
    size: tuple[int, int] | None
    steps: int | None
    guidance: float | None
    source: NoiseSource
    image: Tensor | None = None
    mask: Tensor | None = None
    strength: float = 1.0


@dataclass
class Pipeline:
    """See the module; `record` is the resolved config and the hashes of the weights."""

    conditioners: Mapping[str, Conditioner]
    stages: Sequence[Stage]
    safety: SafetyCheck | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def modules(self) -> list[nn.Module]:
        """Every network of the pipeline, once."""
        parts: list[Any] = list(self.conditioners.values())
        for stage in self.stages:
            parts += [stage.denoiser, stage.autoencoder]
        return list({id(p): p for p in parts if isinstance(p, nn.Module)}.values())

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Pipeline:
        """Move every network; returns this pipeline. Samples stay float32 whatever the networks' dtype."""
        for module in self.modules():
            module.to(device=device, dtype=dtype)
        return self

    @property
    def device(self) -> torch.device:
        """Where the first network lives."""
        parameters = (p for m in self.modules() for p in m.parameters())
        return next((p.device for p in parameters), torch.device("cpu"))

    @torch.inference_mode()
    def __call__(
        self, prompts: str | Sequence[str] | None = None, *, negative: str | Sequence[str] | None = None,
        labels: Sequence[int] | None = None, n: int = 1, seed: int = 0, size: int | tuple[int, int] | None = None,
        steps: int | None = None, guidance: float | None = None, image: Any = None, mask: Any = None,
        strength: float | None = None, noise: NoiseSource | Tensor | Mapping[Any, Any] | None = None,
        stages: int | None = None, batch_size: int | None = None, callback: Callable[[Progress], Any] | None = None,
    ) -> Generation:  # fmt: skip
        """Draw.

        Args:
            prompts: one or several; None draws without being asked for anything. negative: what to move away from.
            n: pictures a prompt. seed: 64 bits; sample i of a call always gets the same noise from it.
            size: pixels a side or (height, width). steps, guidance: instead of the config's, in every stage.
            image: a path, PIL picture or tensor in [0, 1] to start from; mask: white where it is to be drawn anew.
            strength: how far back the picture is noised, in (0, 1]; 0.6 by default, 1 with a mask.
            noise: a noise source, or given noise: a tensor (B, C, *spatial) to start from, or see `FixedNoise`.
            stages: run only so many. batch_size: samples a network call; None means all at once.
            callback: receives a `Progress` after each step.

        Raises UsageError for a request this pipeline can't do, before any network runs, and NumericError for NaN.
        """
        begun = time.perf_counter()
        request = self._request(prompts, negative, labels, n, seed, size, steps, guidance, image, mask, strength, noise)
        run = list(self.stages)[: self._count(stages)]
        tables = [self._plan(stage, request) for stage in run]
        total, batch = len(request.samples), len(request.samples) if batch_size is None else batch_size
        if batch < 1:
            raise UsageError(f"batch_size is {batch_size}; give 1 or more")
        parts = [slice(i, min(i + batch, total)) for i in range(0, total, batch)]
        whole, done = sum(len(t) for t in tables) * len(parts), 0
        samples, pictures = [], []
        for part in parts:
            x: Tensor | None = None
            for number, (stage, table) in enumerate(zip(run, tables, strict=True)):

                def report(r: StepReport, stage: Stage = stage, before: int = done) -> None:
                    if callback is not None:
                        callback(Progress(
                            stage=stage.name, step=r.index + 1, steps=r.total, done=before + r.index + 1, total=whole,
                            x_t=r.x_t, x0=r.x0,
                        ))  # fmt: skip

                given = x if stage.takes == "latent" or x is None else self._picture(run[number - 1], stage, x, request)
                x = self._sample(number, stage, table, request, part, given, report)
                done += len(table)
            assert x is not None
            pixels = run[-1].autoencoder.decode(x.to(_dtype_of(run[-1].autoencoder))).float()
            if not bool(torch.isfinite(pixels).all()):
                raise NumericError(f"the autoencoder of stage '{run[-1].name}' gave NaN or infinity; run it in float32")
            samples.append(x.cpu())
            pictures.append((pixels * 0.5 + 0.5).clamp(0, 1).cpu())
        tensor = torch.cat(pictures)
        if request.mask is not None and request.image is not None:
            # Latents can't hold the known part to the pixel; the picture itself can.
            tensor = torch.lerp(request.image * 0.5 + 0.5, tensor, request.mask)
        tensor, verdicts = self._checked(tensor)
        record = self._record(request, run, tables, batch, verdicts, time.perf_counter() - begun)
        return Generation(samples=torch.cat(samples), tensor=tensor, record=record)

    # -- what was asked

    def _request(
        self, prompts: Any, negative: Any, labels: Any, n: int, seed: int, size: Any, steps: int | None,
        guidance: float | None, image: Any, mask: Any, strength: float | None, noise: Any,
    ) -> _Request:  # fmt: skip
        if labels is not None:
            raise UsageError("no conditioner of this pipeline takes labels; ask with prompts")
        asked = [""] if prompts is None else [prompts] if isinstance(prompts, str) else list(prompts)
        if prompts is not None and not self.conditioners:
            raise UsageError("this pipeline has no conditioner and can't be asked with prompts; call it without any")
        if not asked or not all(isinstance(p, str) for p in asked):
            raise UsageError("prompts must be a text or a list of at least one text")
        if isinstance(n, bool) or not isinstance(n, int) or n < 1:
            raise UsageError(f"n is {n!r}; give the number of pictures a prompt, 1 or more")
        unwanted = [""] if negative is None else [negative] if isinstance(negative, str) else list(negative)
        if len(unwanted) not in (1, len(asked)):
            raise UsageError(f"{len(unwanted)} negative prompts for {len(asked)} prompts; give one, or one a prompt")
        unwanted = unwanted * len(asked) if len(unwanted) == 1 else unwanted
        for conditioner in self.conditioners.values():
            if hasattr(conditioner, "check"):
                conditioner.check([*dict.fromkeys(asked), *dict.fromkeys(unwanted)])  # type: ignore[attr-defined]
        if steps is not None and (isinstance(steps, bool) or not isinstance(steps, int) or steps < 1):
            raise UsageError(f"steps is {steps!r}; give 1 or more")
        if guidance is not None and not any(isinstance(g, ClassifierFree) for s in self.stages for g in s.guidance):
            raise UsageError("no stage of this pipeline has classifier-free guidance to set; leave guidance out")
        if image is None and (mask is not None or strength is not None):
            raise UsageError(f"a {'mask' if mask is not None else 'strength'} needs an image to start from; give one")
        strength = (REFINE_STRENGTH if mask is None else 1.0) if strength is None else strength
        if not 0.0 < strength <= 1.0:
            raise UsageError(f"strength is {strength}; give more than 0 (keep the image) and at most 1 (draw anew)")
        if isinstance(noise, (Tensor, Mapping)):
            source: NoiseSource = FixedNoise(noise)
        else:
            source = AddressedNoise(seed) if noise is None else noise
        count = len(asked) * n
        first = self.stages[0]
        pixels = first.pixels(size)
        return _Request(
            prompts=[p for p in asked for _ in range(n)], negative=[p for p in unwanted for _ in range(n)],
            samples=list(range(count)), size=None if size is None else pixels, steps=steps, guidance=guidance,
            source=source, strength=strength if image is not None else 1.0,
            image=None if image is None else tasks.read_image(image, size=pixels, count=count),
            mask=None if mask is None else tasks.read_mask(mask, size=pixels),
        )  # fmt: skip

    def _count(self, stages: int | None) -> int:
        if stages is None:
            return len(self.stages)
        if isinstance(stages, bool) or not isinstance(stages, int) or not 1 <= stages <= len(self.stages):
            raise UsageError(
                f"stages is {stages!r}; this pipeline has {len(self.stages)}: give 1 to {len(self.stages)}"
            )
        return stages

    def _plan(self, stage: Stage, request: _Request) -> StepTable:
        high, low = stage.interval
        if stage is self.stages[0] and request.image is not None:
            high = min(high, request.strength)
        return stage.sampler.plan(stage.denoiser.schedule, request.steps, interval=(high, low))

    # -- the run

    def _conditions(self, stage: Stage, prompts: Sequence[str], device: torch.device) -> tuple[Condition, Condition]:
        cond, null = Condition(), Condition()
        distinct = list(dict.fromkeys(prompts))
        place = torch.tensor([distinct.index(p) for p in prompts])
        for name in stage.listens:
            conditioner = self.conditioners[name]
            cond = cond.merge(conditioner(distinct).to(device).rows(place.to(device)))
            null = null.merge(conditioner.null(len(prompts)).to(device))
        return cond, null

    def _sample(
        self, number: int, stage: Stage, table: StepTable, request: _Request, part: slice, given: Tensor | None,
        report: Callable[[StepReport], None],
    ) -> Tensor:  # fmt: skip
        device, samples = self.device, request.samples[part]
        height, width = stage.pixels(request.size)
        factor, channels = stage.autoencoder.factor, stage.autoencoder.channels
        shape = (channels, height // factor, width // factor)
        cond, null = self._conditions(stage, request.prompts[part], device)
        if any(request.negative[part]):
            null, _ = self._conditions(stage, request.negative[part], device)

        begin = table.start
        eps = request.source(shape, purpose="start", samples=samples, stage=number).to(device)
        guidance: list[Guidance] = [
            dataclasses.replace(g, scale=float(request.guidance))
            if isinstance(g, ClassifierFree) and request.guidance is not None
            else g
            for g in stage.guidance
        ]
        if number == 0 and request.image is not None:
            images = request.image[part].to(device)
            known = stage.autoencoder.encode(images.to(_dtype_of(stage.autoencoder))).to(eps.dtype)
            x = begin.alpha * known + begin.sigma * eps
            if request.mask is not None:
                free = tasks.latent_mask(request.mask, factor).to(device)
                guidance.append(Mask(x0=known, known=1.0 - free))
                if request.strength == 1.0:
                    # Where all is drawn anew nothing of the picture may shine through.
                    x = torch.lerp(x, begin.sigma * eps, free)
        elif stage.takes == "latent" and given is not None:
            x = given  # at this stage's first t already: the stage before stopped there
        elif stage.takes == "image" and given is not None:
            x = begin.alpha * given + begin.sigma * eps
        else:
            x = begin.sigma * eps

        denoise = stage.denoiser.bind(cond, table)
        for wrapper in guidance:
            denoise = wrapper.wrap(denoise, denoiser=stage.denoiser, cond=cond, null=null, table=table)
        steps = bound(request.source, shape=shape, samples=samples, stage=number, device=device)
        return stage.sampler(denoise, table, x, noise=steps, callback=report)

    def _picture(self, before: Stage, stage: Stage, x: Tensor, request: _Request) -> Tensor:
        """What `before` sampled, as clean latents of `stage` at its size."""
        images = before.autoencoder.decode(x.to(_dtype_of(before.autoencoder))).float().clamp(-1, 1)
        size = stage.pixels(request.size)
        if tuple(images.shape[2:]) != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1, 1)
        return stage.autoencoder.encode(images.to(_dtype_of(stage.autoencoder))).to(x.dtype)

    def _checked(self, tensor: Tensor) -> tuple[Tensor, list[dict[str, Any]] | None]:
        if self.safety is None:
            return tensor, None
        verdicts = self.safety(tensor)
        refused = torch.tensor([not v.allowed for v in verdicts]).view(-1, 1, 1, 1)
        return torch.where(refused, torch.full_like(tensor, BLANK), tensor), [dataclasses.asdict(v) for v in verdicts]

    def _record(
        self, request: _Request, run: Sequence[Stage], tables: Sequence[StepTable], batch: int,
        verdicts: list[dict[str, Any]] | None, seconds: float,
    ) -> dict[str, Any]:  # fmt: skip
        images = []
        for i, sample in enumerate(request.samples):
            entry: dict[str, Any] = {"prompt": request.prompts[i], "negative": request.negative[i], "sample": sample}
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
            "inputs": {k: tasks.hash_of(v) for k, v in inputs.items() if v is not None},
            "stages": [{"name": s.name, "evaluations": t.evaluations} for s, t in zip(run, tables, strict=True)],
            "device": str(self.device),
            "dtype": str(_dtype_of(self.stages[0].denoiser.network)).removeprefix("torch."),
            "versions": {"zoo": __version__, "torch": torch.__version__, "python": platform.python_version()},
            "seconds": round(seconds, 3),
            "images": images,
        }  # fmt: skip


def _dtype_of(module: Any) -> torch.dtype:
    parameter = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    return torch.float32 if parameter is None else parameter.dtype
