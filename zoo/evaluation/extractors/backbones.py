"""Extractors of other libraries' architectures and a user's weight file: any backbone of timm, any CLIP of open_clip.

Nothing is downloaded. The file's SHA-256 is part of every key, so two files never share a column.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.checkpoints.files import load_strict, read_tensors
from zoo.evaluation.extractors import arguments
from zoo.evaluation.extractors.extractor import check_pictures
from zoo.evaluation.extractors.resize import resize_uint8
from zoo.evaluation.extractors.weight_file import Unavailable, sha256_of
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.notes import quiet_bars


class Timm(nn.Module):
    """Any backbone of timm, its pooled features; its numbers go by its name.

    Args:
        model: timm's name, such as `resnet50`. (timm resamples DINOv2's position embeddings
            otherwise than its authors, so this is not their FD-DINOv2.)
        weights: path of a state dict of timm's.
        size: pixels a side that images are resized to by PIL's bicubic; the model's own if not given.
        sha256: the hash the file must have.
    """

    fits = "zoo.evaluation.extractors.arguments:timm"

    def __init__(
        self, *, model: str = "vit_large_patch14_dinov2", weights: str | None = None, size: int | None = None,
        sha256: str | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        arguments.timm(size=size)
        with quiet_bars():
            import timm

        path, self.sha256 = weights_and_hash("timm", model, weights, sha256)
        try:
            network: Any = timm.create_model(
                model, pretrained=False, num_classes=0
            )  # a Module's attributes have no types
        except (RuntimeError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise ConfigError(
                f"timm makes no features of a backbone '{model}' ({error}); try resnet50", code="backbone-unknown"
            ) from error
        self.network: nn.Module = network
        config = network.pretrained_cfg
        heads = config.get("classifier") or ()
        heads = (heads,) if isinstance(heads, str) else tuple(heads)
        own = self.network.state_dict()
        tensors = read_tensors(path)
        kept = {n: t for n, t in tensors.items() if n in own or not n.startswith(heads)} if heads else tensors
        load_strict(self.network, kept, what=f"the weights '{path}'")
        high, wide = (size, size) if size else config["input_size"][-2:]
        if size and hasattr(self.network, "set_input_size"):
            network.set_input_size(img_size=(high, wide))
        self.size = (int(high), int(wide))
        self.name = f"timm-{model}-{self.size[0]}"
        self.network.eval().requires_grad_(False)
        register_range(self, config["mean"], config["std"])

    @torch.inference_mode()
    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor:
        """uint8 (N, 3, H, W) -> features (N, D)."""
        check_pictures(pictures)
        parts = [self.network(normalised(self, resize_uint8(p, self.size))) for p in pictures.split(batch)]
        return torch.cat(parts).flatten(1).float()


class OpenClip(nn.Module):
    """A CLIP of open_clip's: unit embeddings of images and captions, for CMMD and CLIPScore.

    Args:
        model: open_clip's name; OpenAI's weights need a name that ends in -quickgelu. weights: path of its state dict.
        sha256: the hash the file must have.
    """

    papers = ("2212.07143 Reproducible scaling laws for contrastive language-image learning",)
    serves = ("clip",)

    def __init__(
        self, *, model: str = "ViT-L-14-336-quickgelu", weights: str | None = None, sha256: str | None = None
    ) -> None:
        super().__init__()
        with quiet_bars():
            import open_clip

        path, self.sha256 = weights_and_hash("openclip", model, weights, sha256)
        if model not in open_clip.list_models():
            raise ConfigError(
                f"open_clip knows no model '{model}'; see open_clip.list_models()", code="backbone-unknown"
            )
        clip: Any = open_clip.create_model(model, pretrained=None)
        self.clip: nn.Module = clip
        load_strict(self.clip, read_tensors(path), what=f"the weights '{path}'")
        self.clip.eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(model)
        side: Any = clip.visual.image_size
        self.size = (side, side) if isinstance(side, int) else (int(side[0]), int(side[1]))
        self.name = f"openclip-{model}"
        register_range(self, open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)

    @torch.inference_mode()
    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor:
        """uint8 (N, 3, H, W) -> unit embeddings (N, D); the whole image is resized, nothing is cropped."""
        check_pictures(pictures)
        clip: Any = self.clip
        parts = [clip.encode_image(normalised(self, resize_uint8(p, self.size))) for p in pictures.split(batch)]
        return F.normalize(torch.cat(parts).float(), dim=-1)

    @torch.inference_mode()
    def texts(self, captions: Sequence[str], *, batch: int = 512) -> Tensor:
        """captions -> unit embeddings (N, D)."""
        clip: Any = self.clip
        device = next(self.clip.parameters()).device
        parts = [
            clip.encode_text(self.tokenizer(list(captions[i : i + batch])).to(device))
            for i in range(0, len(captions), batch)
        ]
        return F.normalize(torch.cat(parts).float(), dim=-1)


def weights_and_hash(extractor: str, model: str, weights: str | None, sha256: str | None) -> tuple[Path, str]:
    """The file and its hash, before anything is opened or built."""
    if weights is None:
        what = f"SHA-256 {sha256}" if sha256 else "of any hash, which will be in the key"
        raise Unavailable(
            f"extractor '{extractor}' is unavailable: needs weights: FILE, a state dict of '{model}', {what}; "
            "extractor 'random' needs none",
            code="extractor-unavailable",
        )
    path = Path(weights).expanduser()
    found = sha256_of(path)
    if sha256 is not None and found != sha256.lower():
        raise UsageError(
            f"'{path}' has SHA-256 {found[:12]}… where {sha256[:12]}… was asked for; get the right file",
            code="weights-hash-wrong",
        )
    return path, found


def register_range(module: nn.Module, mean: Collection[float], std: Collection[float]) -> None:
    for name, value in (("mean", mean), ("std", std)):
        module.register_buffer(name, torch.tensor(tuple(value)).view(1, 3, 1, 1), persistent=False)


def normalised(module: nn.Module, pictures: Tensor) -> Tensor:
    mean, std = module.get_buffer("mean"), module.get_buffer("std")
    return (pictures.to(mean.device).float() / 255.0 - mean) / std
