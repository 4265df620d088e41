"""Which arguments the conditioners can be made with: checked by their constructors, and by `zoo check` without torch.

Each function raises ConfigError for arguments that can't be built or read nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from zoo.networks.arguments import MOST, MOST_BLOCKS, WIDEST, clip_vision, residual_tower
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import one_of, within

ENDS = 2  # tokens of every prompt: where it starts and where it ends
STAGES = 4  # of a ResNet of bottleneck blocks
HEAD = 64  # channels of a head, in open_clip's ResNets
SHRINKS = 32  # times a side of the image, until it reaches their attention pool


def class_label(*, names: Sequence[str]) -> None:
    """Of `zoo.conditioners.class_label:ClassLabel`."""
    if not names or len(set(names)) != len(names):
        raise ConfigError("classes need one name or more, each once; fix names", code="entries-repeated")


def stand_in(*, context_width: int | None, length: int, vector_width: int | None) -> None:
    """Of `zoo.conditioners.placeholder:StandIn`."""
    within(1, MOST, {"context_width": context_width, "length": length, "vector_width": vector_width})
    if context_width is None and vector_width is None:
        raise ConfigError(
            "context_width and vector_width are both null, so it says nothing; give one of them",
            code="conditioner-gives-nothing",
        )


def clip_text(
    *, width: int, heads: int, layers: int, context_length: int, embed_dim: int | None, activation: str, layer: int,
    pad: str, nothing: str,
) -> None:  # fmt: skip
    """Of `zoo.conditioners.clip_text:ClipText`."""
    text_tower(width=width, heads=heads, layers=layers, context_length=context_length, embed_dim=embed_dim)
    one_of("activation", activation, ("gelu", "quick-gelu"))
    one_of("pad", pad, ("zero", "end"))
    one_of("nothing", nothing, ("encoded", "zeros"))
    within(1, layers, {"layer": layer})  # counted from the end


def text_tower(
    *, width: int, heads: int, layers: int, context_length: int, embed_dim: int | None, prefix: str = ""
) -> None:
    """The transformer of a CLIP's captions; `prefix` is of its arguments' names."""
    within(1, MOST, {f"{prefix}width": width, f"{prefix}heads": heads, "embed_dim": embed_dim})
    within(1, MOST_BLOCKS, {f"{prefix}layers": layers})
    if width % heads:
        raise ConfigError(
            f"{prefix}width {width} isn't divided by {prefix}heads {heads}; choose a divisor", code="width-indivisible"
        )
    within(ENDS, MOST, {"context_length": context_length})


def clip(
    *, embed_dim: int, image_size: int, image_width: int | Sequence[int], image_layers: Sequence[int], text_width: int,
    text_heads: int, text_layers: int, context_length: int, image_blocks: str,
) -> None:  # fmt: skip
    """Of `zoo.conditioners.clip:build_clip` and `zoo.evaluation.extractors.clip:Clip`."""
    one_of("image_blocks", image_blocks, ("bottleneck", "basic"))
    text_tower(
        width=text_width, heads=text_heads, layers=text_layers, context_length=context_length, embed_dim=embed_dim,
        prefix="text_",
    )  # fmt: skip
    within(1, MOST, {"image_size": image_size})
    within(1, MOST_BLOCKS, {f"image_layers of stage {i}": number for i, number in enumerate(image_layers)})
    if isinstance(image_width, int) != (image_blocks == "bottleneck"):
        wanted = "one number, that of the stem" if image_blocks == "bottleneck" else "a list, one number a stage"
        raise ConfigError(
            f"image_width is {image_width}; for {image_blocks} blocks give {wanted}", code="width-indivisible"
        )
    if not isinstance(image_width, int):
        residual_tower(widths=image_width, layers=image_layers, embed_dim=embed_dim)
        return
    within(1, MOST, {"image_width": image_width})
    if len(image_layers) != STAGES:
        raise ConfigError(
            f"image_layers is {list(image_layers)}; bottleneck blocks have {STAGES} stages",
            code="network-shape-invalid",
        )
    if image_width % 2 or (image_width * SHRINKS) % max(1, image_width * SHRINKS // HEAD):
        raise ConfigError(f"image_width is {image_width}; bottleneck blocks need an even one", code="width-indivisible")
    if image_size % SHRINKS:
        raise ConfigError(
            f"image_size is {image_size}; bottleneck blocks need a multiple of {SHRINKS}", code="width-indivisible"
        )


def numbers(
    *, names: Sequence[str], width: int | None, fixed: Mapping[str, float] | None, nothing: Mapping[str, float] | None
) -> None:
    """Of `zoo.conditioners.numbers:Numbers`."""
    if not names or len(set(names)) != len(names):
        raise ConfigError("numbers need one name or more, each once; correct names", code="entries-repeated")
    within(2, WIDEST, {"width": width})
    if width is not None and width % 2:
        raise ConfigError(f"width is {width}; give an even number", code="width-indivisible")
    for what, given in (("fixed", fixed), ("nothing", nothing)):
        unused = next((name for name in given or () if name not in names), None)
        if unused is not None:
            raise ConfigError(f"{what} has '{unused}' and names doesn't; add it to names", code="arguments-conflict")


def clip_image(
    *, level: int, width: int, heads: int, layers: int, embed_dim: int, image_size: int, patch: int, activation: str
) -> None:
    """Of `zoo.conditioners.clip_image:ClipImage`."""
    clip_vision(
        width=width, heads=heads, layers=layers, embed_dim=embed_dim, image_size=image_size, patch=patch,
        activation=activation,
    )  # fmt: skip
    within(0, 9_999, {"level": level})  # the schedule says which of them it has
