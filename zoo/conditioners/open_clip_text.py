"""A text tower of open_clip by the name of its model: Stable Diffusion 2's ViT-H-14, SDXL's ViT-bigG-14.

Nothing is downloaded: weights are a card's, or a file's that the user has (the whole CLIP or its text tower).
"""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Literal

from zoo.checkpoints.files import Unfilled, hash_of_file, load_strict, read_tensors
from zoo.conditioners.clip_text import ClipText
from zoo.conditioners.open_clip_models import facts, text_tower

# Tensors of a whole CLIP's file that its text tower doesn't use.
OTHER = ("visual.", "logit_scale", "logit_bias", "attn_mask")


class OpenClipText(ClipText):
    """A text tower of open_clip by its model's name: token states, and the pooled embedding.

    prompts -> Condition(tokens (B, L, width), vector (B, embed_dim)).

    Args:
        model: open_clip's name of a plain CLIP; OpenAI's weights need one that ends in -quickgelu.
        file: the path of its weights, safetensors or a pickle of tensors alone, which `read_weights` reads (a pipeline
            does, when all else is made); without, fresh ones, or a card's.
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
        # Without memory for weights that a file brings, until `read_weights`.
        with Unfilled() if file is not None else nullcontext():
            super().__init__(**text_tower(model), layer=layer, final_norm=final_norm, pad=pad)
        self.model, self.file, self.sha256 = model, file, sha256

    def read_weights(self) -> dict[str, str]:
        """See `zoo.checkpoints.files.OwnFile`."""
        if self.file is None:
            return {}
        path = Path(self.file).expanduser()
        found = hash_of_file(path, self.sha256)
        # Some files have the tower's own names behind `text.`.
        own = {name.removeprefix("text."): tensor for name, tensor in read_tensors(path).items()}
        load_strict(self, own, what=f"the weights '{self.file}'", other=OTHER)
        self.requires_grad_(False)
        return {self.file: found}
