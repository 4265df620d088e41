"""A model that is a folder or an index of shards: which files it is made of, each looked for inside the folder alone.

diffusers' layout: `model_index.json` names parts (`unet: [diffusers, UNet2DConditionModel]`), each a folder with
`config.json` and one weight file, or shards with an index that maps tensors to files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zoo.checkpoints.containers import read_header
from zoo.checkpoints.headers import Header, merged
from zoo.schema import strict_json
from zoo.schema.errors import UsageError, WeightsError
from zoo.schema.files import read_plain

_JSON_LIMIT = 2**20
_INDEX_LIMIT = 2**21
_SHARDS = 1000
# A bare file name: no way out of the folder, no drive, no hidden file.
_BARE = re.compile(r"[A-Za-z0-9_+][A-Za-z0-9_.+ -]{0,200}")
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model", "adapter_model")
_VARIANTS = ("", ".fp16", ".bf16", ".non_ema", ".ema_only")
_INDEX = re.compile(r"\.index(\.[a-z0-9_]+)?\.json$|\.safetensors\.index\.json$|\.bin\.index\.json$")


@dataclass(frozen=True)
class Part:
    """A part of a folder: its class as `model_index.json` has it, its configuration, and its tensors if it has any."""

    name: str
    library: str
    kind: str
    config: Mapping[str, Any]
    header: Header | None
    others: tuple[str, ...] = ()  # weight files of the part that were not read: other precisions and containers


@dataclass(frozen=True)
class Folder:
    """A diffusers folder: the pipeline's class, its parts in their order, and the plain values beside them."""

    path: Path
    kind: str
    parts: Mapping[str, Part]
    values: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[str, ...] = ()  # parts that the index has as null
    version: str | None = None


def is_index(path: Path) -> bool:
    """Whether a file is an index of shards, by its name."""
    return bool(_INDEX.search(path.name))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of at most 1 MiB (an index of shards: 2); WeightsError naming the file for anything else."""
    limit = _INDEX_LIMIT if is_index(path) else _JSON_LIMIT
    try:
        text = read_plain(path, limit)
        if len(text) > limit:
            raise ValueError(f"it is longer than {limit} bytes")
        if text.count(b",") + text.count(b"[") + text.count(b"{") > limit // 32:
            raise ValueError("it lists more than any model has")
        found = strict_json.parse(text, finite=False)  # diffusers writes -Infinity into its schedulers' settings
    except OSError as error:
        raise WeightsError(
            f"'{path}' can't be read: {error.strerror or error}; give the whole folder", code="weights-unreadable"
        ) from error
    except ValueError as error:
        raise WeightsError(
            f"'{path}' is no JSON that is read: {error}; get it from its publisher again", code="index-damaged"
        ) from error
    if not isinstance(found, dict):
        raise WeightsError(f"'{path}' is no JSON object; get it from its publisher again", code="index-damaged")
    return found


def read_index(path: Path) -> Header:
    """All shards of an index; WeightsError for a shard outside the folder or missing, and for tensors astray."""
    mapped = read_json(path).get("weight_map")
    if not isinstance(mapped, dict) or not mapped or not all(isinstance(f, str) for f in mapped.values()):
        raise WeightsError(
            f"'{path}' has no weight_map from tensors to files; get it from its publisher again", code="index-damaged"
        )
    names = list(dict.fromkeys(mapped.values()))
    if len(names) > _SHARDS:
        raise WeightsError(f"'{path}' names {len(names)} shards, over the limit of {_SHARDS}", code="index-damaged")
    for name in names:
        if not _BARE.fullmatch(name):
            raise WeightsError(
                f"'{path}' names the shard {name[:80]!r}, which is no file's name inside its folder; nothing was read",
                code="file-outside-folder",
            )
    missing = [name for name in names if not (path.parent / name).is_file()]
    if missing:
        more = f" and {len(missing) - 1} more" if missing[1:] else ""
        raise WeightsError(
            f"the shard '{path.parent / missing[0]}'{more} of '{path.name}' is missing; "
            f"download all {len(names)} again",
            code="weights-missing",
        )
    whole = merged(path, (read_header(path.parent / name) for name in names))
    for name, file in mapped.items():
        if name not in whole.tensors:
            raise WeightsError(f"the shard '{path.parent / file}' has no tensor '{name[:80]}', which '{path.name}' "
                               "says it has; index and shards are of two models, or a shard is another's",
                               code="index-unfit")  # fmt: skip
        if whole.tensors[name].file.name != file:
            raise WeightsError(f"'{path}' says that '{name[:80]}' is in '{file}'; it is in "
                               f"'{whole.tensors[name].file.name}'; get them again",
                               code="index-unfit")  # fmt: skip
    extra = next((name for name in whole.tensors if name not in mapped), None)
    if extra is not None:
        raise WeightsError(
            f"the shard '{whole.tensors[extra].file}' holds '{extra[:80]}', which '{path.name}' doesn't list; "
            "index and shards are of two models, or a shard is another's",
            code="index-unfit",
        )
    return whole


def weight_files(folder: Path) -> list[Path]:
    """Weight files and indexes of a part's folder, the one to read first: safetensors before pickles, whole precision
    before half."""
    found = []
    for kind in ("safetensors", "bin"):
        for variant in _VARIANTS:
            for stem in _STEMS:
                whole = f"{stem}{variant}.{kind}"
                indexes = (f"{stem}.{kind}.index{variant}.json", f"{whole}.index.json")
                found += [folder / name for name in (whole, *indexes)]
    return [path for path in dict.fromkeys(found) if path.is_file()]


def read_weights(path: Path) -> Header:
    """A weight file or an index of shards."""
    return read_index(path) if is_index(path) else read_header(path)


def read_folder(path: Path) -> Folder:
    """A diffusers folder, or one part's folder (its only part is then named ''); UsageError for any other folder."""
    index = path / "model_index.json"
    if not index.is_file():
        part = _part(path, "", "", "")
        if part.header is None:
            raise UsageError(
                f"the folder '{path}' has no model_index.json and no weight file of diffusers' or transformers'; "
                "give a model's folder, or a weight file",
                code="weights-missing",
            )
        return Folder(path, part.kind, {"": part})
    said = read_json(index)
    parts, values, absent = {}, {}, []
    for name, value in said.items():
        if isinstance(value, list) and len(value) == 2 and not name.startswith("_"):
            if value[1] is None:
                absent.append(name)
                continue
            library, kind = value
            if not _BARE.fullmatch(name) or not isinstance(library, str) or not isinstance(kind, str):
                raise WeightsError(
                    f"'{index}' names the part {name[:80]!r}, which is no folder's name inside it",
                    code="file-outside-folder",
                )
            if not (path / name).is_dir():
                raise WeightsError(f"'{index}' names the part '{name}', and there is no folder '{path / name}'; "
                                   "download the whole folder", code="weights-missing")  # fmt: skip
            parts[name] = _part(path / name, name, library, kind)
        elif not name.startswith("_"):
            values[name] = value
    kind = said.get("_class_name")
    version = said.get("_diffusers_version")
    return Folder(path, kind if isinstance(kind, str) else "", parts, values, tuple(absent),
                  version if isinstance(version, str) else None)  # fmt: skip


def _part(folder: Path, name: str, library: str, kind: str) -> Part:
    config: dict[str, Any] = {}
    for candidate in ("config.json", "scheduler_config.json", "adapter_config.json"):
        if (folder / candidate).is_file():
            config = read_json(folder / candidate)
            break
    files = weight_files(folder)
    own = config.get("_class_name") or next(iter(config.get("architectures") or []), "")
    return Part(name, library, kind or str(own), config, read_weights(files[0]) if files else None,
                tuple(f.name for f in files[1:]))  # fmt: skip
