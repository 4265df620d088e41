"""A CLIP with both towers, as an extractor for images and captions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.conditioners import vocabulary
from zoo.conditioners.clip import build_clip
from zoo.data.pixels import from_uint8
from zoo.schema.errors import WeightsError


class Clip(nn.Module):
    """A CLIP as a judge: unit embeddings of images and of captions.

    Arguments as `zoo.conditioners.clip.build_clip`; the token table is always compact.
    """

    papers = ("2103.00020 Learning Transferable Visual Models From Natural Language Supervision",)
    serves = ("clip",)
    alone = "retrieval"
    fits = "zoo.conditioners.arguments:clip"

    def __init__(
        self, *, embed_dim: int, image_size: int, image_width: int | Sequence[int], image_layers: Sequence[int],
        text_width: int, text_heads: int, text_layers: int, context_length: int,
        image_blocks: Literal["bottleneck", "basic"] = "bottleneck",
    ) -> None:  # fmt: skip
        super().__init__()
        self.image_size = image_size
        # Never on the meta device: open_clip's attention mask is computed here and is in no file.
        with torch.device("cpu"):
            self.clip = build_clip(
                embed_dim=embed_dim, image_size=image_size, image_width=image_width, image_layers=image_layers,
                text_width=text_width, text_heads=text_heads, text_layers=text_layers, context_length=context_length,
                image_blocks=image_blocks,
            )  # fmt: skip

    def unpack(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A weight file's tensors, named as in open_clip and with a compact token table -> this module's."""
        state = dict(tensors)
        if "token_ids" not in state or "token_embedding.weight" not in state:
            raise WeightsError(
                "extractor 'clip': the file lacks 'token_ids' or the token table; get it again", code="tensor-missing"
            )
        ids = state.pop("token_ids")
        state["token_embedding.weight"] = vocabulary.restore(state["token_embedding.weight"], ids)
        return {f"clip.{name}": tensor for name, tensor in state.items()}

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As torch's, for the tensors of a weight file (see `unpack`)."""
        return super().load_state_dict(self.unpack(state_dict), strict=strict, assign=assign)

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.clip.parameters()).device

    @torch.inference_mode()
    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor:
        """uint8 (N, 3, H, W) -> unit embeddings (N, D); other sizes are resized by bicubic first."""
        parts = []
        for part in pictures.split(batch):
            x = from_uint8(part.to(self.device))
            if x.shape[-1] != self.image_size:
                x = F.interpolate(x, (self.image_size,) * 2, mode="bicubic", antialias=True).clamp(-1, 1)
            parts.append(F.normalize(self.clip.encode_image(x), dim=-1))
        return torch.cat(parts)

    @torch.inference_mode()
    def texts(self, captions: Sequence[str], *, batch: int = 512) -> Tensor:
        """captions -> unit embeddings (N, D)."""
        parts = []
        for i in range(0, len(captions), batch):
            ids = vocabulary.tokenize(captions[i : i + batch], context_length=int(self.clip.context_length), pad=0)
            parts.append(F.normalize(self.clip.encode_text(ids.to(self.device)), dim=-1))
        return torch.cat(parts)
