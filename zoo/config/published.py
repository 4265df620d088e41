"""Published values: what a card or a preset says that its weights reach, and by which protocol.

    published:
      - metric: fid-tf1          # the prefix of a key: fid-tf1, fid-clean, fd, is, kid, precision, hit-score, ...
        value: 2.27
        n: 50000                 # generated images that a value is of
        sampler: ddpm            # or those of the pipeline
        steps: 250
        guidance: 1.5
        split: test              # of the data: whose rows condition the samples and are compared with them
        tolerance: 0.05          # how far a measured value may be from it and still agree
        protocol: ADM's reference batch of ImageNet 256x256
        source: Peebles & Xie 2023, table 2

A value without its N, tolerance and source is refused: none could be compared with it. A `key` says which
extractor, with which weights, it is of; a value under another key isn't comparable.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from zoo.config.blocks import check_arguments
from zoo.schema.errors import ConfigError
from zoo.schema.plain import show
from zoo.schema.ranges import within
from zoo.schema.registry import Registry, registry
from zoo.schema.signature import read_signature

LARGEST = 2.0**64


@dataclass(frozen=True, kw_only=True)
class Published:
    """A published value. `ranges` of n images each were averaged; `settings` are the metric's own."""

    metric: str
    value: float
    n: int
    tolerance: float
    source: str
    sampler: str | None = None
    steps: int | None = None
    guidance: float | None = None
    extractor: str | None = None
    protocol: str = ""
    split: str | None = None
    key: str | None = None
    ranges: int = 1
    seed: int = 0
    pipeline: str | None = None  # of a card: which pipeline draws with it; None where the weights alone are measured
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def measured_by(self) -> str:
        """The registered metric: the one of that name, or that declares it among the prefixes of its keys."""
        return measured_by(self.metric)

    def __str__(self) -> str:
        """For people: `hit-score 0.166 at N 500, tolerance 0.01 (where it is from)`."""
        said = [f"{self.metric} {self.value:g} at N {self.n}", f"tolerance {self.tolerance:g}"]
        said += [f"{key} {getattr(self, key)}" for key in ("sampler", "steps", "guidance") if getattr(self, key)]
        return f"{', '.join(said)} ({self.source})"


def read_published(written: Any, where: str) -> tuple[Published, ...]:
    """The entries of a `published:` block, each checked for its form."""
    if written is None:
        return ()
    if not isinstance(written, list):
        raise ConfigError(
            f"{where}: published is {show(written)}; write a list of values, each a mapping", code="published-invalid"
        )
    return tuple(_entry(entry, f"{where}: published.{i}") for i, entry in enumerate(written))


def _entry(entry: Any, where: str) -> Published:
    if not isinstance(entry, Mapping):
        raise ConfigError(
            f"{where} is {show(entry)}; write metric, value, n, tolerance and source", code="published-invalid"
        )
    given = {key: value for key, value in entry.items() if value is not None}
    signature = read_signature(f"{__name__}:Published")
    checked = check_arguments(given, signature, what="a published value", where=where, registry=Registry())
    for least, names in ((-LARGEST, ("value", "guidance")), (0, ("tolerance", "seed")), (1, ("n", "steps", "ranges"))):
        within(least, LARGEST, {f"{where}.{name}": checked.get(name) for name in names})
    return Published(**checked)


def measured_by(front: str) -> str:
    """The registered metric whose values go by this name: its own, or one that it declares in `fronts`."""
    known = registry()
    names = known.names("metric")
    giving = [n for n in names if front in (known.entry("metric", n).signature().constants.get("fronts") or ())]
    return front if front in names or not giving else giving[0]
