"""Training a CLIP on the images and captions of a batch (Radford et al. 2021, section 2.3 and figure 3).

A batch holds few of the data's concepts. Against `concepts`, an image's caption competes with captions of
all of them: each step encodes one caption of every concept, of a name and a style drawn at random, and an image
is classified to its own caption among the batch's and all others', its concept among all whatever the style, its style
among the means over concepts.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zoo.conditioners import vocabulary
from zoo.conditioners.clip_text import ClipText
from zoo.data.captions import all_texts, caption, refuse_empty
from zoo.data.dataset import Dataset
from zoo.data.distortions import Distortion
from zoo.data.pixels import from_uint8
from zoo.schema.errors import ConfigError
from zoo.schema.registry import registry
from zoo.training.engine.objective import CPU, Batch
from zoo.training.objectives import arguments
from zoo.training.objectives.array_batches import refuse_arrays
from zoo.training.objectives.concept_captions import Concepts
from zoo.training.objectives.text_tower import conditioner_facts

LARGEST_LOGIT_SCALE = 100.0
EXTRACTOR = "zoo.evaluation.extractors.clip:Clip"  # the extractor that uses both towers


class ClipContrastive:
    """Trains a CLIP on pairs of images and captions.

    Symmetric cross-entropy over a batch; equal captions count as each other's.

    Args:
        word_dropout: share of caption tokens replaced by the unknown token, so that its row is trained.
        jitter: images are shifted, zoomed and turned by up to this share (of the side; 1 = 45 degrees).
        distortion: strong augmentation in place of `jitter` (the arguments of `zoo.data.distortions.Distortion`).
        against: captions that an image's own competes with: of the `batch`, or of all `concepts` of the rows too
            (rows then need `name`, `concept` and captions "NAME, STYLE").
        concepts_at_once: of all concepts, how many a step, the batch's own among them; all if not given.
        other_styles: an image's caption competes with its own concept's in another style, too.
        style_weight: of the style's part of the loss, each of the other three having 1.
        keep_caption: share of captions that stay as the data has them; the rest are reworded.
        conditioner: a text tower that is kept as it is but for its projection, so that the images' tower
            learns to match it (Zhai et al. 2022, section 3, the other way round).
        ship: whether the card describes the text tower (`conditioner`) or both (`extractor`, for evaluation).
    """

    papers = ("2103.00020 Learning Transferable Visual Models From Natural Language Supervision",)
    fits = "zoo.training.objectives.arguments:contrastive"
    trains = "network"
    reads = ("conditioner",)
    whole_batch = True  # a batch's samples are compared with each other

    def __init__(
        self, *, network: nn.Module, train: Dataset, validation: Dataset, word_dropout: float = 0.02,
        jitter: float = 0.1, distortion: Mapping[str, Any] | None = None,
        against: Literal["batch", "concepts"] = "batch", concepts_at_once: int | None = None,
        other_styles: bool = False, style_weight: float = 1.0, keep_caption: float = 0.5,
        precision: torch.dtype = torch.float32, device: torch.device = CPU,
        ship: Literal["conditioner", "extractor"] = "conditioner", conditioner: Any = None,
    ) -> None:  # fmt: skip
        self.ship, self.device = ship, device
        self.network, self.train, self.validation = network, train, validation
        refuse_arrays(train)
        refuse_empty([*train.rows, *validation.rows])
        self.images, self.validation_images = torch.from_numpy(train.images()), torch.from_numpy(validation.images())
        self.rows, self.validation_rows = len(train), len(validation)
        self.word_dropout, self.jitter, self.keep_caption = word_dropout, jitter, keep_caption
        self.precision, self.other_styles, self.style_weight = precision, other_styles, style_weight
        arguments.contrastive(
            style_weight=style_weight, against=against, word_dropout=word_dropout, jitter=jitter,
            concepts_at_once=concepts_at_once, keep_caption=keep_caption,
        )  # fmt: skip
        self.context_length = int(network.context_length)  # type: ignore[arg-type]
        self.size = int(network.visual.image_size)  # type: ignore[arg-type, union-attr]
        self.distortion = None if distortion is None else Distortion.of(distortion)
        if self.distortion is not None:
            self.may_mirror = np.array([self.distortion.may_mirror(row) for row in train.rows])
            self.may_recolour = np.array([self.distortion.may_recolour(row) for row in train.rows])
        self.concepts = None
        if against == "concepts":
            self.concepts = Concepts(train.rows, at_once=concepts_at_once, context_length=self.context_length)
        if conditioner is not None:
            _lock_text(network, conditioner)

    def _captions(self, batch: Batch) -> tuple[list[str], Tensor]:
        if not batch.training:
            texts = [self.validation.rows[i]["text"] for i in batch.rows]
            return texts, vocabulary.tokenize(texts, context_length=self.context_length, pad=0)
        texts = [
            caption(self.train.rows[i], g, keep=self.keep_caption)
            for i, g in zip(batch.rows, batch.draw("caption"), strict=True)
        ]
        tokens = vocabulary.tokenize(texts, context_length=self.context_length, pad=0)
        dropped = np.stack([g.random(self.context_length) < self.word_dropout for g in batch.draw("word-dropout")])
        inside = (tokens != 0) & (tokens < vocabulary.UNKNOWN)
        return texts, tokens.masked_fill(torch.from_numpy(dropped) & inside, vocabulary.UNKNOWN)

    def _images(self, batch: Batch) -> Tensor:
        """(B, 3, H, H) in [-1, 1], H the network's size where images are distorted."""
        if not batch.training:
            return resized(from_uint8(batch.take(self.validation_images)), self.size)
        if self.distortion is not None:
            return self.distortion(
                batch.take(self.images), batch.draw("distortion"), size=self.size,
                may_mirror=self.may_mirror[batch.rows], may_recolour=self.may_recolour[batch.rows],
            )  # fmt: skip
        x = resized(from_uint8(batch.take(self.images)), self.size)
        if self.jitter == 0:
            return x
        draws = np.stack([g.uniform(-1, 1, size=4) for g in batch.draw("jitter")])
        angle, zoom = draws[:, 0] * self.jitter * np.pi / 4, 1 + draws[:, 1] * self.jitter
        theta = np.zeros((len(x), 2, 3))
        theta[:, 0, 0], theta[:, 0, 1] = np.cos(angle) / zoom, -np.sin(angle) / zoom
        theta[:, 1, 0], theta[:, 1, 1] = np.sin(angle) / zoom, np.cos(angle) / zoom
        theta[:, :, 2] = draws[:, 2:] * 2 * self.jitter
        places = F.affine_grid(torch.from_numpy(theta).float().to(self.device), list(x.shape), align_corners=False)
        return F.grid_sample(x, places, padding_mode="border", align_corners=False)

    def _attention(self) -> AbstractContextManager[Any]:
        """On a CPU the plain attention: for captions this short the fused one takes several times as long backward."""
        return sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext()

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Mean of both directions' cross-entropy; against `concepts`, and in training, of the images' other two too."""
        texts, tokens = self._captions(batch)
        images = self._images(batch).contiguous(memory_format=torch.channels_last)
        concepts = self.concepts if batch.training else None
        said = concepts.draw(batch) if concepts is not None else None
        if said is not None:
            tokens = torch.cat([tokens, said.tokens])
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            image = network.encode_image(images)  # type: ignore[operator]
            with self._attention():
                text = network.encode_text(tokens.to(self.device))  # type: ignore[operator]
        image, text = F.normalize(image.float(), dim=-1), F.normalize(text.float(), dim=-1)
        scale = network.logit_scale.exp().clamp(max=LARGEST_LOGIT_SCALE)  # type: ignore[operator, union-attr]
        logits = scale * image @ text.T
        within = logits[:, : len(texts)]
        numbers = {t: i for i, t in enumerate(texts)}
        same = torch.tensor([numbers[t] for t in texts], device=self.device)
        target = (same[:, None] == same[None]).float()
        target = target / target.sum(dim=1, keepdim=True)
        right = (within.argmax(dim=1) == torch.arange(len(texts), device=self.device)).float().mean()
        captions = F.cross_entropy(within.T, target)
        if said is None:
            return {"loss": 0.5 * (F.cross_entropy(within, target) + captions), "accuracy": right}
        own, own_styles = said.own.to(self.device), said.own_styles.to(self.device)
        every = logits[:, len(texts) :]
        # A caption of the image's own concept is left out here, or is a negative where its style differs.
        # (Not -inf, whose product with a target of 0 is nan.)
        left_out = F.one_hot(own, every.shape[1]).bool()
        if self.other_styles:
            left_out &= (own_styles == said.styles.to(self.device)[own])[:, None]
        elsewhere = every.masked_fill(left_out, -1e4)
        found = F.cross_entropy(torch.cat([within, elsewhere], dim=1), F.pad(target, (0, every.shape[1])))
        concept = F.cross_entropy(every, own)
        style = F.cross_entropy(scale * image @ said.style_means(text[len(texts) :]).T, own_styles)
        loss = (found + captions + concept + self.style_weight * style) / (3.0 + self.style_weight)
        at_1 = (every.argmax(dim=1) == own).float().mean()
        return {"loss": loss, "accuracy": right, "concept_accuracy": at_1, "concept_loss": concept, "style_loss": style}

    def sheet(self, network: nn.Module) -> Tensor | None:
        """None: a CLIP draws no samples."""
        return None

    @torch.no_grad()
    def export(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Both towers, with the token table compacted to the words of the training captions."""
        clip: Any = network  # open_clip's CLIP, whose towers are typed as any module
        tensors = {k: v for k, v in network.state_dict().items() if k != "attn_mask"}
        ids = vocabulary.used_ids(all_texts(self.train.rows))
        tensors["token_embedding.weight"] = vocabulary.compact(tensors["token_embedding.weight"], ids)
        tensors["token_ids"] = ids
        if self.ship == "extractor":
            component = registry().name_of("extractor", EXTRACTOR)
            return tensors, {"kind": "extractor", "component": component, "contract": {"size": self.train.size}}
        blocks, width = clip.transformer.resblocks, int(clip.ln_final.weight.numel())
        text = {
            "width": width, "heads": int(blocks[0].attn.num_heads), "layers": len(blocks),
            "context_length": self.context_length, "embed_dim": int(clip.text_projection.shape[1]),
            "activation": "gelu", "layer": 1, "final_norm": True, "pad": "zero",
        }  # fmt: skip
        return tensors, {**conditioner_facts(text, self.train.rows), "other": ["visual.", "logit_scale"]}


def resized(x: Tensor, size: int) -> Tensor:
    """(B, 3, H, H) in [-1, 1] by bicubic to (B, 3, size, size), as `zoo.evaluation.extractors.clip` does; the same if
    it fits.
    """
    if x.shape[-1] == size:
        return x
    return F.interpolate(x, (size,) * 2, mode="bicubic", antialias=True).clamp(-1, 1)


@torch.no_grad()
def _lock_text(network: nn.Module, conditioner: Any) -> None:
    """Put a text tower into a CLIP and freeze what its token states depend on."""
    if not isinstance(conditioner, ClipText):
        raise ConfigError(
            "the conditioner of a contrastive run is a text tower of CLIP's; name clip-text weights",
            code="conditioner-untrainable",
        )
    own = dict(network.named_parameters())
    for name, tensor in conditioner.state_dict().items():
        if name not in own or own[name].shape != tensor.shape:
            raise ConfigError(
                f"the conditioner's '{name}' {tuple(tensor.shape)} doesn't fit the recipe's network; give the network "
                "the text_width, text_heads, text_layers and context_length of the conditioner",
                code="tensors-unfit",
            )
        own[name].copy_(tensor)
        own[name].requires_grad_(name == "text_projection")
