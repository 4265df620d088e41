"""An extractor without any weight file: a fixed random convolutional network, the same everywhere for a seed.

It is untrained. A Fréchet distance under it separates sets of images by texture and colour at several
scales, reliably enough to see a regression, and is comparable only with itself.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.diffusion.draws import stream
from zoo.evaluation.extractors import arguments
from zoo.evaluation.extractors.extractor import check_pictures
from zoo.evaluation.extractors.weight_file import hash_of


class RandomNetwork(nn.Module):
    """A fixed random network: features without any weights, comparable with themselves only.

    Args:
        seed: of its weights. width: channels of each layer. size: pixels a side that images are resized to.
    """

    fits = "zoo.evaluation.extractors.arguments:random_network"

    def __init__(self, *, seed: int = 0, width: int = 64, size: int = 64, layers: int = 4) -> None:
        super().__init__()
        arguments.random_network(seed=seed, width=width, size=size, layers=layers)
        self.size = size
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width if i else 3, width, 3, stride=2, padding=1, bias=False) for i in range(layers)
        )
        for i, convolution in enumerate(self.convolutions):
            weight = convolution.weight
            assert isinstance(weight, Tensor)
            drawn = stream(seed, "random extractor", i).standard_normal(tuple(weight.shape)).astype(np.float32)
            weight.data = torch.from_numpy(drawn * (2.0 / (9 * weight.shape[1])) ** 0.5)
        self.eval().requires_grad_(False)
        self.sha256 = hash_of(self)
        self.name = f"random-{seed}-{width}x{layers}-{size}"

    @torch.inference_mode()
    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor:
        """uint8 (N, 3, H, W) -> each layer's means and deviations over positions, (N, 2 * layers * width)."""
        check_pictures(pictures)
        parts = []
        for part in pictures.split(batch):
            device = next(self.parameters()).device
            x = part.to(device).float() / 127.5 - 1.0
            if tuple(x.shape[-2:]) != (self.size, self.size):
                x = F.interpolate(x, (self.size, self.size), mode="bilinear", antialias=True)
            found = []
            for convolution in self.convolutions:
                x = F.leaky_relu(convolution(x), 0.2)
                found += [x.mean(dim=(2, 3)), x.std(dim=(2, 3), correction=0)]
            parts.append(torch.cat(found, dim=1))
        return torch.cat(parts)
