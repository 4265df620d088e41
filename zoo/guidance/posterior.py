"""Posterior sampling: towards samples that, measured, would give the image at hand (y = H x0 + noise).

By Bayes' rule grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t), and for the second term nothing needs to be
trained. With x0_hat = E[x0 | x_t] the denoiser's estimate, J = d x0_hat / d x_t and e = y - H x0_hat,

    pigdm:  J^T H^T (r^2 H H^T + noise^2)^-1 e                  (Song et al. 2023, eq. 7)
    dps:    J^T H^T e * sqrt(M) / (|e| sqrt(r^2 h + noise^2))   (Chung et al. 2023, section 3.3)

r^2 = d^2 sigma^2 / (alpha^2 d^2 + sigma^2) is how uncertain x0 still is: exact for Gaussian data of deviation d, for
which `pigdm` then is the true posterior. `dps` needs no inverse. Chung et al. step along the gradient of |e| by some
number a step of a thousand-step DDPM; here that direction has the length which `pigdm` has where |e| is what is to be
expected of M measured numbers (h is the mean of H H^T's diagonal), so that no sampler and no number of steps needs
another scale. J^T is one backward pass through the network. Lengths are each sample's own.

Samplers take the term as they take a classifier's: DDPM moves its mean, an ODE solver its x0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from math import sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor

from zoo.diffusion.types import Condition, DenoiseFn, Guidance, Prediction, Step, StepTable
from zoo.guidance import arguments
from zoo.guidance.arguments import Method
from zoo.guidance.measurement import Measurement, Operator
from zoo.schema.errors import ConfigError, NumericError, UsageError

# Above this sigma / alpha x_t holds almost nothing of the sample, and J, which is as small, would be multiplied by
# sigma^2 / alpha with all the network's errors.
LOUDEST = 100.0


@dataclass(frozen=True, kw_only=True)
class Posterior:
    """Hold samples to a measured image, which a call gives as its image: inpainting, super-resolution, deblurring.

    Args:
        measurement: what was done to the image. method: pigdm or dps. scale: 1 is Bayes' rule.
        noise: standard deviation of the measurement's noise, of values in [-1, 1].
        deviation: the data's standard deviation; the paper's is 1.
    """

    papers = ("2209.14687 Diffusion Posterior Sampling for General Noisy Inverse Problems",)
    fits = "zoo.guidance.arguments:posterior"
    once = "there is one measured picture"
    needs = ("image",)
    pictures = True
    inverts: ClassVar[Mapping[str, str | float]] = {"method": "pigdm", "noise": 0.0}

    measurement: Measurement
    method: Method = "pigdm"
    noise: float = 0.0
    scale: float = 1.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        arguments.posterior(method=self.method, noise=self.noise, scale=self.scale, deviation=self.deviation)
        if self.noise == 0.0 and self.measurement.needs_noise and self.method == "pigdm":
            raise ConfigError(
                f"posterior guidance can't invert {self.measurement} exactly; say the measurement's noise, like 0.02",
                code="measurement-noise-missing",
            )

    def given(self, picture: Tensor, *, shape: tuple[int, int, int], known: Tensor | None = None) -> Measured:
        """This guidance with a measured image (B, C, h, w); `shape` (C, H, W) is the samples', `known` a mask."""
        operator = self.measurement.bind(shape, known)
        # Nothing is known of the image under a mask, whatever is painted there.
        return Measured(posterior=self, operator=operator, y=picture if known is None else operator(picture))

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """UsageError: without an image there is nothing to hold samples to."""
        raise UsageError("posterior guidance needs the measured picture; give an image", code="image-missing")


@dataclass(frozen=True, kw_only=True, eq=False)
class Measured:
    """Posterior guidance with its image."""

    posterior: Posterior
    operator: Operator
    y: Tensor

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The same denoiser, its prediction with a score."""
        if self.posterior.scale == 0.0:
            return denoise

        def guided(x: Tensor, step: Step) -> Prediction:
            if step.sigma > LOUDEST * step.alpha:
                return denoise(x, step)
            # A pipeline runs in inference mode, whose tensors autograd refuses; copies made outside of it are plain.
            with torch.inference_mode(False), torch.enable_grad():
                leaf = x.clone().detach().requires_grad_()
                prediction = denoise(leaf, step)
                if not prediction.x0.requires_grad:
                    raise ConfigError(
                        "posterior guidance goes back through the network, which hides its gradient; use another one",
                        code="gradient-missing",
                    )
                pull = self.pull(prediction.x0.detach(), step)
                (score,) = torch.autograd.grad(prediction.x0, leaf, pull)
            if not bool(torch.isfinite(score).all()):
                raise NumericError(
                    f"posterior guidance is NaN or infinite at step {step.index + 1} of {len(table)}; run it in "
                    "float32, or give the measurement more noise",
                    code="guidance-not-finite",
                )
            plain = {name: part.detach() for name, part in prediction._asdict().items() if part is not None}
            before = plain.get("score")
            return prediction._replace(**{**plain, "score": score if before is None else before + score})

        return guided

    def pull(self, x0: Tensor, step: Step) -> Tensor:
        """grad log p(y | x0_hat) by x0_hat, (B, C, H, W): what J^T is applied to."""
        posterior, operator = self.posterior, self.operator
        d2, noise2 = posterior.deviation**2, posterior.noise**2
        r2 = d2 * step.sigma**2 / (step.alpha**2 * d2 + step.sigma**2)
        e = self.y.to(x0) - operator(x0)
        if posterior.method == "pigdm":
            return operator.transpose(operator.solve(e, r2, noise2)) * posterior.scale
        length = e.flatten(1).norm(dim=1).clamp(min=1e-12).view(-1, *[1] * (e.ndim - 1))
        weight = posterior.scale * sqrt(operator.count / (r2 * operator.gain + noise2))
        return operator.transpose(e / length) * weight


def posterior_of(guidance: Iterable[Guidance]) -> Posterior | None:
    """The guidance of a list that needs a measured image, which another may hold; None without."""
    for one in guidance:
        inner: Any = one
        while hasattr(inner, "guidance"):
            inner = inner.guidance
        if "image" in getattr(inner, "needs", ()):
            return inner
    return None


def with_picture(
    guidance: Guidance, picture: Tensor, *, shape: tuple[int, int, int], known: Tensor | None = None
) -> Guidance:
    """The guidance with a measured image, where it or the one it holds needs that."""
    made: Any = guidance
    if "image" in getattr(made, "needs", ()):
        return made.given(picture, shape=shape, known=known)
    if hasattr(made, "guidance"):
        return replace(made, guidance=with_picture(made.guidance, picture, shape=shape, known=known))
    return guidance
