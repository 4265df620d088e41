"""All concepts of a dataset as captions, one each, drawn anew for every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.data.captions import style_of
from zoo.data.draws import stream
from zoo.errors import ConfigError
from zoo.training.objective import Batch


@dataclass(frozen=True)
class SaidConcepts:
    """One caption of each of C concepts, the number of its style (C,), and the styles of all rows (N,)."""

    texts: list[str]
    styles: np.ndarray
    of_rows: np.ndarray
    count: int  # of styles

    def style_means(self, embeddings: Tensor) -> Tensor:
        """The captions' unit embeddings (C, D) -> each style's mean, a unit vector again, (S, D)."""
        styles = torch.from_numpy(self.styles).to(embeddings.device)
        sums = embeddings.new_zeros(self.count, embeddings.shape[1]).index_add(0, styles, embeddings)
        return F.normalize(sums, dim=-1)

    def styles_of(self, batch: Batch) -> Tensor:
        """The styles of a batch's rows, (B,) int64."""
        return torch.from_numpy(self.of_rows[batch.rows]).to(batch.device)


class Concepts:
    """The concepts, their names and the styles of some rows.

    Raises ConfigError for a row that lacks a concept, a name or a style.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        for row in rows:
            if not row.get("concept") or not row.get("name") or not style_of(row):
                raise ConfigError(
                    f"objective.against is 'concepts', and the row '{row['file_name']}' lacks a concept, a name or a "
                    "style; use against: batch, or add them"
                )
        self.styles = sorted({style_of(row) for row in rows})
        names: dict[str, list[str]] = {}
        for row in rows:
            if row["name"] not in (known := names.setdefault(row["concept"], [])):
                known.append(row["name"])
        self.concepts = sorted(names)
        self.names = [sorted(names[c]) for c in self.concepts]
        place = {c: i for i, c in enumerate(self.concepts)}
        self.of_rows = np.array([place[row["concept"]] for row in rows], dtype=np.int64)
        number = {s: i for i, s in enumerate(self.styles)}
        self.styles_of_rows = np.array([number[style_of(row)] for row in rows], dtype=np.int64)

    def draw(self, batch: Batch) -> SaidConcepts:
        """A caption of each concept for a batch; the same for the same batch."""
        draw = stream(batch.seed, "concepts", int(batch.samples[0]))
        # Every style of about as many concepts, so that none has no mean.
        styles = draw.permutation(np.arange(len(self.concepts)) % len(self.styles))
        which = draw.random(len(self.concepts))
        texts = [
            f"{names[int(u * len(names))]}, {self.styles[style]}"
            for names, u, style in zip(self.names, which, styles, strict=True)
        ]
        return SaidConcepts(texts=texts, styles=styles, of_rows=self.styles_of_rows, count=len(self.styles))
