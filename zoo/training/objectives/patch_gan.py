"""The patch discriminator and the losses of a GAN beside a reconstruction loss (Esser et al. 2021, eq. 6 and 7).

Isola et al. 2017: a few strided convolutions, one logit a patch. Its norms are group norms where the paper's are batch
norms, whose statistics depend on the whole batch, so that a split batch would be another run.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PatchDiscriminator(nn.Sequential):
    """images (B, 3, H, W) in [-1, 1] -> logits (B, 1, h, w), one a patch; above 0 for real ones."""

    def __init__(self, *, channels: int = 3, width: int = 64, layers: int = 3) -> None:
        parts: list[nn.Module] = [nn.Conv2d(channels, width, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        before = width
        for i in range(1, layers + 1):
            after = width * min(2**i, 8)
            stride = 2 if i < layers else 1
            parts += [nn.Conv2d(before, after, 4, stride=stride, padding=1), nn.GroupNorm(1, after), nn.LeakyReLU(0.2)]
            before = after
        parts.append(nn.Conv2d(before, 1, 4, padding=1))
        super().__init__(*parts)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, 0.0, 0.02)


def hinge(real: Tensor, drawn: Tensor) -> Tensor:
    """The discriminator's loss (Lim & Ye 2017)."""
    return 0.5 * (F.relu(1.0 - real).mean() + F.relu(1.0 + drawn).mean())


def adaptive_weight(reconstruction: Tensor, adversarial: Tensor, last: Tensor) -> Tensor:
    """Esser et al. 2021, eq. 7: how much larger the one loss's gradient is than the other's, at the last layer."""
    (one,) = torch.autograd.grad(reconstruction, last, retain_graph=True)
    (other,) = torch.autograd.grad(adversarial, last, retain_graph=True)
    return (one.norm() / (other.norm() + 1e-6)).clamp(0.0, 1e4).detach()
