"""A latent text-to-image pipeline as a diffusers folder, which `StableDiffusionPipeline.from_pretrained` reads.

Written without diffusers: JSON and safetensors, with the tensors renamed (`diffusers_layout`). Every configuration
value is read off the modules themselves, so that the folder describes what is in it.

What the format can't say is refused. It draws zoo's pictures with zoo's start noise where the number of steps divides
the schedule's (`DDIMScheduler` walks by T // steps, in whole indices).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from zoo.autoencoders.kl import AutoencoderKL
from zoo.checkpoints import diffusers_layout
from zoo.conditioners import vocabulary
from zoo.conditioners.clip_text import ClipText
from zoo.denoiser import Denoiser
from zoo.errors import ConfigError, UsageError
from zoo.guidance.classifier_free import ClassifierFree
from zoo.networks.transformer import SpatialTransformer
from zoo.networks.unet import ResBlock, UNet
from zoo.parameterization import X0, Eps, V
from zoo.pipeline import Pipeline, Stage
from zoo.samplers.ddim import DDIM
from zoo.samplers.grid import Leading, Trailing
from zoo.schedules import CosineSchedule, DiscreteSchedule, LinearSchedule, ScaledLinearSchedule

WRITTEN_FOR = "0.36.0"  # the diffusers whose layout this is
PREDICTION_TYPES = {Eps: "epsilon", V: "v_prediction", X0: "sample"}


def check_target(folder: Path) -> None:
    """UsageError unless `folder` can be made: it doesn't exist or is empty, and its parent can be written."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"the folder '{folder}' isn't empty; name a new one to export to")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; name a new folder to export to")
    parent = next(p for p in folder.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(f"'{folder}' can't be made: no permission for '{parent}'; choose another place")


def export_diffusers(pipeline: Pipeline, folder: Path | str) -> Path:
    """Write the pipeline to `folder`, all of it or nothing; returns the folder.

    Raises UsageError for a folder that can't be made, and ConfigError for a pipeline the format can't hold.
    """
    target = Path(folder)
    check_target(target)
    stage, unet, autoencoder, text = _parts(pipeline)
    kl_state = _without_shift(autoencoder)
    files: dict[str, Mapping[str, Any]] = {
        "model_index.json": _model_index(),
        "unet/config.json": unet_config(unet, sample_size=stage.size // autoencoder.factor),
        "vae/config.json": kl_config(autoencoder, sample_size=stage.size),
        "text_encoder/config.json": clip_text_config(text),
        "tokenizer/tokenizer_config.json": _tokenizer_config(text),
        "scheduler/scheduler_config.json": scheduler_config(stage),
    }
    levels, layers = len(autoencoder.encoder.down), len(text.transformer.resblocks) - text.layer + 1
    weights = {
        "unet/diffusion_pytorch_model": diffusers_layout.unet_tensors(unet.state_dict(), blocks=_blocks(unet)),
        "vae/diffusion_pytorch_model": diffusers_layout.kl_tensors(kl_state, levels=levels),
        "text_encoder/model": diffusers_layout.clip_text_tensors(text.state_dict(), layers=layers),
    }
    unfinished = target.absolute().parent / f".{target.name}.{os.getpid()}.unfinished"
    unfinished.mkdir(parents=True)
    try:
        for name, content in files.items():
            (unfinished / name).parent.mkdir(exist_ok=True)
            _write_json(unfinished / name, content)
        for name, tensors in weights.items():
            whole = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
            save_file(whole, unfinished / f"{name}.safetensors", metadata={"format": "pt"})
        _write_tokenizer(unfinished / "tokenizer", pads_with_zero=text.pad == "zero")
        (unfinished / "README.md").write_text(_read_me(pipeline, stage), encoding="utf-8")
        if target.exists():
            target.rmdir()
        unfinished.rename(target)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return target


def _parts(pipeline: Pipeline) -> tuple[Stage, UNet, AutoencoderKL, ClipText]:
    if len(pipeline.stages) != 1:
        raise ConfigError(
            f"a pipeline of {len(pipeline.stages)} stages can't be a Stable Diffusion folder; export one stage"
        )
    stage = pipeline.stages[0]
    listened = [pipeline.conditioners[name] for name in stage.listens]
    text = listened[0] if len(listened) == 1 else None
    unet = stage.denoiser.network
    for part, kind, needed in (
        (unet, UNet, "network 'unet'"),
        (stage.autoencoder, AutoencoderKL, "autoencoder 'kl'"),
        (text, ClipText, "one conditioner 'clip-text'"),
    ):
        if not isinstance(part, kind):
            raise ConfigError(f"stage '{stage.name}' can't be a Stable Diffusion folder: that needs {needed}")
    if stage.interval != (1.0, 0.0):
        raise ConfigError(f"stage '{stage.name}' runs over a part of t, which a Stable Diffusion folder can't say")
    return stage, unet, stage.autoencoder, text  # type: ignore[return-value]


# -- configurations, read off the modules


def unet_config(unet: UNet, *, sample_size: int | None = None) -> dict[str, Any]:
    """The configuration of diffusers' `UNet2DConditionModel` that is this U-Net."""
    levels = _levels(unet)
    middle = [m for m in unet.middle_block if isinstance(m, SpatialTransformer)]
    if not middle:
        raise ConfigError("a U-Net without attention in its middle can't be a UNet2DConditionModel; train it with")
    attention = [next((m for m in level if isinstance(m, SpatialTransformer)), None) for level in levels]
    transformers = [*middle, *(a for a in attention if a is not None)]
    first = transformers[0]
    # Levels without attention have no say; the middle takes the last entry.
    heads = [first.transformer_blocks[0].attn1.heads if a is None else _heads(a) for a in attention[:-1]] + [
        _heads(first)
    ]
    res = next(m for m in levels[0] if isinstance(m, ResBlock))
    norm = _group_norm(res.in_layers[0])
    return {
        "_class_name": "UNet2DConditionModel",
        "_diffusers_version": WRITTEN_FOR,
        "sample_size": sample_size,
        "in_channels": unet.in_channels,
        "out_channels": unet.out_channels,
        "block_out_channels": [
            next(m for m in level if isinstance(m, ResBlock)).out_layers[3].out_channels for level in levels
        ],
        "layers_per_block": _blocks(unet),
        "down_block_types": ["DownBlock2D" if a is None else "CrossAttnDownBlock2D" for a in attention],
        "mid_block_type": "UNetMidBlock2DCrossAttn",
        "up_block_types": ["UpBlock2D" if a is None else "CrossAttnUpBlock2D" for a in reversed(attention)],
        # diffusers reads this as the number of heads, whatever it is called.
        "attention_head_dim": heads[0] if len(set(heads)) == 1 else heads,
        "transformer_layers_per_block": len(first.transformer_blocks),
        "cross_attention_dim": first.transformer_blocks[0].attn2.to_k.in_features,
        "use_linear_projection": first.linear,
        "norm_num_groups": norm.num_groups,
        "norm_eps": norm.eps,
        "act_fn": "silu",
        "downsample_padding": 1,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
    }


def _levels(unet: UNet) -> list[list[nn.Module]]:
    """The layers of each level of the way down, its residual blocks and transformers."""
    per_level = _blocks(unet) + 1
    rows = list(unet.input_blocks)[1:]
    return [[m for block in rows[i : i + per_level] for m in block] for i in range(0, len(rows), per_level)]


def _blocks(unet: UNet) -> int:
    levels = unet.size_multiple.bit_length()
    return (len(unet.input_blocks) - levels) // levels


def _heads(transformer: SpatialTransformer) -> int:
    return transformer.transformer_blocks[0].attn1.heads  # type: ignore[union-attr, return-value]


def _group_norm(module: nn.Module) -> nn.GroupNorm:
    assert isinstance(module, nn.GroupNorm)
    return module


def kl_config(autoencoder: AutoencoderKL, *, sample_size: int | None = None) -> dict[str, Any]:
    """The configuration of diffusers' `AutoencoderKL` that is this autoencoder.

    `scaling_factor` is its scale; a shift is folded into its convolutions (see `export_diffusers`), because
    `StableDiffusionPipeline` reads none.
    """
    encoder, decoder = autoencoder.encoder, autoencoder.decoder
    if decoder.conv_in.in_channels != autoencoder.channels:
        raise ConfigError(
            f"an autoencoder with z_channels {decoder.conv_in.in_channels} and channels {autoencoder.channels} "
            "can't be diffusers' AutoencoderKL; the two must be equal"
        )
    attention = [len(level.attn) > 0 for level in encoder.down]  # type: ignore[arg-type]
    return {
        "_class_name": "AutoencoderKL",
        "_diffusers_version": WRITTEN_FOR,
        "sample_size": sample_size,
        "in_channels": encoder.conv_in.in_channels,
        "out_channels": decoder.conv_out.out_channels,
        "latent_channels": autoencoder.channels,
        "block_out_channels": [level.block[-1].conv2.out_channels for level in encoder.down],  # type: ignore[index, union-attr]
        "layers_per_block": len(encoder.down[0].block),  # type: ignore[arg-type]
        "down_block_types": ["AttnDownEncoderBlock2D" if a else "DownEncoderBlock2D" for a in attention],
        "up_block_types": ["AttnUpDecoderBlock2D" if a else "UpDecoderBlock2D" for a in reversed(attention)],
        "norm_num_groups": encoder.norm_out.num_groups,
        "act_fn": "silu",
        "scaling_factor": float(autoencoder.scale),
    }


@torch.no_grad()
def _without_shift(autoencoder: AutoencoderKL) -> dict[str, Tensor]:
    """The tensors of the same autoencoder with a shift of 0: z - shift is made by the convolutions beside z."""
    state = dict(autoencoder.state_dict())
    n, shift = autoencoder.channels, autoencoder.shift
    if shift:
        before, after = state["quant_conv.bias"].clone(), state["post_quant_conv.bias"].clone()
        before[:n] -= shift
        after += shift * state["post_quant_conv.weight"].sum(dim=(1, 2, 3))
        state |= {"quant_conv.bias": before, "post_quant_conv.bias": after}
    return state


def clip_text_config(text: ClipText) -> dict[str, Any]:
    """The configuration of transformers' `CLIPTextModel` whose last states are this conditioner's tokens."""
    if not text.final_norm:
        raise ConfigError("a text tower read without its final norm can't be a CLIPTextModel; it always applies it")
    blocks = list(text.transformer.resblocks)  # type: ignore[arg-type]
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
        "projection_dim": text.text_projection.shape[1],  # type: ignore[union-attr, index]
        "bos_token_id": vocabulary.START,
        "eos_token_id": vocabulary.END,
        "pad_token_id": 0 if text.pad == "zero" else vocabulary.END,
        "attention_dropout": 0.0,
    }


def scheduler_config(stage: Stage) -> dict[str, Any]:
    """The configuration of diffusers' `DDIMScheduler` that walks as this stage's DDIM does."""
    denoiser, sampler = stage.denoiser, stage.sampler
    if not isinstance(sampler, DDIM):
        raise ConfigError(f"the sampler of stage '{stage.name}' can't be exported; choose sampler 'ddim'")
    grid = sampler.grid
    if not (isinstance(grid, Trailing) or (isinstance(grid, Leading) and grid.offset == 1 and not grid.skip_cleanest)):
        # Its steps go on by T // steps from wherever they are, which is wrong for every other spacing.
        raise ConfigError(
            f"diffusers' DDIMScheduler doesn't walk the grid of stage '{stage.name}'; choose grid 'trailing', "
            "or 'leading' with offset 1"
        )
    prediction = PREDICTION_TYPES.get(type(denoiser.parameterization))
    if prediction is None:
        raise ConfigError(
            f"diffusers has no name for the parameterization {denoiser.parameterization}; use eps, v or x0"
        )
    schedule = denoiser.schedule
    if not isinstance(schedule, DiscreteSchedule):
        raise ConfigError("DDIMScheduler needs a schedule with discrete points, like cosine")
    if not _told_by_index(denoiser, schedule):
        raise ConfigError(
            f"diffusers hands a network the schedule's index, not time_input '{denoiser.time_input_name}'; "
            "these weights can't be exported"
        )
    return {
        "_class_name": "DDIMScheduler",
        "_diffusers_version": WRITTEN_FOR,
        "num_train_timesteps": schedule.steps,
        **_betas(schedule),
        "prediction_type": prediction,
        "timestep_spacing": "trailing" if isinstance(grid, Trailing) else "leading",
        "steps_offset": 1,  # of leading grids; StableDiffusionPipeline sets it so whatever stands here
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


# -- the tokenizer and the rest

_START, _END, _PAD = "<|startoftext|>", "<|endoftext|>", "<|pad|>"


def _tokenizer_config(text: ClipText) -> dict[str, Any]:
    return {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": text.context_length,
        "bos_token": _START,
        "eos_token": _END,
        "unk_token": _END,
        "pad_token": _PAD if text.pad == "zero" else _END,
    }


def _write_tokenizer(folder: Path, *, pads_with_zero: bool) -> None:
    from open_clip.tokenizer import SimpleTokenizer

    tokenizer = SimpleTokenizer()
    names = {"<start_of_text>": _START, "<end_of_text>": _END}
    ids = {names.get(token, token): i for token, i in tokenizer.encoder.items()}
    if pads_with_zero:
        # Token 0 is "!" inside a word. Padding by that name would turn every "!" of a prompt into padding, so token 0
        # gets a second name.
        ids = {_PAD: 0, **ids}
    _write_json(folder / "vocab.json", ids, indent=None)
    merges = "\n".join(" ".join(pair) for pair in tokenizer.bpe_ranks)
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n", encoding="utf-8")


def _model_index() -> dict[str, Any]:
    return {
        "_class_name": "StableDiffusionPipeline",
        "_diffusers_version": WRITTEN_FOR,
        "scheduler": ["diffusers", "DDIMScheduler"],
        "text_encoder": ["transformers", "CLIPTextModel"],
        "tokenizer": ["transformers", "CLIPTokenizer"],
        "unet": ["diffusers", "UNet2DConditionModel"],
        "vae": ["diffusers", "AutoencoderKL"],
        "feature_extractor": [None, None],
        "image_encoder": [None, None],
        "safety_checker": [None, None],
        "requires_safety_checker": False,
    }


def _read_me(pipeline: Pipeline, stage: Stage) -> str:
    """How to draw with the folder, and whose work its weights are."""
    from zoo.config.cards import read_card

    scale = next((g.scale for g in stage.guidance if isinstance(g, ClassifierFree)), 1.0)
    steps = getattr(stage.sampler, "steps", 30)
    lines = [
        "# Exported by zoo", "", "```python", "from diffusers import StableDiffusionPipeline", "",
        'pipe = StableDiffusionPipeline.from_pretrained(".")',
        f'pipe("...", num_inference_steps={steps}, guidance_scale={scale:g}).images[0].save("out.png")', "```",
    ]  # fmt: skip
    for name in pipeline.record.get("weights", {}):
        raw = read_card(name).raw
        lines += ["", f"## {name}", "", f"{raw.get('summary', '')}", "", f"Licence: {raw.get('licence', 'not said')}"]
        attribution = raw.get("attribution") or []
        lines += [f"- {entry}" for entry in ([attribution] if isinstance(attribution, str) else attribution)]
    return "\n".join(lines) + "\n"


def _write_json(path: Path, content: Mapping[str, Any], *, indent: int | None = 2) -> None:
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False) + "\n", encoding="utf-8")
