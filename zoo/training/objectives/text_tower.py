"""A text tower that is trained together with the denoiser it conditions.

A contrastively trained tower encodes that an apple is red better than the shape of an apple; gradients of
the denoising loss add what drawing needs. Saharia et al. 2022 (Imagen) and Rombach et al. 2022 keep or train the
text encoder; small ones gain most from being trained.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.conditioners import vocabulary
from zoo.conditioners.clip_text import ClipText
from zoo.schema.registry import registry

Rows = Sequence[Mapping[str, Any]]


class TokenTable(nn.Embedding):
    """The token embedding of a compact vocabulary: a row for each of `token_ids`, and a last one for all others.

    int64 ids (...) of the whole vocabulary -> (..., width).
    """

    def __init__(self, table: Tensor, token_ids: Tensor) -> None:
        rows = vocabulary.compact(table.detach(), token_ids)
        super().__init__(rows.shape[0], rows.shape[1], _weight=rows.clone())
        places = torch.full((vocabulary.VOCABULARY,), len(token_ids), dtype=torch.int64)
        places[token_ids.long()] = torch.arange(len(token_ids))
        self.register_buffer("places", places, persistent=False)

    def forward(self, input: Tensor) -> Tensor:
        places: Any = self.places
        return super().forward(places[input])


def trainable(conditioner: ClipText, texts: Iterable[str]) -> ClipText:
    """A copy whose token states can be trained, with rows for its own words and those of `texts` only.

    New words of `texts` start as its unknown token.
    """
    tower = copy.deepcopy(conditioner)
    inner: Any = tower  # open_clip's parts are typed as any module
    known = torch.tensor(sorted({*(tower.known or ()), *vocabulary.used_ids(texts).tolist()}))
    inner.token_embedding = TokenTable(inner.token_embedding.weight, known)
    tower.known = frozenset(known.tolist())
    tower.requires_grad_(True)
    # What no token state depends on: the projection of the pooled embedding, and the blocks above the layer read.
    inner.text_projection.requires_grad_(False)
    for block in inner.transformer.resblocks[tower.layers - tower.layer + 1 :]:
        block.requires_grad_(False)
    if not tower.final_norm:
        inner.ln_final.requires_grad_(False)
    return tower


@torch.no_grad()
def export_tower(tower: ClipText, rows: Rows) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A trainable tower's tensors as weights ship them, and what its card says; `rows` have its captions."""
    assert tower.known is not None
    tensors = {**tower.state_dict(), "token_ids": torch.tensor(sorted(tower.known), dtype=torch.int32)}
    config = {
        "width": tower.width, "heads": tower.heads, "layers": tower.layers,
        "context_length": tower.context_length, "embed_dim": tower.embed_dim, "activation": tower.activation,
        "layer": tower.layer, "final_norm": tower.final_norm, "pad": tower.pad,
    }  # fmt: skip
    return tensors, conditioner_facts(config, rows)


def conditioner_facts(config: Mapping[str, Any], rows: Rows) -> dict[str, Any]:
    """Kind, component, config, contract and captions of a compact text tower's card."""
    contract = {"context_width": config["width"], "vector_width": config["embed_dim"], "null": True}
    return {
        "kind": "conditioner", "component": registry().name_of("conditioner", ClipText),
        "config": {**config, "compact": True}, "contract": contract, "captions": rows,
    }  # fmt: skip
