"""A diffusers folder: `model_index.json`, a configuration and weights for each part, and a scheduler."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.checkpoints.folders import read_json
from zoo.config.cards import Card
from zoo.families.stable_diffusion.containers import Container, find_weights, open_container
from zoo.families.stable_diffusion.names import Layout
from zoo.families.stable_diffusion.pairs import Given
from zoo.families.stable_diffusion.parts import FilePart, card_of
from zoo.families.stable_diffusion.pipeline import (
    check_answers,
    check_autoencoder,
    denoiser_block,
    pipeline_config,
    settle,
)
from zoo.families.stable_diffusion.scheduler import Read, read_scheduler
from zoo.families.stable_diffusion.shapes import kl_from_config, text_from_config, unet_from_config
from zoo.families.stable_diffusion.variants import NUMBER_WIDTH, VARIANTS, Variant
from zoo.schema.errors import ConfigError

CLASSES = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")
CLASSES_XL = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline")
_MODEL = "diffusion_pytorch_model"
_END = "<|endoftext|>"


class Folder:
    """A folder that `save_pretrained` of diffusers wrote."""

    def __init__(self, path: Path) -> None:
        self.path, self.index = path, read_json(path / "model_index.json")
        self.large = self.index.get("_class_name") in CLASSES_XL
        if self.large:
            self.key = "sdxl-base" if self._has("text_encoder") else "sdxl-refiner"
        else:
            self.key = "sd-2" if self._config("unet").get("use_linear_projection") else "sd-1"
        self.variant: Variant = VARIANTS[self.key]

    def config(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """See `zoo.config.sources.Source`."""
        check_answers(answers)
        read = self._scheduler()
        settle(str(self.path), self.variant, answers, read.prediction)
        if "copy" in answers:
            raise ConfigError(
                f"'{self.path}' is a diffusers folder, with one copy of its weights; leave copy out",
                code="model-contradicted",
            )
        if read.sampler is None and "sampler" not in answers:
            raise ConfigError(
                f"'{self.path}': {read.why}; say sampler='ddim', or another of `zoo list sampler`",
                code="sampler-unmatched",
            )
        unet = Given(self._weights("unet", _MODEL).shapes, str(self.path))
        check_autoencoder(unet, answers, self.variant.scale)
        side = self._config("unet").get("sample_size") or self.variant.sizes[read.prediction] // self._factor
        return pipeline_config(
            self.path, self.variant, answers, sampler=read.sampler or self.variant.sampler, prediction=None, copy=None,
            size=(side if isinstance(side, int) else side[0]) * self._factor, number_width=self._number_width,
        )  # fmt: skip

    def card(self, part: str, answers: Mapping[str, str], name: str) -> Card:
        """See `zoo.config.sources.Source`."""
        title = self.variant.title
        if part == "unet":
            read = self._scheduler()
            prediction, _ = settle(str(self.path), self.variant, answers, read.prediction)
            network = unet_from_config(self._config("unet"), what=f"'{self.path}/unet'")
            block = denoiser_block(
                read.schedule, prediction, answers, network=network, what=str(self.path),
                initial_scale=read.initial_scale,
            )  # fmt: skip
            return card_of(
                FilePart(kind="network", layout="diffusers", container=self._weights("unet", _MODEL)), name=name,
                component="unet", summary=f"{title}: U-Net.", arguments=network, denoiser=block,
            )  # fmt: skip
        if part == "vae":
            arguments = kl_from_config(self._config("vae"), what=f"'{self.path}/vae'")
            scale = {"scale": float(answers["scale"])} if "scale" in answers else {}
            return card_of(
                FilePart(kind="autoencoder", layout="diffusers", container=self._weights("vae", _MODEL)), name=name,
                component="kl", arguments={**arguments, **scale}, summary=f"{title}: KL autoencoder.",
            )  # fmt: skip
        if part not in self.variant.texts:
            raise ConfigError(
                f"'{self.path}' has no part '{part}'; it has unet, vae, {', '.join(self.variant.texts)}",
                code="model-part-unknown",
            )
        return self._text(part, name)

    def _text(self, part: str, name: str) -> Card:
        second = part == "clip-g"
        where = "text_encoder_2" if second else "text_encoder"
        layout: Layout = "transformers"
        container = self._weights(where, "model")
        projected = any(n.startswith("text_projection") for n in container.shapes)
        sizes = text_from_config(self._config(where), projected=projected, what=f"'{self.path}/{where}'")
        reading: dict[str, Any] = {"pad": self._pad("tokenizer_2" if second else "tokenizer", name)}
        if self.large:
            # The states before the last layer, without the norm that follows it; zeros for no negative prompt.
            reading |= {"layer": 2, "final_norm": False}
            reading |= {"nothing": "zeros"} if self.index.get("force_zeros_for_empty_prompt", True) else {}
        return card_of(
            FilePart(kind="conditioner", layout=layout, container=container), name=name, component="clip-text",
            arguments={**sizes, **reading}, summary=f"{self.variant.title}: text encoder.",
        )  # fmt: skip

    def _pad(self, tokenizer: str, name: str) -> str:
        """What follows the end of a prompt, by the tokenizer's own words."""
        token: Any = None
        for file in ("special_tokens_map.json", "tokenizer_config.json"):
            if (self.path / tokenizer / file).is_file():
                token = read_json(self.path / tokenizer / file).get("pad_token") or token
        token = token.get("content") if isinstance(token, dict) else token
        if token in (None, _END):
            return "end"
        if token == "!":
            return "zero"  # token 0
        listed = self.path / tokenizer / "vocab.json"
        if listed.is_file() and read_json(listed).get(token) == 0:
            return "zero"
        raise ConfigError(
            f"'{name}': its tokenizer pads with {str(token)[:40]!r}; zoo pads with token 0 or {_END!r}",
            code="model-switch-unfit",
        )

    def _scheduler(self) -> Read:
        path = self.path / "scheduler" / "scheduler_config.json"
        # StableDiffusionPipeline sets steps_offset to 1 whatever it finds; StableDiffusionXLPipeline obeys.
        return read_scheduler(read_json(path), what=f"'{path}'", offset=None if self.large else 1)

    @property
    def scale(self) -> float | None:
        """Of its autoencoder's latents, where its configuration says it."""
        return self._config("vae").get("scaling_factor")

    @property
    def _factor(self) -> int:
        return 2 ** (len(self._config("vae").get("block_out_channels") or (1, 1, 1, 1)) - 1)

    @property
    def _number_width(self) -> int:
        """Of each number's embedding in the U-Net's vector."""
        return self._config("unet").get("addition_time_embed_dim") or NUMBER_WIDTH

    def _has(self, part: str) -> bool:
        named = self.index.get(part)
        return isinstance(named, list) and None not in named

    def _config(self, part: str) -> dict[str, Any]:
        return read_json(self.path / part / "config.json")

    def _weights(self, part: str, stem: str) -> Container:
        return open_container(*find_weights(self.path / part, stem))


class AutoencoderFolder:
    """A folder of diffusers' with an AutoencoderKL alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._config = read_json(path / "config.json")
        self.scale: float | None = self._config.get("scaling_factor")

    def config(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """It draws nothing alone."""
        raise ConfigError(
            f"'{self.path}' is an autoencoder alone and draws nothing; say autoencoder='{self.path}' with a model",
            code="model-part-missing",
        )

    def card(self, part: str, answers: Mapping[str, str], name: str) -> Card:
        """Of the part `vae`; an answer's scale, that of the model it stands in, counts before its own."""
        arguments = kl_from_config(self._config, what=f"'{self.path}'")
        scale = {"scale": float(answers["scale"])} if "scale" in answers else {}
        held = FilePart(
            kind="autoencoder", layout="diffusers", container=open_container(*find_weights(self.path, _MODEL))
        )
        return card_of(held, name=name, component="kl", arguments={**arguments, **scale}, summary="KL autoencoder.")
