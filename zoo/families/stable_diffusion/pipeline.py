"""The config of a file's pipeline: which of its parts fills which slot, as a preset would write it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config.sources import open_source, reference
from zoo.families.stable_diffusion.pairs import UNKNOWN, Given, fit
from zoo.families.stable_diffusion.refiner import refined
from zoo.families.stable_diffusion.variants import NUMBER_WIDTH, PREDICTIONS, Variant
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.unknown import unknown

# What a caller may say of a file; the rest of a pipeline is changed as of any config.
ANSWERS = ("prediction", "zero_snr", "copy", "size", "autoencoder", "refiner", "switch", "sampler")
_INPUTS = {1: "depth", 3: "a smaller image (the x4 upscaler)", 4: "an image to edit (InstructPix2Pix)"}
COPIES = ("ema", "plain")


def check_answers(answers: Mapping[str, str]) -> None:
    """UsageError for answers to nothing that a file of this family leaves open."""
    for key, value in answers.items():
        if key not in ANSWERS:
            raise UsageError(unknown("answer", key, ANSWERS), code="shortcut-unknown")
        allowed = {"prediction": PREDICTIONS, "copy": COPIES, "zero_snr": ("True", "False")}.get(key)
        if allowed is not None and value not in allowed:
            raise UsageError(unknown(f"value of {key}:", value, allowed), code="choice-unknown")
    if "switch" in answers and "refiner" not in answers:
        raise UsageError(
            "switch= says where a refiner takes over, and none is given; say refiner='PATH'", code="arguments-conflict"
        )
    if not answers.get("size", "1").isdecimal():
        raise UsageError(f"size is {answers['size']!r}; give pixels a side", code="size-invalid")


def pipeline_config(
    path: Path, variant: Variant, answers: Mapping[str, str], *, sampler: Mapping[str, Any], size: int,
    prediction: str | None, copy: str | None, number_width: int = NUMBER_WIDTH,
) -> dict[str, Any]:  # fmt: skip
    """The pipeline of a file or folder. prediction and copy are None where the file itself says them."""
    texts, vector = list(variant.texts), list(variant.vector)
    conditioners: dict[str, Any] = {name: {"weights": reference(path, name, {})} for name in texts}
    if vector:
        conditioners["sizes"] = {"name": "numbers", "width": number_width, **variant.numbers}
    tokens: Any = texts[0] if len(texts) == 1 else {"join": "width", "of": texts}
    other = answers.get("autoencoder")
    scale = {"scale": variant.scale}
    autoencoder = reference(path, "vae", {}) if other is None else reference(_path(other), "vae", scale)
    said = {"prediction": prediction, "zero_snr": answers.get("zero_snr"), "copy": copy}
    made = {
        "schema": "zoo.pipeline/1",
        "name": path.stem if path.is_file() else path.name,
        "summary": f"{variant.title}, from {path.name}.",
        "conditioners": conditioners,
        "stages": [
            {
                "name": "base",
                "listens": {"tokens": tokens, **({"vector": vector} if vector else {})},
                "size": int(answers.get("size", size)),
                "denoiser": {"weights": reference(path, "unet", said)},
                "autoencoder": {"weights": autoencoder},
                "guidance": [{"name": "classifier-free", "scale": variant.guidance}],
                "sampler": dict(sampler),
            }
        ],
    }
    if "refiner" not in answers:
        return made
    return refined(made, _path(answers["refiner"]), answers.get("switch"))


def check_autoencoder(unet: Given, answers: Mapping[str, str], scale: float) -> None:
    """ConfigError where the autoencoder that is given doesn't belong to a U-Net whose latents are scaled by `scale`.

    SD's and SDXL's have the same tensors: that it was given for this U-Net says whose it is, unless the file says else.
    """
    if "autoencoder" not in answers:
        return
    path = _path(answers["autoencoder"])
    source: Any = open_source(path)
    part: Any = source.card("vae", {"scale": str(scale)}, f"{path}#vae").source
    shapes = {name: shape for name, shape in part.container.shapes.items() if name.startswith(part.prefix)}
    said = {} if source.scale is None else {"scaling_factor": source.scale}
    other = Given(shapes, f"'{path}'", metadata=part.container.metadata, config=said)
    found = fit(unet, other, answers={"scale": str(scale)})
    if found.verdict == "refused" and found.rule not in UNKNOWN:
        raise ConfigError(
            f"the autoencoder '{path}' isn't one for '{unet.name}': {found.reason}; give another",
            code="model-contradicted",
        )


def denoiser_block(
    schedule: Mapping[str, Any], prediction: str, answers: Mapping[str, str], *, network: Mapping[str, Any], what: str,
    initial_scale: str = "unit",
) -> dict[str, Any]:  # fmt: skip
    """What a U-Net of this family was trained for; ConfigError for one that is shown what zoo doesn't make yet."""
    inside, outside = network["in_channels"], network["out_channels"]
    if inside not in (outside, 2 * outside + 1):
        kind = _INPUTS.get(inside - outside, f"{inside - outside} more channels than it draws")
        raise ConfigError(
            f"'{what}' is a model that is shown {kind}, which zoo doesn't draw with yet; give another",
            code="model-switch-unfit",
        )
    zero = answers.get("zero_snr") == "True" and schedule["name"] != "zero-terminal-snr"
    return {
        "schedule": {"name": "zero-terminal-snr", "schedule": dict(schedule)} if zero else dict(schedule),
        "parameterization": prediction,
        "time_input": "index",
        "initial_scale": initial_scale,
        **({"image_condition": "masked"} if inside == 2 * outside + 1 else {}),
    }


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
            "tells which; say prediction='eps' or prediction='v'",
            code="model-ambiguous",
        )
    return said or variant.prediction or "eps", said


def _path(said: str) -> Path:
    """The path of another file, without a part."""
    return Path(said.partition("#")[0]).expanduser().absolute()
