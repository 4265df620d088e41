"""From a finished run to weights that can be shipped: half-precision tensors and the card that describes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from zoo.checkpoints.packed import pack
from zoo.conditioners.words import LARGEST, Words, of_captions
from zoo.schema.files import sha256_of, write_atomically
from zoo.schema.safe_yaml import to_yaml


def half(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating tensors as float16, contiguous; others as they are."""
    return {
        name: (t.half() if t.is_floating_point() else t)
        .detach()
        .cpu()
        .contiguous(memory_format=torch.contiguous_format)
        for name, t in tensors.items()
    }


def write(
    folder: Path, name: str, tensors: Mapping[str, Tensor], card: Mapping[str, Any], *, storage: str = "float16",
    schema: str = "zoo.card/1", metadata: dict[str, str] | None = None, before: Words | None = None,
) -> Path:  # fmt: skip
    """Write NAME.safetensors and NAME.yaml into `folder`; returns the card's path.

    `storage` int8 packs matrices and filters in eight bits (zoo.checkpoints.packed). `metadata` is the file's own.

    `card` holds everything but `schema` and `file`, which are worked out here. The rows of its `captions` become
    NAME-words.json, with the words of the data `before`, unless that were larger than is read again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.safetensors"
    write_atomically(path, save(half(pack(tensors) if storage == "int8" else tensors), metadata))
    card = dict(card)
    captions = card.pop("captions", None)
    if captions is not None:
        words = of_captions(captions, before).text().encode()
        if len(words) <= LARGEST:
            write_atomically(folder / f"{name}-words.json", words)
            card["words"] = f"{name}-words.json"
    other = card.pop("other", None)  # prefixes of tensors that another reader of the same file takes
    facts = {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256_of(path), "dtype": storage}
    whole = {"schema": schema, **card, "file": facts if other is None else {**facts, "other": other}}
    whole = json.loads(json.dumps(whole, default=str))  # plain types only: YAML can't write torch's str and tuple types
    text = to_yaml(whole)
    write_atomically(folder / f"{name}.yaml", text.encode())
    return folder / f"{name}.yaml"
