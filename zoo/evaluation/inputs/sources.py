"""What a side of a comparison may be: images, a dataset's split, reference statistics, or a pipeline.

| written | is |
|---|---|
| `drawn/`, `drawn.zip` | every image in it, in the order of names; rows of its metadata.jsonl where it has one |
| `emoji.zip:test`, or `emoji.zip` with `split` | the rows of a split |
| `emoji.zip:test-unlike-train` | those whose image all but equals none of another (zoo.evaluation.inputs.duplicates) |
| `reference.npz` | reference statistics (zoo.evaluation.extractors.statistics_file) |
| `latent-text2img`, `mine.yaml` | what a pipeline draws |

From Python also a tensor, an array, `Pictures`, `Features` or a `Pipeline`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from zoo.config.check import Resolved, resolve
from zoo.config.presets import SUFFIXES as CONFIGS
from zoo.config.presets import preset_names
from zoo.data.image_folder import METADATA, FolderSource
from zoo.data.image_sets import ArrayPictures, FolderPictures, Pictures, SomePictures
from zoo.diffusion.draws import stream
from zoo.evaluation.extractors.features import Features
from zoo.evaluation.extractors.statistics_file import read_statistics
from zoo.evaluation.inputs.duplicates import UNLIKE, kept_places
from zoo.evaluation.inputs.generated import PipelinePictures, evaluations_of
from zoo.images.zips import open_zip
from zoo.pipeline.pipeline import Pipeline
from zoo.pipeline.space import space_of
from zoo.schema.advice import option
from zoo.schema.errors import UsageError
from zoo.schema.unknown import unknown

Kind = Literal["pictures", "statistics", "pipeline"]


@dataclass(frozen=True, eq=False, kw_only=True)
class Source:
    """An opened side: images with the rows they belong to (where there are any), or statistics."""

    name: str
    pictures: Pictures | None = None
    statistics: Features | None = None
    rows: Sequence[Mapping[str, Any]] | None = None  # one per image
    every: Sequence[Mapping[str, Any]] = ()  # of the whole dataset
    names: Sequence[str] | None = None  # one per image, by which those of two sides are pairs; None of what is drawn
    truth: Pictures | None = None  # the references of these images, by place, where they are known
    facts: Mapping[str, Any] = field(default_factory=dict)  # for the record

    @property
    def count(self) -> int:
        """How many images; 0 of statistics that don't say."""
        return len(self.pictures) if self.pictures is not None else self.statistics.count if self.statistics else 0


def kind_of(what: Any) -> Kind:
    """Which kind of source a path or name is, before anything is opened; UsageError for neither."""
    if isinstance(what, Features):
        return "statistics"
    if isinstance(what, Pipeline):
        return "pipeline"
    if isinstance(what, (Tensor, np.ndarray)) or (hasattr(what, "fingerprint") and callable(what)):
        return "pictures"
    if not isinstance(what, (str, Path)):
        raise UsageError(
            f"a {type(what).__name__} can't be measured; give a folder, a zip, statistics, a pipeline, or pictures",
            code="source-type-wrong",
        )
    text = str(what)
    if text.endswith(".npz"):
        return "statistics"
    if text.endswith(CONFIGS):
        return "pipeline"
    names = preset_names()
    if Path(text).exists():
        if text in names:
            raise UsageError(
                f"'{text}' is a pipeline and also a file here; write ./{text} for the file", code="source-ambiguous"
            )
        return "pictures"
    head, colon, _ = text.rpartition(":")
    if colon and Path(head).exists():
        return "pictures"
    if text in names:
        return "pipeline"
    raise UsageError(
        f"there is no folder, zip or statistics file '{text}', and "
        f"{unknown('pipeline', text, names)}; give one of them",
        code="source-unknown",
    )


def open_source(
    what: Any, *, split: str | None = None, size: int | None = None, background: str | None = None,
    protocol: str | None = None,
) -> Source:  # fmt: skip
    """Open images or statistics. Pipelines are opened by the caller, who knows the other side."""
    if isinstance(what, Features):
        return Source(name=what.source, statistics=what, facts={"statistics": what.source, "count": what.count})
    if kind_of(what) == "statistics":
        found = read_statistics(what, protocol=protocol)
        facts = {
            "statistics": Path(what).name, "extractor": f"{found.extractor}@{found.sha256[:8]}", "count": found.count,
            "pictures_sha256": found.pictures_sha256, **({"said": list(found.notes)} if protocol else {}),
        }  # fmt: skip
        return Source(name=str(what), statistics=found, facts=facts)
    if isinstance(what, (Tensor, np.ndarray)):
        what = ArrayPictures(what)
    if not isinstance(what, (str, Path)):
        facts = {"pictures": what.name, "count": len(what)}
        return Source(name=what.name, pictures=what, names=[f"#{i}" for i in range(len(what))], facts=facts)
    path, split = _split_of(str(what), split)
    rows, every = _rows(path, split)
    files = None if rows is None else [str(row["file_name"]) for row in rows]
    name = path if split is None else f"{path}:{split}"
    pictures = FolderPictures(path, background=background, size=size, files=files, name=name)
    facts = {
        "pictures": Path(path).name, "split": split, "count": len(pictures), "captions": rows is not None,
        "made": "as they are" if size is None else f"{size}x{size}: square centre, averaged down or bicubic up",
    }  # fmt: skip
    return Source(name=name, pictures=pictures, rows=rows, every=every, names=pictures.files, facts=facts)


def some_of(source: Source, count: int) -> Source:
    """The first of a fixed shuffle, in the set's own order: folders are often sorted by what they show."""
    if source.pictures is None or not 1 <= count <= source.count:
        raise UsageError(
            f"{count} pictures of '{source.name}' were asked for and it has {source.count}; give fewer",
            code="count-out-of-range",
        )
    if count == source.count:
        return source
    places = sorted(int(i) for i in stream(0, "pictures").permutation(source.count)[:count])
    return replace(
        source, pictures=SomePictures(source.pictures, places),
        rows=None if source.rows is None else [source.rows[i] for i in places],
        names=None if source.names is None else [source.names[i] for i in places],
        facts={**source.facts, "count": count, "chosen": f'{count} of stream(0, "pictures").permutation'},
    )  # fmt: skip


def _split_of(text: str, split: str | None) -> tuple[str, str | None]:
    """`data.zip:test` -> the path and the split; one named there goes before `split`."""
    if Path(text).exists():
        return text, split
    head, _, tail = text.rpartition(":")
    if not tail:
        raise UsageError(f"'{text}' names no split; write {head}:test, or leave the colon out", code="split-missing")
    return head, tail


def _rows(path: str, split: str | None) -> tuple[list[Mapping[str, Any]] | None, list[Mapping[str, Any]]]:
    """The rows of a split and all rows; None where the folder or zip has no metadata."""
    if not _has_metadata(path):
        if split is not None:
            raise UsageError(
                f"'{path}' has no {METADATA} and so no split '{split}'; leave the split out", code="split-unknown"
            )
        return None, []
    source = FolderSource(path)
    if source.broken:
        raise UsageError(source.broken[0].sentence, code="data-row-broken")
    own, unlike, other = (split or "").partition(UNLIKE)
    rows: list[Mapping[str, Any]] = [row for row in source.rows if split is None or row.get("split") == own]
    if rows and unlike:
        rows = [rows[i] for i in kept_places(path, own, other)]
    if not rows:
        there = sorted({str(row.get("split")) for row in source.rows})
        raise UsageError(
            f"'{path}' has no rows of split '{split}'; there are {', '.join(there) or 'no rows at all'}",
            code="data-split-empty",
        )
    return rows, list(source.rows)


def _has_metadata(path: str) -> bool:
    if Path(path).is_dir():
        return (Path(path) / METADATA).is_file()
    if not Path(path).is_file():  # reading a pipe would wait, and a device never ends
        return False
    try:
        with open_zip(path) as archive:
            return METADATA in archive.namelist()
    except UsageError:
        return False  # FolderPictures says what is wrong with it


@dataclass(kw_only=True)
class Drawing:
    """How pipelines are built and draw."""

    seed: int
    overrides: Any
    sampler: str | None
    steps: int | None
    guidance: float | None
    batch_size: int | None
    device: torch.device
    dtype: Any
    resolved: dict[str, Resolved] = field(default_factory=dict)  # by name: each config is read once

    def _resolved(self, what: Any) -> Resolved:
        if str(what) not in self.resolved:
            chosen = {"sampler": self.sampler, "steps": self.steps, "guidance": self.guidance}
            self.resolved[str(what)] = resolve(_config(what), self.overrides, chosen)
        return self.resolved[str(what)]

    def size(self, what: Any) -> int:
        """Pixels a side of what it draws; a wrong config is refused here, before anything is read."""
        if isinstance(what, Pipeline):
            return what.stages[-1].size
        return space_of(self._resolved(what).config["stages"][-1]).side

    def draw(self, what: Any, told: Source | None, reference: Source | None, n: int | None, ranges: int) -> Source:
        """A pipeline as images, for the rows of `told`."""
        if isinstance(what, Pipeline):
            pipe = what
        else:
            import zoo

            pipe = zoo.build(self._resolved(what), device=self.device, dtype=self.dtype)
        rows = None if told is None else told.rows
        count = n or (len(rows) if rows else reference.count if reference is not None else 0)
        if count < 1:
            raise UsageError(
                f"say how many pictures '{_shown(what)}' is to draw, like {option('n', 100)}", code="count-missing"
            )
        pictures = PipelinePictures(
            pipe, count=count * ranges, seed=self.seed, rows=rows, true=None if told is None else told.pictures,
            batch_size=self.batch_size, name=_shown(what),
        )  # fmt: skip
        config = pipe.record.get("config") or {}
        facts = {
            "pipeline": str(config.get("name") or _shown(what)), "count": count * ranges,
            "captions": None if told is None else dict(told.facts), "batch_size": self.batch_size,
            "evaluations": evaluations_of(pipe), "config": dict(config),
        }  # fmt: skip
        asked = [pictures.row(i) for i in range(len(pictures))]
        own = [row for row in asked if row is not None]
        return Source(
            name=_shown(what), pictures=pictures, rows=own if pictures.captions() is not None else None,
            every=() if told is None else told.every, truth=pictures.truth(), facts={**facts, **pictures.record()},
        )  # fmt: skip


def _config(what: Any) -> str | Path:
    return Path(what) if str(what).endswith((".yaml", ".yml", ".json")) else str(what)


def _shown(what: Any) -> str:
    return "pipeline" if isinstance(what, Pipeline) else str(what)
