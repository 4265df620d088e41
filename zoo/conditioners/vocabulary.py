"""CLIP's tokenizer with its limits made visible, and the compact vocabulary of shipped weights.

CLIP (Radford et al. 2021) has 49,408 byte-pair tokens; a model trained on a few thousand words needs the rows of
those only. A compact table ships the rows its data uses (`token_ids` says which) and one row for every other token;
`restore` makes the full table again, so nothing downstream changes.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from importlib.util import module_from_spec, spec_from_file_location
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.schema.advice import option
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.signature import find_source

VOCABULARY = 49408
START, END = 49406, 49407
PLAIN = re.compile(r"[A-Za-z0-9 ,.-]*")  # has nothing that the tokenizer's cleaning would change
UNKNOWN = 49405  # a token no caption has; in training it replaces words that are left out


@cache
def tokenizer() -> Any:
    """open_clip's tokenizer, from its file alone: the package brings torchvision, timm and transformers along."""
    place = find_source("open_clip.tokenizer")
    spec = spec_from_file_location("zoo_open_clip_tokenizer", place) if place is not None else None
    if spec is None or spec.loader is None:
        raise ConfigError("CLIP's vocabulary is in the package open_clip_torch; install it", code="package-missing")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return getattr(module, "_tokenizer", None) or module.SimpleTokenizer()  # it has made one while it was imported


@lru_cache(maxsize=2**16)
def encode(text: str) -> tuple[int, ...]:
    """Token ids of one text, without start and end; cached by text."""
    if PLAIN.fullmatch(text):  # no token spans a space: words are encoded once, whatever the text
        return tuple(token for word in text.split() for token in _encoded(word))
    return _encoded(text)


@lru_cache(maxsize=2**16)
def _encoded(text: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(text))


def words(text: str) -> list[str]:
    """The words a person would see in a text."""
    return re.findall(r"[^\s,.;:!?()\"]+", text.lower())


def tokenize(prompts: Sequence[str], *, context_length: int, pad: int) -> Tensor:
    """prompts -> (B, L) int64: start, the prompt's tokens, end, then `pad`.

    Raises UsageError naming a prompt of more than L - 2 tokens; nothing is cut off silently.
    """
    out = np.full((len(prompts), context_length), pad, dtype=np.int64)
    for row, prompt in zip(out, prompts, strict=True):
        ids = encode(prompt)
        refuse_long(prompt, len(ids), context_length - 2)
        row[: len(ids) + 2] = START, *ids, END
    return torch.from_numpy(out)


def refuse_long(prompt: str, count: int, room: int) -> None:
    """Raise UsageError for a prompt of more tokens than there is room for."""
    if count > room:
        raise UsageError(
            f"the prompt '{shorten(prompt)}' has {count} tokens; this model reads {room}: shorten it, or say "
            f"{option('long_prompts', 'chunks')}",
            code="prompt-too-long",
        )


def text_of(ids: Iterable[int]) -> str:
    """The words of some token ids."""
    return tokenizer().decode(list(ids)).strip()


def shorten(text: str, length: int = 60) -> str:
    """The beginning of a long text."""
    return text if len(text) <= length else text[: length - 1] + "…"


def used_ids(texts: Iterable[str]) -> Tensor:
    """The sorted token ids that some texts need, with start, end and the zero that pads: (K,) int32."""
    ids = {0, START, END}
    for word in {word for text in texts for word in text.split()}:
        ids.update(encode(word))
    return torch.tensor(sorted(ids), dtype=torch.int32)


def compact(table: Tensor, token_ids: Tensor) -> Tensor:
    """(49408, D) -> (K + 1, D): the rows of `token_ids`, then the unknown token's."""
    return torch.cat([table[token_ids.long()], table[UNKNOWN : UNKNOWN + 1]])


def restore(rows: Tensor, token_ids: Tensor) -> Tensor:
    """(K + 1, D) -> (49408, D), every token not in `token_ids` given the last row."""
    table = rows[-1].expand(VOCABULARY, -1).clone()
    table[token_ids.long()] = rows[:-1]
    return table


def known_words(known: Iterable[int]) -> list[str]:
    """The whole words among some token ids."""
    decoder = tokenizer().decoder
    texts = (decoder[i] for i in known if i < UNKNOWN)
    return [text.removesuffix("</w>") for text in texts if text.endswith("</w>")]


def refuse_unknown_words(prompts: Sequence[str], known: frozenset[int]) -> None:
    """Raise UsageError naming each word of the prompts that has a token outside `known`, with near words if any."""
    strange = sorted({w for p in prompts for w in words(p) if not known.issuperset(encode(w))})
    if not strange:
        return
    there, named = known_words(known), []
    for word in strange:
        near = difflib.get_close_matches(word, there, n=2, cutoff=0.75)
        named.append(f"'{word}'" + (f" (near: {', '.join(near)})" if near else ""))
    raise UsageError(
        f"this model never learned the word{'s' if len(named) > 1 else ''} {', '.join(named)}: say it in other words",
        code="word-unknown",
    )
