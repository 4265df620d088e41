"""What every view is made from: records, their rows, and columns that hold comparable values only.

A `Column` is equal to another only where everything is equal that decides a value: for quality the metric's key
(extractor, hash, settings, N), the reference and the images' format; for cost the machine, its threads and versions.
So incomparable values never share a column, in any view.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

Better = Literal["lower", "higher"]
DIMENSIONS = (
    "model", "check", "sampler", "steps", "guidance", "precision", "batch", "size", "device", "fast", "step_cache",
    "library",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of comparable values."""

    kind: Literal["quality", "cost"]
    key: str
    name: str  # short, for display
    unit: str = ""
    better: Better | None = None
    terms: tuple[str, ...] = ()  # what else must be equal, as sentences


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A value, or the reason why there is none."""

    value: float | None
    reason: str | None = None
    low: float | None = None  # of an interval; the deviation is a field of its own
    high: float | None = None
    deviation: float | None = None
    ranges: int = 1  # of seeds; the deviation is between them, and the value their mean
    floor: float | None = None  # the same measure of real images, or of chance


class Part(NamedTuple):
    """A piece of a run's work: a stage's seconds, or its network evaluations."""

    name: str
    value: float
    unit: str  # s, or empty


@dataclass(frozen=True, kw_only=True)
class Row:
    """One configuration, as it was measured."""

    identity: str
    name: str
    protocol: str  # rows of different protocols share no table
    place: str  # machine and versions
    asked: Mapping[str, str] = field(default_factory=dict)  # by dimension, those that aren't given left out
    status: str = "measured"
    reason: str | None = None
    notes: tuple[str, ...] = ()
    unjudged: str | None = None  # why it has no quality at all
    random_weights: bool = False
    cells: Mapping[Column, Cell] = field(default_factory=dict)
    parts: tuple[Part, ...] = ()
    timed: str = ""  # which calls the parts' seconds are of
    samples: tuple[str, ...] = ()  # files beside the record
    sampled: str = ""  # which seeds and prompts they show
    noise: float | None = None  # relative spread of its group's baseline

    @property
    def why(self) -> str:
        """Its reason and its notes."""
        return ". ".join([*([self.reason] if self.reason else []), *self.notes])


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A comparison with another library."""

    name: str
    peer: str
    what: str
    ratio: float | None
    ratios: tuple[float, ...]
    agreement: str
    agrees: bool | None
    reason: str | None = None


class Fact(NamedTuple):
    """A measured value that belongs to no configuration."""

    path: str
    value: str


@dataclass(frozen=True, kw_only=True)
class Record:
    """A file of one run."""

    path: Path
    schema: str
    name: str
    when: str
    place: str
    commit: str | None
    dirty: bool | None
    summary: str = ""
    complete: bool = True
    rows: tuple[Row, ...] = ()
    pairs: tuple[Pair, ...] = ()
    facts: tuple[Fact, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()  # shown with the record: versions, weights, settings
