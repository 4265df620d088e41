"""One stage of one call: its conditions, where it starts, and what it takes from the stage before."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.diffusion.noise import bound
from zoo.diffusion.types import Condition, StepReport, StepTable
from zoo.guidance.interval import at_scales
from zoo.guidance.mask import Mask
from zoo.guidance.posterior import with_picture
from zoo.images.inputs import latent_mask, standardised
from zoo.pipeline.conditioning import Conditioning
from zoo.pipeline.parts import Parts
from zoo.pipeline.prepared import Prepared
from zoo.pipeline.stage import Stage, pixels
from zoo.schema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class StageRun:
    """A stage with its table; `number` is its place in the call, `address` the one in its noise."""

    stage: Stage
    table: StepTable
    number: int
    address: int
    before: StageRun | None
    conditioning: Conditioning
    request: Prepared
    device: torch.device
    parts: Parts

    def draw(self, part: slice, given: Tensor | None, report: Callable[[StepReport], None]) -> Tensor:
        """Samples (B, C, *spatial) of a part of the call; `given` is what the stage before drew of it."""
        stage, table, device, request = self.stage, self.table, self.device, self.request
        samples, address = request.samples[part], self.address
        size = request.sizes[self.number]
        factor = stage.autoencoder.factor
        shape = (stage.autoencoder.channels, *(length // factor for length in size))
        cond, null = self.conditioning(self.number, part)
        if stage.enlarges:
            cond = cond.merge(self._low_res(part, given))
        deep = request.depth_of(part)
        if self.number == 0 and deep is not None:
            small = F.interpolate(deep.to(device), shape[1:], mode="bicubic", align_corners=False)
            cond = cond.merge(Condition(concat=standardised(small).expand(len(samples), -1, -1, -1)))

        begin = table.start
        scale = stage.denoiser.start_scale(begin)  # of noise alone
        eps = request.source(shape, purpose="start", samples=samples, stage=address).to(device)
        guidance = [at_scales(g, request.scales[part]) for g in stage.guidance]
        mask: Mask | None = None
        white = request.mask_of(part)
        if self.number == 0 and request.image is not None and request.start.measured:
            x = scale * eps
            known = None if white is None else 1.0 - latent_mask(white, factor).to(device)
            picture = request.image[part].to(device)
            of_picture = (shape[0], shape[1], shape[2])
            guidance = [with_picture(g, picture, shape=of_picture, known=known) for g in guidance]
        elif self.number == 0 and stage.denoiser.image_condition == "masked":
            assert request.image is not None and white is not None  # a request without them was refused  # noqa: PT018
            images, free = request.image[part].to(device), white.to(device)
            cond = cond.merge(self._masked(images, free))
            known = self.parts.encode(stage, images)
            # Where all is drawn anew nothing of the image may remain but what the network is shown.
            x = scale * eps if request.start.strength == 1.0 else begin.alpha * known + begin.sigma * eps
        elif self.number == 0 and request.image is not None and not request.start.shown and not stage.enlarges:
            images = request.image[part].to(device)
            known = self.parts.encode(stage, images)
            x = begin.alpha * known + begin.sigma * eps
            if white is not None:
                free = latent_mask(white, factor).to(device)
                mask = Mask(x0=known, known=1.0 - free)
                guidance.append(mask)
                if request.start.strength == 1.0:
                    # Where all is drawn anew nothing of the image may remain.
                    x = torch.lerp(x, scale * eps, free)
        elif stage.takes == "latent" and given is not None:
            x = given.to(device)  # at this stage's first t already: the stage before stopped there
        elif stage.takes == "image" and given is not None:
            images = self._picture(given, pixels(request.sizes[self.number]))
            known = self.parts.encode(stage, images)
            x = begin.alpha * known + begin.sigma * eps
        else:
            x = scale * eps

        def sample() -> Tensor:
            denoise = stage.denoiser.bind(cond, table)
            for wrapper in guidance:
                denoise = wrapper.wrap(denoise, denoiser=stage.denoiser, cond=cond, null=null, table=table)
            steps = bound(request.source, shape=shape, samples=samples, stage=address, device=device)
            masked = mask is not None and getattr(stage.sampler, "inpaints", False)
            after_step = mask.renoised(steps) if masked else None  # type: ignore[union-attr]
            return stage.sampler(denoise, table, x, noise=steps, callback=report, after_step=after_step)

        return self.parts.sample(stage, sample)

    def _masked(self, images: Tensor, free: Tensor) -> Condition:
        """What a network for inpainting is shown: the mask (1, 1, h, w), 1 where it draws, and the rest's latents.

        images (B, 3, H, W) in [-1, 1]; free (1 or B, 1, H, W). The part to be drawn is grey in the image it is shown.
        """
        rest = self.parts.encode(self.stage, images * (1.0 - free))
        mask = latent_mask(free, self.stage.autoencoder.factor).expand(len(rest), -1, -1, -1)
        return Condition(concat=torch.cat([mask.to(rest), rest], dim=1))

    def _low_res(self, part: slice, given: Tensor | None) -> Condition:
        """The smaller image as a condition: the call's image, or what the stage before drew (Ho et al. 2021, 4.2)."""
        stage, request = self.stage, self.request
        height, width = pixels(request.sizes[self.number])
        factor, small = stage.autoencoder.factor, request.smalls[self.number]
        size = (height // factor, width // factor)  # of the samples, which it is shown beside
        low_res, samples = stage.denoiser.low_res, request.samples[part]
        assert low_res is not None
        assert small is not None
        before = self.before
        if before is not None and given is not None and before.stage.interval[1] > 0.0:
            # Truncated: what the stage before left is noised already, to the t where its last step really ended.
            upsampled = getattr(low_res, "upsampled", None)  # of those that know a level
            if upsampled is None:
                raise UsageError(
                    f"stage '{before.stage.name}' stops at noise, for which '{stage.name}' has no level",
                    code="level-missing",
                )
            level = torch.full((len(samples),), before.table.steps[-1].t_next, device=given.device)
            return upsampled(given.to(self.device), size=size, level=level)
        if before is None or given is None:
            assert request.image is not None  # a request without one was refused
            images = request.image[part].to(self.device)
        else:
            images = self._picture(given, small)
        eps, level = None, None
        noise_shape = low_res.noise_shape(small, size)
        if stage.augmentation and noise_shape is not None:
            level = torch.full((len(samples),), float(stage.augmentation), device=images.device)
            eps = request.source(noise_shape, purpose="augmentation", samples=samples, stage=self.address).to(
                images.device
            )
        return low_res(images, size=size, level=level, eps=eps)

    def _picture(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """What the stage before sampled, as images (B, 3, *size) in [-1, 1]."""
        assert self.before is not None
        images = self.parts.decode(self.before.stage, x).to(self.device).clamp(-1, 1)
        if tuple(images.shape[2:]) != size:
            images = F.interpolate(images, size, mode="bicubic", antialias=True).clamp(-1, 1)
        return images
