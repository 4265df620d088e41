"""DINOv2 as its authors run it: the extractor of FD-DINOv2 (Oquab et al. 2023; Stein et al. 2023).

The networks were trained at 518 pixels and run at 224, so the position embeddings are resampled. The authors do it
by bicubic interpolation with the scale (16 + 0.1) / 37, not 16 / 37, and without averaging; timm, which has the same
network, does otherwise, and its numbers (extractor `timm`) are others. The network is timm's here, the embeddings and
the images are as FD-DINOv2 has them: PIL's bicubic to uint8, ImageNet's mean and deviation, the class token.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints.files import load_strict, read_tensors
from zoo.evaluation.extractors.backbones import normalised, register_range, weights_and_hash
from zoo.evaluation.extractors.extractor import check_pictures
from zoo.evaluation.extractors.resize import resize_uint8
from zoo.schema.errors import UsageError, WeightsError
from zoo.schema.notes import quiet_bars

MODELS = {"vits14": "vit_small", "vitb14": "vit_base", "vitl14": "vit_large"}
SIZE, PATCH = 224, 14
OFFSET = 0.1  # which the authors add to the grid's new side before they divide by the old one


class DINOv2(nn.Module):
    """DINOv2 with its authors' weights: the extractor of FD-DINOv2 (Stein et al. 2023).

    Args:
        weights: path of the authors' state dict, `dinov2_vitl14_pretrain.pth`.
        model: vitl14, which FD-DINOv2 is of; or vits14, vitb14.
        sha256: the hash the file must have.
    """

    papers = ("2304.07193 DINOv2: Learning Robust Visual Features without Supervision",)

    def __init__(
        self, *, weights: str | None = None, model: Literal["vits14", "vitb14", "vitl14"] = "vitl14",
        sha256: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if model not in MODELS:
            raise UsageError(f"there is no DINOv2 '{model}' here; give {', '.join(MODELS)}", code="backbone-unknown")
        path, self.sha256 = weights_and_hash("dinov2", f"dinov2_{model}_pretrain", weights, sha256)
        with quiet_bars():
            import timm

        network: Any = timm.create_model(
            f"{MODELS[model]}_patch14_dinov2", pretrained=False, num_classes=0, img_size=SIZE
        )
        tensors = {name: t for name, t in read_tensors(path).items() if name != "mask_token"}  # of training alone
        if "pos_embed" not in tensors:
            raise WeightsError(
                f"'{path}' has no 'pos_embed' and is no DINOv2 of its authors'; get the right file", code="layout-wrong"
            )
        tensors["pos_embed"] = resampled(tensors["pos_embed"].float(), SIZE // PATCH)
        load_strict(network, tensors, what=f"the weights '{path}'")
        self.network: nn.Module = network.eval().requires_grad_(False)
        self.name = f"dinov2-{model}"
        register_range(self, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

    @torch.inference_mode()
    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor:
        """uint8 (N, 3, H, W) -> class tokens (N, D)."""
        check_pictures(pictures)
        parts = [self.network(normalised(self, resize_uint8(p, (SIZE, SIZE)))) for p in pictures.split(batch)]
        return torch.cat(parts).float()


def resampled(embeddings: Tensor, side: int) -> Tensor:
    """Position embeddings (1, 1 + M * M, D), the class token's first -> (1, 1 + side * side, D), as the authors do."""
    old = round((embeddings.shape[1] - 1) ** 0.5)
    if old * old + 1 != embeddings.shape[1]:
        raise WeightsError(
            f"position embeddings {tuple(embeddings.shape)} are of no square grid; get the right file",
            code="layout-wrong",
        )
    if old == side:
        return embeddings
    grid = embeddings[:, 1:].unflatten(1, (old, old)).permute(0, 3, 1, 2)
    scale = (side + OFFSET) / old
    grid = F.interpolate(grid, scale_factor=(scale, scale), mode="bicubic")
    return torch.cat([embeddings[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)
