"""How a pipeline's text encoders read prompts: its block `prompts`, which a record holds with the rest of the config.

    prompts: {long: chunks, weighting: mean, embeddings: [{file: /e/charturner.pt, token: charturner, sha256: ...}]}

`long` is what happens to a prompt of more tokens than the text encoder has room for: `refuse` it, `cut` it (and say
what is left out), or read it in `chunks`. `weighting` is a scheme of `(words:1.3)`, or null. `embeddings` are files of
textual inversion, `FILE` or `FILE:TOKEN` where they aren't written out. Here their headers are read, and no weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from zoo.config.parts import Part, whole
from zoo.schema.errors import ConfigError
from zoo.schema.plain import show
from zoo.schema.unknown import unknown

KEYS = ("long", "weighting", "embeddings")
LONG = ("refuse", "cut", "chunks")
WEIGHTING = ("mean", "empty")
# Reads an embedding's header. Named and not imported, so that configs depend on no conditioner.
FILES = "zoo.conditioners.embedding_files"
# What `zoo.build` and the command line call them.
SHORTCUTS = {"long_prompts": "long", "prompt_weighting": "weighting", "embeddings": "embeddings"}


def check_prompts(block: Any) -> dict[str, Any]:
    """The block with its defaults and its files' tokens and hashes written out; nothing where there is none."""
    if block is None:
        return {}
    if not isinstance(block, Mapping):
        raise ConfigError(
            f"prompts is {show(block)}; write a mapping of {', '.join(KEYS)}", code="config-value-invalid"
        )
    wrong = next((key for key in block if key not in KEYS), None)
    if wrong is not None:
        raise ConfigError(f"prompts: {unknown('key', wrong, KEYS)}", code="config-key-unknown")
    long, weighting = block.get("long", "refuse"), block.get("weighting")
    if long not in LONG:
        raise ConfigError(f"prompts.long: {unknown('value', long, LONG)}", code="choice-unknown")
    if weighting is not None and weighting not in WEIGHTING:
        raise ConfigError(f"prompts.weighting: {unknown('value', weighting, WEIGHTING)}", code="choice-unknown")
    listed = block.get("embeddings") or []
    found = [_embedding(said) for said in (listed if isinstance(listed, list) else [listed])]
    tokens = [one["token"].lower() for one in found]
    twice = next((token for token in tokens if tokens.count(token) > 1), None)
    if twice is not None:
        raise ConfigError(
            f"two embeddings are called '{twice}'; give one another name, like FILE:{twice}2", code="entries-repeated"
        )
    return {"prompts": {"long": long, "weighting": weighting, "embeddings": found}}


def _embedding(said: Any) -> dict[str, str]:
    """`FILE`, `FILE:TOKEN` or a mapping -> its file, token and hash; WeightsError for a file that is none."""
    if isinstance(said, str):
        file, colon, token = said.rpartition(":")
        said = {"file": file, "token": token} if colon and token and not Path(said).is_file() else {"file": said}
    known = ("file", "token", "sha256")
    if not isinstance(said, Mapping) or not all(k in known and isinstance(v, str) and v for k, v in said.items()):
        raise ConfigError(
            f"an embedding is {show(said)}; write FILE, FILE:TOKEN or a mapping of {', '.join(known)}",
            code="config-value-invalid",
        )
    if "file" not in said:
        raise ConfigError("an embedding names no file; add it", code="config-key-missing")
    path = Path(said["file"]).expanduser().absolute()
    found = import_module(FILES).read_embedding(str(path), said.get("token"), said.get("sha256"))
    return {"file": str(path), "token": found.token, "sha256": found.sha256}


def check_prompts_fit(config: Mapping[str, Any], conditioners: Mapping[str, Part]) -> None:
    """Refuse what a pipeline's text encoders can't read, and embeddings that were trained for another one."""
    block = config.get("prompts")
    if block is None:
        return
    readers = {name: part for name, part in conditioners.items() if (part["source"] or "prompts") == "prompts"}
    if not readers:
        raise ConfigError(
            "prompts says how prompts are read, and no conditioner takes any; take it out", code="prompts-unread"
        )
    chosen = block["weighting"] is not None or block["embeddings"]
    for part in readers.values():
        if not part["reads_prompts"] and (chosen or block["long"] == "chunks"):
            raise ConfigError(
                f"{part.label} reads prompts in one way alone; take prompts out", code="prompt-option-unread"
            )
        closed = part["compact"] or (part.card is not None and part.card.words is not None)
        if closed and chosen:
            raise ConfigError(
                f"{part.label} knows the words of its data alone, and neither weights of words nor embeddings; take "
                "weighting and embeddings out of prompts",
                code="prompt-option-unread",
            )
    for said in block["embeddings"]:
        found = import_module(FILES).read_embedding(**said)
        for part in readers.values():
            if whole(part["width"]) and part["width"] not in found.entries:
                there = " and ".join(map(str, found.entries))
                raise ConfigError(
                    f"the embedding '{said['file']}' has vectors of width {there} and {part.label} reads "
                    f"{part['width']}; give one that was trained for this model",
                    code="embedding-width-unfit",
                )
