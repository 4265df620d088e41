"""The concepts of a dataset as captions, one each, drawn anew for every step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.conditioners import vocabulary
from zoo.data.captions import style_of
from zoo.diffusion.draws import stream
from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import Batch


@dataclass(frozen=True)
class SaidConcepts:
    """One caption of each of C concepts, for the B rows of a batch.

    Args:
        tokens: (C, L) int64. styles: the style of each caption, (C,) int64, of `count` styles.
        own: which of the C is each row's concept, (B,) int64. own_styles: each row's style, (B,) int64.
    """

    tokens: Tensor
    styles: Tensor
    count: int
    own: Tensor
    own_styles: Tensor

    def style_means(self, embeddings: Tensor) -> Tensor:
        """The captions' unit embeddings (C, D) -> each style's mean, a unit vector again, (S, D)."""
        sums = embeddings.new_zeros(self.count, embeddings.shape[1])
        return F.normalize(sums.index_add(0, self.styles.to(embeddings.device), embeddings), dim=-1)


class Concepts:
    """The concepts, their names and the styles of some rows.

    Args:
        rows: each with `concept`, `name` and a caption "NAME, STYLE".
        at_once: concepts a step, those of the batch and others at random; None takes all.
        context_length: tokens of a caption.

    Raises ConfigError for a row that lacks one of these, or an `at_once` below one concept a style.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]], *, at_once: int | None, context_length: int) -> None:
        for row in rows:
            if not row.get("concept") or not row.get("name") or not style_of(row):
                raise ConfigError(
                    f"objective.against is 'concepts', and the row '{row['file_name']}' lacks a concept, a name or a "
                    "style; use against: batch, or add them",
                    code="metadata-key-missing",
                )
        styles = sorted({style_of(row) for row in rows})
        self.styles = styles
        if at_once is not None and at_once < len(styles):
            raise ConfigError(
                f"objective.concepts_at_once is {at_once}, and there are {len(styles)} styles; give at least as many, "
                "or leave it out to take all concepts",
                code="number-out-of-range",
            )
        names: dict[str, list[str]] = {}
        for row in rows:
            if row["name"] not in (known := names.setdefault(row["concept"], [])):
                known.append(row["name"])
        self.concepts = sorted(names)
        self.at_once = len(names) if at_once is None else min(at_once, len(names))
        place, number = {c: i for i, c in enumerate(self.concepts)}, {s: i for i, s in enumerate(styles)}
        self.of_rows = np.array([place[row["concept"]] for row in rows], dtype=np.int64)
        self.styles_of_rows = np.array([number[style_of(row)] for row in rows], dtype=np.int64)
        # Every name in every style, tokenized once: (names, S, L), the names of a concept one after another.
        self.name_counts = np.array([len(names[c]) for c in self.concepts])
        self.first_names = np.cumsum(self.name_counts) - self.name_counts
        texts = [f"{name}, {style}" for c in self.concepts for name in sorted(names[c]) for style in styles]
        tokens = vocabulary.tokenize(texts, context_length=context_length, pad=0)
        self.tokens = tokens.reshape(-1, len(styles), context_length)

    def draw(self, batch: Batch) -> SaidConcepts:
        """A caption of each concept for a batch; the same for the same batch."""
        draw = stream(batch.seed, "concepts", int(batch.samples[0]))
        mine, own = np.unique(self.of_rows[batch.rows], return_inverse=True)
        others = np.setdiff1d(np.arange(len(self.concepts)), mine)
        others = draw.permutation(others)[: max(0, self.at_once - len(mine))]
        chosen = np.concatenate([mine, others])
        # Every style of about as many concepts, so that none has no mean.
        styles = draw.permutation(np.arange(len(chosen)) % len(self.styles))
        which = self.first_names[chosen] + (draw.random(len(chosen)) * self.name_counts[chosen]).astype(np.int64)
        return SaidConcepts(
            tokens=self.tokens[torch.from_numpy(which), torch.from_numpy(styles)],
            styles=torch.from_numpy(styles),
            count=len(self.styles),
            own=torch.from_numpy(own.reshape(-1)),
            own_styles=torch.from_numpy(self.styles_of_rows[batch.rows]),
        )
