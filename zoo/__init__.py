"""zoo: a diffusion model zoo.

    import zoo

    pipe = zoo.build("latent-text2img", sampler="dpmpp-2m", steps=20)
    pipe("red apple, 3d style", seed=0).save("apple.png")

Importing this, and `names`, `describe`, `check` and `register`, never import torch; what is slow to import is imported
by the function that needs it.
"""

from __future__ import annotations

from zoo.schema.version import __version__

TYPE_CHECKING = False  # typing.TYPE_CHECKING, without its slow import
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from typing import Any

    from zoo.config.check import Resolved
    from zoo.config.describe import Description
    from zoo.config.overrides import Overrides
    from zoo.pipeline.pipeline import Pipeline
    from zoo.training.run import TrainedRun

__all__ = ["__version__", "build", "check", "describe", "load", "names", "register", "train"]


def build(
    config: str | Path | Mapping[str, Any] | Resolved,
    *,
    overrides: Overrides = None,
    device: Any = None,
    dtype: Any = None,
    memory: Mapping[str, Any] | None = None,
    before_weights: Callable[[Pipeline], object] | None = None,
    **shortcuts: Any,
) -> Pipeline:
    """A pipeline, by name, from a file, from a mapping, or from what `zoo.config.check.resolve` made of one.

    overrides: {"stages.0.sampler.eta": 0.5} or ["stages.0.sampler.eta=0.5"]. shortcuts: `sampler`, `steps` and
    `guidance`, for every stage that has the slot; `adapters`, LoRAs like "style.safetensors:0.8"; `long_prompts`,
    `prompt_weighting` and `embeddings`, how prompts are read (docs/families.md); of a published model (`zoo list
    model`) or a model's own file also `weights`, its path, `autoencoder`, another one's, `clip_skip`, and what no
    tensor tells (`prediction`, ...). device: the CPU by default, "auto" for the best available; dtype: float32. Both
    may differ by part: "float16,autoencoder=float32".
    memory: how to take less of it (docs/memory.md), like {"offload": True, "decode": "rows", "weights": "int8"}.
    before_weights: gets the pipeline before any weight file is opened, to refuse what it can't draw while that costs
    nothing: `before_weights=lambda pipe: pipe.check("red apple", image="apple.png")`.
    """
    from zoo.config.check import resolve

    resolved = resolve(config, overrides, shortcuts)  # errors are raised before torch is imported
    from zoo.acceleration.threads import prepare

    prepare()
    from zoo.assemble import assemble

    return assemble(resolved, device=device, dtype=dtype, memory=memory, before_weights=before_weights)


def check(config: str | Path | Mapping[str, Any], overrides: Overrides = None, **shortcuts: Any) -> dict[str, Any]:
    """The config with every default written out, or a ZooError that names the fix; no weight is read."""
    from zoo.config.check import Written, resolve

    return Written(resolve(config, overrides, shortcuts).config)


def describe(name: str) -> Description:
    """What "sampler/ddim", "weights/NAME" or a pipeline's name means, and what it takes."""
    from zoo.config.describe import describe

    return describe(name)


def load(name: str | Path, *, device: Any = None, dtype: Any = None, **answers: Any) -> Any:
    """The pipeline of a model's own file or diffusers folder; of a weight card, its component with its weights.

    answers: as `build`'s shortcuts, of a file: `sampler`, `steps`, `guidance`, `adapters`, `autoencoder`, `size`,
    `embeddings`, `long_prompts`, `prompt_weighting`, `clip_skip`, `copy` (ema or plain, where a file holds both) and
    `prediction` (eps or v, where nothing in the file tells).
    """
    from zoo.config.sources import is_source, split

    if is_source(name) and split(str(name))[1] is None:
        return build(name, device=device, dtype=dtype, **answers)
    if answers:
        from zoo.schema.errors import UsageError

        raise UsageError(
            f"'{name}' is no model's file, and takes no {', '.join(answers)}; leave them out", code="arguments-conflict"
        )
    from zoo.acceleration.threads import prepare

    prepare()
    from zoo.assemble import load

    return load(str(name), device=device, dtype=dtype)


def train(
    recipe: str | Path,
    *,
    folder: str | Path | None = None,
    resume: bool = False,
    other_data: bool = False,
    seconds: float | None = None,
    overrides: Overrides = None,
    device: Any = None,
    callback: Any = None,
) -> TrainedRun:
    """Train by a recipe in `folder` (runs/NAME), which ends up with the weights and their card in `folder/export`.

    resume: go on from the newest good checkpoint; other_data: though the data isn't what the run began with. seconds:
    train for this time, in as many steps as it allows. overrides: as `build`'s, of the recipe. callback: gets a
    `Progress` (step, steps, loss, images_per_second, seconds_left) after each step.
    """
    from zoo.acceleration.threads import prepare
    from zoo.schema.errors import UsageError

    if seconds is not None and not seconds > 0.0:
        raise UsageError(
            f"seconds is {seconds:g}; give a time over 0, or leave it out for the recipe's own number of steps",
            code="number-out-of-range",
        )
    prepare()
    from zoo.assemble import train
    from zoo.schema.names import as_path
    from zoo.schema.progress import mode, shown
    from zoo.training.engine.time_limit import ENDLESS

    place = None if folder is None else as_path(folder, "run's folder")
    with shown("off" if callback is not None else mode()) as report:

        def show(p: Any) -> None:
            report.describe(f"loss {p.loss:.4f}")
            report.update(p.step, 0 if p.steps >= ENDLESS else p.steps)

        return train(
            as_path(recipe, "recipe"), folder=place, resume=resume, other_data=other_data, seconds=seconds,
            overrides=overrides, device=device, callback=callback or show,
        )  # fmt: skip


def names(kind: str | None = None, pattern: str = "*") -> list[str]:
    """The names of a kind ("sampler", "pipeline", "weights", ...), or of everything as "kind/name"."""
    from zoo.config.describe import names

    return names(kind, pattern)


def register(kind: str, name: str, target: Any) -> None:
    """Add a class, a function or "module:attr" to this process's registry."""
    from zoo.schema.registry import registry

    registry().register(kind, name, target)
