"""Whether parts fit each other: a U-Net, an autoencoder, text encoders, a LoRA, a ControlNet, by headers alone.

Each rule has a name, which is what a refusal is told by. Shapes that can't be joined are refused; what a config, the
metadata or a known hash contradicts too; and where nothing shows that two parts were made for each other and nothing
that they weren't, the answer is the argument that says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from zoo.families.adapters import Adapter, adapter, named_family
from zoo.families.identify import Part, context_width, split
from zoo.families.key_lists import Shapes
from zoo.families.published_models import AUTOENCODER, DENOISER, TEXT

Verdict = Literal["fits", "refused", "ambiguous"]
# Published files by their SHA-256's first digits, where a publisher printed them: family and variant.
HASHES = {"31e35c80": ("Stable Diffusion XL", "base"), "7440042b": ("Stable Diffusion XL", "refiner")}
_SCALES = {"Stable Diffusion 1": 0.18215, "Stable Diffusion 2": 0.18215, "Stable Diffusion XL": 0.13025,
           "Stable Diffusion x4 upscaler": 0.08333}  # fmt: skip

# Rules by which parts are refused that no published list is near; a strict load may know better.
UNKNOWN = ("no denoiser", "unknown part")


@dataclass(frozen=True)
class Given:
    """A part as it is given: its tensors' shapes, and what else is known of it."""

    shapes: Shapes
    name: str = "the file"
    metadata: Mapping[str, str] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None


@dataclass(frozen=True)
class Answer:
    """Whether parts fit: `rule` names what told, `argument` what settles it where nothing does."""

    verdict: Verdict
    rule: str
    reason: str
    argument: str | None = None


def fit(unet: Given, other: Given, *, answers: Mapping[str, str] | None = None) -> Answer:
    """Whether a part, or an adapter, belongs to a U-Net.

    Args:
        answers: arguments that the user gave, which settle what nothing shows (`scale`, `layer`, `family`).
    """
    said = dict(answers or {})
    own = _only(unet, DENOISER)
    if own is None:
        return Answer("refused", "no denoiser", f"{unet.name} has no U-Net; give one")
    if clash := _known_hash(own, unet) or _known_hash(_first(other), other):
        return clash
    found = adapter(other.shapes, other.metadata)
    if found is not None:
        return _adapter_fits(own, unet, found, other)
    part = _first(other)
    if part is None or part.match is None:
        return Answer("refused", "unknown part", f"{other.name} is no published part, whole or in another size")
    rules = {AUTOENCODER: _autoencoder_fits, TEXT: _text_fits}
    rule = rules.get(part.match.published.kind)
    if rule is None:
        return Answer(
            "refused", "kind", f"{other.name} is a {part.match.published.kind}; another part is needed beside a U-Net"
        )
    return rule(own, unet, part, other, said)


def _only(given: Given, kind: str) -> Part | None:
    return next((part for part in split(given.shapes).parts if part.kind == kind), None)


def _first(given: Given) -> Part | None:
    parts = split(given.shapes).parts
    return parts[0] if parts else None


def _family(part: Part) -> str:
    return part.match.published.family if part.match else "unknown"


def _known_hash(part: Part | None, given: Given) -> Answer | None:
    """A file whose hash was published is that file, whatever it is used as."""
    known = HASHES.get((given.sha256 or "")[:8])
    if known is None or part is None or part.match is None:
        return None
    if _family(part) == known[0] and part.match.published.variant.startswith(known[1]):
        return None
    return Answer("refused", "known hash", f"{given.name} has the hash of {' '.join(known)}, and other tensors")


def _channels(part: Part, names: tuple[str, ...], axis: int) -> int | None:
    return next((part.shapes[n][axis] for n in names if n in part.shapes and len(part.shapes[n]) > axis), None)


def _autoencoder_fits(own: Part, unet: Given, part: Part, other: Given, said: Mapping[str, str]) -> Answer:
    needed = _channels(own, ("out.2.weight", "conv_out.weight"), 0)
    latent = _channels(part, ("post_quant_conv.weight", "decoder.conv_in.weight", "decoder.layers.0.weight"), 1)
    if latent is None:
        return Answer(
            "refused", "half an autoencoder", f"{other.name} is an encoder or a decoder alone; both are needed"
        )
    if needed != latent:
        return Answer(
            "refused", "latent channels", f"the U-Net makes latents of {needed} channels, {other.name} takes {latent}"
        )
    first = _channels(own, ("input_blocks.0.0.weight", "conv_in.weight"), 1)
    wanted, levels = _family(own), _levels(part)
    upscaler = wanted == "Stable Diffusion x4 upscaler" or (first == 7 and needed == 4)
    factor = unet.config.get("factor") or (4 if upscaler else 8)  # a folder's own says it
    if levels is not None and 2 ** (levels - 1) != factor and wanted.startswith("Stable Diffusion"):
        return Answer(
            "refused",
            "latent size",
            f"the U-Net's latents are of 1/{factor} of the image, {other.name}'s of 1/{2 ** (levels - 1)}",
        )
    if _family(part) == "TAESD":
        return _tiny(wanted, said)
    scale = other.config.get("scaling_factor")
    right = _SCALES.get(wanted)
    if scale is not None and right is not None and abs(float(scale) - right) > 1e-6:
        return Answer(
            "refused",
            "config's scale",
            f"{other.name}'s config scales latents by {scale}, {wanted}'s are scaled by {right}",
        )
    claimed = _claimed(other.metadata)
    if claimed and claimed != wanted:
        return Answer("refused", "metadata", f"{other.name}'s metadata says it is for {claimed}, the U-Net is {wanted}")
    if scale is not None or claimed or "scale" in said:
        return Answer("fits", "config, metadata or argument", f"latents of {needed} channels, scaled as {wanted}'s are")
    if "KL-f8" in _family(part):
        return Answer(
            "ambiguous",
            "same tensors",
            "the autoencoder of SD 1 and 2 and that of SDXL have the same tensors; say scale=0.18215 or scale=0.13025",
            "scale",
        )
    return Answer("fits", "latent channels and size", f"latents of {needed} channels")


def _tiny(wanted: str, said: Mapping[str, str]) -> Answer:
    if "family" in said:
        return Answer("fits", "argument", f"said to be made for {said['family']}")
    return Answer(
        "ambiguous",
        "same tensors",
        f"taesd and taesdxl have the same tensors, and {wanted} takes one of them; say family=sd or family=sdxl",
        "family",
    )


def _levels(part: Part) -> int | None:
    """How many resolutions an autoencoder has."""
    numbers = [int(n.split(".")[2]) for n in part.shapes if n.startswith("encoder.down.")]
    numbers += [int(n.split(".")[2]) for n in part.shapes if n.startswith("encoder.down_blocks.")]
    return 1 + max(numbers) if numbers else None


def _text_fits(own: Part, unet: Given, part: Part, other: Given, said: Mapping[str, str]) -> Answer:
    width = context_width(own.shapes)
    if width is None:
        return Answer("refused", "no text", "the U-Net reads no token states")
    state = _channels(part, ("token_embedding.weight", "embeddings.token_embedding.weight",
                             "text_model.embeddings.token_embedding.weight", "shared.weight"), 1)  # fmt: skip
    wanted = _family(own)
    # SDXL's U-Net reads two towers' states side by side.
    fits = {width} if wanted != "Stable Diffusion XL" or width != 2048 else {768, 1280}
    if state not in fits:
        return Answer(
            "refused",
            "token width",
            f"the U-Net reads token states of {width} numbers"
            f"{' (768 and 1280 side by side)' if width == 2048 else ''}, {other.name} makes {state}",
        )
    activation = other.config.get("hidden_act")
    right = "quick_gelu" if state == 768 else "gelu"
    if activation is not None and activation != right and part.match and part.match.size == "published":
        return Answer(
            "refused",
            "config's activation",
            f"{other.name}'s config says {activation}; the published weights of this size were trained with {right}",
        )
    if wanted == "Stable Diffusion XL" and state == 1280 and not any("text_projection" in n for n in part.shapes):
        return Answer("refused", "pooled state", f"{other.name} has no text_projection, and SDXL's vector needs it")
    layers = other.config.get("num_hidden_layers")
    if (
        wanted == "Stable Diffusion 2"
        and state == 1024
        and layers is None
        and "layer" not in said
        and _count(part) > 23
    ):
        return Answer(
            "ambiguous",
            "which layer",
            "a tower of 24 layers is read at its second last for SD 2, and at its "
            "last elsewhere; say layer=2 or layer=1",
            "layer",
        )
    return Answer("fits", "token width", f"token states of {state} numbers")


def _count(part: Part) -> int:
    numbers = [int(f[1]) for n in part.shapes if (f := re.search(r"(?:resblocks|layers)\.(\d+)\.", n))]
    return 1 + max(numbers, default=0)


def _adapter_fits(own: Part, unet: Given, found: Adapter, other: Given) -> Answer:
    wanted = _family(own)
    if found.unread:
        return Answer("refused", "unknown names", f"{other.name} holds '{found.unread[0][:80]}', which isn't read")
    if any(name == "half a LoRA" for name, _ in found.facts):
        return Answer("refused", "half a LoRA", f"{other.name}: {dict(found.facts)['half a LoRA']}")
    variant = own.match.published.variant if own.match else ""
    title = f"{wanted} (refiner)" if wanted == "Stable Diffusion XL" and variant == "refiner" else wanted
    if found.family is None:
        return Answer(
            "ambiguous",
            "no width",
            f"nothing in {other.name} shows what it is for; say family='{title}' if it is for this U-Net",
            "family",
        )
    if found.family != title:
        return Answer(
            "refused",
            f"{found.kind}'s family",
            f"{other.name} is a {found.kind} for {found.family}, the U-Net is {title}",
        )
    claimed = _claimed(other.metadata)
    if claimed and claimed != wanted:
        return Answer("refused", "metadata", f"{other.name}'s metadata says it is for {claimed}, the U-Net is {wanted}")
    return Answer("fits", f"{found.kind}'s family", f"a {found.kind} for {found.family}")


def _claimed(metadata: Mapping[str, str]) -> str | None:
    return named_family(metadata)
