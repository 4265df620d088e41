"""Perceptual distance of two images: the difference of a trained network's features.

Zhang et al. 2018 (LPIPS), eq. 1 with all its learned weights 1: each layer's features normalised to unit length over
their channels, squared differences averaged over positions and summed over layers. The backbone is one of timm's, and
its weights are the user's own file: nothing is downloaded.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints.files import read_tensors
from zoo.schema.errors import ConfigError, WeightsError
from zoo.schema.notes import quiet_bars

with quiet_bars():
    import timm


class Perceptual(nn.Module):
    """images (B, 3, H, W) in [-1, 1], twice -> their mean distance; the backbone is frozen.

    Args:
        model: timm's name of a backbone that gives features of several layers (vgg16).
        weights: path of its state dict, .safetensors or a pickle of tensors alone.
        pretrained: false leaves the backbone's random weights, which is for tests.
    """

    def __init__(self, *, model: str = "vgg16", weights: str | None = None, pretrained: bool = True) -> None:
        super().__init__()
        if pretrained and weights is None:
            raise ConfigError(
                f"the perceptual loss needs the weights of '{model}' and downloads none; give perceptual_weights: the "
                "path of a state dict of timm's",
                code="weights-missing",
            )
        try:
            backbone = timm.create_model(model, pretrained=False, features_only=True)
        except (RuntimeError, ValueError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"timm makes no features of a backbone '{model}' ({error}); try vgg16", code="backbone-unknown"
            ) from error
        if pretrained and weights is not None:
            _load(backbone, Path(weights))
        self.backbone = backbone.eval().requires_grad_(False)
        config = timm.get_pretrained_cfg(model)
        mean, std = (config.mean, config.std) if config is not None else ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        """A scalar, 0 where the images are equal."""
        total = x.new_zeros(())
        for a, b in zip(*(self.backbone((p * 0.5 + 0.5 - self.mean) / self.std) for p in (x, y)), strict=True):
            apart = F.normalize(a.float(), dim=1) - F.normalize(b.float(), dim=1)
            total = total + apart.square().sum(dim=1).mean()
        return total


def _load(backbone: nn.Module, path: Path) -> None:
    """Put a backbone's weights in place; those of its classifier, which gives no features, are left out."""
    known = backbone.state_dict()
    # A features-only model names the modules of `features.3` either so or `features_3`.
    tensors = read_tensors(path).items()
    renamed = {k if k in known else k.replace("features.", "features_", 1): v for k, v in tensors}
    lacking = sorted(known.keys() - renamed.keys())
    if lacking or any(renamed[k].shape != v.shape for k, v in known.items()):
        what = f"lack '{lacking[0]}'" if lacking else "have other shapes"
        raise WeightsError(
            f"the perceptual loss's weights '{path}' {what}; give those of the backbone it names", code="layout-wrong"
        )
    backbone.load_state_dict({k: renamed[k] for k in known})
