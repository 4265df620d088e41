"""Files that are no model but belong to one: LoRA, ControlNet, IP-Adapter, textual inversion, and what family they fit.

Told by names that their trainers write and nobody else; the family by the widths that a network must have to take them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from zoo.families.identify import context_width
from zoo.families.key_lists import Shapes
from zoo.families.lora import spelling

# Width of the token states that cross-attention reads -> family.
CONTEXTS = {
    768: "Stable Diffusion 1", 1024: "Stable Diffusion 2", 2048: "Stable Diffusion XL",
    1280: "Stable Diffusion XL (refiner)",
}  # fmt: skip
_EMBEDDINGS = {768: "CLIP ViT-L/14 (SD 1)", 1024: "OpenCLIP ViT-H/14 (SD 2)", 1280: "OpenCLIP ViT-bigG/14 (SDXL)"}
# Names of modules that one family alone has, in any spelling -> family.
_MODULES = (
    ("double_stream_modulation", "FLUX.2"), ("double_blocks", "FLUX.1"), ("single_transformer_blocks", "FLUX.1"),
    ("joint_blocks", "Stable Diffusion 3"), ("attn_add_k_proj", "Stable Diffusion 3"), ("noise_refiner", "Z-Image"),
)  # fmt: skip
_METADATA = {
    "sd_v1": "Stable Diffusion 1", "sd_1": "Stable Diffusion 1", "sd1": "Stable Diffusion 1",
    "sd_v2": "Stable Diffusion 2", "sd_2": "Stable Diffusion 2", "sdxl": "Stable Diffusion XL", "flux": "FLUX.1",
    "sd3": "Stable Diffusion 3", "stable-diffusion-v1": "Stable Diffusion 1",
    "stable-diffusion-v2": "Stable Diffusion 2", "stable-diffusion-xl": "Stable Diffusion XL",
}  # fmt: skip


@dataclass(frozen=True)
class Adapter:
    """What a file is that fits a model: `family` is that model's, None where nothing tells."""

    kind: str  # LoRA, ControlNet, IP-Adapter, textual inversion, T2I-Adapter
    family: str | None
    facts: tuple[tuple[str, str], ...]
    unread: tuple[str, ...] = ()  # names of a kind that isn't read


def adapter(shapes: Shapes, metadata: Mapping[str, str]) -> Adapter | None:
    """The adapter that these tensors are; None for a model's own."""
    for rule in (_lora, _ip_adapter, _control_net, _embedding):
        found = rule(shapes, metadata)
        if found is not None:
            return found
    return None


def _lora(shapes: Shapes, metadata: Mapping[str, str]) -> Adapter | None:
    keys = {name: key for name in shapes if (key := spelling.parse(name))}
    others = sorted({kind for name in shapes if name not in keys and (kind := spelling.other(name))})
    matrices = [name for name, key in keys.items() if key.role in ("down", "up")]
    if not matrices and not (others and len(others) < 3 and any(spelling.other(n) for n in shapes)):
        return None
    unread = tuple(name for name in shapes if name not in keys)
    ranks = sorted({shapes[name][0] for name in matrices if keys[name].role == "down" and shapes[name]})
    modules = {(key.part, key.path) for key in keys.values()}
    parts = sorted({part for part, _ in modules})
    convolutions = sum(len(shapes[n]) == 4 and shapes[n][2:] != (1, 1) for n in matrices if keys[n].role == "down")
    facts = [
        ("spelling", spelling.spelling(shapes) or "none that is read"),
        ("modules", f"{len(modules)} of {', '.join(parts)}" if parts else "none"),
        ("rank", ", ".join(map(str, ranks)) if len(ranks) < 6 else f"{ranks[0]} to {ranks[-1]}"),
    ]
    facts += [("3x3 convolutions", f"{convolutions} (LoCon)")] if convolutions else []
    if any(key.role == "magnitude" for key in keys.values()):
        facts.append(("magnitudes", "it is a DoRA"))
    if "lora_adapter_metadata" in metadata:
        facts.append(("alpha", "in its metadata, as PEFT's settings"))
    elif not any(key.role == "alpha" for key in keys.values()) and matrices:
        facts.append(("alpha", "not in its tensors: the rank, unless its metadata or adapter_config.json says another"))
    if others:
        facts.append(("not a LoRA", ", ".join(others)))
    halves = _halves(keys.values())
    if halves:
        facts.append(("half a LoRA", f"{len(halves)} modules have one matrix of two, first '{halves[0]}'"))
    if "lora_controlnet" in shapes:
        facts.append(("not a LoRA", "a ControlNet in low rank (control-lora)"))
    return Adapter("LoRA" if matrices else others[0], _family(shapes, keys, metadata), tuple(facts), unread)


def _halves(keys: object) -> list[str]:
    roles: dict[tuple[str, str], set[str]] = {}
    for key in keys:  # type: ignore[attr-defined]
        roles.setdefault((key.part, key.path), set()).add(key.role)
    return [path for (_, path), found in roles.items() if ("down" in found) != ("up" in found)]


def _family(shapes: Shapes, keys: Mapping[str, spelling.Key], metadata: Mapping[str, str]) -> str | None:
    """By modules that one family has, the width of token states, or else what the metadata says."""
    paths = {spelling.plain(key.path) for key in keys.values()}
    for word, family in _MODULES:
        if any(word in path for path in paths):
            return family
    downs = {spelling.plain(keys[n].path): shapes[n] for n in keys if keys[n].role == "down"}
    width = next((s[-1] for path, s in downs.items() if path.endswith("attn2_to_k") and len(s) == 2), None)
    width = width or next((s[1] for path, s in downs.items() if path.endswith("attn2_to_k") and len(s) == 4), None)
    if width in CONTEXTS:
        return CONTEXTS[width]
    if any(key.part == "text_encoder_2" for key in keys.values()):
        return CONTEXTS[2048]
    return named_family(metadata)


def named_family(metadata: Mapping[str, str]) -> str | None:
    """The family that a file's metadata says it is for (kohya's, or modelspec's); None where it says none."""
    said = (metadata.get("ss_base_model_version", "") or metadata.get("modelspec.architecture", "")).lower()
    return next((family for start, family in _METADATA.items() if said.startswith(start)), None)


def _ip_adapter(shapes: Shapes, metadata: Mapping[str, str]) -> Adapter | None:
    keys = [n for n in shapes if ".to_k_ip." in n]
    if not keys or not any(n.startswith("image_proj.") for n in shapes):
        return None
    width = shapes[keys[0]][-1]
    plus = any("latents" in n for n in shapes)
    image = next((s[-1] for n, s in shapes.items() if n == "image_proj.proj.weight"), None)
    facts = [("layers", str(len(keys))), ("tokens", "by a resampler (Plus)" if plus else "by one projection")]
    facts += [("image embedding", str(image))] if image else []
    return Adapter("IP-Adapter", CONTEXTS.get(width), tuple(facts))


def _control_net(shapes: Shapes, metadata: Mapping[str, str]) -> Adapter | None:
    bare = {n.removeprefix("control_model."): s for n, s in shapes.items() if not n.startswith("model.")}
    ours = "controlnet_cond_embedding.conv_in.weight" in bare
    theirs = "input_hint_block.0.weight" in bare
    if not ours and not theirs:
        return None
    hint = bare["controlnet_cond_embedding.conv_in.weight" if ours else "input_hint_block.0.weight"]
    facts = (("layout", "diffusers" if ours else "original"), ("control image", f"{hint[1]} channels"))
    return Adapter("ControlNet", CONTEXTS.get(context_width(bare) or 0), facts)


def _embedding(shapes: Shapes, metadata: Mapping[str, str]) -> Adapter | None:
    """A learned token: one matrix or a few of a text encoder's width, and nothing else."""
    if not 0 < len(shapes) <= 4 or not all(0 < len(s) <= 2 and s[-1] in _EMBEDDINGS for s in shapes.values()):
        return None
    if any(n.endswith((".weight", ".bias")) for n in shapes):
        return None
    both = {"clip_l", "clip_g"} <= shapes.keys()
    counts = {n: s[0] if len(s) == 2 else 1 for n, s in shapes.items()}
    name = next(iter(shapes)).removeprefix("string_to_param.")
    facts = [("tokens", str(max(counts.values()))), ("of", ", ".join(_EMBEDDINGS[s[-1]] for s in shapes.values()))]
    facts += [] if both or name in ("emb_params", "*") else [("word", name)]
    families = {768: CONTEXTS[768], 1024: CONTEXTS[1024], 1280: CONTEXTS[2048]}
    family = CONTEXTS[2048] if both else families[next(iter(shapes.values()))[-1]]
    return Adapter("textual inversion", family, tuple(facts))
