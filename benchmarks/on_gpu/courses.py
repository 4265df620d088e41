"""What the phase `train` trains, most valuable first, and its data: a table of recipes."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.image_folder import FolderSource
from zoo.schema.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent.parent
LEAST = 120.0  # seconds under which a further recipe isn't begun: compiling takes a minute of them


@dataclass(frozen=True, kw_only=True)
class Course:
    """One recipe, the pipeline that draws with what it makes, and its share of the time."""

    recipe: str
    pipeline: str | Mapping[str, Any]
    worth: float
    batch: int = 512
    overrides: Mapping[str, Any] = field(default_factory=dict)


# A larger batch bears a higher rate, and a run of some thousand steps a shorter average.
LARGE = {"train.learning_rate": 2e-3, "train.average": 0.998}
# A newer recipe of a model replaces the one before: one line.
# More steps alone overfit: the record of the base in docs/gpu.md. What comes next regularises.
DROPOUT = {"network.dropout": 0.1}
COURSES = (
    Course(
        recipe="recipes/emoji/base-32-next.yaml",
        pipeline="cascade-text2img",
        worth=3.0,
        # The recipe goes on without an end; this run has one.
        overrides={**LARGE, **DROPOUT, "variants.count": 8, "train.decay_steps": 30_000},
    ),
    Course(recipe="recipes/emoji/ddpm-32-next.yaml", pipeline="pixel-ddpm-32", worth=2.0),
    Course(recipe="recipes/emoji/latent-64-fourth.yaml", pipeline="latent-text2img", worth=2.0, overrides=DROPOUT),
    Course(recipe="recipes/emoji/class-32-third.yaml", pipeline="class2img", worth=1.0, overrides=DROPOUT),
)
TINY_RECIPE: dict[str, Any] = {
    "schema": "zoo.recipe/1", "name": "tiny", "summary": "A U-Net of some thousand parameters.",
    "data": {"name": "image-folder", "path": "given", "size": 16},
    "objective": {"name": "denoising", "sheet_prompts": ["red apple, 3d style"], "sheet_steps": 1, "guidance": 1.0},
    "conditioner": {"weights": "emoji-base-32-text"},
    "network": {"name": "unet", "in_channels": 3, "out_channels": 3, "width": 8, "mult": [1, 2], "blocks": 1,
                "attention_levels": [1], "heads": 2, "context_width": 160, "groups": 4},
    "schedule": "cosine", "parameterization": "v", "storage": "int8",
    "train": {"steps": 20, "batch_size": 4, "warmup_steps": 2, "decay_steps": 10, "optimizer": "muon"},
}  # fmt: skip
TINY_PIPELINE: dict[str, Any] = {
    "schema": "zoo.pipeline/1", "name": "tiny", "conditioners": {"text": {"weights": "emoji-base-32-text"}},
    "stages": [{"name": "base", "size": 16, "listens": ["text"], "denoiser": {"weights": "tiny"}, "guidance": [],
                "sampler": {"name": "ddim", "steps": 2}}],
}  # fmt: skip


def shared_out(courses: Sequence[Course], seconds: float) -> list[tuple[Course, float]]:
    """As many courses as the time is enough for, with their seconds by worth; always the first."""
    for count in range(len(courses), 1, -1):
        chosen = courses[:count]
        times = [seconds * course.worth / sum(other.worth for other in chosen) for course in chosen]
        if min(times) >= LEAST:
            return list(zip(chosen, times, strict=True))
    return [(courses[0], seconds)]


def tiny(folder: Path) -> Course:
    """The course of a trial, its recipe written into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    recipe = folder / "tiny.yaml"
    recipe.write_text(json.dumps(TINY_RECIPE))
    return Course(recipe=str(recipe), pipeline=TINY_PIPELINE, worth=1.0, batch=4)


def made_up(folder: Path) -> Path:
    """A few images of noise with captions of the shipped conditioner's vocabulary, for a trial without data."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    draw, rows = np.random.default_rng(0), []
    names = ("red apple", "cat face", "red heart", "pizza", "sun", "soccer ball", "fish", "guitar")
    for i, (name, style) in enumerate((n, s) for s in ("3d style", "flat style") for n in names):
        Image.fromarray(draw.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        rows.append({
            "file_name": f"{i}.png", "text": f"{name}, {style}", "name": name, "concept": name,
            "split": "val" if style == "flat style" else "train",
        })  # fmt: skip
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def some_of(data: str, folder: Path, *, count: int = 24) -> Path:
    """The first images of each split of some data, for a trial of a few seconds."""
    source = FolderSource(data)
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, int] = {}
    rows = []
    for index, row in enumerate(source.rows):
        split = str(row.get("split"))
        taken[split] = taken.get(split, 0) + 1
        if split in ("train", "val") and taken[split] <= count:
            name = f"{index}{Path(row['file_name']).suffix}"
            (folder / name).write_bytes(source.read(index))
            rows.append({**row, "file_name": name})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return folder


def files_of(card: Path) -> list[Path]:
    """The files that training wrote for weights: tensors, card, and the words of a text tower."""
    files = (card.with_suffix(".safetensors"), card, card.with_name(f"{card.stem}-words.json"))
    return [file for file in files if file.is_file()]


def cards_in(start: str | Path | None, folder: Path) -> dict[str, Path]:
    """Name -> card of the weights that an earlier call trained; archives among them are unpacked into `folder`."""
    if start is None:
        return {}
    place = Path(start)
    if not place.is_dir():
        raise UsageError(
            f"--start: '{start}' is no folder; give one with weights that an earlier call brought back",
            code="data-missing",
        )
    for archive in sorted(place.glob("*.zip")):
        with zipfile.ZipFile(archive) as packed:
            for name in packed.namelist():
                if Path(name).name == name and Path(name).suffix in (".yaml", ".safetensors", ".json"):
                    folder.mkdir(parents=True, exist_ok=True)
                    packed.extract(name, folder)
    found = {}
    for card in [*sorted(folder.glob("*.yaml")), *sorted(place.glob("*.yaml"))]:
        if card.with_suffix(".safetensors").is_file():
            found[card.stem] = card.resolve()
    if not found:
        raise UsageError(
            f"--start: '{start}' holds no weights with their card; give a folder with NAME.yaml or NAME.zip",
            code="weights-missing",
        )
    return found
