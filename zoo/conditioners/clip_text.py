"""CLIP's text tower as a conditioner: token states for cross-attention, and the pooled embedding.

Radford et al. 2021, section 2.4; Rombach et al. 2022 (Stable Diffusion) read its token states. The transformer has
open_clip's parameter names. What tensors don't show is given as arguments: activation, layer, final norm, padding
token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from zoo.conditioners import arguments, emphasis, vocabulary
from zoo.conditioners.embedding_files import read_embedding
from zoo.conditioners.prompt_reading import Reading, Window
from zoo.conditioners.text_transformer import TextTransformer
from zoo.conditioners.words import Words, refuse_unknown
from zoo.diffusion.types import Condition
from zoo.schema.advice import option
from zoo.schema.errors import WeightsError
from zoo.schema.notes import note


class ClipText(nn.Module):
    """CLIP's text tower: token states for cross-attention, and the pooled embedding.

    prompts -> Condition(tokens (B, L, width), vector (B, embed_dim)). L is context_length, or a multiple of it where
    long prompts are read in windows; shorter prompts beside longer ones are then masked to their own. The vector is the
    first window's, and has no weights of words.

    Args:
        width, heads, layers, context_length, embed_dim: the transformer (SD 1: 768, 12, 12, 77, 768). An embed_dim of
            null is a tower without projection, as Stable Diffusion's own files hold it, which gives tokens alone.
        activation: `gelu` (open_clip's own weights) or `quick-gelu` (OpenAI's).
        layer: whose states are read, counted from the end: 1 the last, 2 the one before (SD 2, SDXL).
        final_norm: whether the last LayerNorm is applied to the states (SD 1 and 2 yes, SDXL no).
        pad: what follows the end token: `zero` (open_clip, SD 2) or `end` (SD 1).
        nothing: the condition of no prompt, the `encoded` empty one or `zeros` (SDXL's base, where a negative prompt is
            encoded all the same).
        compact: the weights hold only the tokens their data used (`token_ids`); prompts with other words are refused.
    """

    papers = (
        "2103.00020 Learning Transferable Visual Models From Natural Language Supervision",
        "2112.10752 High-Resolution Image Synthesis with Latent Diffusion Models",
    )
    fits = "zoo.conditioners.arguments:clip_text"
    adapter_names = "zoo.families.lora.spelling:text_targets"
    fills: ClassVar[Mapping[str, str]] = {"tokens": "width", "vector": "embed_dim"}
    reads_prompts = True  # by a pipeline's `prompts`: `read_prompts`
    null_prompt: str | None = ""

    def __init__(
        self, *, width: int = 768, heads: int = 12, layers: int = 12, context_length: int = 77,
        embed_dim: int | None = 768,
        activation: Literal["gelu", "quick-gelu"] = "quick-gelu", layer: int = 1, final_norm: bool = True,
        pad: Literal["zero", "end"] = "end", compact: bool = False, nothing: Literal["encoded", "zeros"] = "encoded",
    ) -> None:  # fmt: skip
        super().__init__()
        arguments.clip_text(
            width=width, heads=heads, layers=layers, context_length=context_length, embed_dim=embed_dim,
            activation=activation, layer=layer, pad=pad, nothing=nothing,
        )  # fmt: skip
        tower = TextTransformer(
            width=width, heads=heads, layers=layers, context_length=context_length, vocabulary=vocabulary.VOCABULARY,
            embed_dim=embed_dim, quick=activation == "quick-gelu",
        )  # fmt: skip
        self.token_embedding = tower.token_embedding
        self.positional_embedding = tower.positional_embedding
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        self.text_projection = tower.text_projection
        # The mask is computed, not loaded, so building on the meta device leaves nothing undefined.
        self.context_length, self.layer, self.final_norm = context_length, layer, final_norm
        self.width, self.heads, self.layers, self.embed_dim, self.compact = width, heads, layers, embed_dim, compact
        self.activation, self.pad, self.nothing = activation, pad, nothing
        if nothing == "zeros":
            self.null_prompt = None  # nothing is encoded for it
        self.known: frozenset[int] | None = None
        self.words: Words | None = None  # of the data, where the card of a pipeline's weights has them
        self.reading = Reading()
        self.learned: Tensor | None
        self.register_buffer("learned", None, persistent=False)  # vectors (K, width) of learned tokens

    def read_prompts(
        self, *, long: Literal["refuse", "cut", "chunks"], weighting: Literal["mean", "empty"] | None,
        embeddings: Sequence[Mapping[str, Any]],
    ) -> None:  # fmt: skip
        """Read prompts as a pipeline's `prompts` says (zoo.config.prompts); WeightsError for a bad embedding."""
        vectors: list[Tensor] = []
        learned: dict[str, range] = {}
        for said in embeddings:
            vectors.append(read_embedding(**said).vectors(self.width))
            start = vocabulary.VOCABULARY + sum(map(len, vectors[:-1]))
            learned[said["token"]] = range(start, start + len(vectors[-1]))
        self.reading = Reading(long, weighting, learned)
        self.learned = torch.cat(vectors) if vectors else None

    def unpack(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A weight file's tensors -> this module's: a compact token table (`token_ids`) restored to the full one."""
        state = dict(tensors)
        if not self.compact or "token_embedding.weight" not in state:
            return state
        if "token_ids" not in state:
            raise WeightsError(
                "conditioner 'clip-text': compact weights lack 'token_ids'; set compact: false", code="tensor-missing"
            )
        ids, rows = state.pop("token_ids"), state["token_embedding.weight"]
        if ids.ndim != 1 or rows.ndim != 2 or len(rows) != len(ids) + 1 or not _distinct_ids(ids):
            raise WeightsError(
                "conditioner 'clip-text': 'token_ids' don't say which token each row of 'token_embedding.weight' is "
                "(one distinct id a row, and the unknown token's row last); get the file again",
                code="token-table-damaged",
            )
        state["token_embedding.weight"] = vocabulary.restore(rows, ids)
        return state

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As torch's, for the tensors of a weight file (see `unpack`)."""
        result = super().load_state_dict(self.unpack(state_dict), strict=strict, assign=assign)
        if self.compact:
            self.known = frozenset(state_dict["token_ids"].tolist())
        return result

    def check(self, prompts: Sequence[str]) -> None:
        """Raise UsageError for prompts that are too long or have unknown words, before anything is computed.

        An unusual prompt that is drawn all the same gives a warning, a `RequestNote`.
        """
        if self.words is not None:
            readings = [self.words.read(prompt) for prompt in prompts]
            refuse_unknown(readings)
            for said in dict.fromkeys(said for reading in readings for said in reading.notes):
                note(said, stacklevel=2)
        texts, room = self.read(prompts), self.context_length - arguments.ENDS
        self._windows(texts)
        for text in texts:
            if lost := self.reading.lost(text, room):
                note(
                    f"the prompt '{vocabulary.shorten(text)}' is longer than the {room} tokens that this model reads; "
                    f"left out: '{lost}' ({option('long_prompts', 'chunks')} reads all of it)",
                    stacklevel=2,
                )  # fmt: skip

    def read(self, prompts: Sequence[str]) -> list[str]:
        """The prompts in words of the data: emoji characters by their names, plurals as one."""
        return list(prompts) if self.words is None else [self.words.read(prompt).text for prompt in prompts]

    def _windows(self, prompts: Sequence[str]) -> list[list[Window]]:
        found = [self.reading.windows(prompt, self.context_length - arguments.ENDS) for prompt in prompts]
        if self.known is not None:
            vocabulary.refuse_unknown_words(prompts, self.known)
        return found

    def tokenize(self, prompts: Sequence[str]) -> Tensor:
        """(B, L) int64 token ids as this tower pads them."""
        pad = vocabulary.END if self.pad == "end" else 0
        return vocabulary.tokenize(prompts, context_length=self.context_length, pad=pad)

    def states(self, ids: Tensor) -> tuple[Tensor, Tensor | None]:
        """Token ids (B, L) -> states (B, L, width) of the chosen layer, pooled and projected (B, embed_dim)."""
        weight = self.token_embedding.weight
        ids = ids.to(weight.device)
        x = self._embedded(ids) + self.positional_embedding
        length = ids.shape[1]
        mask = torch.full((length, length), float("-inf"), device=weight.device, dtype=x.dtype).triu_(1)
        blocks = self.transformer.resblocks
        chosen = len(blocks) - self.layer
        states = x
        for i, block in enumerate(blocks):
            x = block(x, attn_mask=mask)
            states = x if i == chosen else states
        states = self.ln_final(states) if self.final_norm else states
        if self.text_projection is None:
            return states, None
        end = (ids == vocabulary.END).int().argmax(dim=1)  # the first end token; padding may repeat it
        return states, self.ln_final(x)[torch.arange(len(x), device=x.device), end] @ self.text_projection

    def _embedded(self, ids: Tensor) -> Tensor:
        """(B, L) -> (B, L, width): the vocabulary's vectors, and behind its end the learned ones."""
        if self.learned is None:
            return self.token_embedding(ids)
        place = ids - vocabulary.VOCABULARY
        own = self.token_embedding(ids.clamp(max=vocabulary.VOCABULARY - 1))
        return torch.where((place >= 0)[..., None], self.learned[place.clamp(min=0)].to(own), own)

    def forward(self, prompts: Sequence[str]) -> Condition:
        """Raises UsageError for prompts this model can't read."""
        windows = self._windows(self.read(prompts))
        every = [window for of_prompt in windows for window in of_prompt]
        ids, weights = self.tokenize([""] * len(every)), torch.ones(len(every), self.context_length)
        for row, weight, window in zip(ids, weights, every, strict=True):
            end = len(window.ids) + 1
            row[1 : end + 1] = torch.tensor([*window.ids, vocabulary.END])
            weight[1:end] = torch.tensor(window.weights)
        tokens, pooled = self.states(ids)
        if (weights != 1.0).any():
            assert self.reading.weighting is not None  # without, nothing has a weight
            tokens = emphasis.weigh(tokens, weights, self.reading.weighting, self.states(self.tokenize([""]))[0])
        if len(every) == len(windows):
            return Condition(tokens=tokens, vector=pooled)
        counts = [len(of_prompt) for of_prompt in windows]
        first = [sum(counts[:i]) for i in range(len(counts))]
        return Condition.stack([
            Condition(tokens=part.flatten(0, 1)[None], vector=None if pooled is None else pooled[i : i + 1])
            for part, i in zip(tokens.split(counts), first, strict=True)
        ])  # fmt: skip

    def null(self, batch: int) -> Condition:
        """The condition that training used for no condition: of the empty prompt, or zeros."""
        if self.nothing == "encoded":
            return self([""] * batch)
        weight = self.token_embedding.weight
        zeros = weight.new_zeros(batch, self.context_length, self.width)
        return Condition(
            tokens=zeros, vector=None if self.embed_dim is None else zeros.new_zeros(batch, self.embed_dim)
        )


def _distinct_ids(ids: Tensor) -> bool:
    values = ids.tolist()
    return (
        not ids.is_floating_point()
        and len(set(values)) == len(values)
        and set(values) <= set(range(vocabulary.VOCABULARY))
    )
