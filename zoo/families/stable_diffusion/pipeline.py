"""The config of a file's pipeline: which of its parts fills which slot, as a preset would write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config.sources import open_source, reference
from zoo.families.stable_diffusion.pairs import UNKNOWN, Given, fit
from zoo.families.stable_diffusion.second import SECONDS, followed
from zoo.families.stable_diffusion.variants import ENLARGES, NUMBER_WIDTH, PREDICTIONS, Variant
from zoo.schema.advice import option
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.unknown import unknown

# What a caller may say of a file; the rest of a pipeline is changed as of any config.
ANSWERS = (
    "prediction", "zero_snr", "copy", "size", "autoencoder", *SECONDS, "switch", "safety", "sampler", "clip_skip",
)  # fmt: skip
COPIES = ("ema", "plain")


def check_answers(answers: Mapping[str, str]) -> None:
    """UsageError for answers to nothing that a file of this family leaves open."""
    for key, value in answers.items():
        if key not in ANSWERS:
            raise UsageError(unknown("answer", key, ANSWERS), code="shortcut-unknown")
        allowed = {"prediction": PREDICTIONS, "copy": COPIES, "zero_snr": ("True", "False"),
                   "safety": ("True", "False")}.get(key)  # fmt: skip
        if allowed is not None and value not in allowed:
            raise UsageError(unknown(f"value of {key}:", value, allowed), code="choice-unknown")
    if "switch" in answers and "refiner" not in answers:
        raise UsageError(
            "switch= says where a refiner takes over, and none is given; say refiner='PATH'", code="arguments-conflict"
        )
    if not answers.get("size", "1").isdecimal():
        raise UsageError(f"size is {answers['size']!r}; give pixels a side", code="size-invalid")
    read_by({}, answers, layers=2**16)


def pipeline_config(
    path: Path, variant: Variant, answers: Mapping[str, str], *, sampler: Mapping[str, Any], size: int,
    prediction: str | None, copy: str | None, number_width: int = NUMBER_WIDTH, safety: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The pipeline of a file or folder. prediction and copy are None where the file itself says them.

    safety: whether a folder has a safety checker.
    """
    texts, vector = list(variant.texts), list(variant.vector)
    skip = {"clip_skip": answers.get("clip_skip")}
    conditioners: dict[str, Any] = {name: {"weights": reference(path, name, skip)} for name in texts}
    if variant.image is not None:
        conditioners["image"] = {"weights": reference(path, "image", {})}
    if "sizes" in vector:
        conditioners["sizes"] = {"name": "numbers", "width": number_width, **variant.numbers}
    if variant.distilled:
        conditioners["scale"] = {"name": "numbers", "names": ["guidance"], "width": None}
    other = answers.get("autoencoder")
    scale = {"scale": variant.scale}
    autoencoder = reference(path, "vae", {}) if other is None else reference(_path(other), "vae", scale)
    side = int(answers.get("size", size))
    small = side // ENLARGES if variant.low_res is not None else None
    said = {"prediction": prediction, "zero_snr": answers.get("zero_snr"), "copy": copy, "small": small}
    checked, left_out = safety and answers.get("safety") != "False", safety and answers.get("safety") == "False"
    made = {
        "schema": "zoo.pipeline/1",
        "name": path.stem if path.is_file() else path.name,
        "summary": f"{variant.title}, from {path.name}{', without its safety checker' if left_out else ''}.",
        "conditioners": conditioners,
        "prompts": {"long": "cut"},  # as the originals do, and said
        "stages": [
            {
                "name": "base",
                "listens": {
                    "tokens": texts[0] if len(texts) == 1 else {"join": "width", "of": texts},
                    **({"vector": vector} if vector else {}), **({"scalars": ["scale"]} if variant.distilled else {}),
                },
                "size": side,
                "denoiser": {"weights": reference(path, "unet", said)},
                "autoencoder": {"weights": autoencoder},
                "guidance": [
                    {"name": "embedded" if variant.distilled else "classifier-free", "scale": variant.guidance}
                ],
                "sampler": dict(sampler),
                **({"augmentation": variant.level} if variant.level is not None else {}),
            }
        ],
        **({"safety": {"weights": reference(path, "safety", {})}} if checked else {}),
    }  # fmt: skip
    for name in SECONDS:
        if name in answers:
            made = followed(name, made, _path(answers[name]), answers)
    return made


def check_autoencoder(unet: Given, answers: Mapping[str, str], scale: float) -> None:
    """ConfigError where the autoencoder that is given doesn't belong to a U-Net whose latents are scaled by `scale`.

    SD's and SDXL's have the same tensors: that it was given for this U-Net says whose it is, unless the file says else.
    """
    if "autoencoder" not in answers:
        return
    path = _path(answers["autoencoder"])
    source: Any = open_source(path)
    card = source.card("vae", {"scale": str(scale)}, f"{path}#vae")
    if card.component != "kl":  # a tiny one, of which nothing tells whose it is
        return
    part: Any = card.source
    shapes = {name: shape for name, shape in part.container.shapes.items() if name.startswith(part.prefix)}
    own = getattr(source, "scale", None)
    said = {} if own is None else {"scaling_factor": own}
    other = Given(shapes, f"'{path}'", metadata=part.container.metadata, config=said)
    found = fit(unet, other, answers={"scale": str(scale)})
    if found.verdict == "refused" and found.rule not in UNKNOWN:
        raise ConfigError(
            f"the autoencoder '{path}' isn't one for '{unet.name}': {found.reason}; give another",
            code="model-contradicted",
        )


def denoiser_block(
    variant: Variant, prediction: str, answers: Mapping[str, str], *, schedule: Mapping[str, Any] | None = None,
    low_res: Mapping[str, Any] | None = None, initial_scale: str = "unit",
) -> dict[str, Any]:  # fmt: skip
    """What a U-Net of this family was trained for; schedule and low_res are a folder's own."""
    own = dict(schedule or variant.schedule)
    zero = answers.get("zero_snr") == "True" and own["name"] != "zero-terminal-snr"
    return {
        "schedule": {"name": "zero-terminal-snr", "schedule": own} if zero else own,
        "parameterization": prediction,
        "time_input": "index",
        "initial_scale": initial_scale,
        **({"image_condition": variant.image_condition} if variant.image_condition else {}),
        **({"low_res": dict(low_res or variant.low_res)} if variant.low_res else {}),
    }


def read_by(reading: Mapping[str, Any], answers: Mapping[str, str], *, layers: int) -> dict[str, Any]:
    """How a text encoder is read, `clip_skip` layers before those that its family reads."""
    said = answers.get("clip_skip", "0")
    layer = reading.get("layer", 1) + (int(said) if said.isdecimal() and len(said) < 6 else layers)
    if layer > layers:
        raise UsageError(
            f"clip_skip is {said!r}; give how many of the text encoder's layers to leave out at its end",
            code="number-out-of-range",
        )
    return {**reading, **({"layer": layer} if "clip_skip" in answers else {})}


def settle(what: str, variant: Variant, answers: Mapping[str, str], told: str | None) -> tuple[str, str | None]:
    """The prediction and, where it had to be said, the answer; ConfigError where nobody says it, or both and unlike."""
    said = answers.get("prediction")
    if told is not None:
        if said not in (None, told):
            raise ConfigError(
                f"'{what}' says that its network predicts {told}, not {said}; leave prediction out",
                code="model-contradicted",
            )
        return told, None
    if said is None and variant.prediction is None:
        raise ConfigError(
            f"'{what}' is {variant.title}, which was published for eps (512 pixels) and for v (768), and no tensor "
            f"tells which; say {option('prediction', 'eps')} or {option('prediction', 'v')}",
            code="model-ambiguous",
        )
    return said or variant.prediction or "eps", said


def _path(said: str) -> Path:
    """The path of another file, without a part."""
    return Path(said.partition("#")[0]).expanduser().absolute()
