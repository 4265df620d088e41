"""The phase `correct`: do sampling, features and training on the device agree with the CPU?"""

from __future__ import annotations

from typing import Any

import zoo
from zoo.bench.suite import RECIPE, known_extractors
from zoo.config.blocks import make
from zoo.diffusion.schedules import CosineSchedule
from zoo.schema.registry import registry

PARTS = ("precompute", "channels_last", "graphs", "compile")
TEXT, CLASSES = "latent-text2img", "class2img"
# The steps of each, None: its own. The CPU's images are most of the phase's time, so long runs are cut.
SHIPPED: dict[str, int | None] = {
    TEXT: 15, "cascade-text2img": None, CLASSES: 15, "upscale-2x": None, "latent-sr-text2img": None,
    "pixel-ddpm-32": 25,
}  # fmt: skip
CLASSIFIER = {"name": "classifier", "scale": 2.0, "classifier": {"weights": "emoji-classifier-32"}}
STEPS = 4  # of every sampler
LONG, SHORT = 10, 2  # evaluations at each step from which a sampler's whole arguments are set to SHORT
TINY: dict[str, Any] = {
    "schema": "zoo.pipeline/1", "summary": "A U-Net of some thousand parameters, random.",
    "conditioners": {"text": {"name": "stand-in", "context_width": 8, "length": 4}},
    "stages": [{
        "name": "base", "listens": ["text"], "size": 16, "guidance": [{"name": "classifier-free", "scale": 2.0}],
        "denoiser": {
            "network": {"name": "unet", "in_channels": 3, "out_channels": 3, "width": 8, "mult": [1, 2], "blocks": 1,
                        "attention_levels": [1], "heads": 2, "context_width": 8, "groups": 4},
            "schedule": "cosine", "parameterization": "v",
        },
        "sampler": {"name": "ddim", "steps": 3},
    }],
}  # fmt: skip


def suite(*, device: str, tiny: bool) -> dict[str, Any]:
    """The phase as a suite of `zoo bench`; `tiny` has the same rows with a network and steps for two CPU cores."""
    text = "tiny-random" if tiny else TEXT
    inpaints = registry().saying("sampler", "inpaints")  # masked images alone

    def own(model: str) -> dict[str, Any]:
        steps = 1 if tiny else SHIPPED[model]
        return {"model": model, "check": "images", **({} if steps is None else {"steps": steps})}

    rows = [own(model) for model in SHIPPED]
    compiled = "tiniest-random" if tiny else TEXT
    parts = [
        {"model": compiled if fast["compile"] else text, "check": "images", "batch": 2, "steps": STEPS, "fast": fast}
        for fast in _parts()
    ]  # fmt: skip
    rows += [row for row in parts if not row["fast"]["compile"]]
    rows += [
        {
            "model": text,
            "check": "inpaint" if name in inpaints else "images",
            "steps": STEPS,
            "sampler": _short(name),
        }
        for name in registry().names("sampler")
    ]
    rows += [{"model": RECIPE, "check": "training"}, {"model": text, "check": "memory", "batch": 4096, "steps": 1}]
    rows += [
        {"model": text, "check": "img2img", "steps": STEPS}, {"model": text, "check": "inpaint", "steps": STEPS},
        {"model": text, "check": "images", "step_cache": "deep-features", "steps": STEPS},
        {**own(CLASSES), "model": "class2img-classifier"},
    ]  # fmt: skip
    halves = list(SHIPPED)[: 1 if tiny else 4]
    rows += [own(model) | {"precision": precision} for precision in ("bfloat16", "float16") for model in halves]
    rows += [{"model": name, "check": "features"} for name in known_extractors()]
    rows += [row for row in parts if row["fast"]["compile"]]  # last, since each takes as long as many others
    return {
        "schema": "zoo.suite/1", "name": "on-gpu-correct", "kind": "checks",
        "summary": "What the device draws, sees and trains, against the CPU in float32.",
        "settings": {"sheets": False, "prompts": ["red apple, 3d style", "cat face, noto style"]},
        "models": {"tiny-random": TINY, "tiniest-random": _tiniest(), "class2img-classifier": _classifier()},
        "include": [{"device": device, **row} for row in rows],
    }  # fmt: skip


def _short(name: str) -> str | dict[str, Any]:
    """A sampler; one that evaluates the network very often at each of its steps, with smaller arguments."""
    known = registry()
    plan = make("sampler", {"name": name, "steps": STEPS}, known).plan(CosineSchedule())
    if plan.evaluations < LONG * STEPS:
        return name
    whole = {p.name: p.literal() for p in known.entry("sampler", name).signature().parameters if p.name != "steps"}
    return {"name": name, **{n: SHORT for n, value in whole.items() if type(value) is int and value > SHORT}}


def _parts() -> list[dict[str, bool]]:
    """Each part of the fast path alone, and all of them; what is compiled takes too long to be compiled twice."""
    one = [{part: part == on for part in (*PARTS, "packed")} for on in PARTS if on != "compile"]
    return [*one, dict.fromkeys(PARTS, True)]


def _tiniest() -> dict[str, Any]:
    """What even two CPU cores compile in seconds."""
    network = {
        "name": "unet", "in_channels": 3, "out_channels": 3, "width": 8, "mult": [1], "blocks": 1,
        "attention": "plain", "attention_levels": [], "heads": 2, "context_width": None, "groups": 4,
    }  # fmt: skip
    stage = {**TINY["stages"][0], "listens": [], "guidance": []}
    return {
        "schema": TINY["schema"], "summary": "A U-Net of one level, random.",
        "stages": [{**stage, "denoiser": {**stage["denoiser"], "network": network}}],
    }  # fmt: skip


def _classifier() -> dict[str, Any]:
    """The shipped class pipeline, guided by the shipped classifier."""
    config = zoo.check(CLASSES)
    stage = config["stages"][0]
    return {
        "schema": config["schema"], "summary": "Classifier guidance.", "conditioners": config["conditioners"],
        "stages": [{**stage, "guidance": [CLASSIFIER, *stage["guidance"][1:]]}],
    }  # fmt: skip
