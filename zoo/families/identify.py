"""Whose tensors these are: held against every published list, by names and shapes.

A part is its published list where most names and shapes are; what differs is listed. Where only the kinds of names are
a list's, it is a network of that family in another size. A file of several parts is split by the prefixes that their
publishers use. No tensor's numbers are read.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from zoo.families.diffusers.layout import CLIP_PREFIX
from zoo.families.key_lists import Shapes, key_lists
from zoo.families.published_models import DENOISER, IMAGE, Published, published

# Prefix of a part in a single file -> the part's name; longer ones first where one begins with another.
PREFIXES = {
    "model.diffusion_model.": "unet",
    "first_stage_model.": "vae",
    "cond_stage_model.transformer.": "text_encoder",
    "cond_stage_model.model.": "text_encoder",
    "cond_stage_model.": "text_encoder",
    "conditioner.embedders.0.transformer.": "text_encoder",
    "conditioner.embedders.0.model.": "text_encoder",
    "conditioner.embedders.1.model.": "text_encoder_2",
    "text_encoders.clip_l.transformer.": "text_encoder",
    "text_encoders.clip_g.transformer.": "text_encoder_2",
    "text_encoders.t5xxl.transformer.": "text_encoder_3",
    "vae.": "vae",
    "control_model.": "controlnet",
    "low_scale_model.": "low_scale_model",
    "noise_augmentor.": "noise_augmentor",
    "depth_model.": "depth_estimator",
    "embedder.model.visual.": "image_encoder",
    "model_first_steps.": "first_steps",
    "model_last_step.": "last_step",
}
# Those that no bare network's names begin with.
_SINGLE_FILE = (
    "model.diffusion_model.", "first_stage_model.", "cond_stage_model.", "conditioner.", "control_model.",
    "model_first_steps.", "model_last_step.", "text_encoders.",
)  # fmt: skip
AVERAGE = "model_ema."
_AVERAGED = "model_ema.diffusion_model"  # and the name without its dots
# Wrappers around a whole network, which trainers leave in names.
_WRAPPERS = ("", "module.", "model.", "net.", "base_model.", "model.module.", "unet.", "transformer.", CLIP_PREFIX)
# Buffers, counters and a contrastive model's temperature: nothing that a network reads. By a name's last part:
_BUFFERS = frozenset((
    "position_ids", "attn_mask", "logit_scale", "logit_bias", "v_pred", "ztsnr", "edm_mean", "edm_std", "scaled_fp8",
    "scale_weight", "scale_input",
))  # fmt: skip
# and whole, beside the parts of a single file:
_COUNTERS = re.compile(
    r"betas|alphas_cumprod(_prev)?|sqrt_.*|posterior_.*|log_one_minus_alphas_cumprod|logvar|lvlb_weights|scale_factor|"
    r"model_ema\.(decay|num_updates)|ddim_.*|denoiser\.sigmas|loss\..*|"
    # what Stable unCLIP's files keep of the text side of the CLIP whose image tower they use
    r"embedder\.(mean|std|model\.(positional_embedding|token_embedding\.weight|ln_final\..*|text_projection))"
)
# Tensors that a network may have beyond its list, and what they mean.
ADDED = {
    "time_embedding.cond_proj.weight": "takes its guidance scale as an input (a latent consistency model)",
    "pos_embed": "stores its positions, which are computed",
}
_CANDIDATES = 8  # lists that are read in full
_WRAPPED = 0.9  # the share of a part's names from which a wrapper is one
_SAME_SHAPES, _SAME_KINDS = 0.5, 0.7  # shares of a list from which a part is it, or of its family


@dataclass(frozen=True)
class Match:
    """A part beside the published list that is nearest."""

    name: str  # of the list
    published: Published
    exact: bool
    size: Literal["published", "other"]  # other: the names of the family with other shapes, or more or fewer blocks
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...], tuple[int, ...]], ...]  # name, found, published
    added: tuple[str, ...] = ()  # what tensors beyond the list mean

    @property
    def differences(self) -> int:
        """How many tensors aren't as published."""
        return len(self.missing) + len(self.unused) + len(self.shapes)

    @property
    def alike(self) -> tuple[str, ...]:
        """Other families whose published files have exactly the list's tensors."""
        others = {published(n).family for n in key_lists().same(self.name)} - {self.published.family}
        return tuple(sorted(others))


def match(shapes: Shapes) -> Match | None:
    """The nearest published list; None where no family's is near."""
    lists = key_lists()
    best: Match | None = None
    for share, name in lists.nearest(shapes, _CANDIDATES):
        theirs = lists[name]
        same = sum(shapes.get(n) == s for n, s in theirs.items())
        if same < _SAME_SHAPES * len(theirs) and share < _SAME_KINDS:
            continue
        unused = [n for n in shapes if n not in theirs]
        added = tuple(ADDED[n] for n in unused if n in ADDED)
        found = Match(
            name, published(name), False, "published" if same >= _SAME_SHAPES * len(theirs) else "other",
            tuple(n for n in theirs if n not in shapes), tuple(n for n in unused if n not in ADDED),
            tuple((n, shapes[n], s) for n, s in theirs.items() if n in shapes and shapes[n] != s), added,
        )  # fmt: skip
        if best is None or (found.size, -found.differences) > (best.size, -best.differences):
            best = found
        if not found.differences:
            break
    if best is not None and not best.differences:
        best = Match(best.name, best.published, True, "published", (), (), (), best.added)
    return best


@dataclass(frozen=True)
class Part:
    """Some tensors of a file that are one part, by their names without `prefix`; `names`: those in the file."""

    name: str  # unet, vae, text_encoder, ...
    prefix: str
    shapes: Shapes
    names: Mapping[str, str]
    match: Match | None

    @property
    def kind(self) -> str:
        """What it is for: a denoiser, an autoencoder, ..."""
        return self.match.published.kind if self.match else "unknown"


@dataclass(frozen=True)
class Parts:
    """A file's parts, its averaged copy of a denoiser, and tensors that belong to none."""

    parts: tuple[Part, ...]
    average: tuple[str, ...]  # names of the averaged copy
    average_missing: tuple[str, ...]  # tensors of the denoiser that the average lacks
    buffers: tuple[str, ...]
    unassigned: tuple[str, ...]


def split(shapes: Shapes) -> Parts:
    """A file's tensors by part; one part where no publisher's prefix is in the names."""
    groups: dict[tuple[str, str], dict[str, tuple[int, ...]]] = {}
    average, buffers, rest = [], [], []
    prefixes = sorted(PREFIXES, key=len, reverse=True)
    prefixed = any(n.startswith(_SINGLE_FILE) for n in shapes)
    for name, shape in shapes.items():
        prefix = next((p for p in prefixes if name.startswith(p)), None) if prefixed else ""
        if name.startswith(AVERAGE) and prefixed:
            (buffers if _COUNTERS.fullmatch(name) else average).append(name)
        elif _unread(name.removeprefix(prefix or "")):
            buffers.append(name)
        elif prefix is None:
            rest.append(name)
        else:
            groups.setdefault((prefix, PREFIXES.get(prefix, "")), {})[name.removeprefix(prefix)] = shape
    parts = [_part(name, prefix, tensors) for (prefix, name), tensors in groups.items()]
    unet = next((part for part in parts if part.prefix == "model.diffusion_model."), None)
    held = set(average)
    lacking = [n for n in unet.shapes if _AVERAGED + n.replace(".", "") not in held] if unet and average else []
    return Parts(tuple(parts), tuple(average), tuple(lacking), tuple(buffers), tuple(rest))


def _unread(name: str) -> bool:
    return name.rpartition(".")[2] in _BUFFERS or bool(_COUNTERS.fullmatch(name))


def _part(name: str, prefix: str, tensors: dict[str, tuple[int, ...]]) -> Part:
    best: Match | None = None
    chosen, inside = "", {n: n for n in tensors}  # a name within the part -> the name with its wrapper
    for wrapper in _WRAPPERS:
        # Most names, not all: a stray tensor beside them is one that isn't used.
        if sum(n.startswith(wrapper) for n in tensors) < _WRAPPED * len(tensors):
            continue
        inner = {n.removeprefix(wrapper): n for n in tensors}
        found = match({n: tensors[w] for n, w in inner.items()}) if len(inner) == len(tensors) else None
        if found is not None and (best is None or (found.size, -found.differences) > (best.size, -best.differences)):
            best, chosen, inside = found, wrapper, inner
        if best is not None and best.exact:
            break
    shapes = {n: tensors[w] for n, w in inside.items()}
    return Part(name or _named(best), prefix + chosen, shapes, {n: prefix + w for n, w in inside.items()}, best)


def _named(found: Match | None) -> str:
    names = {DENOISER: "unet", "autoencoder": "vae", "text encoder": "text_encoder", IMAGE: "image_encoder"}
    if found is None:
        return "tensors"
    kind = found.published.kind
    return "transformer" if kind == DENOISER and "transformer" in found.name else names.get(kind, kind)


def context_width(shapes: Shapes) -> int | None:
    """The width of the token states that a U-Net's (or an adapter's) cross-attention reads; None without any."""
    return next(
        (s[-1] for n, s in shapes.items() if re.search(r"attn2[._]to_k", n) and len(s) == 2 and "up" not in n), None
    )
