"""The configurations of diffusers' and transformers' classes that are zoo's modules, as plain mappings.

Every value is read off the module itself, so that a configuration can't differ from what it describes; what those
classes can't represent is refused.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from zoo.autoencoders.kl import AutoencoderKL
from zoo.conditioners import vocabulary
from zoo.conditioners.clip_text import ClipText
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import X0, Eps, V
from zoo.diffusion.schedules import CosineSchedule, DiscreteSchedule, LinearSchedule, ScaledLinearSchedule
from zoo.networks.transformer import BasicTransformerBlock, CrossAttention, SpatialTransformer
from zoo.networks.unet import ResBlock, UNet
from zoo.pipeline.pipeline import Stage
from zoo.samplers.ddim import DDIM
from zoo.samplers.grid import Leading, Trailing
from zoo.schema.errors import ConfigError

WRITTEN_FOR = "0.36.0"  # the diffusers whose fields these are
PREDICTION_TYPES = {Eps: "epsilon", V: "v_prediction", X0: "sample"}


def unet_config(unet: UNet, *, sample_size: int | None = None) -> dict[str, Any]:
    """The configuration of diffusers' `UNet2DConditionModel` that is this U-Net."""
    if unet.patch > 1:
        raise ConfigError(
            f"a U-Net with patch {unet.patch} can't be a UNet2DConditionModel, which takes single pixels",
            code="export-unfit",
        )
    if unet.dims != 2:
        raise ConfigError(
            f"a U-Net of {unet.dims} spatial dimensions can't be a UNet2DConditionModel; it takes pictures",
            code="export-unfit",
        )
    if any(isinstance(m, BasicTransformerBlock) and m.cross_only for m in unet.modules()):
        raise ConfigError("a U-Net with cross_only_levels isn't exported; only others can be", code="export-unfit")
    levels = _levels(unet)
    middle = [m for m in unet.middle_block if isinstance(m, SpatialTransformer)]
    if not middle:
        raise ConfigError(
            "a U-Net without attention in its middle can't be a UNet2DConditionModel; only others can be exported",
            code="export-unfit",
        )
    attention = [next((m for m in level if isinstance(m, SpatialTransformer)), None) for level in levels]
    # Levels without attention don't determine the heads; the middle takes the last entry.
    heads = [_attention(a or middle[0]).heads for a in [*attention[:-1], middle[0]]]
    residual = [next(m for m in level if isinstance(m, ResBlock)) for level in levels]
    channels = [block.out_layers[3].out_channels for block in residual]
    _check_first_level(unet.width, channels, what="U-Net")
    if unet.stem_width != unet.width:
        raise ConfigError(
            "a U-Net with a stem_width of its own can't be a UNet2DConditionModel; only others can be",
            code="export-unfit",
        )
    norm = residual[0].in_layers[0]
    assert isinstance(norm, nn.GroupNorm)
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": WRITTEN_FOR,
        "sample_size": sample_size,
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "block_out_channels": channels,
        "layers_per_block": blocks_of(unet),
        "down_block_types": ["DownBlock2D" if a is None else "CrossAttnDownBlock2D" for a in attention],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["UpBlock2D" if a is None else "CrossAttnUpBlock2D" for a in reversed(attention)],
        # diffusers reads this as the number of heads, whatever it is called.
        "attention_head_dim": heads[0] if len(set(heads)) == 1 else heads,
        "transformer_layers_per_block": len(middle[0].transformer_blocks),
        "cross_attention_dim": _attention(middle[0]).to_k.in_features,
        "use_linear_projection": middle[0].linear,
        "norm_num_groups": norm.num_groups,
        "norm_eps": norm.eps,
        "act_fn": "silu",
        "downsample_padding": 1 if unet.downsample_padding == "both" else 0,
        "flip_sin_to_cos": unet.time_features == "cosines-first",
        "freq_shift": 0 if unet.time_features == "cosines-first" else 1,
    }


def _levels(unet: UNet) -> list[list[nn.Module]]:
    """The layers of each level of the way down, its residual blocks and transformers."""
    per_level = blocks_of(unet) + 1
    rows: list[Any] = list(unet.input_blocks)[1:]
    return [[m for block in rows[i : i + per_level] for m in block] for i in range(0, len(rows), per_level)]


def blocks_of(unet: UNet) -> int:
    """Residual blocks a level."""
    levels = (unet.size_multiple // unet.patch).bit_length()
    return (len(unet.input_blocks) - levels) // levels


def _attention(transformer: SpatialTransformer) -> CrossAttention:
    """The cross-attention of a transformer's first block; the others are like it."""
    block = transformer.transformer_blocks[0]
    assert isinstance(block, BasicTransformerBlock)
    return block.attn2


def _check_first_level(width: int, channels: list[Any], *, what: str) -> None:
    if channels[0] != width:
        raise ConfigError(
            f"diffusers' {what} begins with the channels of its first level; one of width {width} and {channels[0]} "
            "channels there (mult not starting with 1) can't be exported",
            code="export-unfit",
        )


def kl_config(autoencoder: AutoencoderKL, *, sample_size: int = 32) -> dict[str, Any]:
    """The configuration of diffusers' `AutoencoderKL` that is this autoencoder.

    `scaling_factor` is its scale; a shift is folded into its convolutions (see `export_diffusers`), because
    `StableDiffusionPipeline` reads none.
    """
    encoder, decoder = autoencoder.encoder, autoencoder.decoder
    if decoder.conv_in.in_channels != autoencoder.channels:
        raise ConfigError(
            f"an autoencoder with z_channels {decoder.conv_in.in_channels} and channels {autoencoder.channels} "
            "can't be diffusers' AutoencoderKL; the two must be equal",
            code="export-unfit",
        )
    attention = [len(level.attn) > 0 for level in encoder.down]  # type: ignore[arg-type]
    channels = [level.block[-1].conv2.out_channels for level in encoder.down]  # type: ignore[index, union-attr]
    _check_first_level(encoder.conv_in.out_channels, channels, what="AutoencoderKL")
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": WRITTEN_FOR,
        "sample_size": sample_size,
        "in_channels": encoder.conv_in.in_channels,
        "out_channels": decoder.conv_out.out_channels,
        "latent_channels": autoencoder.channels,
        "block_out_channels": channels,
        "layers_per_block": len(encoder.down[0].block),  # type: ignore[arg-type]
        "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention],
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attention)],
        "norm_num_groups": encoder.norm_out.num_groups,
        "act_fn": "silu",
        "scaling_factor": float(autoencoder.scale),
    }


def clip_text_config(text: ClipText) -> dict[str, Any]:
    """The configuration of transformers' `CLIPTextModel` whose last states are this conditioner's tokens."""
    if not text.final_norm:
        raise ConfigError(
            "a text tower read without its final norm can't be a CLIPTextModel; it always applies it",
            code="export-unfit",
        )
    blocks: list[Any] = list(text.transformer.resblocks)  # type: ignore[arg-type]
    return {
        "architectures": ["CLIPTextModel"],
        "model_type": "clip_text_model",
        "vocab_size": vocabulary.VOCABULARY,
        "hidden_size": text.width,
        "intermediate_size": blocks[0].mlp.c_fc.out_features,
        "num_hidden_layers": len(blocks) - text.layer + 1,
        "num_attention_heads": blocks[0].attn.num_heads,
        "max_position_embeddings": text.context_length,
        "hidden_act": "gelu" if text.activation == "gelu" else "quick_gelu",
        "layer_norm_eps": text.ln_final.eps,
        "projection_dim": text.embed_dim or text.width,
        "bos_token_id": vocabulary.START,
        "eos_token_id": vocabulary.END,
        "pad_token_id": 0 if text.pad == "zero" else vocabulary.END,
        "attention_dropout": 0.0,
    }


def scheduler_config(stage: Stage) -> dict[str, Any]:
    """The configuration of diffusers' `DDIMScheduler` that matches this stage's DDIM."""
    denoiser, sampler = stage.denoiser, stage.sampler
    if not isinstance(sampler, DDIM):
        raise ConfigError(
            f"the sampler of stage '{stage.name}' can't be exported; choose sampler 'ddim'", code="export-unfit"
        )
    grid = sampler.grid
    if not (isinstance(grid, Trailing) or (isinstance(grid, Leading) and grid.offset == 1 and not grid.skip_cleanest)):
        # Its steps go on by T // steps from wherever they are, which is wrong for every other spacing.
        raise ConfigError(
            f"diffusers' DDIMScheduler doesn't walk the grid of stage '{stage.name}'; choose grid 'trailing', "
            "or 'leading' with offset 1",
            code="export-unfit",
        )
    prediction = PREDICTION_TYPES.get(type(denoiser.parameterization))
    if prediction is None:
        raise ConfigError(
            f"diffusers has no name for the parameterization {denoiser.parameterization}; use eps, v or x0",
            code="export-unfit",
        )
    schedule = denoiser.schedule
    if not isinstance(schedule, DiscreteSchedule):
        raise ConfigError("DDIMScheduler needs a schedule with discrete points, like cosine", code="export-unfit")
    if not _told_by_index(denoiser, schedule):
        raise ConfigError(
            f"diffusers hands a network the schedule's index, not time_input '{denoiser.time_input_name}'; "
            "these weights can't be exported",
            code="export-unfit",
        )
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": WRITTEN_FOR,
        "num_train_timesteps": schedule.steps,
        **_betas(schedule),
        "prediction_type": prediction,
        "timestep_spacing": "trailing" if isinstance(grid, Trailing) else "leading",
        "steps_offset": 1,  # of leading grids; StableDiffusionPipeline sets it so whatever this is
        "set_alpha_to_one": sampler.final == "clean",
        "clip_sample": False,
        "thresholding": False,
        "rescale_betas_zero_snr": False,
    }


def _told_by_index(denoiser: Denoiser, schedule: DiscreteSchedule) -> bool:
    return denoiser.time_input_name == "index" or (denoiser.time_input_name == "index1000" and schedule.steps == 1000)


def _betas(schedule: DiscreteSchedule) -> dict[str, Any]:
    if isinstance(schedule, (LinearSchedule, ScaledLinearSchedule)):
        name = "linear" if isinstance(schedule, LinearSchedule) else "scaled_linear"
        return {"beta_schedule": name, "beta_start": schedule.beta_start, "beta_end": schedule.beta_end}
    if schedule == CosineSchedule(steps=schedule.steps):
        return {"beta_schedule": "squaredcos_cap_v2"}
    return {"trained_betas": [float(b) for b in schedule.betas]}
