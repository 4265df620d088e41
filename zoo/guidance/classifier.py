"""Classifier guidance (Dhariwal & Nichol 2021, algorithms 1 and 2): towards what a classifier assigns to the class.

By Bayes' rule grad log p(x_t | y) = grad log p(x_t) + grad log p(y | x_t). A classifier trained on noised samples gives
the second term by one backward pass; a sampler adds it to the first:

    score = scale * grad_x log p(y | x_t)

DDPM moves its mean by variance * score, an ODE solver its x0 by sigma^2 / alpha * score (Tweedie).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from zoo.diffusion.types import Condition, DenoiseFn, Prediction, Step, StepTable
from zoo.guidance import arguments
from zoo.schema.errors import NumericError, UsageError


@dataclass(frozen=True, kw_only=True, eq=False)
class Classifier:
    """Guide by the gradient of a noise-aware classifier, (x_t, time) -> logits (B, classes).

    The classifier was trained under the denoiser's schedule and takes t in the same way. The null label has
    no gradient.
    """

    papers = ("2105.05233 Diffusion Models Beat GANs on Image Synthesis",)
    fits = "zoo.guidance.arguments:scaled"
    needs = ("labels",)
    neutral: ClassVar[Mapping[str, float]] = {"scale": 0.0}
    pictures = True

    classifier: nn.Module
    scale: float = 1.0

    def __post_init__(self) -> None:
        arguments.scaled(scale=self.scale)

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn:
        """The same denoiser, its prediction with a score."""
        if self.scale == 0.0:
            return denoise
        if cond.label is None:
            raise UsageError(
                "classifier guidance needs a class for each sample and the stage hears none; give labels",
                code="label-missing",
            )
        # A pipeline runs in inference mode, whose tensors autograd refuses; copies made outside of it are plain ones.
        with torch.inference_mode(False):
            label = cond.label.clone()

        def guided(x: Tensor, step: Step) -> Prediction:
            prediction = denoise(x, step)
            score = self.scale * self.gradient(x, label, denoiser.time_input(step.t))
            if not bool(torch.isfinite(score).all()):
                raise NumericError(
                    f"the classifier's gradient is NaN or infinite at step {step.index + 1} of {len(table)}; "
                    "run it in float32 or check its weights",
                    code="guidance-not-finite",
                )
            before = prediction.score
            return prediction._replace(score=score if before is None else before + score)

        return guided

    def gradient(self, x: Tensor, label: Tensor, time: float) -> Tensor:
        """grad_x log p(label | x) (B, C, *spatial), in the dtype of x."""
        weight = next(self.classifier.parameters(), None)
        dtype = x.dtype if weight is None else weight.dtype
        with torch.inference_mode(False), torch.enable_grad():
            leaf = x.to(dtype, copy=True).detach().requires_grad_()
            when = torch.full((len(x),), time, dtype=torch.promote_types(dtype, torch.float32), device=x.device)
            logits = self.classifier(leaf, when)
            log_p = torch.log_softmax(logits.to(torch.promote_types(dtype, torch.float32)), dim=1)
            known = label < logits.shape[1]
            chosen = log_p.gather(1, label.clamp(max=logits.shape[1] - 1)[:, None])[:, 0]
            (gradient,) = torch.autograd.grad((chosen * known).sum(), leaf)
        return gradient.to(x.dtype)
