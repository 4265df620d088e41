"""From a checked recipe to a finished run: data, objective, loop, weights and card."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from zoo.conditioners.words import read_words
from zoo.config.adapters import CARD_SCHEMA as LORA_CARD
from zoo.config.cards import read_card
from zoo.data.arrays import ArrayDataset
from zoo.data.variants import Variants
from zoo.diffusion.parameterization import X0
from zoo.families.lora.train import AdapterSettings, adapt
from zoo.families.lora.train import trained as trained_lora
from zoo.schema.errors import ConfigError, UsageError, WeightsError
from zoo.schema.files import locked
from zoo.schema.names import check_utf8
from zoo.training import export, own_pipeline, provenance
from zoo.training.engine.distributed import started
from zoo.training.engine.ema import Average
from zoo.training.engine.loggers import usual
from zoo.training.engine.loop import Loop, Progress
from zoo.training.engine.objective import CPU
from zoo.training.engine.settings import TrainSettings
from zoo.training.recipe import Recipe

FOLDERS = ("checkpoints", "cache", "best", "samples", "tensorboard", "export")  # that a run makes in its folder


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What the assembler provides: components and weights by their blocks."""

    component: Callable[[str, Any], Any]
    part: Callable[[str, Any], Any]
    denoiser: Callable[[Any, Mapping[str, Any]], Any]
    load_into: Callable[[Any, str, Sequence[str]], None]


@dataclass(frozen=True)
class TrainedRun:
    """Where the weights' card is, the last validation scalars, and what was skipped when resuming.

    `others` are the cards of further averages, NAME-ema0.9999, and of a trained text tower, NAME-text. Only the run's
    first process writes them. `steps` and `seconds` are of all sittings. `sheet` is the last sample sheet, and `draw`
    what draws with the weights, `{"model": NAME-draw.yaml}` or `{"lora": NAME.safetensors}`, empty where nothing is
    known to.
    """

    card: Path
    validation: Mapping[str, float]
    notes: Sequence[str]
    others: Sequence[Path] = ()
    steps: int = 0
    seconds: float = 0.0
    sheet: Path | None = None
    draw: Mapping[str, Path] = field(default_factory=dict)


def settings_of(recipe: Recipe) -> TrainSettings:
    """The `train:` block as settings."""
    block = dict(recipe.raw["train"])
    for name in ("betas", "average"):
        if isinstance(block.get(name), list):
            # torch's optimizers want both betas of one kind.
            block[name] = tuple(float(v) if isinstance(v, int) and not isinstance(v, bool) else v for v in block[name])
    return TrainSettings(**block)


def objective_of(recipe: Recipe, parts: Parts, folder: Path, device: torch.device) -> Any:
    """The objective with its data and networks; the trained one starts from the recipe's seed or `init_from`."""
    raw, settings = recipe.raw, settings_of(recipe)
    data = {k: v for k, v in raw["data"].items() if k != "split"}
    given: dict[str, Any] = {
        "train": _varied(parts.component("dataset", {**data, "split": raw["data"].get("split", "train")}), raw),
        "validation": parts.component("dataset", {**data, "split": "val"}),
        "precision": settings.dtype,
        "device": device,
    }
    torch.manual_seed(settings.seed)
    trained = parts.component(recipe.trains, raw[recipe.trains])
    if "init_from" in raw:
        parts.load_into(trained, raw["init_from"], raw.get("init_fresh") or ())
    if "adapter" in raw:
        adapt(trained, AdapterSettings(**raw["adapter"]))
    given["network"] = trained
    if recipe.tells_time:
        # A classifier predicts no x0; its placeholder parameterization is never used.
        given["network"] = parts.denoiser(trained, {"parameterization": X0(), **raw})
        given["cache"] = folder / "cache"
    for kind in ("autoencoder", "conditioner"):
        if kind in raw and kind != recipe.trains:
            part = parts.part(kind, raw[kind])
            given[kind] = part.to(device) if isinstance(part, torch.nn.Module) else part
    block = dict(raw["objective"])
    return parts.component("objective", {**block, **given})


def _varied(data: Any, raw: Mapping[str, Any]) -> Any:
    """The training rows in the variants that the recipe requests."""
    if "variants" not in raw:
        return data
    if isinstance(data, ArrayDataset):
        raise ConfigError(
            "the data is arrays, and the block 'variants' makes images of images; take it out", code="array-part-unfit"
        )
    return Variants(data, **raw["variants"])


def train(
    recipe: Recipe, parts: Parts, *, folder: Path, resume: bool = False, device: torch.device = CPU,
    other_data: bool = False, device_requested: Mapping[str, str] | None = None,
    callback: Callable[[Progress], Any] | None = None,
) -> TrainedRun:  # fmt: skip
    """Run a recipe in `folder`; the weights and their card are in `folder/export` at the end.

    Under `torchrun` the processes share the run, and the first writes. A folder is one process's (or one torchrun's) at
    a time. Raises ConfigError where they can't split the batch, where `folder` already holds a run and `resume` is not
    set, and where that run was trained on other data and `other_data` is not set; WeightsError for a full disk.
    """
    settings = settings_of(recipe)
    check_utf8(folder, "run's folder")
    with _room(folder), ExitStack() as held:
        devices = held.enter_context(started(settings, device))
        _make(folder)
        if devices.rank == 0:
            held.enter_context(locked(folder, mend="wait for it, or choose another folder with --run"))
        begun = any((folder / "checkpoints").glob("step-*"))
        if not resume and begun:
            raise ConfigError(
                f"'{folder}' already holds a run; go on with --resume or choose another folder with --run",
                code="run-taken",
            )
        if resume and begun:
            provenance.check_recipe(folder, recipe)
        if resume and not other_data:
            provenance.check_data(folder, recipe)
        with devices.first_then_others():
            objective = objective_of(recipe, parts, folder, devices.device)
        first_weights = provenance.hash_of_tensors(objective.network.state_dict())
        named = recipe.raw.get("loggers")
        loggers = usual() if named is None else [parts.component("logger", block) for block in named]
        loop = Loop(objective, settings, folder, identity=recipe.identity, devices=devices, loggers=loggers)
        # A run that was ended before its first checkpoint begins again.
        notes = loop.resume() if resume and begun else ["nothing was saved yet: it begins at step 0"] if resume else []
        over = _over(loop) if loop.step else None
        if over is not None:
            notes = [*notes, over]
        elif devices.rank == 0:  # a sitting that takes no step changes nothing of what the run is
            provenance.write(folder, recipe, first_weights, devices, step=loop.step, requested=device_requested)
        validation = loop.run(callback)
        names = [recipe.name, *(f"{recipe.name}-ema{a.decay:g}" for a in loop.averages[1:])]
        cards = [folder / "export" / f"{name}.yaml" for name in names]
        others = cards[1:]
        draw: dict[str, Path] = {}
        if devices.rank == 0:
            for average, card in zip(loop.averages, cards, strict=True):
                others += write_weights(recipe, loop, card.parent, validation, average=average, name=card.stem)[1:]
            if "adapter" in recipe.raw:
                draw["lora"] = cards[0].with_suffix(".safetensors")
            elif (own := own_pipeline.write(recipe, [cards[0], *others])) is not None:
                draw["model"] = own
        devices.gather(None)  # the weights are there when any process returns
    sheets = sorted((folder / "samples").glob("step-*.png"))
    return TrainedRun(
        card=cards[0], validation=validation, notes=notes, others=others, steps=loop.step, seconds=loop.seconds,
        sheet=sheets[-1] if sheets else None, draw=draw,
    )  # fmt: skip


def _over(loop: Loop) -> str | None:
    """Why a resumed run has no step left to take, in words; None where it has."""
    if loop.stopping.over:
        return f"nothing is left to train: it stopped early at step {loop.step:,}; raise train.patience"
    if loop.step < loop.settings.steps:
        return None
    if loop.fitting is None:
        said = f"{loop.step:,} of {loop.settings.steps:,} steps are taken; raise train.steps"
    else:
        said = f"{loop.seconds:.0f} of {loop.fitting.recipe.seconds:g} seconds are used; give more with --seconds"
    return f"nothing is left to train: {said}"


@contextlib.contextmanager
def _room(folder: Path) -> Iterator[None]:
    """A WeightsError that names the run's folder, for a disk that is full or refuses."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG):
            raise
        saved = any((folder / "checkpoints").glob("step-*"))
        raise WeightsError(
            f"the run's folder '{folder}' can't be written to ({error.strerror}); make room, or choose another with "
            "--run" + (", and go on with --resume: its checkpoints are unharmed" if saved else ""),
            code="output-unwritable",
        ) from error


def _make(folder: Path) -> None:
    """Make a run's folder; UsageError where it, or a folder that the run will write in, can't be one."""
    for place in (folder, *(folder / name for name in FOLDERS)):
        if place.exists() and not place.is_dir():
            raise UsageError(
                f"'{place}' is a file, and a run needs a folder there; choose another with --run",
                code="output-unwritable",
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:  # one of its parents is a file, or closed to us
        raise UsageError(
            f"the run's folder '{folder}' can't be made ({error.strerror or error}); choose another with --run",
            code="output-unwritable",
        ) from error


def write_weights(
    recipe: Recipe, loop: Loop, folder: Path, validation: Mapping[str, float], *, average: Average, name: str
) -> list[Path]:
    """Export averaged weights of a loop with a card each; returns the cards' paths, that of the network first.

    Validation was of the first average.
    """
    raw = recipe.raw
    own = {k: v for k, v in raw[recipe.trains].items() if k != "name"}
    validated = validation if average is loop.average else {}
    metrics = {f"validation_{k}": round(v, 5) for k, v in validated.items()}
    made: dict[str, Any] = {
        "recipe": recipe.source.as_posix() if not recipe.source.is_absolute() else recipe.source.name,
        "provenance": {
            "steps": loop.step,
            "samples_seen": loop.step * loop.settings.batch_size,
            "training_seconds": round(loop.seconds),
            "seed": loop.settings.seed,
            "average": average.decay,
            "device": provenance.device_name(loop.objective.device),
            "torch": str(torch.__version__),
            **provenance.started_from(raw.get("init_from"), raw.get("init_fresh") or ()),
        },
        **(raw.get("card") or {}),
    }
    if "adapter" in raw:
        return [_write_adapter(recipe, average.network.network, folder, name, {"metrics": metrics, **made})]
    tensors, facts = loop.objective.export(average.network)
    card: dict[str, Any] = {
        "kind": recipe.trains,
        "component": raw[recipe.trains]["name"],
        "summary": raw.get("summary", ""),
        "config": own,
        **facts,
        "metrics": {**metrics, **facts.get("metrics", {})},
        **made,
    }
    if recipe.tells_time and "parameterization" in recipe.facts["reads"]:
        card["denoiser"] = dict(recipe.reading)
        if loop.objective.network.variance is not None:
            card["denoiser"]["variance"] = loop.objective.network.variance
    elif recipe.tells_time:  # no denoiser, but it takes x_t of one schedule
        card["contract"] = {**card["contract"], **recipe.reading}
    storage = raw.get("storage", "float16")
    cards = [export.write(folder, name, tensors, card, storage=storage)]
    start = (raw.get("conditioner") or {}).get("weights")  # of a text tower, which keeps the words that it knows
    known = read_card(start).words if start is not None else None
    before = read_words(known) if known is not None else None
    others = getattr(loop.objective, "export_others", lambda network: {})(average.network)
    for ending, (extra, about) in others.items():
        summary = f"Trained along with {name}."
        cards.append(
            export.write(
                folder,
                f"{name}-{ending}",
                extra,
                {"summary": summary, **about, "metrics": metrics, **made},
                storage=storage,
                before=before,
            )
        )
    return cards


def _write_adapter(recipe: Recipe, network: Any, folder: Path, name: str, made: Mapping[str, Any]) -> Path:
    """Export a trained LoRA with its card."""
    raw = recipe.raw
    settings = AdapterSettings(**raw["adapter"])
    tensors, metadata = trained_lora(network, settings)
    card = {
        "summary": raw.get("summary", ""), "component": raw["network"]["name"], "adapter": dict(raw["adapter"]), **made
    }  # fmt: skip
    return export.write(folder, name, tensors, card, schema=LORA_CARD, metadata=metadata)
