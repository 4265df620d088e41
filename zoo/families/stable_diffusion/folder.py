"""A diffusers folder: `model_index.json`, a configuration and weights for each part, and a scheduler.

What those can't say of a pipeline that `zoo export` wrote (guidance, steps, the words of the data) lies beside them in
`zoo.yaml` and `text_encoder/words.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.checkpoints.folders import read_json
from zoo.config.cards import Card
from zoo.config.overrides import apply_overrides
from zoo.families.stable_diffusion.checkpoint import tiny_card
from zoo.families.stable_diffusion.containers import Container, Several, find_weights, open_container
from zoo.families.stable_diffusion.names import Layout
from zoo.families.stable_diffusion.pairs import Given
from zoo.families.stable_diffusion.parts import FilePart, card_of
from zoo.families.stable_diffusion.pipeline import (
    check_answers,
    check_autoencoder,
    denoiser_block,
    pipeline_config,
    read_by,
    settle,
)
from zoo.families.stable_diffusion.scheduler import Read, read_scheduler
from zoo.families.stable_diffusion.second import SECONDS
from zoo.families.stable_diffusion.shapes import (
    kl_from_config,
    text_from_config,
    tiny_from_config,
    unet_from_config,
    vision_from_config,
)
from zoo.families.stable_diffusion.variants import NUMBER_WIDTH, VARIANTS, Variant, variant_of
from zoo.schema.advice import option
from zoo.schema.errors import ConfigError
from zoo.schema.safe_yaml import read_mapping

# These set their scheduler's steps_offset to 1 whatever it says; the others obey.
_OFFSET_1 = ("StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline")
CLASSES = (
    *_OFFSET_1,
    "StableDiffusionDepth2ImgPipeline", "StableDiffusionUpscalePipeline", "StableUnCLIPImg2ImgPipeline",
    "LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline",
)  # fmt: skip
CLASSES_XL = ("StableDiffusionXLPipeline", "StableDiffusionXLImg2ImgPipeline", "StableDiffusionXLInpaintPipeline")
TINY_CLASS = "AutoencoderTiny"
OWN, WORDS = "zoo.yaml", "words.json"
UNIT = "unet?initial_scale=unit"  # in zoo.yaml; a bare `unet` starts from sigma_T, as zoo's own do
PAD = "<|pad|>"  # the second name that an exported tokenizer has for token 0, which is "!" inside a word
_MODEL = "diffusion_pytorch_model"
_END = "<|endoftext|>"


class Folder:
    """A folder that `save_pretrained` of diffusers wrote."""

    def __init__(self, path: Path) -> None:
        self.path, self.index = path, read_json(path / "model_index.json")
        self.large = self.index.get("_class_name") in CLASSES_XL
        if self.large:
            line = "sdxl-base" if self._has("text_encoder") else "sdxl-refiner"
        else:
            line = "sd-2" if self._config("unet").get("use_linear_projection") else "sd-1"
        self.variant: Variant = variant_of(VARIANTS[line], self._network, what=str(path))
        self.key = self.variant.key
        self.folders = {text.folder: name for name, text in self.variant.texts.items()}

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
                f"'{self.path}': {read.why}; say {option('sampler', 'ddim')}, or another of `zoo list sampler`",
                code="sampler-unmatched",
            )
        unet = Given(self._weights("unet", _MODEL).shapes, str(self.path), config={"factor": self._factor})
        check_autoencoder(unet, answers, self.variant.scale)
        elsewhere = {
            variant.scale: variant.title for variant in VARIANTS.values() if variant.scale != self.variant.scale
        }
        if "autoencoder" not in answers and self.scale in elsewhere and not (self.path / OWN).is_file():
            raise ConfigError(
                f"'{self.path}' is {self.variant.title}, and its vae/config.json says scaling_factor {self.scale}, "
                f"that of {elsewhere[self.scale]}: parts of two models; "
                f"say {option('autoencoder', 'PATH')}, or get it again",
                code="model-contradicted",
            )
        side = self._config("unet").get("sample_size") or self.variant.sizes[read.prediction] // self._factor
        made = pipeline_config(
            self.path, self.variant, answers, sampler=read.sampler or self.variant.sampler, prediction=None, copy=None,
            size=(side if isinstance(side, int) else side[0]) * self._factor, number_width=self._number_width,
            safety=self._has("safety_checker"),
        )  # fmt: skip
        alone = not SECONDS.keys() & answers.keys()
        return self._exported(made, answers) if (self.path / OWN).is_file() and alone else made

    def _exported(self, made: Mapping[str, Any], answers: Mapping[str, str]) -> dict[str, Any]:
        """The pipeline as `zoo.yaml` has it, with this folder's parts where that names them."""
        (base,) = made["stages"]
        unet = base["denoiser"]["weights"]
        unet += "&" if "?" in unet else "?"
        scaled = {
            name: {"weights": f"{unet}initial_scale={scale}"} for name, scale in (("unet", "sigma_T"), (UNIT, "unit"))
        }
        parts = {**scaled, "vae": base["autoencoder"]}
        parts |= {folder: made["conditioners"][name] for folder, name in self.folders.items()}

        def placed(value: Any) -> Any:
            if isinstance(value, Mapping):
                named = value.get("weights")
                part = parts.get(named) if isinstance(named, str) else None
                return part or {key: placed(inner) for key, inner in value.items()}
            return [placed(v) for v in value] if isinstance(value, list) else value

        own = {"name": made["name"], **placed(read_mapping(self.path / OWN))}
        return apply_overrides(own, {"stages.0.size": base["size"]} if "size" in answers else None)

    def card(self, part: str, answers: Mapping[str, str], name: str) -> Card:
        """See `zoo.config.sources.Source`."""
        title, part = self.variant.title, self.folders.get(part, part)
        if part == "unet":
            read = self._scheduler()
            prediction, _ = settle(str(self.path), self.variant, answers, read.prediction)
            block = denoiser_block(
                self.variant, prediction, answers, schedule=read.schedule, low_res=self._low_res(),
                initial_scale=answers.get("initial_scale", read.initial_scale),
            )  # fmt: skip
            return card_of(
                FilePart(kind="network", layout="diffusers", container=self._weights("unet", _MODEL)), name=name,
                component="unet", summary=f"{title}: U-Net.", arguments=self._network, denoiser=block,
                small=answers.get("small"),
            )  # fmt: skip
        if part == "vae":
            return autoencoder_card(self._weights("vae", _MODEL), self._config("vae"), answers, name)
        if part == "image" and self.variant.image is not None:
            return self._image(name)
        if part == "safety" and self._has("safety_checker"):
            return self._safety(name)
        if part not in self.variant.texts:
            raise ConfigError(
                f"'{self.path}' has no part '{part}'; it has unet, vae, {', '.join(self.variant.texts)}",
                code="model-part-unknown",
            )
        return self._text(part, answers, name)

    def _text(self, part: str, answers: Mapping[str, str], name: str) -> Card:
        where = self.variant.texts[part].folder
        layout: Layout = "transformers"
        container = self._weights(where, "model")
        projected = any(n.startswith("text_projection") for n in container.shapes)
        sizes = text_from_config(self._config(where), projected=projected, what=f"'{self.path}/{where}'")
        reading: dict[str, Any] = {"pad": self._pad(where.replace("text_encoder", "tokenizer"), name)}
        if self.large:
            # The states before the last layer, without the norm that follows it; zeros for no negative prompt.
            reading |= {"layer": 2, "final_norm": False}
            reading |= {"nothing": "zeros"} if self.index.get("force_zeros_for_empty_prompt", True) else {}
        card = card_of(
            FilePart(kind="conditioner", layout=layout, container=container), name=name, component="clip-text",
            arguments={**sizes, **read_by(reading, answers, layers=sizes["layers"])},
            summary=f"{self.variant.title}: text encoder.",
        )  # fmt: skip
        return replace(card, raw={**card.raw, "words": WORDS}) if (self.path / where / WORDS).is_file() else card

    def _image(self, name: str) -> Card:
        """Of Stable unCLIP: the tower, and by what its embedding is whitened before it is noised."""
        arguments = vision_from_config(self._config("image_encoder"), what=f"'{self.path}/image_encoder'")
        noising = self._read_noising("image_noising_scheduler")
        tower, whitening = self._weights("image_encoder", "model"), self._weights("image_normalizer", _MODEL)
        self._check_images(arguments["image_size"])
        return card_of(
            FilePart(kind="image", layout="transformers", container=Several(tower, whitening)), name=name,
            component="clip-image", kind="conditioner", arguments={**arguments, "schedule": noising},
            summary=f"{self.variant.title}: image encoder.",
        )  # fmt: skip

    def _safety(self, name: str) -> Card:
        """Of Stable Diffusion 1's safety checker: CLIP's image tower, and embeddings of what is refused."""
        config, container = self._config("safety_checker"), self._weights("safety_checker", "model")
        vision = {**(config.get("vision_config") or {}), "projection_dim": config.get("projection_dim", 512)}
        arguments = vision_from_config(vision, what=f"'{self.path}/safety_checker'")
        counts = {"concepts": "concept_embeds", "special": "special_care_embeds"}
        arguments |= {name: container.shapes[of][0] for name, of in counts.items() if of in container.shapes}
        self._check_images(arguments["image_size"])
        return card_of(
            FilePart(kind="image", layout="transformers", container=container), name=name, kind="safety",
            component="stable-diffusion", arguments=arguments, summary=f"{self.variant.title}: safety checker.",
        )  # fmt: skip

    def _check_images(self, size: int) -> None:
        """ConfigError where images are prepared otherwise than CLIP's own."""
        place = self.path / "feature_extractor" / "preprocessor_config.json"
        said = read_json(place) if place.is_file() else {}
        crop = said.get("crop_size", size)
        if (crop.get("height") if isinstance(crop, dict) else crop) != size or said.get("resample", 3) != 3:
            raise ConfigError(
                f"'{place}' crops images to {crop} with resampling {said.get('resample', 3)}, where the encoder reads "
                f"{size} and CLIP's are bicubic (3); get the folder again",
                code="model-switch-unfit",
            )

    def _low_res(self) -> dict[str, Any] | None:
        """How the x4 upscaler noises the smaller image."""
        if self.variant.low_res is None:
            return None
        return {**self.variant.low_res, "schedule": self._read_noising("low_res_scheduler")}

    def _read_noising(self, part: str) -> dict[str, Any]:
        path = self.path / part / "scheduler_config.json"
        return read_scheduler(read_json(path), what=f"'{path}'", offset=None).schedule

    def _pad(self, tokenizer: str, name: str) -> str:
        """What follows the end of a prompt, by the tokenizer's own words."""
        token: Any = None
        for file in ("special_tokens_map.json", "tokenizer_config.json"):
            if (self.path / tokenizer / file).is_file():
                token = read_json(self.path / tokenizer / file).get("pad_token") or token
        token = token.get("content") if isinstance(token, dict) else token
        if token in (None, _END):
            return "end"
        if token in ("!", PAD):
            return "zero"  # token 0
        raise ConfigError(
            f"'{name}': its tokenizer pads with {str(token)[:40]!r}; zoo pads with token 0 or {_END!r}",
            code="model-switch-unfit",
        )

    def _scheduler(self) -> Read:
        path = self.path / "scheduler" / "scheduler_config.json"
        offset = 1 if self.index.get("_class_name") in _OFFSET_1 else None
        return read_scheduler(read_json(path), what=f"'{path}'", offset=offset)

    @property
    def _network(self) -> dict[str, Any]:
        """The U-Net's arguments."""
        return unet_from_config(self._config("unet"), what=f"'{self.path}/unet'")

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
    """A folder of diffusers' with an AutoencoderKL or an AutoencoderTiny alone."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._config = read_json(path / "config.json")
        self.scale: float | None = self._config.get("scaling_factor")

    def config(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """It draws nothing alone."""
        raise ConfigError(
            f"'{self.path}' is an autoencoder alone and draws nothing; say {option('autoencoder', self.path)} with "
            "a model",
            code="model-part-missing",
        )

    def card(self, part: str, answers: Mapping[str, str], name: str) -> Card:
        """Of the part `vae`; an answer's scale, that of the model it is used in, counts before its own."""
        return autoencoder_card(open_container(*find_weights(self.path, _MODEL)), self._config, answers, name)


def autoencoder_card(container: Container, config: Mapping[str, Any], answers: Mapping[str, str], name: str) -> Card:
    """The card of an autoencoder in a folder; an answer's scale is of KL autoencoders alone."""
    if config.get("_class_name") == TINY_CLASS:
        arguments = tiny_from_config(config, what=f"'{name}'")
        return tiny_card(container, name, layout="diffusers", scale=arguments["scale"])
    arguments = kl_from_config(config, what=f"'{name}'")
    scale = {"scale": float(answers["scale"])} if "scale" in answers else {}
    held = FilePart(kind="autoencoder", layout="diffusers", container=container)
    return card_of(held, name=name, component="kl", arguments={**arguments, **scale}, summary="KL autoencoder.")
