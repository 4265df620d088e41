"""A single file in the original layout: a whole checkpoint (U-Net, text encoders, autoencoder), or an autoencoder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config.cards import Card
from zoo.families.stable_diffusion.containers import Container
from zoo.families.stable_diffusion.names import AVERAGED, Layout, ema_whole, shapes_of
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
from zoo.families.stable_diffusion.shapes import (
    kl_from_shapes,
    text_from_shapes,
    tiny_from_shapes,
    unet_from_shapes,
    vision_from_shapes,
)
from zoo.families.stable_diffusion.variants import Variant, mixed_with, predicted, told_by, variant_of
from zoo.schema.advice import option
from zoo.schema.errors import ConfigError, UsageError, WeightsError
from zoo.schema.notes import note

UNET = "model.diffusion_model."
VAE = "first_stage_model."
TINY = ("encoder.0.weight", "encoder.layers.0.weight")  # of a tiny autoencoder, in its author's layout and diffusers'
WHITENED = 1024  # width of the image embeddings (OpenCLIP ViT-H/14's) whose noise needs no statistics


class Checkpoint:
    """A file with a U-Net under `model.diffusion_model.`."""

    def __init__(self, path: Path, container: Container) -> None:
        self.path, self.container = path, container
        found = told_by(container.shapes)
        if found is None:
            raise WeightsError(
                f"'{path}' holds a U-Net and no text encoder that zoo knows, and can't draw alone; give a file with "
                "both, or a diffusers folder",
                code="model-switch-unfit",
            )
        if others := mixed_with(found, container.shapes):
            raise ConfigError(
                f"'{path}' has text encoders of {found.title} and of {', '.join(others)}: parts of two models; give "
                "the file of one",
                code="model-contradicted",
            )
        self._network = unet_from_shapes(shapes_of(container, UNET, "network", "original"), what=f"'{path}'")
        self.variant: Variant = variant_of(found, self._network, what=str(path))
        self.key = self.variant.key

    def config(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """See `zoo.config.sources.Source`."""
        check_answers(answers)
        prediction, said = settle(str(self.path), self.variant, answers, self.told)
        if self.averaged and "copy" not in answers:
            note(
                f"'{self.path}' holds its U-Net twice, and the moving average is drawn with; "
                f"{option('copy', 'plain')} takes the other", stacklevel=2,
            )  # fmt: skip
        if not any(name.startswith(VAE) for name in self.container.shapes) and "autoencoder" not in answers:
            raise ConfigError(
                f"'{self.path}' holds no autoencoder; say {option('autoencoder', 'PATH')}, the file of one",
                code="model-part-missing",
            )
        unet = Given(self.container.shapes, str(self.path), metadata=self.container.metadata)
        check_autoencoder(unet, answers, self.variant.scale)
        return pipeline_config(
            self.path, self.variant, answers, sampler=self.variant.sampler, size=self.variant.sizes[prediction],
            prediction=said, copy=self.copy(answers) if self.averaged else None,
        )  # fmt: skip

    @property
    def scale(self) -> float:
        """Of its autoencoder's latents."""
        return self.variant.scale

    @property
    def averaged(self) -> bool:
        """Whether the file holds its U-Net twice, as trained and as a moving average."""
        return ema_whole(self.container.shapes, UNET)

    @property
    def told(self) -> str | None:
        """What its network predicts, where the file says it."""
        return predicted(self.container.shapes, self.container.metadata)

    def copy(self, answers: Mapping[str, str]) -> str:
        """Which copy of the U-Net is drawn with: the average, unless the plain one is wanted or the only one."""
        wanted = answers.get("copy")
        if wanted == "ema" and not self.averaged:
            raise ConfigError(
                f"'{self.path}' holds one copy of its weights ('{AVERAGED}' is missing); leave copy out",
                code="average-missing",
            )
        return wanted or ("ema" if self.averaged else "plain")

    def card(self, part: str, answers: Mapping[str, str], name: str) -> Card:
        """See `zoo.config.sources.Source`."""
        if part == "unet":
            return self._unet(answers, name)
        if part == "vae":
            return autoencoder_card(self.container, name, answers, prefix=VAE, scale=self.variant.scale)
        if part == "image" and self.variant.image is not None:
            return self._image(name)
        text = self.variant.texts.get(part)
        if text is None:
            raise ConfigError(
                f"'{self.path}' has no part '{part}'; it has unet, vae, {', '.join(self.variant.texts)}",
                code="model-part-unknown",
            )
        layout: Layout = "transformers" if text.layout == "transformers" else "open-clip"
        held = FilePart(kind="conditioner", layout=layout, container=self.container, prefix=text.prefix)
        shapes = shapes_of(self.container, text.prefix, "conditioner", layout)
        sizes = text_from_shapes(shapes, what=f"'{name}'")
        arguments = {**sizes, **read_by(text.reading, answers, layers=sizes["layers"])}
        return card_of(
            held, name=name, component="clip-text", arguments=arguments, summary=f"{self.variant.title}: text encoder."
        )

    def _unet(self, answers: Mapping[str, str], name: str) -> Card:
        copy = self.copy(answers)
        held = FilePart(
            kind="network", layout="ema" if copy == "ema" else "original", container=self.container,
            prefix=AVERAGED if copy == "ema" else UNET,
        )  # fmt: skip
        prediction, _ = settle(str(self.path), self.variant, answers, self.told)
        zero = {"zero_snr": "True"} if "ztsnr" in self.container.shapes else {}
        return card_of(
            held, name=name, component="unet", summary=f"{self.variant.title}: U-Net, {copy} weights.",
            arguments={**self._network, **self.variant.heads}, small=answers.get("small"),
            denoiser=denoiser_block(self.variant, prediction, {**zero, **answers}),
        )  # fmt: skip

    def _image(self, name: str) -> Card:
        image = self.variant.image
        assert image is not None
        shapes = {n.removeprefix(image.prefix): s for n, s in self.container.shapes.items()}
        arguments = {**vision_from_shapes(shapes, what=f"'{name}'"), **image.reading}
        if 2 * arguments["embed_dim"] != self._network["vector_width"] or arguments["embed_dim"] != WHITENED:
            raise ConfigError(
                f"'{self.path}' noises its image's embedding by means and deviations that it doesn't hold; give its "
                "diffusers folder, which does",
                code="model-part-missing",
            )
        held = FilePart(kind="image", layout="open-clip", container=self.container, prefix=image.prefix)
        return card_of(held, name=name, component="clip-image", kind="conditioner", arguments=arguments,
                       summary=f"{self.variant.title}: image encoder.")  # fmt: skip


class AutoencoderFile:
    """A file with an autoencoder alone, in the original layout or diffusers'."""

    scale: float | None = None  # of its latents, which no tensor tells

    def __init__(self, path: Path, container: Container, prefix: str) -> None:
        self.path, self.container, self.prefix = path, container, prefix

    def config(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """It draws nothing alone."""
        raise UsageError(
            f"'{self.path}' is an autoencoder alone and draws nothing; say {option('autoencoder', self.path)} with "
            "the file of a whole model",
            code="model-part-missing",
        )

    def card(self, part: str, answers: Mapping[str, str], name: str) -> Card:
        """Of the part `vae`."""
        if part != "vae":
            raise ConfigError(
                f"'{self.path}' is an autoencoder alone and has no part '{part}'; it has vae", code="model-part-unknown"
            )
        return autoencoder_card(self.container, name, answers, prefix=self.prefix, scale=None)


def autoencoder_card(
    container: Container, name: str, answers: Mapping[str, str], *, prefix: str, scale: float | None
) -> Card:
    """The card of an autoencoder in a file; ConfigError where nothing says its latents' scale."""
    said = answers.get("scale")
    tiny = next((n for n in TINY if f"{prefix}{n}" in container.shapes), None)
    if tiny is not None:
        return tiny_card(container, name, layout="taesd" if tiny == TINY[0] else "diffusers", prefix=prefix)
    if said is None and scale is None:
        raise ConfigError(
            f"'{name}' doesn't say what its latents are scaled by; say so, like '{name}?scale=0.18215'",
            code="model-ambiguous",
        )
    try:
        factor = float(said) if said is not None else scale
    except ValueError as error:
        raise ConfigError(
            f"'{name}': its scale is no number; write one, like 0.18215", code="argument-type-wrong"
        ) from error
    diffusers = any(n.startswith(f"{prefix}encoder.down_blocks.") for n in container.shapes)
    layout: Layout = "diffusers" if diffusers else "original"
    shapes = shapes_of(container, prefix, "autoencoder", layout)
    arguments = kl_from_shapes(_as_original(shapes) if diffusers else shapes, what=f"'{name}'")
    held = FilePart(kind="autoencoder", layout=layout, container=container, prefix=prefix)
    summary = "KL autoencoder of Stable Diffusion."
    return card_of(held, name=name, component="kl", arguments={**arguments, "scale": factor}, summary=summary)


def tiny_card(container: Container, name: str, *, layout: Layout, prefix: str = "", scale: float = 1.0) -> Card:
    """The card of a TAESD, whose latents are scaled already."""
    arguments = tiny_from_shapes(shapes_of(container, prefix, "tiny", layout), what=f"'{name}'")
    held = FilePart(kind="tiny", layout=layout, container=container, prefix=prefix)
    return card_of(held, name=name, component="taesd", kind="autoencoder", arguments={**arguments, "scale": scale},
                   summary="TAESD, a tiny autoencoder of Stable Diffusion's latents.")  # fmt: skip


def _as_original(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """What `kl_from_shapes` looks at, by the original names."""
    swaps = ((".down_blocks.", ".down."), (".resnets.", ".block."), (".attentions.", ".attn."), (".to_q.", ".q."))
    found = {}
    for name, shape in shapes.items():
        for theirs, ours in swaps:
            name = name.replace(theirs, ours)
        found[name] = shape
    return found
