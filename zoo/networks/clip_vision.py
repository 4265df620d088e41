"""CLIP's image tower (Radford et al. 2021, section 2.4): a vision transformer that gives one embedding an image.

The transformer is open_clip's and keeps its parameter names. What tensors don't show is given: heads and activation.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from zoo.networks import arguments
from zoo.schema.notes import quiet_bars

# Of CLIP's own training images, a channel each.
MEAN, DEVIATION = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class ClipVision(nn.Module):
    """images (B, 3, H, W) in [0, 1] -> embeddings (B, embed_dim), projected and not normalised.

    Args:
        width, heads, layers, embed_dim: the transformer (ViT-L/14: 1024, 16, 24, 768).
        image_size: pixels a side that it takes; patch: of each token's cell.
        activation: `gelu` (open_clip's own weights) or `quick-gelu` (OpenAI's).
    """

    def __init__(
        self, *, width: int, heads: int, layers: int, embed_dim: int, image_size: int, patch: int,
        activation: Literal["gelu", "quick-gelu"],
    ) -> None:  # fmt: skip
        super().__init__()
        arguments.clip_vision(
            width=width, heads=heads, layers=layers, embed_dim=embed_dim, image_size=image_size, patch=patch,
            activation=activation,
        )  # fmt: skip
        with quiet_bars():
            from open_clip.transformer import QuickGELU, VisionTransformer  # slow to import: only when one is built

        self.image_size, self.embed_dim = image_size, embed_dim
        self.visual = VisionTransformer(
            image_size=image_size, patch_size=patch, width=width, layers=layers, heads=heads, mlp_ratio=4.0,
            output_dim=embed_dim, act_layer=QuickGELU if activation == "quick-gelu" else nn.GELU,
        )  # fmt: skip

    def embed(self, images: Tensor) -> Tensor:
        """images (B, 3, H, W) in [0, 1], of any size -> (B, embed_dim)."""
        weight = self.visual.conv1.weight
        return self.visual(self.prepared(images).to(weight.device, weight.dtype))  # type: ignore[return-value]

    def prepared(self, images: Tensor) -> Tensor:
        """Resized in eight bits (bicubic, the shorter side), cropped around the centre and standardised, as CLIP's."""
        side, made = self.image_size, []
        for image in (images.float().clamp(0, 1) * 255).round().to(torch.uint8).cpu():
            picture = Image.fromarray(image.permute(1, 2, 0).numpy())
            shorter = min(picture.size)
            width, height = (side * length // shorter for length in picture.size)
            picture = picture.resize((width, height), Image.Resampling.BICUBIC)
            left, top = (width - side) // 2, (height - side) // 2
            made.append(np.asarray(picture.crop((left, top, left + side, top + side)), dtype=np.float32) / 255)
        pixels = (np.stack(made) - np.asarray(MEAN, np.float32)) / np.asarray(DEVIATION, np.float32)
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)
