"""Which arguments the autoencoders can be built with: checked by their constructors, and by `zoo check` without torch.

Each function raises ConfigError for arguments that can't be built, or whose latents would be empty.
"""

from __future__ import annotations

from collections.abc import Sequence

from zoo.networks.arguments import MOST, MOST_BLOCKS, levels_of
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import within


def kl(
    *, channels: int, z_channels: int, width: int, mult: Sequence[int], blocks: int, attention_levels: Sequence[int],
    groups: int, image_channels: int, scale: float, shift: float,
) -> None:  # fmt: skip
    """Of `zoo.autoencoders.kl:AutoencoderKL`."""
    levels_of(width=width, mult=mult, groups=groups, levels={"attention_levels": attention_levels})
    within(1, MOST, {"channels": channels, "z_channels": z_channels, "image_channels": image_channels})
    within(1, MOST_BLOCKS, {"blocks": blocks})
    within(-1e6, 1e6, {"scale": scale, "shift": shift})
    if scale == 0.0:
        raise ConfigError(
            "scale is 0, by which latents are multiplied and divided; give another number", code="scale-zero"
        )


def vq(
    *, channels: int, z_channels: int, codes: int, width: int, mult: Sequence[int], blocks: int,
    attention_levels: Sequence[int], groups: int, image_channels: int, scale: float, shift: float,
) -> None:  # fmt: skip
    """Of `zoo.autoencoders.vq:AutoencoderVQ`."""
    within(1, MOST, {"codes": codes})
    kl(
        channels=channels, z_channels=z_channels, width=width, mult=mult, blocks=blocks,
        attention_levels=attention_levels, groups=groups, image_channels=image_channels, scale=scale, shift=shift,
    )  # fmt: skip


def taesd(*, channels: int, width: int, scale: float) -> None:
    """Of `zoo.autoencoders.taesd:TAESD`."""
    within(1, MOST, {"channels": channels, "width": width})
    within(-1e6, 1e6, {"scale": scale})
    if scale == 0.0:
        raise ConfigError("scale is 0, by which latents are divided; give another number", code="number-out-of-range")


def identity(*, channels: int) -> None:
    """Of `zoo.autoencoders.identity:Identity`."""
    within(1, MOST, {"channels": channels})
