"""A text tower of open_clip by the name of its model: Stable Diffusion 2's ViT-H-14, SDXL's ViT-bigG-14.

Nothing is downloaded: weights are a card's, or a file's that the user has (the whole CLIP or its text tower).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from torch import Tensor

from zoo.conditioners.clip_text import ClipText
from zoo.conditioners.open_clip_models import facts, text_tower
from zoo.schema.errors import WeightsError
from zoo.schema.files import sha256_of

# Tensors of a whole CLIP's file that its text tower doesn't use.
OTHER = ("visual.", "logit_scale", "logit_bias", "attn_mask")


class OpenClipText(ClipText):
    """A text tower of open_clip by its model's name: token states, and the pooled embedding.

    prompts -> Condition(tokens (B, L, width), vector (B, embed_dim)).

    Args:
        model: open_clip's name of a plain CLIP; OpenAI's weights need one that ends in -quickgelu.
        file: the path of its weights, safetensors or a pickle of tensors alone; without, fresh ones, or a card's.
        sha256: the hash that the file must have.
        layer, final_norm, pad: as `ClipText`'s. Stable Diffusion 2 reads layer 2 with the final norm, SDXL without.
    """

    papers = ("2212.07143 Reproducible scaling laws for contrastive language-image learning",)
    facts = "zoo.conditioners.open_clip_models:facts"
    fits = None  # the base class checks its own arguments; these are checked as their facts are looked up

    def __init__(
        self, *, model: str, file: str | None = None, sha256: str | None = None, layer: int = 1,
        final_norm: bool = True, pad: Literal["zero", "end"] = "zero",
    ) -> None:  # fmt: skip
        facts({"model": model, "layer": layer, "file": file})
        super().__init__(**text_tower(model), layer=layer, final_norm=final_norm, pad=pad)
        self.model = model
        if file is not None:
            from zoo.checkpoints.files import load_strict

            tensors = _read(Path(file).expanduser(), sha256)
            load_strict(self, tensors, what=f"the weights '{file}'", other=OTHER)
            self.requires_grad_(False)


def _read(path: Path, sha256: str | None) -> dict[str, Tensor]:
    """The tensors of a weight file of this hash, a text tower's own names without the `text.` that some have before."""
    from zoo.checkpoints.files import read_tensors

    found = sha256_of(path)
    if sha256 is not None and found != sha256.lower():
        raise WeightsError(
            f"the weight file '{path}' is another one (SHA-256 {found[:12]}… where {sha256[:12]}… is meant); get the "
            "right one",
            code="weights-hash-wrong",
        )
    return {name.removeprefix("text."): tensor for name, tensor in read_tensors(path).items()}
