"""A single file in the original layout: a whole checkpoint (U-Net, text encoders, autoencoder), or an autoencoder."""

from __future__ import annotations

import warnings
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
    settle,
)
from zoo.families.stable_diffusion.shapes import kl_from_shapes, text_from_shapes, unet_from_shapes
from zoo.families.stable_diffusion.variants import SCHEDULE, VARIANTS, Variant
from zoo.schema.errors import ConfigError, RequestNote, UsageError, WeightsError

UNET = "model.diffusion_model."
VAE = "first_stage_model."
# In this order: a base has what the refiner has, too.
_TOLD_BY = (
    ("sdxl-base", "conditioner.embedders.1.model."), ("sdxl-refiner", "conditioner.embedders.0.model."),
    ("sd-2", "cond_stage_model.model."), ("sd-1", "cond_stage_model.transformer."),
)  # fmt: skip
_PREDICTIONS = {"epsilon": "eps", "v": "v", "v_prediction": "v", "sample": "x0"}


class Checkpoint:
    """A file with a U-Net under `model.diffusion_model.`."""

    def __init__(self, path: Path, container: Container) -> None:
        self.path, self.container = path, container
        names = container.shapes
        found = next((key for key, prefix in _TOLD_BY if any(name.startswith(prefix) for name in names)), None)
        if found is None:
            raise WeightsError(
                f"'{path}' holds a U-Net and no text encoder that zoo knows, and can't draw alone; give a file with "
                "both, or a diffusers folder",
                code="model-switch-unfit",
            )
        self.key: str = found
        self.variant: Variant = VARIANTS[found]

    def config(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """See `zoo.config.sources.Source`."""
        check_answers(answers)
        prediction, said = settle(str(self.path), self.variant, answers, self.told)
        if self.averaged and "copy" not in answers:
            warnings.warn(
                f"'{self.path}' holds its U-Net twice, and the moving average is drawn with; copy='plain' takes the "
                "other", RequestNote, stacklevel=2,
            )  # fmt: skip
        if not any(name.startswith(VAE) for name in self.container.shapes) and "autoencoder" not in answers:
            raise ConfigError(
                f"'{self.path}' holds no autoencoder; say autoencoder='PATH', the file of one",
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
        """What its network predicts, where the file says it: by its metadata, or ComfyUI's marks."""
        if "v_pred" in self.container.shapes:
            return "v"
        return _PREDICTIONS.get(self.container.metadata.get("modelspec.prediction_type", ""))

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
        text = self.variant.texts.get(part)
        if text is None:
            raise ConfigError(
                f"'{self.path}' has no part '{part}'; it has unet, vae, {', '.join(self.variant.texts)}",
                code="model-part-unknown",
            )
        layout: Layout = "transformers" if text.layout == "transformers" else "open-clip"
        held = FilePart(kind="conditioner", layout=layout, container=self.container, prefix=text.prefix)
        shapes = shapes_of(self.container, text.prefix, "conditioner", layout)
        arguments = {**text_from_shapes(shapes, what=f"'{name}'"), **text.reading}
        return card_of(
            held, name=name, component="clip-text", arguments=arguments, summary=f"{self.variant.title}: text encoder."
        )

    def _unet(self, answers: Mapping[str, str], name: str) -> Card:
        copy = self.copy(answers)
        held = FilePart(
            kind="network", layout="ema" if copy == "ema" else "original", container=self.container,
            prefix=AVERAGED if copy == "ema" else UNET,
        )  # fmt: skip
        shapes = shapes_of(self.container, UNET, "network", "original")
        prediction, _ = settle(str(self.path), self.variant, answers, self.told)
        zero = {"zero_snr": "True"} if "ztsnr" in self.container.shapes else {}
        network = {**unet_from_shapes(shapes, what=f"'{name}'"), **self.variant.heads}
        return card_of(
            held, name=name, component="unet", summary=f"{self.variant.title}: U-Net, {copy} weights.",
            arguments=network,
            denoiser=denoiser_block(
                SCHEDULE, prediction, {**zero, **answers}, network=network, what=str(self.path)
            ),
        )  # fmt: skip


class AutoencoderFile:
    """A file with an autoencoder alone, in the original layout or diffusers'."""

    scale: float | None = None  # of its latents, which no tensor tells

    def __init__(self, path: Path, container: Container, prefix: str) -> None:
        self.path, self.container, self.prefix = path, container, prefix

    def config(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """It draws nothing alone."""
        raise UsageError(
            f"'{self.path}' is an autoencoder alone and draws nothing; say autoencoder='{self.path}' with the file of "
            "a whole model",
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


def _as_original(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """What `kl_from_shapes` looks at, by the original names."""
    swaps = ((".down_blocks.", ".down."), (".resnets.", ".block."), (".attentions.", ".attn."), (".to_q.", ".q."))
    found = {}
    for name, shape in shapes.items():
        for theirs, ours in swaps:
            name = name.replace(theirs, ours)
        found[name] = shape
    return found
