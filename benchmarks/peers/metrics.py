"""FID and KID in zoo and elsewhere on the same images: features, then the distances from the same features.

With the published Inception weights where they are found, else with random ones of the same network, which are as fast;
then no value is called FID. All libraries are given the same weights. Where a library prepares images otherwise (its
own resizing), that is recorded, and so is the distance of the two sets under its features and under zoo's: how far
the protocols are apart.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.peers.agreement import agreement, pair
from benchmarks.peers.metric_libraries import CLEAN, PEERS, TF1, Library, failure, of_peer, of_zoo
from zoo.bench import measure, record
from zoo.bench.checks import smooth
from zoo.bench.measure import Timed
from zoo.bench.pipelines import flags
from zoo.bench.rows import Row
from zoo.evaluation.extractors.inception import WEIGHTS, Inception2015
from zoo.evaluation.extractors.weight_file import Unavailable

if TYPE_CHECKING:
    from zoo.bench.run import Run

FEW = 64  # features that a distance is warmed up with: roots of large matrices take many seconds and need no warm-up


@dataclass
class _Kept:
    """A call, and what it made last."""

    call: Callable[[], Any]
    made: Any = None

    def __call__(self, _: int) -> Any:
        self.made = self.call()
        return self.made


def compare(run: Run, rows: list[Row]) -> None:
    """Every row (a number of images a batch, a precision) against what is installed."""
    for row in rows:
        _compare(run, row)
        run.save()


def images(count: int, seed: int, *, size: int = 64) -> Tensor:
    """Smooth random images, uint8 (count, 3, size, size), the same everywhere."""
    return smooth(count, size, seed=seed, purpose="benchmark pictures")


def _compare(run: Run, row: Row) -> None:
    settings, asked = run.suite.settings, row.asked
    precision: Any = asked.precision
    try:
        extractor, random = Inception2015(precision=precision), False
    except Unavailable:
        extractor, random = Inception2015(precision=precision, seed=0), True
    shown = [images(settings.count, settings.seed + i) for i in range(2)]
    shown[1] = shown[1] // 2 + 64  # of less contrast, so that there is a distance
    size = min(settings.count, 1000)
    libraries = {"zoo": of_zoo(extractor.to(asked.device), row, size, random)}
    for name in PEERS:
        found = of_peer(name, extractor, row, size)
        if isinstance(found, str):
            run.record["rows"].append(record.row_of(row, "unavailable", found, part=TF1, library=name))
        else:
            libraries[name] = found
    part = _Part(run, row, random)
    for resizing in (TF1, CLEAN):
        there = {name: one for name, one in libraries.items() if resizing in one.looks}
        if resizing == TF1 or len(there) > 1:
            part.features(resizing, there, shown)
    if precision == "float32":  # distances don't depend on the features' precision
        features = [libraries["zoo"].looks[TF1](one).double() for one in shown]
        for distance in ("frechet", "kernel"):
            part.distance(distance, libraries, features)


@dataclass(frozen=True)
class _Part:
    """Rows and pairs of one thing that libraries do."""

    run: Run
    row: Row
    random: bool

    def features(self, part: str, libraries: dict[str, Library], shown: list[Tensor]) -> None:
        """Speed on the first set; what its own features make of both sets, by the same distances."""
        calls = {name: _Kept(lambda one=one: one.looks[part](shown[0])) for name, one in libraries.items()}
        timed = self._rounds(part, calls, calls, libraries, self.run.suite.settings.repeats)
        notes = {}
        for name in timed:
            both = [calls[name].made.double(), libraries[name].looks[part](shown[1]).double()]
            apart = {key: float(made(*both)) for key, made in libraries["zoo"].distances.items()}
            notes[name] = "under its own features the two sets are apart by " + ", ".join(
                f"{key} {value:.8g}" for key, value in apart.items()
            )
        self._write(part, timed, {name: calls[name].made for name in timed}, libraries, notes, 1e-4)

    def distance(self, part: str, libraries: dict[str, Library], features: list[Tensor]) -> None:
        """Speed and value, of the same features."""
        few = [f[:, :FEW].contiguous() for f in features]
        ready = {n: _Kept(lambda one=one: one.distances[part](*few)) for n, one in libraries.items()}
        calls = {n: _Kept(lambda one=one: one.distances[part](*features)) for n, one in libraries.items()}
        repeats = 1 if part == "frechet" else self.run.suite.settings.repeats
        timed = self._rounds(part, ready, calls, libraries, repeats)
        values = {name: torch.tensor(float(calls[name].made), dtype=torch.float64) for name in timed}
        # Of fewer images than dimensions the root that others take of a singular matrix is itself not better.
        within = 1e-3 if part == "frechet" and len(features[0]) <= features[0].shape[1] else 1e-4
        notes = {name: f"value {float(value):.8g}" for name, value in values.items()}
        self._write(part, timed, values, libraries, notes, within)

    def _rounds(
        self, part: str, ready: dict[str, _Kept], calls: dict[str, _Kept], libraries: dict[str, Library], repeats: int
    ) -> dict[str, Timed]:
        settings, asked = self.run.suite.settings, self.row.asked
        timed: dict[str, Timed] = {}
        for name in libraries:
            one = Timed(id=self.row.id, call=ready[name], device=asked.device, batch=settings.count)
            try:
                measure.warm_up(one, settings.warm_up)
            except Exception as error:
                if name == "zoo":
                    raise
                reason = failure(name, error)
                self.run.record["rows"].append(record.row_of(self.row, "unavailable", reason, part=part, library=name))
                continue
            one.call = calls[name]
            timed[name] = one
        self.run.tell(f"{asked.name}, {part}")
        baseline = measure.rounds(list(timed.values()), repeats)
        self.run.record["noise"][f"{asked.name}: {part}"] = measure.noise(asked.name, baseline)
        return timed

    def _write(
        self, part: str, timed: dict[str, Timed], values: dict[str, Tensor], libraries: dict[str, Library],
        notes: dict[str, str], within: float,
    ) -> None:  # fmt: skip
        settings, asked = self.run.suite.settings, self.row.asked
        ids = {}
        for name, one in timed.items():
            out = record.row_of(self.row, "measured", part=part, library=name) | {"group": f"{asked.name}: {part}"}
            out["speed"] = measure.speed(one, None)
            theirs = name != "zoo" and part in (TF1, CLEAN)
            out["precision"] = {"dtype": "float32" if theirs else asked.precision, **flags()}
            out["memory"], out["energy"] = one.memory, measure.energy(one)
            out["wall_seconds"] = round(sum(one.seconds), 3)
            out["weights"] = {} if self.random else {asked.model: WEIGHTS.sha256}
            out["random_weights"] = self.random
            out["notes"] = [f"{settings.count} pictures a set", notes[name]]
            out["notes"] += ["random weights, the same in all libraries: no value is FID"] * self.random
            out["notes"] += [text for key, text in libraries[name].protocols.items() if key == part]
            out["quality"] = record.quality("a comparison of metrics on made pictures")
            self.run.record["rows"].append(out)
            ids[name] = out["id"]
        for name in timed:
            if name == "zoo":
                continue
            # Relative to the value, or to the largest feature.
            scale = float(values["zoo"].abs().max()) or 1.0
            differs = part == TF1 or (part == "kernel" and settings.count > 1000)
            protocol = libraries[name].protocols.get(part) if differs else None
            judged = protocol is None and (asked.precision == "float32" or part not in (TF1, CLEAN))
            of = f"{part}, relative" + (f"; {protocol}" if protocol else "")
            close = agreement(values["zoo"] / scale, values[name] / scale, of, within if judged else None)
            peer = f"{name} {self.run.record['versions'].get(name)}"
            seconds = timed["zoo"].seconds, timed[name].seconds
            self.run.record["pairs"].append(pair(f"{asked.name}: {part}", ids["zoo"], ids[name], peer, *seconds, close))
