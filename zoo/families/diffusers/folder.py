"""A Stable Diffusion folder (diffusers' layout) as a pipeline of zoo: what `zoo export` writes, read again.

The folder is a pipeline (`zoo generate --model FOLDER`), its `unet`, `vae` and `text_encoder` are weights
(`{weights: FOLDER/unet}`). Every argument is read from the folder's configurations, the inverse of
`zoo.families.diffusers.config`; an entry that this reader doesn't know is refused, never guessed. What those
configurations can't say (guidance, the number of steps, the words of the data) lies beside them in `zoo.yaml` and
`text_encoder/words.json`; a folder without them is drawn as its README.md or StableDiffusionPipeline does by default.

Torch is not needed: the weight files are only hashed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.checkpoints.folders import read_json
from zoo.config.cards import Card
from zoo.schema.errors import ConfigError
from zoo.schema.files import sha256_of
from zoo.schema.safe_yaml import read_mapping

INDEX, OWN, WORDS = "model_index.json", "zoo.yaml", "words.json"
GUIDANCE, STEPS = 7.5, 50  # StableDiffusionPipeline's own defaults
_PARAMETERIZATIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
# What each configuration may say besides the entries that are read, and the one value that zoo's modules have.
_UNET_FIXED: Mapping[str, Any] = {
    "mid_block_type": "UNetMidBlock2DCrossAttn", "act_fn": "silu", "center_input_sample": False,
    "class_embed_type": None, "addition_embed_type": None, "num_class_embeds": None,
    "only_cross_attention": False, "dual_cross_attention": False,
    "encoder_hid_dim": None, "encoder_hid_dim_type": None, "resnet_time_scale_shift": "default", "dropout": 0.0,
    "time_embedding_type": "positional", "time_cond_proj_dim": None, "conv_in_kernel": 3, "conv_out_kernel": 3,
    "mid_block_scale_factor": 1, "num_attention_heads": None, "upcast_attention": False,
}  # fmt: skip
_KL_FIXED: Mapping[str, Any] = {
    "act_fn": "silu", "shift_factor": None, "latents_mean": None, "latents_std": None, "use_quant_conv": True,
    "use_post_quant_conv": True, "mid_block_add_attention": True,
}  # fmt: skip
_TEXT_FIXED: Mapping[str, Any] = {"model_type": ("clip_text_model",), "layer_norm_eps": 1e-5, "vocab_size": 49408}
_SCHEDULER_FIXED: Mapping[str, Any] = {"thresholding": False, "rescale_betas_zero_snr": False, "clip_sample": False}


def is_folder(path: Path) -> bool:
    """Whether a path is a folder that zoo exported, or that of one part of any; `zoo.config.sources` reads others."""
    return ((path / INDEX).is_file() and (path / OWN).is_file()) or (
        (path / "config.json").is_file() and (path.parent / INDEX).is_file()
    )


def pipeline(folder: Path) -> dict[str, Any]:
    """The pipeline that a folder is, as a config would write it; ConfigError for another kind of folder."""
    index = _read(folder / INDEX)
    if index.get("_class_name") != "StableDiffusionPipeline":
        raise ConfigError(
            f"'{folder}' is a {index.get('_class_name')} folder; zoo reads StableDiffusionPipeline's",
            code="model-unread",
        )
    weights = {part: str(folder / part) for part in ("unet", "vae", "text_encoder")}
    if (folder / OWN).is_file():
        return _placed(read_mapping(folder / OWN), weights)
    unet, vae = _read(folder / "unet" / "config.json"), _read(folder / "vae" / "config.json")
    factor = 2 ** (len(_list(vae, "block_out_channels", folder)) - 1)
    size = int(unet.get("sample_size") or 64) * factor
    return {
        "schema": "zoo.pipeline/1",
        "name": folder.absolute().name,
        "summary": f"Text to {size}x{size} images, from a diffusers folder.",
        "conditioners": {"text": {"weights": weights["text_encoder"]}},
        "stages": [
            {
                "name": "base", "listens": ["text"], "size": size, "denoiser": {"weights": weights["unet"]},
                "autoencoder": {"weights": weights["vae"]},
                "guidance": [{"name": "classifier-free", "scale": GUIDANCE}], "sampler": _sampler(folder),
            }
        ],
    }  # fmt: skip


def card(part: Path) -> Card:
    """The card of one part's weights: `FOLDER/unet`, `FOLDER/vae` or `FOLDER/text_encoder`."""
    folder, config = part.parent, _read(part / "config.json")
    readers = {"UNet2DConditionModel": _unet, "AutoencoderKL": _kl, "CLIPTextModel": _text}
    named = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
    if named not in readers:
        raise ConfigError(
            f"'{part}' holds a {named}; zoo reads {', '.join(readers)} of a Stable Diffusion folder",
            code="model-unread",
        )
    kind, component, arguments, contract = readers[named](config, part)
    file = part / ("model.safetensors" if kind == "conditioner" else "diffusion_pytorch_model.safetensors")
    if not file.is_file():
        raise ConfigError(
            f"'{part}' has no '{file.name}'; export it again, or save it as safetensors", code="weights-missing"
        )
    facts = {"name": file.name, "bytes": file.stat().st_size, "sha256": sha256_of(file)}
    raw: dict[str, Any] = {"file": facts, "summary": f"{named} of '{folder}'"}
    if kind == "conditioner" and (part / WORDS).is_file():
        raw["words"] = WORDS
    return Card(
        name=f"{folder.absolute().name}/{part.name}", path=part / "config.json", kind=kind, component=component,
        summary=raw["summary"], config=arguments, denoiser=_denoiser(folder) if kind == "network" else None,
        contract=contract, raw=raw, layout="diffusers",
    )  # fmt: skip


# -- the parts: (kind, component, arguments, contract)


def _unet(config: Mapping[str, Any], part: Path) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    _refuse(config, _UNET_FIXED, part)
    channels, down = _list(config, "block_out_channels", part), _list(config, "down_block_types", part)
    known = {"DownBlock2D": False, "CrossAttnDownBlock2D": True}
    strange = next((name for name in down if name not in known), None)
    if strange is not None:
        raise ConfigError(f"'{part}' has a level '{strange}'; zoo reads {' and '.join(known)}", code="model-unread")
    heads, cosines = config.get("attention_head_dim", 8), config.get("flip_sin_to_cos", True)
    if bool(cosines) != (config.get("freq_shift", 0) == 0):
        raise ConfigError(
            f"'{part}' has flip_sin_to_cos {cosines} beside another freq_shift; zoo has no such network",
            code="model-unread",
        )
    depth = config.get("transformer_layers_per_block", 1)
    arguments = {
        "in_channels": config.get("in_channels", 4), "out_channels": config.get("out_channels", 4),
        "width": channels[0], "mult": _multiples(channels, part), "blocks": config.get("layers_per_block", 2),
        "attention_levels": [i for i, name in enumerate(down) if known[name]],
        **_heads(heads, channels, part),
        "depth": depth, "context_width": config.get("cross_attention_dim"),
        "projection": "linear" if config.get("use_linear_projection") else "conv",
        "groups": config.get("norm_num_groups", 32), "norm_eps": config.get("norm_eps", 1e-5),
        "downsample_padding": "both" if config.get("downsample_padding", 1) == 1 else "end",
        "time_features": "cosines-first" if cosines else "sines-first",
    }  # fmt: skip
    contract = {
        "in_channels": arguments["in_channels"], "out_channels": arguments["out_channels"],
        "size_multiple": 2 ** (len(channels) - 1), "context_width": arguments["context_width"],
        **({"size": config["sample_size"]} if config.get("sample_size") else {}),
    }  # fmt: skip
    return "network", "unet", arguments, contract


def _heads(heads: Any, channels: list[int], part: Path) -> dict[str, int]:
    """What diffusers calls attention_head_dim is the number of heads: one, or one a level."""
    if not isinstance(heads, list):
        return {"heads": heads}
    if len(set(heads)) == 1:
        return {"heads": heads[0]}
    widths = {c // h for c, h in zip(channels, heads, strict=False)}
    if len(widths) > 1:
        raise ConfigError(
            f"'{part}' has heads {heads} for channels {channels}; zoo reads one number, or one width",
            code="model-unread",
        )
    return {"head_width": widths.pop()}


def _kl(config: Mapping[str, Any], part: Path) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    _refuse(config, _KL_FIXED, part)
    channels, down = _list(config, "block_out_channels", part), _list(config, "down_block_types", part)
    latent = config.get("latent_channels", 4)
    arguments = {
        "channels": latent, "z_channels": latent, "width": channels[0], "mult": _multiples(channels, part),
        "blocks": config.get("layers_per_block", 1), "groups": config.get("norm_num_groups", 32),
        "attention_levels": [i for i, name in enumerate(down) if name == "AttnDownEncoderBlock2D"],
        "image_channels": config.get("in_channels", 3), "scale": config.get("scaling_factor", 0.18215),
    }  # fmt: skip
    return "autoencoder", "kl", arguments, {"channels": latent, "factor": 2 ** (len(channels) - 1)}


def _text(config: Mapping[str, Any], part: Path) -> tuple[str, str, dict[str, Any], dict[str, Any]]:
    _refuse(config, _TEXT_FIXED, part)
    activation = {"gelu": "gelu", "quick_gelu": "quick-gelu"}.get(config.get("hidden_act", "quick_gelu"))
    if activation is None:
        raise ConfigError(
            f"'{part}' has hidden_act {config['hidden_act']!r}; zoo reads gelu and quick_gelu", code="model-unread"
        )
    width = config["hidden_size"]
    arguments = {
        "width": width, "heads": config["num_attention_heads"], "layers": config["num_hidden_layers"],
        "context_length": config.get("max_position_embeddings", 77), "activation": activation,
        # The class has no projection, so the pooled state goes through as it is.
        "embed_dim": width, "pad": _pad(part.parent),
    }  # fmt: skip
    return "conditioner", "clip-text", arguments, {"context_width": width, "vector_width": width, "null": True}


def _pad(folder: Path) -> str:
    token = _read(folder / "tokenizer" / "tokenizer_config.json").get("pad_token")
    token = token.get("content") if isinstance(token, Mapping) else token
    return "end" if token in (None, "<|endoftext|>") else "zero"


# -- the scheduler: half of it belongs to the weights, half to the sampler


def _scheduler(folder: Path) -> Mapping[str, Any]:
    path = folder / "scheduler" / "scheduler_config.json"
    config = _read(path)
    if config.get("_class_name") != "DDIMScheduler":
        raise ConfigError(
            f"'{path}' is a {config.get('_class_name')}; zoo reads DDIMScheduler, so save it as that",
            code="model-unread",
        )
    _refuse(config, _SCHEDULER_FIXED, path)
    return config


def _denoiser(folder: Path) -> dict[str, Any]:
    config = _scheduler(folder)
    kind = config.get("prediction_type", "epsilon")
    if kind not in _PARAMETERIZATIONS:
        raise ConfigError(
            f"'{folder}' has prediction_type {kind!r}; zoo reads {', '.join(_PARAMETERIZATIONS)}", code="model-unread"
        )
    steps, betas = config.get("num_train_timesteps", 1000), config.get("beta_schedule", "linear")
    ends = {key: config[key] for key in ("beta_start", "beta_end") if key in config}
    schedules: dict[str, dict[str, Any]] = {
        "linear": {"name": "linear", "steps": steps, "beta_start": 1e-4, "beta_end": 0.02, **ends},
        "scaled_linear": {"name": "scaled-linear", "steps": steps, "beta_start": 1e-4, "beta_end": 0.02, **ends},
        "squaredcos_cap_v2": {"name": "cosine", "steps": steps},
    }
    if config.get("trained_betas") is not None:
        schedule: dict[str, Any] = {"name": "tabulated", "table": config["trained_betas"]}
    elif betas in schedules:
        schedule = schedules[betas]
    else:
        raise ConfigError(
            f"'{folder}' has beta_schedule {betas!r}; zoo reads {', '.join(schedules)} and trained_betas",
            code="model-unread",
        )
    return {"schedule": schedule, "parameterization": _PARAMETERIZATIONS[kind], "time_input": "index"}


def _sampler(folder: Path) -> dict[str, Any]:
    config = _scheduler(folder)
    spacing = config.get("timestep_spacing", "leading")
    if spacing not in ("leading", "trailing"):
        raise ConfigError(
            f"'{folder}' has timestep_spacing {spacing!r}; zoo reads leading and trailing", code="model-unread"
        )
    grid = {"name": "leading", "offset": 1} if spacing == "leading" else {"name": "trailing"}
    final = "clean" if config.get("set_alpha_to_one", True) else "first"
    return {"name": "ddim", "steps": STEPS, "eta": 0.0, "grid": grid, "final": final}


# -- reading


def _placed(written: Mapping[str, Any], weights: Mapping[str, str]) -> dict[str, Any]:
    """The pipeline of `zoo.yaml`, whose weights are named by the folder's parts, with their paths."""

    def place(value: Any) -> Any:
        if isinstance(value, Mapping):
            named = value.get("weights")
            changed = {k: place(v) for k, v in value.items()}
            return changed | ({"weights": weights[named]} if isinstance(named, str) and named in weights else {})
        return [place(v) for v in value] if isinstance(value, list) else value

    return place(written)


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ConfigError(
            f"'{path}' is missing; a Stable Diffusion folder has it, so export or download it again",
            code="file-missing",
        )
    return read_json(path)


def _list(config: Mapping[str, Any], key: str, part: Path) -> list[Any]:
    value = config.get(key)
    if not isinstance(value, list) or not value:
        raise ConfigError(
            f"'{part}' has no list {key} in its config.json; export it again", code="model-config-unreadable"
        )
    return value


def _multiples(channels: list[int], part: Path) -> list[float]:
    first = channels[0]
    if any(isinstance(c, bool) or not isinstance(c, int) or c < 1 for c in channels):
        raise ConfigError(
            f"'{part}' has block_out_channels {channels}; they are whole numbers over 0", code="model-unread"
        )
    return [c // first if c % first == 0 else c / first for c in channels]


def _refuse(config: Mapping[str, Any], fixed: Mapping[str, Any], part: Path) -> None:
    """ConfigError for an entry whose value zoo's module doesn't have."""
    for key, only in fixed.items():
        allowed = only if isinstance(only, tuple) else (only,)
        if key in config and config[key] not in allowed:
            raise ConfigError(
                f"'{part}' has {key}: {config[key]!r}; zoo reads {' or '.join(map(repr, allowed))} alone",
                code="model-unread",
            )
