"""The hit score: does a judge see the requested concept, in the requested style?

For each caption one image. The judge is a CLIP that no pipeline uses. An image's concepts are ranked by the mean
similarity to a concept's captions over all styles; its style is the one whose captions of the five nearest concepts
come closest. **Hit** = the caption's concept is among the five nearest of all concepts and the style is right.

Beside a score always stand the real images' (ceiling), those of a shuffled pairing and of the nearest training
image in the requested style (floors), and chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.captions import style_of
from zoo.diffusion.draws import stream
from zoo.evaluation.extractors.clip import Clip


@dataclass(frozen=True)
class HitScore:
    """Shares of the captions, each in [0, 1], with their 95 % bootstrap intervals.

    `interval` is that of `hit`; `intervals` has those of the other three.
    """

    hit: float
    concept_at_1: float
    concept_at_5: float
    style: float
    interval: tuple[float, float]
    count: int
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)


def bootstrap_intervals(found: np.ndarray, *, seed: int = 0) -> list[tuple[float, float]]:
    """(N, K) -> K 95 % intervals of the columns' means, over the same 1,000 resamples of the N rows (Efron 1979)."""
    draw = stream(seed, "bootstrap")
    means = np.stack([found[draw.integers(0, len(found), len(found))].mean(axis=0) for _ in range(1000)])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    return [(float(a), float(b)) for a, b in zip(low, high, strict=True)]


class Judge:
    """All concepts and styles of a dataset, embedded once."""

    def __init__(self, clip: Clip, rows: Sequence[Mapping[str, Any]]) -> None:
        self.clip = clip
        self.styles = sorted({style_of(r) for r in rows})
        self.concepts = sorted({r["concept"] for r in rows})
        names: dict[str, list[str]] = {c: [] for c in self.concepts}
        for row in rows:
            if row["name"] not in names[row["concept"]]:
                names[row["concept"]].append(row["name"])
        pairs = [(i, n) for i, c in enumerate(self.concepts) for n in names[c]]
        owner = torch.tensor([i for i, _ in pairs])
        per_style = []
        for style in self.styles:
            embedded = clip.texts([f"{n}, {style}" for _, n in pairs]).float().cpu()
            summed = torch.zeros(len(self.concepts), embedded.shape[1]).index_add_(0, owner, embedded)
            per_style.append(F.normalize(summed, dim=-1))
        table = torch.stack(per_style)  # (styles, concepts, D)
        self.table, self.mean = table, F.normalize(table.mean(dim=0), dim=-1)

    def judge(self, embeddings: Tensor) -> tuple[Tensor, Tensor]:
        """Unit embeddings (N, D) -> the five nearest concepts (N, 5) and the style (N,)."""
        nearest = (embeddings @ self.mean.T).topk(5, dim=1).indices
        shown = self.table[:, nearest]  # (styles, N, 5, D)
        likeness = torch.einsum("snkd,nd->snk", shown, embeddings).amax(dim=2)
        return nearest, likeness.argmax(dim=0)

    def score(self, embeddings: Tensor, rows: Sequence[Mapping[str, Any]], *, seed: int = 0) -> HitScore:
        """The score of images (as unit embeddings) for the captions of `rows`, one each."""
        columns: tuple[str, ...] = ("hit", "concept_at_1", "concept_at_5", "style")
        found = np.stack([column.double().numpy() for column in self.verdicts(embeddings, rows)], axis=1)
        shares = dict(zip(columns, found.mean(axis=0).tolist(), strict=True))
        intervals: dict[str, tuple[float, float]] = dict(
            zip(columns, bootstrap_intervals(found, seed=seed), strict=True)
        )
        return HitScore(**shares, interval=intervals.pop("hit"), count=len(rows), intervals=intervals)

    def verdicts(self, embeddings: Tensor, rows: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """For each image, (N,) bool each: hit, concept nearest, concept among the five nearest, style."""
        nearest, style = self.judge(embeddings)
        concept = torch.tensor([self.concepts.index(r["concept"]) for r in rows])
        wanted = torch.tensor([self.styles.index(style_of(r)) for r in rows])
        at_5 = (nearest == concept[:, None]).any(dim=1)
        right_style = style == wanted
        return at_5 & right_style, nearest[:, 0] == concept, at_5, right_style

    @property
    def chance(self) -> float:
        """The hit score of guessing."""
        return 5.0 / len(self.concepts) / len(self.styles)


def nearest_similarity(embeddings: Tensor, training: Tensor) -> Tensor:
    """Cosine similarity to the nearest training image, (N,): a measure of memorisation."""
    return (embeddings @ training.T).amax(dim=1)
