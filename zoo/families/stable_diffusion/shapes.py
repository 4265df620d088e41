"""The arguments of zoo's networks from the shapes of a file's tensors, and from a diffusers folder's configurations.

Shapes are by the names of the original layout (zoo's own). What they don't show is given: heads and groups, activation
and which layer is read are the family's (`zoo.families.stable_diffusion.variants`), or in a folder's `config.json`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from zoo.schema.errors import ConfigError, WeightsError

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]
HEAD = 64  # channels of a head in every text tower of this family
_LAYER = re.compile(r"(?:transformer\.resblocks|encoder\.layers)\.(\d+)\.")
# Switches of diffusers' UNet2DConditionModel that must stand as these files have them, and what that is.
_UNET_SWITCHES: Mapping[str, Any] = {
    "act_fn": "silu", "resnet_time_scale_shift": "default", "center_input_sample": False, "dual_cross_attention": False,
    "time_embedding_type": "positional", "conv_in_kernel": 3, "conv_out_kernel": 3,
    "encoder_hid_dim": None, "encoder_hid_dim_type": None, "cross_attention_norm": None, "resnet_skip_time_act": False,
    "resnet_out_scale_factor": 1.0, "mid_block_scale_factor": 1,
    "class_embeddings_concat": False, "mid_block_only_cross_attention": None, "attention_type": "default",
    "reverse_transformer_layers_per_block": None, "time_embedding_act_fn": None, "timestep_post_act": None,
    "mid_block_type": "UNetMidBlock2DCrossAttn", "_class_name": "UNet2DConditionModel",
}  # fmt: skip
_TINY_SWITCHES: Mapping[str, Any] = {
    "act_fn": "relu", "upsample_fn": "nearest", "in_channels": 3, "out_channels": 3, "upsampling_scaling_factor": 2,
    "shift_factor": 0.0,
}  # fmt: skip
_DOWN = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}


def unet_from_shapes(shapes: Shapes, *, what: str) -> dict[str, Any]:
    """`UNet`'s arguments without its heads; WeightsError where these are no U-Net of the family."""
    try:
        width, stem = shapes["time_embed.0.weight"][1], shapes["input_blocks.0.0.weight"]
        channels, depths, blocks, here = [], [], 0, 0
        depth = 0
        for i in range(1, _count(shapes, r"input_blocks\.(\d+)\.")):
            if f"input_blocks.{i}.0.op.weight" in shapes:
                channels.append(here)
                depths.append(depth)
                continue
            here = shapes[f"input_blocks.{i}.0.out_layers.3.weight"][0]
            depth = _count(shapes, rf"input_blocks\.{i}\.1\.transformer_blocks\.(\d+)\.")
            blocks += not channels
        channels.append(here)
        depths.append(depth)
        middle = _count(shapes, r"middle_block\.1\.transformer_blocks\.(\d+)\.")
        if any(c % width for c in channels) or stem[0] != width:
            raise WeightsError(
                f"{what}: its levels of {channels} channels aren't multiples of {width}; no such U-Net",
                code="layout-wrong",
            )
        context = shapes["middle_block.1.transformer_blocks.0.attn2.to_k.weight"][1]
        projection = "linear" if len(shapes["middle_block.1.proj_in.weight"]) == 2 else "conv"
        vector, label = shapes.get("label_emb.0.0.weight"), shapes.get("label_emb.weight")
        crossed = _crossed(shapes, channels, context)
        return {
            "in_channels": stem[1], "out_channels": shapes["out.2.weight"][0], "width": width,
            "mult": [c // width for c in channels], "blocks": blocks,
            "attention_levels": [i for i, d in enumerate(depths) if d],
            **_depth([d or (middle if i == len(depths) - 1 else 1) for i, d in enumerate(depths)]),
            "context_width": context, "projection": projection,
            **({"vector_width": vector[1]} if vector else {}), **({"classes": label[0]} if label else {}),
            **({"cross_only_levels": crossed} if crossed else {}),
        }  # fmt: skip
    except (KeyError, IndexError) as error:
        raise WeightsError(
            f"{what} is no U-Net of this family: it has no {error}; give another file", code="layout-wrong"
        ) from error


def _crossed(shapes: Shapes, channels: Sequence[int], context: int) -> list[int]:
    """The levels whose first attention reads the text, too, by the width of its keys (the x4 upscaler's)."""
    keys = (re.fullmatch(r"input_blocks\.(\d+)\.1\.transformer_blocks\.0\.attn1\.to_k\.weight", n) for n in shapes)
    wide = {shapes[found[0]] for found in keys if found}
    return [i for i, c in enumerate(channels) if c != context and (c, context) in wide]


def unet_from_config(config: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """`UNet`'s arguments of a `UNet2DConditionModel`; ConfigError for a switch that zoo's U-Net doesn't have."""
    for name, needed in _UNET_SWITCHES.items():
        found = config.get(name, needed)
        if found != needed and not (not found and not needed):
            raise ConfigError(
                f"{what} says {name} {str(found)[:60]!r}, and zoo's U-Net has {needed!r} there",
                code="model-switch-unfit",
            )
    downs, channels = list(config.get("down_block_types") or ()), list(config.get("block_out_channels") or ())
    other = next((kind for kind in downs if kind not in _DOWN), None)
    if other is not None or not channels or len(channels) != len(downs):
        raise ConfigError(
            f"{what} has blocks that zoo's U-Net has not ({other or downs}); give another model",
            code="model-switch-unfit",
        )
    attended = [_DOWN[kind] for kind in downs]
    heads = _each(config.get("num_attention_heads") or config.get("attention_head_dim", 8), len(channels))
    counted = {h for h, a in zip(heads, attended, strict=True) if a} | {heads[-1]}
    wide = {c // h for c, h, a in zip(channels, heads, attended, strict=True) if a} | {channels[-1] // heads[-1]}
    if len(counted) > 1 and len(wide) > 1:
        raise ConfigError(
            f"{what} has heads {heads} over channels {channels}: neither as many nor as wide everywhere",
            code="model-switch-unfit",
        )
    cross = _each(config.get("only_cross_attention", False), len(channels))
    added, kind = config.get("addition_embed_type"), config.get("class_embed_type")
    if added not in (None, "text_time") or kind not in (None, "projection"):
        raise ConfigError(
            f"{what} says addition_embed_type {added!r}, class_embed_type {kind!r}; zoo has neither",
            code="model-switch-unfit",
        )
    depths = _each(config.get("transformer_layers_per_block", 1), len(channels))
    vector = config.get("projection_class_embeddings_input_dim") if added or kind else None
    distilled = config.get("time_cond_proj_dim")
    classes = config.get("num_class_embeds")
    blocks = _each(config.get("layers_per_block", 2), len(channels))
    if len(set(blocks)) > 1:
        raise ConfigError(f"{what} has {blocks} blocks; zoo's levels are alike", code="model-switch-unfit")
    cosines = bool(config.get("flip_sin_to_cos", True))
    if cosines != (config.get("freq_shift", 0) == 0):
        raise ConfigError(
            f"{what} says flip_sin_to_cos {cosines} beside another freq_shift, and zoo's U-Net has the two together",
            code="model-switch-unfit",
        )
    return {
        "in_channels": config.get("in_channels", 4), "out_channels": config.get("out_channels", 4),
        "width": channels[0], "mult": _multiples(channels, what), "blocks": blocks[0],
        "attention_levels": [i for i, a in enumerate(attended) if a], **_depth(depths),
        **({"heads": heads[-1]} if len(counted) == 1 else {"head_width": wide.pop()}),
        "context_width": config.get("cross_attention_dim", 1280),
        "projection": "linear" if config.get("use_linear_projection") else "conv",
        **({"cross_only_levels": [i for i, c in enumerate(cross) if c]} if any(cross) else {}),
        **({"groups": config["norm_num_groups"]} if config.get("norm_num_groups", 32) != 32 else {}),
        **({"norm_eps": config["norm_eps"]} if config.get("norm_eps", 1e-5) != 1e-5 else {}),
        **({"downsample_padding": "end"} if config.get("downsample_padding", 1) == 0 else {}),
        **({} if cosines else {"time_features": "sines-first"}),
        **({"vector_width": vector} if vector else {}), **({"classes": classes} if classes else {}),
        **({"guidance_width": distilled} if distilled else {}),
    }  # fmt: skip


def kl_from_shapes(shapes: Shapes, *, what: str) -> dict[str, Any]:
    """`AutoencoderKL`'s arguments without its scale; WeightsError where these are no such autoencoder."""
    try:
        stem = shapes["encoder.conv_in.weight"]
        levels = _count(shapes, r"encoder\.down\.(\d+)\.")
        channels = [shapes[f"encoder.down.{i}.block.0.conv2.weight"][0] for i in range(levels)]
        attended = [i for i in range(levels) if f"encoder.down.{i}.attn.0.q.weight" in shapes]
        return {
            "channels": shapes["post_quant_conv.weight"][1], "z_channels": shapes["decoder.conv_in.weight"][1],
            "width": stem[0], "mult": [c // stem[0] for c in channels],
            "blocks": _count(shapes, r"encoder\.down\.0\.block\.(\d+)\."), "image_channels": stem[1],
            **({"attention_levels": attended} if attended else {}),
        }  # fmt: skip
    except (KeyError, IndexError) as error:
        raise WeightsError(
            f"{what} is no KL autoencoder: it has no {error}; give another file", code="layout-wrong"
        ) from error


def kl_from_config(config: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """`AutoencoderKL`'s arguments of diffusers' class of that name."""
    channels, downs = list(config.get("block_out_channels") or ()), list(config.get("down_block_types") or ())
    kinds = {"DownEncoderBlock2D": False, "AttnDownEncoderBlock2D": True}
    other = next((kind for kind in downs if kind not in kinds), None)
    switches = ("use_quant_conv", "use_post_quant_conv", "mid_block_add_attention")
    plain = all(config.get(name, True) for name in switches)
    if other is not None or not channels or not plain or config.get("latents_mean") or config.get("latents_std"):
        raise ConfigError(
            f"{what} is no autoencoder of this family ({other or 'another layout'}); give another",
            code="model-switch-unfit",
        )
    attended = [i for i, kind in enumerate(downs) if kinds[kind]]
    return {
        "channels": config.get("latent_channels", 4), "z_channels": config.get("latent_channels", 4),
        "width": channels[0], "mult": _multiples(channels, what), "blocks": config.get("layers_per_block", 1),
        "image_channels": config.get("in_channels", 3), "scale": float(config.get("scaling_factor") or 0.18215),
        **({"shift": float(config["shift_factor"])} if config.get("shift_factor") else {}),
        **({"groups": config["norm_num_groups"]} if config.get("norm_num_groups", 32) != 32 else {}),
        **({"attention_levels": attended} if attended else {}),
    }  # fmt: skip


def text_from_shapes(shapes: Shapes, *, what: str) -> dict[str, Any]:
    """`ClipText`'s sizes, by open_clip's names or transformers' (without `text_model.`)."""
    own = "positional_embedding" in shapes
    table = "positional_embedding" if own else "embeddings.position_embedding.weight"
    projection = shapes.get("text_projection") or shapes.get("text_projection.weight", (None,))[::-1]
    try:
        length, width = shapes[table]
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{what} is no text encoder of CLIP's: it has no '{table}'; give another file", code="layout-wrong"
        ) from error
    layers = max((int(found[1]) for name in shapes if (found := _LAYER.match(name))), default=-1) + 1
    return {
        "width": width, "heads": max(1, width // HEAD), "layers": layers, "context_length": length,
        "embed_dim": projection[-1],
    }  # fmt: skip


def text_from_config(config: Mapping[str, Any], *, projected: bool, what: str) -> dict[str, Any]:
    """`ClipText`'s sizes and activation of transformers' CLIPTextModel; ConfigError for another kind of tower."""
    act, width = config.get("hidden_act", "quick_gelu"), config.get("hidden_size", 512)
    if act not in ("quick_gelu", "gelu") or config.get("layer_norm_eps", 1e-5) != 1e-5:
        raise ConfigError(
            f"{what} says hidden_act {act!r}, layer_norm_eps {config.get('layer_norm_eps')}; no CLIP's",
            code="model-switch-unfit",
        )
    return {
        "width": width, "heads": config.get("num_attention_heads", 8), "layers": config.get("num_hidden_layers", 12),
        "context_length": config.get("max_position_embeddings", 77),
        "embed_dim": config.get("projection_dim", 512) if projected else None,
        "activation": "gelu" if act == "gelu" else "quick-gelu",
    }  # fmt: skip


def tiny_from_shapes(shapes: Shapes, *, what: str) -> dict[str, Any]:
    """`TAESD`'s arguments, by its author's names or diffusers'; WeightsError where these are none."""
    first, last = ((shapes.get(f"decoder.{n}.weight") or shapes.get(f"decoder.layers.{m}.weight")) for n, m in
                   ((1, 0), (19, 18)))  # fmt: skip
    if first is None or last is None or len(first) != 4:
        raise WeightsError(f"{what} is no TAESD: its decoder has other layers; give another file", code="layout-wrong")
    return {"channels": first[1], "width": first[0]}


def tiny_from_config(config: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """`TAESD`'s arguments of diffusers' `AutoencoderTiny`; ConfigError for one that isn't as published."""
    widths = {
        *(config.get("encoder_block_out_channels") or (64,)),
        *(config.get("decoder_block_out_channels") or (64,)),
    }
    counts = [
        list(config.get(f"num_{side}_blocks") or d)
        for side, d in (("encoder", (1, 3, 3, 3)), ("decoder", (3, 3, 3, 1)))
    ]
    other = next((k for k, v in _TINY_SWITCHES.items() if config.get(k, v) != v), None)
    if len(widths) != 1 or counts != [[1, 3, 3, 3], [3, 3, 3, 1]] or other:
        raise ConfigError(
            f"{what} is no TAESD as published ({other or 'other blocks'}); give another", code="model-switch-unfit"
        )
    return {
        "channels": config.get("latent_channels", 4), "width": widths.pop(),
        "scale": float(config.get("scaling_factor") or 1.0),
    }  # fmt: skip


def vision_from_shapes(shapes: Shapes, *, what: str) -> dict[str, Any]:
    """The sizes of CLIP's image tower without its heads, by open_clip's names."""
    try:
        (width, _, patch, _), (_, embed_dim) = shapes["conv1.weight"], shapes["proj"]
        cells = shapes["positional_embedding"][0] - 1
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{what} is no image encoder of CLIP's ({error}); give another", code="layout-wrong"
        ) from error
    return {
        "width": width, "layers": _count(shapes, r"transformer\.resblocks\.(\d+)\."), "embed_dim": embed_dim,
        "patch": patch, "image_size": patch * round(cells**0.5),
    }  # fmt: skip


def vision_from_config(config: Mapping[str, Any], *, what: str) -> dict[str, Any]:
    """The same and its activation, of transformers' CLIPVisionModelWithProjection; ConfigError for another tower."""
    act, width = config.get("hidden_act", "quick_gelu"), config.get("hidden_size", 768)
    if (
        act not in ("quick_gelu", "gelu")
        or config.get("layer_norm_eps", 1e-5) != 1e-5
        or config.get("intermediate_size", 3072) != 4 * width
    ):
        raise ConfigError(
            f"{what} says hidden_act {act!r}, layer_norm_eps {config.get('layer_norm_eps')}, intermediate_size "
            f"{config.get('intermediate_size')} of {width}; no CLIP's",
            code="model-switch-unfit",
        )
    return {
        "width": width, "heads": config.get("num_attention_heads", 12), "layers": config.get("num_hidden_layers", 12),
        "embed_dim": config.get("projection_dim", 512), "image_size": config.get("image_size", 224),
        "patch": config.get("patch_size", 32), "activation": "gelu" if act == "gelu" else "quick-gelu",
    }  # fmt: skip


def _count(shapes: Shapes, pattern: str) -> int:
    """One more than the largest number that a name has in this place; 0 where none has any."""
    compiled = re.compile(pattern)
    return max((int(found[1]) for name in shapes if (found := compiled.match(name))), default=-1) + 1


def _multiples(channels: Sequence[Any], what: str) -> list[float]:
    """Channels of each level, in those of the first."""
    if any(isinstance(c, bool) or not isinstance(c, int) or c < 1 for c in channels):
        raise ConfigError(
            f"{what} has channels {list(channels)}; they are whole numbers over 0", code="model-switch-unfit"
        )
    return [c // channels[0] if c % channels[0] == 0 else c / channels[0] for c in channels]


def _depth(depths: Sequence[int]) -> dict[str, Any]:
    return {} if set(depths) == {1} else {"depth": list(depths)}


def _each(value: Any, count: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * count
