"""Which arguments the networks can be built with: checked by their constructors, and by `zoo check` without torch.

Each function takes a network's arguments by name and raises ConfigError for those that can't be built, or would
give nothing but errors and NaN; a network names its function in `fits`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from zoo.schema.errors import ConfigError
from zoo.schema.ranges import one_of, within

MOST = 2**20  # of any count of channels: more is a typo
# An untrusted config that requests more would take all memory and time before anything fails. No published network
# comes near: the widest levels have some thousand channels, and a dozen blocks.
WIDEST = 2**14
MOST_BLOCKS = 256
MOST_LEVELS = 16


def levels_of(
    *, width: int, mult: Sequence[float], groups: int, levels: Mapping[str, Sequence[int]], fractions: bool = False
) -> None:
    """ConfigError where levels of `width * mult` channels can't be, or be normalised, or aren't those that are named.

    fractions: mult may name parts of the width, such as ADM's 0.5 at 512x512.
    """
    within(1, WIDEST, {"width": width, "groups": groups})
    whole = all(math.isfinite(m) and m >= (0 if fractions else 1) and (fractions or m == int(m)) for m in mult)
    if not 1 <= len(mult) <= MOST_LEVELS or not whole or any(m * width > WIDEST for m in mult):
        numbers = "number above 0" if fractions else "whole number from 1 up"
        raise ConfigError(
            f"mult is {list(mult)}; give a {numbers} for each level, at most {MOST_LEVELS} levels of {WIDEST} channels",
            code="network-levels-invalid",
        )
    if width % groups:
        raise ConfigError(
            f"width {width} can't be normalised in {groups} groups; give a width that is a multiple of {groups}, or "
            f"groups: {math.gcd(width, groups)}",
            code="width-indivisible",
        )
    if any(m * width < groups or (m * width) % groups for m in mult):
        raise ConfigError(
            f"mult is {list(mult)}; width {width} times each is to be normalised in {groups} groups, so give numbers "
            "that make multiples of that",
            code="width-indivisible",
        )
    for name, chosen in levels.items():
        for level in chosen:
            if not 0 <= level < len(mult):
                raise ConfigError(
                    f"{name} names level {level}; with {len(mult)} in mult they are 0 (the finest) to {len(mult) - 1}",
                    code="network-levels-invalid",
                )


def heads_of(channels: int, *, heads: int | None, head_width: int | None) -> int:
    """The number of attention heads at `channels` channels, from whichever of the two was given."""
    if (heads is None) == (head_width is None):
        raise ConfigError(
            "give either heads or head_width; the tensors don't show which is meant", code="arguments-conflict"
        )
    said, number = ("heads", heads) if heads is not None else ("head_width", head_width)
    assert number is not None  # one of the two was given
    if number < 1 or channels % number:
        raise ConfigError(
            f"{said} is {number}, which doesn't divide the {channels} channels of a level with attention; choose a "
            "divisor",
            code="width-indivisible",
        )
    return number if heads is not None else channels // number


def _timed(*, width: int, classes: int | None, null_class: bool, dropout: float) -> None:
    """What networks share that are conditioned on time and a class."""
    within(1, MOST, {"classes": classes})
    if width % 2:
        raise ConfigError(
            f"width {width} is odd; time is embedded in cosines and as many sines", code="width-indivisible"
        )
    if null_class and classes is None:
        raise ConfigError("null_class is true and classes null; say how many classes there are", code="classes-missing")
    within(0.0, 1.0, {"dropout": dropout})


def _stem(stem_width: int | None, groups: int) -> None:
    within(1, MOST, {"stem_width": stem_width})
    if stem_width is not None and stem_width % groups:
        raise ConfigError(
            f"stem_width {stem_width} can't be normalised in {groups} groups; give a multiple of {groups}",
            code="width-indivisible",
        )


def unet(
    *, in_channels: int, out_channels: int, width: int, mult: Sequence[float], stem_width: int | None, blocks: int,
    attention_levels: Sequence[int], attention: str, heads: int | None, head_width: int | None, heads_up: int | None,
    qkv_order: str, depth: int | Sequence[int], context_width: int | None, cross_only_levels: Sequence[int],
    projection: str, groups: int, middle_attention: bool, norm_eps: float, downsample_padding: str, time_features: str,
    classes: int | None, null_class: bool, vector_width: int | None, guidance_width: int | None, patch: int, dims: int,
    dropout: float,
) -> None:  # fmt: skip
    """Of `zoo.networks.unet:UNet`."""
    depths = [depth] * len(mult) if isinstance(depth, int) else list(depth)
    levels_of(
        width=width, mult=mult, groups=groups, fractions=True,
        levels={"attention_levels": attention_levels, "cross_only_levels": cross_only_levels},
    )  # fmt: skip
    _timed(width=width, classes=classes, null_class=null_class, dropout=dropout)
    _stem(stem_width, groups)
    within(1, MOST, {
        "in_channels": in_channels, "out_channels": out_channels, "context_width": context_width,
        "vector_width": vector_width, "guidance_width": guidance_width,
    })  # fmt: skip
    within(1, MOST_BLOCKS, {"blocks": blocks, "patch": patch, **{f"depth {d}": d for d in depths}})
    within(1, 3, {"dims": dims})  # sound, images, volumes
    within(0.0, 1.0, {"norm_eps": norm_eps}, "(]")
    if guidance_width is not None and (guidance_width < 4 or guidance_width % 2):
        raise ConfigError(
            f"guidance_width is {guidance_width}; give an even number from 4 up (LCM: 256)", code="number-out-of-range"
        )
    if len(depths) != len(mult):
        raise ConfigError(
            f"depth is {depths}; give one number, or one for each of {len(mult)} levels", code="network-levels-invalid"
        )
    one_of("attention", attention, ("transformer", "plain"))
    one_of("qkv_order", qkv_order, ("legacy", "new"))
    one_of("projection", projection, ("conv", "linear"))
    one_of("downsample_padding", downsample_padding, ("both", "end"))
    one_of("time_features", time_features, ("cosines-first", "sines-first"))
    if attention == "plain" and context_width is not None:
        raise ConfigError("plain attention reads no text; write context_width: null", code="arguments-conflict")
    if attention == "transformer" and context_width is None:
        raise ConfigError(
            "a transformer reads text; give context_width, or attention: plain", code="arguments-conflict"
        )
    if patch > 1 and dims != 2:
        raise ConfigError(f"patches are of images, and dims is {dims}; take patch: 1", code="arguments-conflict")
    if classes is not None and vector_width is not None:
        raise ConfigError("classes and vector_width take one place; give one of them", code="arguments-conflict")
    if heads_up is not None and (attention != "plain" or heads is None):
        raise ConfigError("heads_up goes with attention: plain and heads; take it out", code="arguments-conflict")
    for level in {*attention_levels, *([len(mult) - 1] if middle_attention else [])}:
        heads_of(int(mult[level] * width), heads=heads, head_width=head_width)
    for level in attention_levels if heads_up is not None else ():
        heads_of(int(mult[level] * width), heads=heads_up, head_width=None)


def efficient_unet(
    *, in_channels: int, out_channels: int, width: int, mult: Sequence[int], blocks: Sequence[int],
    attention_levels: Sequence[int], text_levels: Sequence[int], head_width: int, context_width: int | None,
    vector_width: int | None, classes: int | None, null_class: bool, groups: int, dropout: float,
) -> None:  # fmt: skip
    """Of `zoo.networks.efficient_unet:EfficientUNet`."""
    levels_of(
        width=width, mult=mult, groups=groups,
        levels={"attention_levels": attention_levels, "text_levels": text_levels},
    )  # fmt: skip
    _timed(width=width, classes=classes, null_class=null_class, dropout=dropout)
    within(1, MOST, {
        "in_channels": in_channels, "out_channels": out_channels, "context_width": context_width,
        "vector_width": vector_width,
    })  # fmt: skip
    if len(blocks) != len(mult):
        raise ConfigError(
            f"blocks is {list(blocks)}; give a number for each of the {len(mult)} levels of mult",
            code="network-levels-invalid",
        )
    within(1, MOST_BLOCKS, {f"blocks of level {level}": number for level, number in enumerate(blocks)})
    if bool(text_levels) != (context_width is not None):
        raise ConfigError("text_levels and context_width go together; give both, or neither", code="arguments-conflict")
    for level in {*attention_levels, *text_levels}:
        heads_of(mult[level] * width, heads=None, head_width=head_width)


def song_unet(
    *, in_channels: int, out_channels: int, width: int, mult: Sequence[int], blocks: int, resolution: int,
    attention_levels: Sequence[int], heads: int, embedding: str, noise_mult: int, emb_mult: int, encoder: str,
    decoder: str, resample_filter: Sequence[float], skip_scale: float, norm_eps: float, classes: int | None,
    null_class: bool, augment_width: int | None, dropout: float,
) -> None:  # fmt: skip
    """Of `zoo.networks.song_unet:SongUNet`."""
    levels_of(width=width, mult=mult, groups=1, levels={"attention_levels": attention_levels})
    _timed(width=width, classes=classes, null_class=null_class, dropout=dropout)
    within(1, MOST, {"in_channels": in_channels, "out_channels": out_channels, "augment_width": augment_width})
    within(1, MOST_BLOCKS, {"noise_mult": noise_mult, "emb_mult": emb_mult, "blocks": blocks})
    within(0.0, 1.0, {"norm_eps": norm_eps}, "(]")
    within(0.0, 1e3, {"skip_scale": skip_scale}, "(]")
    within(1, WIDEST, {"resolution": resolution})
    one_of("embedding", embedding, ("positional", "fourier"))
    one_of("encoder", encoder, ("standard", "residual", "skip"))
    one_of("decoder", decoder, ("standard", "skip"))
    taps = list(resample_filter)
    if not taps or len(taps) % 2 or not 0.0 < sum(taps) < math.inf:
        raise ConfigError(
            f"resample_filter is {taps}; give an even number of taps, like [1, 1] or [1, 3, 3, 1], with a sum above 0",
            code="network-shape-invalid",
        )
    halved = 2 ** (len(mult) - 1)
    if resolution < halved or resolution % halved:
        raise ConfigError(
            f"resolution is {resolution}, which {len(mult)} levels can't halve; give a multiple of {halved}",
            code="size-indivisible",
        )
    for channels in sorted(_song_channels(width, mult, blocks)):
        song_groups(channels)
    for level in {*attention_levels, len(mult) - 1}:
        heads_of(mult[level] * width, heads=heads, head_width=None)


def _song_channels(width: int, mult: Sequence[int], blocks: int) -> set[int]:
    """Of how many channels its norms are."""
    skips, channels = [], width
    for m in mult:
        skips.append(channels)
        skips += [m * width] * blocks
        channels = m * width
    found = set(skips)
    for m in reversed(mult):
        for _ in range(blocks + 1):
            found.add(channels + skips.pop())
            channels = m * width
    return found


def song_groups(channels: int) -> int:
    """Groups of four channels or more, at most 32 of them."""
    groups = min(32, channels // 4)
    if groups < 1 or channels % groups:
        raise ConfigError(
            f"{channels} channels can't be normalised in {groups} groups; give a width that is a multiple of 4, and "
            "from 128 up of 32",
            code="width-indivisible",
        )
    return groups


def classifier(
    *, classes: int, size: int, in_channels: int, width: int, mult: Sequence[float], stem_width: int | None,
    blocks: int, attention_levels: Sequence[int], heads: int | None, head_width: int | None, qkv_order: str, pool: str,
    groups: int, dims: int, dropout: float,
) -> None:  # fmt: skip
    """Of `zoo.networks.classifier:NoiseAwareClassifier`."""
    levels_of(width=width, mult=mult, groups=groups, fractions=True, levels={"attention_levels": attention_levels})
    _timed(width=width, classes=classes, null_class=False, dropout=dropout)
    _stem(stem_width, groups)
    within(1, MOST, {"in_channels": in_channels, "size": size})
    within(1, MOST_BLOCKS, {"blocks": blocks})
    within(1, 3, {"dims": dims})
    one_of("pool", pool, ("attention", "mean"))
    one_of("qkv_order", qkv_order, ("legacy", "new"))
    halved = 2 ** (len(mult) - 1)
    if size % halved:
        raise ConfigError(
            f"size {size} can't be halved {len(mult) - 1} times; give a multiple of {halved}, or fewer levels in mult",
            code="size-indivisible",
        )
    for level in {*attention_levels, len(mult) - 1}:  # in the middle, too
        heads_of(int(mult[level] * width), heads=heads, head_width=head_width)


def residual_tower(*, widths: Sequence[int], layers: Sequence[int], embed_dim: int) -> None:
    """Of `zoo.networks.residual:ResidualTower`."""
    within(1, MOST, {"embed_dim": embed_dim, **{f"width of stage {i}": width for i, width in enumerate(widths)}})
    within(1, MOST_BLOCKS, {f"layers of stage {i}": number for i, number in enumerate(layers)})
    if len(widths) != len(layers) or not widths or widths[0] % 2:
        raise ConfigError(
            f"a residual tower of widths {list(widths)} and layers {list(layers)} can't be built; give as many widths "
            "as layers, the first width even",
            code="network-shape-invalid",
        )


def clip_vision(
    *, width: int, heads: int, layers: int, embed_dim: int, image_size: int, patch: int, activation: str
) -> None:
    """Of `zoo.networks.clip_vision:ClipVision`."""
    within(1, MOST, {"width": width, "heads": heads, "embed_dim": embed_dim, "image_size": image_size, "patch": patch})
    within(1, MOST_BLOCKS, {"layers": layers})
    one_of("activation", activation, ("gelu", "quick-gelu"))
    if width % heads:
        raise ConfigError(f"width {width} isn't divided by heads {heads}; choose a divisor", code="width-indivisible")
    if image_size < patch:
        raise ConfigError(
            f"image_size {image_size} holds no patch of {patch}; give {patch} or more", code="size-indivisible"
        )


def clip_safety(
    *, width: int, heads: int, layers: int, embed_dim: int, image_size: int, patch: int, activation: str, concepts: int,
    special: int,
) -> None:  # fmt: skip
    """Of `zoo.pipeline.clip_safety:ClipSafety`."""
    clip_vision(
        width=width, heads=heads, layers=layers, embed_dim=embed_dim, image_size=image_size, patch=patch,
        activation=activation,
    )  # fmt: skip
    within(1, MOST, {"concepts": concepts, "special": special})
