"""Published models whose weights the user has: by the path of a file or a folder, or by name with the file's path.

A family's folder lists its models in `models.yaml`: name -> a summary, the variant that a file must be, the files that
were published, the answers that settle what their tensors don't tell, and how it is sampled where not as its variant. A
name without `weights=PATH` is looked for in the folder that `ZOO_MODELS` names, `~/.cache/zoo/models` by default.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from zoo.config.hub import PREFIX, is_hub, on_disk
from zoo.config.overrides import SHORTCUTS, apply_shortcuts, check_form
from zoo.config.published import read_published
from zoo.config.sources import SUFFIXES, is_source, open_source, source_config, split
from zoo.schema.advice import option
from zoo.schema.errors import ConfigError, UsageError, WeightsError
from zoo.schema.registry import registry
from zoo.schema.safe_yaml import read_mapping
from zoo.schema.unknown import unknown

SCHEMA = "zoo.models/1"
KEYS = ("summary", "variant", "files", "answers", "sampled", "licence", "sources", "published")
FOLDERS = Path(__file__).resolve().parent.parent / "families"
PLACE = "ZOO_MODELS"


@dataclass(frozen=True, kw_only=True)
class Model:
    """A published model.

    `files` are the names of the published files, the one to take first; `sampled` is a pipeline's `sampler` and
    `guidance`, where they aren't the variant's.
    """

    name: str
    summary: str
    variant: str
    files: tuple[str, ...]
    answers: Mapping[str, Any]
    sampled: Mapping[str, Any]
    raw: Mapping[str, Any]
    source: Path


@cache
def _listed() -> Mapping[str, Model]:
    found: dict[str, Model] = {}
    for path in sorted(FOLDERS.glob("*/models.yaml")):
        raw = read_mapping(path)
        if raw.get("schema") != SCHEMA:
            raise ConfigError(
                f"'{path}' has schema {str(raw.get('schema'))[:40]!r} where '{SCHEMA}' is read", code="schema-unknown"
            )
        for name, said in raw["models"].items():
            for key in said:
                if key not in KEYS:
                    raise ConfigError(f"'{path}', model '{name}': {unknown('key', key, KEYS)}", code="card-key-unknown")
            read_published(said.get("published"), f"model '{name}'")
            found[name] = Model(
                name=name, summary=said["summary"], variant=said["variant"], files=tuple(said["files"]),
                answers=said.get("answers") or {}, sampled=said.get("sampled") or {}, raw=said, source=path,
            )  # fmt: skip
    return found


def model_names() -> list[str]:
    """The names of published models, whose weights are the user's."""
    return sorted(_listed())


def read_model(name: str) -> Model:
    """A published model by name."""
    if name not in _listed():
        raise ConfigError(unknown("model", name, model_names()), code="model-unknown")
    return _listed()[name]


def models_folder() -> Path:
    """Where a model's file is looked for when no path is given."""
    said = os.environ.get(PLACE)
    return Path(said).expanduser() if said else Path.home() / ".cache" / "zoo" / "models"


def find_model(model: Model) -> Path:
    """The file or folder of a model, by its name or its published one; WeightsError says which to put where."""
    folder = models_folder()
    names = [model.name, *(f"{model.name}{suffix}" for suffix in SUFFIXES), *model.files]
    found = next((folder / name for name in names if (folder / name).exists()), None)
    if found is None:
        raise WeightsError(
            f"'{model.name}' needs its weights, which zoo doesn't ship: put {model.files[0]}, or its diffusers folder "
            f"as '{model.name}', into {folder} (or the folder that {PLACE} names), or say {option('weights', 'PATH')}",
            code="weights-missing",
        )
    return found


def from_file(
    config: Any, shortcuts: Mapping[str, Any], presets: Collection[str]
) -> tuple[Any, Mapping[str, Any]]:  # fmt: skip
    """A model's file, folder or name -> the config of its pipeline, and the shortcuts that are left.

    What isn't a shortcut of every pipeline is an answer about the file. Any other config is returned as it is, and so
    is the name of one of `presets`, whatever folder is called the same.
    """
    called: dict[str, str] = {}
    if is_hub(config):
        called["name"] = str(config).removeprefix(PREFIX).partition("@")[0].split("/")[1]
        config = on_disk(config)
    shortcuts = {key: on_disk(value) if is_hub(value) else value for key, value in shortcuts.items()}
    named = config if isinstance(config, str) and config in model_names() else None
    if named is None and (not is_source(config) or config in presets):
        wrong = next((key for key in ("weights", "autoencoder") if shortcuts.get(key) is not None), None)
        if wrong is not None:
            shown = f"'{config}'" if isinstance(config, (str, Path)) else "the config"
            raise UsageError(
                f"{wrong}= says which file a published model is read from, and {shown} is none; it goes with "
                f"{', '.join(model_names())}",
                code="arguments-conflict",
            )
        return config, {key: value for key, value in shortcuts.items() if key in SHORTCUTS or value is not None}
    answers = {key: value for key, value in shortcuts.items() if key not in SHORTCUTS and value is not None}
    weights = answers.pop("weights", None)
    sampled: Mapping[str, Any] = {}
    if named is None:
        path, part, _ = split(str(config))
        if part is not None:
            raise UsageError(
                f"'{config}' is a part of a model; give the file alone, '{path}'", code="model-part-unknown"
            )
        if weights is not None:
            raise UsageError(
                f"weights= goes with a model's name, and '{path}' is a file itself; leave it out",
                code="arguments-conflict",
            )
    else:
        model = read_model(named)
        path = find_model(model) if weights is None else Path(weights).expanduser()
        answers, sampled = {**model.answers, **answers}, model.sampled
        _check_variant(model, path)
    path = path.absolute()  # a record holds it
    chosen = {"sampler": "given"} if shortcuts.get("sampler") is not None or "sampler" in sampled else {}
    written = source_config(path, {**answers, **chosen})
    check_form(written)  # of an exported folder it is a text that anyone may have edited
    made = apply_shortcuts(written, sampled, registry())
    called |= {"name": named} if named else {}
    return {**made, **called}, {k: v for k, v in shortcuts.items() if k in SHORTCUTS}


def _check_variant(model: Model, path: Path) -> None:
    """ConfigError where a file is another variant than a name's."""
    found = getattr(open_source(path), "key", None)
    if found != model.variant:
        raise ConfigError(
            f"'{path}' is {found or 'no whole model'} and '{model.name}' is {model.variant}; give the file of that, "
            f"or call zoo.load('{path}') for what it is",
            code="model-variant-wrong",
        )
