"""CLIP, both towers, by open_clip: the network that contrastive training makes (Radford et al. 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from zoo.conditioners import arguments
from zoo.schema.declared import declares
from zoo.schema.notes import quiet_bars

if TYPE_CHECKING:
    from open_clip.model import CLIP


@declares(
    papers=("2103.00020 Learning Transferable Visual Models From Natural Language Supervision",),
    fits="zoo.conditioners.arguments:clip",
)
def build_clip(
    *, embed_dim: int, image_size: int, image_width: int | Sequence[int], image_layers: Sequence[int], text_width: int,
    text_heads: int, text_layers: int, context_length: int,
    image_blocks: Literal["bottleneck", "basic"] = "bottleneck",
) -> CLIP:  # fmt: skip
    """CLIP, both towers, to be trained: a ResNet for images and a causal transformer for captions.

    Args:
        embed_dim: width of the space both towers meet in. image_size: pixels a side of its images; of bottleneck
            blocks a multiple of 32.
        image_blocks: open_clip's ResNet of bottleneck blocks with an attention pool, or the smaller one of basic blocks
            (zoo.networks.residual).
        image_width, image_layers: channels of the ResNet's stem (of basic blocks: of each stage), and blocks of each
            stage; bottleneck blocks have four stages.
        text_width, text_heads, text_layers, context_length: the text transformer.

    Raises ConfigError for widths that the kind of blocks has no use for.
    """
    with quiet_bars():
        from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

    from zoo.conditioners.vocabulary import VOCABULARY
    from zoo.networks.residual import ResidualTower

    arguments.clip(
        embed_dim=embed_dim, image_size=image_size, image_width=image_width, image_layers=image_layers,
        text_width=text_width, text_heads=text_heads, text_layers=text_layers, context_length=context_length,
        image_blocks=image_blocks,
    )  # fmt: skip
    basic = image_blocks == "basic"
    clip = CLIP(
        embed_dim=embed_dim,
        vision_cfg=CLIPVisionCfg(
            # open_clip has no basic blocks: the least it builds is replaced below.
            layers=(1, 1, 1, 1) if basic else tuple(image_layers),  # type: ignore[arg-type]
            width=8 if basic else image_width,  # type: ignore[arg-type]
            image_size=32 if basic else image_size,
        ),
        text_cfg=CLIPTextCfg(
            context_length=context_length, vocab_size=VOCABULARY, width=text_width, heads=text_heads, layers=text_layers
        ),
    )
    if basic:
        assert not isinstance(image_width, int)
        clip.visual = ResidualTower(  # type: ignore[assignment]
            widths=tuple(image_width), layers=tuple(image_layers), embed_dim=embed_dim, image_size=image_size
        )
    return clip
