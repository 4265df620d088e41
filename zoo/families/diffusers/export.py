"""A latent text-to-image pipeline as a diffusers folder, which `StableDiffusionPipeline.from_pretrained` reads.

Written without diffusers: JSON (`zoo.families.diffusers.config`) and safetensors with the tensors renamed (`.layout`).

What the format can't express is refused. It draws zoo's images with zoo's start noise where the number of steps divides
the schedule's (`DDIMScheduler` walks by T // steps, in whole indices).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from zoo.autoencoders.kl import AutoencoderKL
from zoo.conditioners import vocabulary
from zoo.conditioners.clip_text import ClipText
from zoo.config.conditions import conditioners_of
from zoo.families.diffusers import layout as diffusers_layout
from zoo.families.diffusers.config import (
    WRITTEN_FOR,
    clip_text_config,
    kl_config,
    scheduler_config,
    unet_config,
)
from zoo.families.stable_diffusion.folder import OWN, PAD, UNIT, WORDS
from zoo.guidance.interval import classifier_free_scale
from zoo.networks.unet import UNet
from zoo.pipeline.pipeline import Pipeline, Stage
from zoo.schema.errors import ConfigError, UsageError, ZooError
from zoo.schema.files import atomic_folder
from zoo.schema.safe_yaml import to_yaml


def check_target(folder: Path) -> None:
    """UsageError unless `folder` can be made: it doesn't exist or is empty, and its parent can be written."""
    if folder.is_dir() and any(folder.iterdir()):
        raise UsageError(f"the folder '{folder}' isn't empty; name a new one to export to", code="output-taken")
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"'{folder}' is a file; name a new folder to export to", code="output-unwritable")
    parent = next(p for p in folder.absolute().parents if p.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise UsageError(
            f"'{folder}' can't be made: no permission for '{parent}'; choose another place", code="output-unwritable"
        )


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
        "tokenizer/tokenizer_config.json": _tokenizer_config(text.context_length, pads_with_zero=text.pad == "zero"),
        "scheduler/scheduler_config.json": scheduler_config(stage),
    }
    layers = len(text.transformer.resblocks) - text.layer + 1
    weights = {
        "unet/diffusion_pytorch_model": diffusers_layout.unet_tensors(unet.state_dict()),
        "vae/diffusion_pytorch_model": diffusers_layout.kl_tensors(kl_state),
        "text_encoder/model": diffusers_layout.clip_text_tensors(text.state_dict(), layers=layers),
    }
    try:
        with atomic_folder(target) as unfinished:
            for name, content in files.items():
                (unfinished / name).parent.mkdir(exist_ok=True)
                _write_json(unfinished / name, content)
            for name, tensors in weights.items():
                whole = {n: t.detach().cpu().contiguous().clone() for n, t in tensors.items()}
                save_file(whole, unfinished / f"{name}.safetensors", metadata={"format": "pt"})
            _write_tokenizer(unfinished / "tokenizer", pads_with_zero=text.pad == "zero")
            _write_own(unfinished, pipeline, text)
            (unfinished / "README.md").write_text(_read_me(pipeline, stage), encoding="utf-8")
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ZooError(
            f"'{target}' can't be written: {reason}; make room, or choose another place", code="output-unwritable"
        ) from error
    return target


def _parts(pipeline: Pipeline) -> tuple[Stage, UNet, AutoencoderKL, ClipText]:
    if len(pipeline.stages) != 1:
        raise ConfigError(
            f"a pipeline of {len(pipeline.stages)} stages can't be a Stable Diffusion folder; export one stage",
            code="export-unfit",
        )
    stage = pipeline.stages[0]
    listened = [pipeline.conditioners[name] for name in stage.conditioners]
    text = listened[0] if len(listened) == 1 else None
    unet = stage.denoiser.network
    for part, kind, needed in (
        (unet, UNet, "network 'unet'"),
        (stage.autoencoder, AutoencoderKL, "autoencoder 'kl'"),
        (text, ClipText, "one conditioner 'clip-text'"),
    ):
        if not isinstance(part, kind):
            raise ConfigError(
                f"stage '{stage.name}' can't be a Stable Diffusion folder: that needs {needed}", code="export-unfit"
            )
    if stage.interval != (1.0, 0.0):
        raise ConfigError(
            f"stage '{stage.name}' runs over a part of t, which a Stable Diffusion folder can't say",
            code="export-unfit",
        )
    return stage, unet, stage.autoencoder, text  # type: ignore[return-value]


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


# -- the tokenizer and the rest


def write_clip_tokenizer(folder: Path, *, pads_with_zero: bool) -> None:
    """CLIP's vocabulary and merges as transformers' `CLIPTokenizer` reads them; what follows the end is the tower's."""
    _write_json(folder / "tokenizer_config.json", _tokenizer_config(77, pads_with_zero=pads_with_zero))
    _write_tokenizer(folder, pads_with_zero=pads_with_zero)


_START, _END = "<|startoftext|>", "<|endoftext|>"


def _tokenizer_config(length: int, *, pads_with_zero: bool) -> dict[str, Any]:
    return {
        "tokenizer_class": "CLIPTokenizer", "model_max_length": length, "bos_token": _START, "eos_token": _END,
        "unk_token": _END, "pad_token": PAD if pads_with_zero else _END,
    }  # fmt: skip


def _write_tokenizer(folder: Path, *, pads_with_zero: bool) -> None:
    tokenizer = vocabulary.tokenizer()
    names = {"<start_of_text>": _START, "<end_of_text>": _END}
    ids: dict[Any, int] = {names.get(token, token): i for token, i in tokenizer.encoder.items()}
    if pads_with_zero:
        # Token 0 is "!" inside a word. Padding by that name would turn every "!" of a prompt into padding, so token 0
        # gets a second name.
        ids = {PAD: 0, **ids}
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


def _write_own(folder: Path, pipeline: Pipeline, text: ClipText) -> None:
    """What the format can't say and zoo reads again: guidance and sampler as configured, and the words of the data."""
    if text.words is not None:
        (folder / "text_encoder" / WORDS).write_text(text.words.text(), encoding="utf-8")
    config = pipeline.record.get("config")
    if config is None:
        return
    unet = UNIT if pipeline.stages[0].denoiser.initial_scale == "unit" else "unet"
    stage = {**config["stages"][0], "denoiser": {"weights": unet}, "autoencoder": {"weights": "vae"}}
    conditioners = {name: {"weights": "text_encoder"} for name in conditioners_of(stage["listens"])}
    own = {**config, "conditioners": conditioners, "stages": [stage]}
    (folder / OWN).write_text(to_yaml(json.loads(json.dumps(own))), encoding="utf-8")


def _read_me(pipeline: Pipeline, stage: Stage) -> str:
    """How to draw with the folder, and whose work its weights are."""
    from zoo.config.cards import read_card

    scales = [scale for g in stage.guidance if (scale := classifier_free_scale(g)) is not None]
    scale = scales[0] if scales else 1.0
    points = stage.denoiser.schedule.T or 1000
    wanted = getattr(stage.sampler, "steps", 30)
    # Other numbers of steps draw a slightly different image (see the module).
    steps = min((n for n in range(1, points + 1) if points % n == 0), key=lambda n: abs(n - wanted))
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
