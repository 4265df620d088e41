"""What a suite is: its rows, its settings, and what both are known by."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from zoo.bench.row_kinds import PIPELINES, RowKind
from zoo.config.check import Resolved
from zoo.schema.registry import registry

PROMPTS = ("red apple, 3d style", "cat face, noto style", "red heart, flat style", "pizza, cartoon style")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One row: what is measured. None keeps the pipeline's own value."""

    model: str
    sampler: str | Mapping[str, Any] | None = None
    steps: int | None = None
    guidance: float | None = None
    precision: str = "float32"
    batch: int = 1
    device: str = "cpu"
    fast: bool | Mapping[str, bool] = False
    step_cache: str | Mapping[str, Any] | None = None
    size: int | None = None
    check: str | None = None  # of rows of kind checks: one of CHECKS

    @property
    def group(self) -> str:
        """Rows of one group are interleaved."""
        return f"{self.model}/{self.device}"

    @property
    def name(self) -> str:
        """The row as readable text."""
        sampler = self.sampler.get("name") if isinstance(self.sampler, Mapping) else self.sampler
        cache = "cached" if self.step_cache else ""
        if isinstance(self.step_cache, Mapping):
            cache += f" {self.step_cache.get('every', '')}"
        fast = "fast" if self.fast is True else ""
        if isinstance(self.fast, Mapping):
            fast = "fast(" + ",".join(sorted(k for k, v in self.fast.items() if v)) + ")"
        steps = self.sampler.get("steps") if self.steps is None and isinstance(self.sampler, Mapping) else self.steps
        guidance = None if self.guidance is None else f"g={self.guidance:g}"
        parts = (
            self.model, self.check, sampler, steps, guidance, self.precision,
            f"b{self.batch}", None if self.size is None else f"{self.size}px", self.device, fast, cache.strip(),
        )  # fmt: skip
        return " ".join(str(p) for p in parts if p not in (None, ""))


@dataclass(frozen=True, kw_only=True)
class Quality:
    """How rows are joined with quality, where a run is given data."""

    samples: int = 64
    least: int | None = None  # samples that are enough where the time runs out; None: all of them
    ranges: int = 1  # disjoint ranges of samples that each value is taken over
    # Names, or blocks with settings.
    metrics: tuple[str | Mapping[str, Any], ...] = field(default_factory=lambda: (registry().default("metric"),))
    reference: str | None = None  # the split compared with; None: the split whose captions are drawn
    hit_split: str | None = None  # the split whose captions the hit score draws; None: the samples are scored
    hit_samples: int = 200  # captions of that split
    extractor: str = "emoji-evaluator"  # weights of kind extractor, or an extractor that needs none
    hit: bool = True  # the hit score, where the pipeline takes prompts and the data has concepts


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How rows are measured."""

    warm_up: int = 1
    repeats: int = 5
    seed: int = 0
    prompts: tuple[str, ...] = PROMPTS
    quality: Quality = field(default_factory=Quality)
    count: int = 64  # images of a comparison of metrics
    sheets: bool = True  # whether each row's first images are written beside the record


@dataclass(frozen=True, kw_only=True)
class Row:
    """A row with its pipeline written out; `reason` says why it can't be measured here, as far as the files show."""

    asked: Asked
    config: Mapping[str, Any] | None  # None where the model is no pipeline
    reason: str | None = None
    kind: str = "pipelines"
    measured: RowKind = PIPELINES
    resolved: Resolved | None = field(default=None, repr=False, compare=False)  # of the config, which is read once
    seconds: float | None = None  # the row's deadline, from when it begins

    @property
    def id(self) -> str:
        """Twelve digits of a hash of what was requested, with the whole config."""
        said = json.dumps([self.kind, asdict(self.asked), self.config], sort_keys=True)
        return hashlib.sha256(said.encode()).hexdigest()[:12]


@dataclass(frozen=True, kw_only=True)
class Suite:
    """A suite as it will run."""

    name: str
    kind: str
    summary: str
    settings: Settings
    rows: tuple[Row, ...]
    overrides: tuple[str, ...] = ()

    @property
    def sha256(self) -> str:
        """A hash of everything that is requested."""
        said = [self.name, self.kind, asdict(self.settings), [row.id for row in self.rows]]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()
