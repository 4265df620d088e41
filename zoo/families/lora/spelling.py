"""The names in a LoRA file, in every spelling that trainers write -> part, module path, and role.

| spelling | a name |
|---|---|
| kohya | `lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight`, `lora_te1_...`, or the original's blocks |
| PEFT, diffusers | `unet.down_blocks.0.attentions.0.proj_in.lora_A.weight`, `base_model.model.` before it or not |
| diffusers, old | `unet....attn1.processor.to_q_lora.down.weight`, `....q_proj.lora_linear_layer.down.weight` |
| Comfy, BFL | `diffusion_model.input_blocks.1.1.proj_in.lora_A.weight` |
| OneTrainer | `unet.input_blocks.1.1.proj_in.lora_down.weight`, `clip_l.`, `clip_g.`, `lora_unet.` and then dots |

Underscores in place of dots can't be undone by rule; `targets` looks the path up among a network's own modules.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

Role = Literal["down", "up", "mid", "alpha", "magnitude"]

# Suffix -> role; the longer first, as the old ones contain nothing of the new.
_ROLES = (
    (re.compile(r"\.lora_down\.weight|\.lora_A(\.[\w-]+)?\.weight|[._]lora(_linear_layer)?\.down\.weight"), "down"),
    (re.compile(r"\.lora_up\.weight|\.lora_B(\.[\w-]+)?\.weight|[._]lora(_linear_layer)?\.up\.weight"), "up"),
    (re.compile(r"\.lora_mid\.weight"), "mid"),
    (re.compile(r"\.alpha|\.network_alpha"), "alpha"),
    (re.compile(r"\.dora_scale|\.lora_magnitude_vector(\.[\w-]+)?(\.weight)?"), "magnitude"),
)
# What other adapters than LoRA leave, and LoRAs that add more than matrices; none is read.
OTHERS = {
    "hada": "LoHa (LyCORIS)",
    "lokr": "LoKr (LyCORIS)",
    "oft": "OFT",
    "on_input": "IA3 (LyCORIS)",
    "diff": "a full difference (ComfyUI)",
    "bias": "a bias beside the matrices (BFL's control LoRAs)",
    "set_weight": "a replaced weight",
    "bundle_emb": "an embedding (OneTrainer)",
}
_OTHER = re.compile(
    r"\.(?:(hada|lokr|oft)_\w+|(on_input)|(diff)(?:_b)?|lora_(?:B|up)\.(bias)|(set_weight))(?:\.\w+)?$|^(bundle_emb)\."
)
_PARTS = {
    "lora_unet": "unet", "lora_te": "text_encoder", "lora_te1": "text_encoder", "lora_te2": "text_encoder_2",
    "lora_te3": "text_encoder_3", "lora_transformer": "unet", "lora_prior_unet": "prior", "lora_prior_te": "prior_text",
    "unet": "unet", "text_encoder": "text_encoder", "text_encoder_2": "text_encoder_2", "transformer": "unet",
    "text_encoder_3": "text_encoder_3", "diffusion_model": "unet", "model.diffusion_model": "unet",
    "clip_l": "text_encoder", "clip_g": "text_encoder_2", "t5": "text_encoder_3",
    "text_encoders.clip_l.transformer": "text_encoder", "text_encoders.clip_g.transformer": "text_encoder_2",
    "cond_stage_model.transformer": "text_encoder",
}  # fmt: skip
_PREFIX = re.compile("|".join(re.escape(p) for p in sorted(_PARTS, key=len, reverse=True)))
_PEFT = "base_model.model."
_OLD_ATTENTION = re.compile(r"[._]processor([._]to_[qkv]|[._]to_out)$")


@dataclass(frozen=True)
class Key:
    """A name in a LoRA file: the part, the module's path as it is spelt there, and what the tensor is."""

    part: str
    path: str
    role: Role


@dataclass(frozen=True)
class Target:
    """A module of zoo's: its name, and which third of its rows where the adapted layer is one of a fused q, k, v.

    `path` is how diffusers writes it, and so a LoRA that zoo trains.
    """

    module: str
    third: int | None = None
    path: str = ""

    @property
    def weight(self) -> str:
        """Its weight's name."""
        return f"{self.module}_weight" if self.module.endswith("in_proj") else f"{self.module}.weight"


def parse(name: str) -> Key | None:
    """A name as a key; None where it is no LoRA's."""
    for pattern, role in _ROLES:
        ends = [found for found in pattern.finditer(name) if found.end() == len(name)]
        if not ends:
            continue
        path = name[: ends[0].start()].removeprefix(_PEFT)
        found = _PREFIX.match(path)
        part = "unet"
        if found and path[found.end() : found.end() + 1] in (".", "_"):
            part, path = _PARTS[found[0]], path[found.end() + 1 :]
        path = path.removeprefix(_PEFT)
        if part == "unet" and path.startswith("text_model."):  # of a text encoder alone, as PEFT saves one
            part = "text_encoder"
        if old := _OLD_ATTENTION.search(path):
            inner = old[1] + (".0" if old[1].endswith("to_out") else "")
            path = path[: old.start()] + inner
        return Key(part, path, role)  # type: ignore[arg-type]
    return None


def other(name: str) -> str | None:
    """What kind of adapter, that isn't read, a name belongs to; None for any other name."""
    found = _OTHER.search(name)
    return OTHERS[next(group for group in found.groups() if group)] if found else None


def spelling(names: Iterable[str]) -> str | None:
    """Which trainer's spelling a file's names have; None where none is a LoRA's."""
    names = [n for n in names if parse(n)]
    if not names:
        return None
    first = next((n for n in names if "lora_" in n or ".lora." in n), names[0])
    if re.match(r"lora_\w+?\.\w", first) and first.count(".") > 2:
        return "OneTrainer"
    if first.startswith("lora_"):
        return "kohya"
    if first.startswith(("diffusion_model.", "model.diffusion_model.")):
        return "Comfy"
    if "processor." in first or "lora_linear_layer" in first:
        return "diffusers (before PEFT)"
    if ".lora_A." in first or ".lora_B." in first:
        return "BFL" if first.startswith(("double_blocks", "single_blocks")) else "PEFT"
    return "OneTrainer" if ".lora_down." in first or ".lora_up." in first else "unknown"


def plain(path: str) -> str:
    """A path as kohya writes it, in which all spellings meet."""
    return path.replace(".", "_")


def unet_targets(names: Iterable[str]) -> Mapping[str, Target]:
    """The modules of a U-Net by every spelling of their paths.

    Args:
        names: of its tensors, in the original layout (zoo's). Of a U-Net that diffusers has no names for, its own.
    """
    from zoo.families.diffusers.layout import unet_names

    names = list(names)
    found = dict(own_targets(names))
    try:
        renamed = unet_names(names)
    except (KeyError, AssertionError):
        return found
    for ours, theirs in renamed.items():
        module, _, leaf = ours.rpartition(".")
        if leaf == "weight":
            path = theirs.removesuffix(".weight")
            found[plain(module)] = found[plain(path)] = Target(module, path=path)
    return found


def own_targets(names: Iterable[str]) -> Mapping[str, Target]:
    """The modules of a network that declares no other names for them, by its own paths."""
    modules = (name.removesuffix(".weight") for name in names if name.endswith(".weight"))
    return {plain(module): Target(module, path=module) for module in modules}


def targets_of(component: Any) -> Mapping[str, Target]:
    """The modules of a network or text encoder by every spelling that it declares (`adapter_names`), or by its own."""
    names = [name for name, _ in component.named_parameters()]
    declared = getattr(component, "adapter_names", None)
    if declared is None:
        return own_targets(names)
    module, _, function = declared.partition(":")
    return getattr(import_module(module), function)(names)


def text_targets(names: Iterable[str]) -> Mapping[str, Target]:
    """The modules of a text tower by every spelling of their paths; `names` are open_clip's (zoo's)."""
    from zoo.families.diffusers.layout import PROJECTION, tower_names

    found: dict[str, Target] = {}
    names = list(names)
    for ours, theirs in tower_names(names).items():
        module = re.sub(r"(\.weight|_weight)$", "", ours)
        if module == ours or ours.endswith("positional_embedding"):
            continue
        found[plain(module)] = Target(module, path=module)
        for third, name in enumerate(theirs):
            path = name.removesuffix(".weight")
            target = Target(module, third if len(theirs) > 1 else None, path)
            found[plain(path)] = found[plain(f"text_model.{path}")] = target
    if PROJECTION in names:
        found.pop(PROJECTION, None)  # a bare matrix, transposed: no file adapts it under a name that says which way
    return found
