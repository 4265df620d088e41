"""Model files as they are published: their parts are weights, named by the file's path and what is wanted of it.

    weights: /models/v1-5.safetensors#unet?copy=ema

A family (`registry.yaml`, kind `family`) opens the path: a function of a path and answers that returns a `Source`, or
None for a file that isn't of its kind. `answers` settle what no tensor tells, like `prediction=v`. Everything up to the
tensors themselves is read here, so a pipeline of such a file is checked as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, quote

from zoo.config.hub import is_hub
from zoo.schema.errors import ConfigError, WeightsError, model_read
from zoo.schema.registry import registry

if TYPE_CHECKING:
    from zoo.config.card import Card

SUFFIXES = (".safetensors", ".ckpt", ".pt", ".pth", ".bin")
INDEX = "model_index.json"  # of a diffusers folder


class Source(Protocol):
    """A model file, or a folder of them."""

    def config(self, answers: Mapping[str, str]) -> dict[str, Any]:
        """The pipeline it is, whose weights name its parts; ConfigError for what it can't tell and nobody said."""
        ...

    def card(self, part: str, answers: Mapping[str, str], name: str) -> Card:
        """The card of a part, called `name`."""
        ...


def is_source(name: Any) -> bool:
    """Whether a name is the path of a model file or folder, perhaps with a part: no preset, card or config file."""
    if not isinstance(name, (str, Path)):
        return False
    if is_hub(name):
        return True
    path, part, _ = split(str(name))
    if path.suffix.lower() in SUFFIXES:
        return True
    return path.is_dir() if part is not None else (path / INDEX).is_file()


def split(reference: str) -> tuple[Path, str | None, dict[str, str]]:
    """`PATH#PART?KEY=VALUE&...`, or `FOLDER/PART`, -> its three parts; a whole model has None for the second."""
    path, mark, rest = reference.rpartition("#")
    if not mark:
        whole = Path(reference).expanduser()
        inside = (whole / "config.json").is_file() and (whole.parent / INDEX).is_file()
        return (whole.parent, whole.name, {}) if inside else (whole, None, {})
    part, _, query = rest.partition("?")
    return Path(path).expanduser(), part, dict(parse_qsl(query))


def reference(path: Path, part: str, answers: Mapping[str, Any]) -> str:
    """The name of a part, as `split` reads it."""
    said = "&".join(f"{key}={quote(str(value), safe='/')}" for key, value in answers.items() if value is not None)
    return f"{path}#{part}" + (f"?{said}" if said else "")


def open_source(path: Path) -> Source:
    """The source of a path, by whichever family reads it; WeightsError where none does."""
    if not path.exists():
        raise WeightsError(
            f"'{path}' is missing; put the model's file or diffusers folder there, or give another path",
            code="weights-missing",
        )
    families = registry()
    for name in families.names("family"):
        with model_read(path):
            found = families.load("family", name)(path)
        if found is not None:
            return found
    told = ", ".join(families.names("family"))
    raise WeightsError(
        f"'{path}' is of no family that zoo reads whole ({told}); name a checkpoint of one of them", code="model-unread"
    )


def source_config(path: Path, answers: Mapping[str, Any]) -> dict[str, Any]:
    """The pipeline of a model file or folder."""
    said = {key: str(value) for key, value in answers.items() if value is not None}
    source = open_source(path)
    with model_read(path):
        return source.config(said)


def source_card(name: str) -> Card:
    """The card of a part of a model file or folder."""
    path, part, answers = split(name)
    if part is None:
        raise ConfigError(
            f"the weights '{name}' are a whole model; name a part, like '{name}#unet'", code="model-part-unknown"
        )
    source = open_source(path)
    with model_read(path):
        return source.card(part, answers, name)
