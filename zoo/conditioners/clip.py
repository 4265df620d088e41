"""CLIP, both towers, by open_clip: the network that contrastive training makes (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from open_clip.model import CLIP


def build_clip(
    *, embed_dim: int, image_size: int, image_width: int, image_layers: Sequence[int], text_width: int, text_heads: int,
    text_layers: int, context_length: int,
) -> CLIP:  # fmt: skip
    """CLIP, both towers, to be trained: a ResNet for pictures and a causal transformer for captions.

    Args:
        embed_dim: width of the space both towers meet in. image_size: pixels a side of its pictures, a multiple of 32.
        image_width, image_layers: channels of the ResNet's stem, and bottleneck blocks of its four stages.
        text_width, text_heads, text_layers, context_length: the text transformer.
    """
    from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    from zoo.conditioners.vocabulary import VOCABULARY

    return CLIP(
        embed_dim=embed_dim,
        vision_cfg=CLIPVisionCfg(
            layers=tuple(image_layers),  # type: ignore[arg-type]
            width=image_width,
            image_size=image_size,
        ),
        text_cfg=CLIPTextCfg(
            context_length=context_length, vocab_size=VOCABULARY, width=text_width, heads=text_heads, layers=text_layers
        ),
    )
