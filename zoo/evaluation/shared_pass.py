"""Several extractors in one pass: each image is drawn and decoded once, whatever is measured of it.

Extractors stand together as one whose layers are `number:layer`; its features are kept by shards as any other's
(zoo.evaluation.extractors.features), and split again afterwards. `Pairs` among them sees each image beside its true
one.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.data.image_sets import Pictures
from zoo.evaluation.extractors.extractor import MAIN, look
from zoo.evaluation.extractors.features import SCHEMA, Features, extract, fill
from zoo.evaluation.inputs.sources import Source
from zoo.evaluation.metrics.pairs import LAYER as PAIRS
from zoo.evaluation.metrics.pairs import Pairs
from zoo.evaluation.processes import Processes
from zoo.evaluation.selection import Plan
from zoo.schema.errors import UsageError

Watch = Callable[[str, int, int], object]  # what is being extracted, images done, of how many


class Together:
    """Several extractors as one, so that every image is drawn and decoded once: layers are `number:layer`.

    Args:
        truth: the references of the images, by sample id, where `Pairs` is among the extractors.
    """

    def __init__(self, extractors: Sequence[Any], truth: Pictures | None = None) -> None:
        self.extractors, self.truth = list(extractors), truth
        self.name = "+".join(e.name for e in self.extractors)
        marks = [e.sha256 for e in self.extractors] + ([] if truth is None else [truth.fingerprint()])
        self.sha256 = hashlib.sha256("+".join(marks).encode()).hexdigest()

    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor:
        raise UsageError(
            "extractors together have no layer of their own; name one as NUMBER:LAYER", code="layer-unknown"
        )

    def features(self, pictures: Tensor, layers: Sequence[str], *, batch: int = 64) -> dict[str, Tensor]:
        found: dict[str, Tensor] = {}
        for i, extractor in enumerate(self.extractors):
            own = [layer.partition(":")[2] for layer in layers if layer.startswith(f"{i}:")]
            if own and not isinstance(extractor, Pairs):
                found |= {f"{i}:{k}": v for k, v in look(extractor, pictures, own, batch=batch).items()}
        return found

    def compare(self, pictures: Sequence[Tensor], ids: Sequence[int], layers: Collection[str]) -> dict[str, Tensor]:
        """Metrics of images and their references."""
        numbers = [i for i, e in enumerate(self.extractors) if isinstance(e, Pairs) and f"{i}:{PAIRS}" in layers]
        if not numbers:
            return {}
        assert self.truth is not None
        found = self.extractors[numbers[0]].compare(pictures, self.truth(ids))
        return {f"{numbers[0]}:{PAIRS}": found}


@dataclass
class Run:
    """What all steps of an evaluation share."""

    plan: Plan
    processes: Processes
    folder: Path | None
    batch: int
    keep: int
    watch: Watch | None
    saving: bool

    def _together(self, source: Source) -> Together:
        pairs = any(isinstance(e, Pairs) for e in self.plan.extractors)
        return Together(self.plan.extractors, source.truth if pairs else None)

    def _layers(self, together: Together) -> list[str]:
        seeing = [(i, e) for i, e in enumerate(together.extractors) if not isinstance(e, Pairs)]
        used = range(len(together.extractors)) if together.truth is not None else [i for i, _ in seeing]
        layers = [(i, layer) for i in used for layer in self.plan.layers(i)]
        if self.saving:  # all that distances of statistics are of
            layers += [(i, layer) for i, e in seeing for layer in getattr(e, "saved", (MAIN,))]
        return sorted({f"{i}:{layer}" for i, layer in layers})

    def _place(self, pictures: Pictures, together: Together) -> Path | None:
        """A folder by what is in it: another extractor, other layers or other images have another one."""
        if self.folder is None:
            return None
        said = [SCHEMA, together.name, together.sha256, self._layers(together), self.batch, pictures.fingerprint()]
        return self.folder / hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def _watch(self, name: str) -> Callable[[int, int], object] | None:
        watch = self.watch
        return None if watch is None else lambda done, total: watch(name, done, total)

    def fill(self, source: Source) -> None:
        """This process's shards of a side."""
        together = self._together(source)
        place = None if source.pictures is None else self._place(source.pictures, together)
        if self.processes.world > 1 and source.pictures is not None and place is not None:
            fill(
                source.pictures, together, folder=place, layers=self._layers(together), batch=self.batch,
                rank=self.processes.rank, world=self.processes.world, progress=self._watch(source.name),
            )  # fmt: skip

    def forget(self, source: Source) -> None:
        """Remove a side's shards: they are needed only to resume a killed run."""
        place = None if source.pictures is None else self._place(source.pictures, self._together(source))
        if place is not None:
            shutil.rmtree(place, ignore_errors=True)

    def features(self, source: Source) -> list[Features | None]:
        """A side's features by extractor; None of statistics that are of another one."""
        extractors = self.plan.extractors
        if source.pictures is None:
            found = source.statistics
            assert found is not None
            return [found if (found.extractor, found.sha256) == (e.name, e.sha256) else None for e in extractors]
        together = self._together(source)
        seen = extract(
            source.pictures, together, layers=self._layers(together), folder=self._place(source.pictures, together),
            batch=self.batch, keep=self.keep, progress=self._watch(source.name),
        )  # fmt: skip
        return [_own(seen, i, e) for i, e in enumerate(extractors)]


def _own(seen: Features, number: int, extractor: Any) -> Features:
    """One extractor's features of those of several."""

    def own(by_layer: Mapping[str, Any]) -> dict[str, Any]:
        return {k.partition(":")[2]: v for k, v in by_layer.items() if k.startswith(f"{number}:")}

    return replace(
        seen, extractor=extractor.name, sha256=extractor.sha256, arrays=own(seen.arrays), moments=own(seen.moments)
    )
