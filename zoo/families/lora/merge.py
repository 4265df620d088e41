"""A LoRA's tensors by zoo's modules, and what it adds to their weights.

    W' = W + scale * (alpha / rank) * up @ down                              Hu et al. 2021, section 4.1
    W' = W + scale * (m * V / |V| - W),  V = W + (alpha / rank) * up @ down    DoRA: Liu et al. 2024, equation 5

|V| is taken over everything but the rows of the output. The rank is the number of rows of `down`; without an alpha it
is the rank, so that the factor is 1. A 3x3 convolution's `down` has the layer's kernel and its `up` is 1x1; with a
`mid` (LyCORIS' Tucker form) the kernel is there. A layer that is one of a fused q, k, v changes its third of the rows.
Several LoRAs add up, each from the weights as they were, so their order doesn't matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from zoo.families.lora.spelling import Target, other, parse, plain
from zoo.schema import strict_json
from zoo.schema.errors import WeightsError

_NAMED = 3


@dataclass(frozen=True)
class Adapted:
    """What a LoRA has for one module of zoo's."""

    part: str
    target: Target
    down: Tensor  # (rank, in) or (rank, in, k, k)
    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    mid: Tensor | None = None  # (rank, rank, k, k)
    alpha: float | None = None
    magnitude: Tensor | None = None
    by_columns: bool = False  # a magnitude for each input, as older LyCORIS files have it

    @property
    def rank(self) -> int:
        """The width of its bottleneck."""
        return self.down.shape[0]

    def to(self, device: torch.device) -> Adapted:
        """With its matrices on a device."""
        held = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{n: v.to(device) for n, v in held.items() if isinstance(v, Tensor)})

    def difference(self) -> Tensor:
        """(alpha / rank) * up @ down in float32, (out, in) or (out, in, k, k)."""
        down, up = self.down.float(), self.up.float().flatten(1)
        factor = 1.0 if self.alpha is None else self.alpha / self.rank
        if self.mid is not None:
            return factor * torch.einsum("or,rskl,si->oikl", up, self.mid.float(), down.flatten(1))
        return factor * (up @ down.flatten(1)).reshape(up.shape[0], *down.shape[1:])


def read_lora(
    tensors: Mapping[str, Tensor], targets: Mapping[str, Mapping[str, Target]], *, what: str,
    metadata: Mapping[str, str] | None = None, config: Mapping[str, Any] | None = None,
) -> tuple[Adapted, ...]:  # fmt: skip
    """A LoRA file's tensors by zoo's modules, whatever their spelling.

    Tensors on the meta device, of a header's shapes, are placed and checked as any; their numbers can't be.

    Args:
        targets: part (`unet`, `text_encoder`, ...) -> its modules by path, of `unet_targets` and `text_targets`.
        what: the file's name in errors.
        metadata: of the safetensors header, where diffusers keeps PEFT's alphas.
        config: PEFT's `adapter_config.json`, where the file came with one.

    Raises WeightsError for a name that isn't a LoRA's or has no module in the network, by that name; for half a LoRA;
    for a part that the network doesn't have; for NaN, and for what PEFT's settings say that is more than a LoRA.
    """
    _check_settings(config or {}, what)
    held: dict[tuple[str, str], dict[str, Tensor]] = {}
    where: dict[tuple[str, str], tuple[str, Target]] = {}  # the path as it is spelt, and the module
    columns: set[tuple[str, str]] = set()
    unknown: list[str] = []
    for name, tensor in tensors.items():
        key = parse(name)
        if key is None:
            kind = other(name)
            unknown.append(f"'{name[:100]}'" + (f" ({kind})" if kind else ""))
            continue
        if key.part not in targets:
            raise WeightsError(
                f"{what} adapts the part '{key.part}' ('{name[:100]}'), which this model doesn't have (it has "
                f"{', '.join(targets)}); it is for another family, or another file is meant",
                code="lora-unfit",
            )
        target = targets[key.part].get(plain(key.path))
        if target is None:
            unknown.append(f"'{name[:100]}'")
            continue
        place = (key.part, plain(key.path))
        if key.role in held.setdefault(place, {}):
            raise WeightsError(
                f"{what} has '{name[:100]}' twice, in two spellings; get the file again", code="lora-damaged"
            )
        held[place][key.role], where[place] = tensor, (key.path, target)
        if name.endswith(".dora_scale") and tensor.ndim > 1 and tensor.shape[0] == 1:  # PEFT's has its own name
            columns.add(place)
    if unknown:
        more = f" and {len(unknown) - _NAMED} more" if len(unknown) > _NAMED else ""
        raise WeightsError(
            f"{what} holds {', '.join(unknown[:_NAMED])}{more}, which no module of this model takes; the LoRA is for "
            "another network, or of a kind that isn't read (`zoo explain` says what a file is)",
            code="lora-unfit",
        )
    if not held:
        raise WeightsError(f"{what} holds no tensors; give a LoRA's file", code="lora-unfit")
    alphas = _alphas(metadata or {}, config or {}, what)
    return tuple(
        _adapted(place[0], *where[place], held[place], alphas, columns=place in columns, what=what) for place in held
    )


def _check_settings(config: Mapping[str, Any], what: str) -> None:
    """WeightsError for an adapter of PEFT's that is no LoRA, or changes more than it."""
    kind, begun = config.get("peft_type", "LORA"), config.get("init_lora_weights", True)
    if kind != "LORA":
        raise WeightsError(f"{what} is a {str(kind)[:40]} of PEFT's, and LORA is read; give a LoRA", code="lora-unfit")
    # PiSSA, OLoRA, CorDA and LoftQ take their start out of the base's weights, which then are others.
    if isinstance(begun, str) and begun.lower() not in ("gaussian", "eva", "orthogonal"):
        raise WeightsError(
            f"{what} began as {begun[:40]!r}, which changes the base's weights as well; convert it to a plain LoRA "
            "with PEFT first",
            code="lora-unfit",
        )
    more = next((k for k in ("modules_to_save", "layer_replication", "megatron_config") if config.get(k)), None)
    if more is not None:
        raise WeightsError(
            f"{what} says {more} in its settings, which is more than a LoRA and isn't read", code="lora-unfit"
        )


def _adapted(
    part: str, path: str, target: Target, found: Mapping[str, Tensor], alphas: Alphas, *, columns: bool, what: str
) -> Adapted:
    for role, tensor in found.items():
        if tensor.numel() != 1 if role == "alpha" else not tensor.is_floating_point():
            raise WeightsError(
                f"{what}: '{part}' '{path}' has a {role} of {_say(tensor)} {str(tensor.dtype).removeprefix('torch.')}, "
                "which no LoRA has; get the file again",
                code="lora-damaged",
            )
        if not tensor.is_meta and not bool(torch.isfinite(tensor.float()).all()):
            raise WeightsError(
                f"{what}: '{part}' '{path}' has NaN or infinity in its {role}; get the file again", code="lora-damaged"
            )
    absent = [role for role in ("down", "up") if role not in found]
    if absent:
        raise WeightsError(
            f"{what} is half a LoRA: '{part}' '{path}' has {', '.join(found)} and no {absent[0]}; get the file again",
            code="lora-damaged",
        )
    down, up, mid = found["down"], found["up"], found.get("mid")
    inner = down.shape[0] if mid is None else mid.shape[0]
    fits = down.ndim > 1 and up.ndim > 1 and up.shape[1] == inner and math.prod(up.shape[2:]) == 1
    if mid is not None:
        fits = fits and mid.ndim == 4 and mid.shape[1] == down.shape[0] and math.prod(down.shape[2:]) == 1
    if not fits or not math.prod(down.shape) or not up.shape[0]:
        raise WeightsError(
            f"{what}: the matrices of '{path}' don't fit each other: {_say(down)} and {_say(up)}", code="lora-damaged"
        )
    inputs, rank = math.prod(down.shape[1:]), down.shape[0]
    if rank > max(inputs, up.shape[0]):
        raise WeightsError(
            f"{what}: '{part}' '{path}' has rank {rank} between {inputs} inputs and {up.shape[0]} outputs, over both; "
            "no LoRA has, so get the file again",
            code="lora-damaged",
        )
    held = found.get("alpha")
    alpha = alphas.of(part, path, rank) if held is None else None if held.is_meta else held.float().item()
    return Adapted(part, target, down, up, mid, alpha or None, found.get("magnitude"), columns)


@dataclass(frozen=True)
class Alphas:
    """PEFT's settings by part: alphas, their patterns by module, and whether alpha is over the root of the rank."""

    settings: Mapping[str, Mapping[str, Any]]
    what: str

    def of(self, part: str, path: str, rank: int) -> float | None:
        """The alpha of a module, as if the factor were alpha / rank; None where nothing says one."""
        said = self.settings.get(part) or self.settings.get("")
        if not said:
            return None
        patterns = said.get("alpha_pattern") or {}
        odd = next((name for name in patterns if re.search(r"[^\w.]", name)), None)
        if odd is not None:
            raise WeightsError(
                f"{self.what}: its alpha_pattern has {odd[:80]!r}, which is no module's path; write paths out",
                code="lora-damaged",
            )
        ends = (a for name, a in patterns.items() if f".{path}".endswith(f".{name}"))
        value = next(ends, said.get("lora_alpha"))
        if not isinstance(value, (int, float)):
            return None
        if not math.isfinite(value):
            raise WeightsError(f"{self.what}: an alpha of its settings is {value}; mend it", code="lora-damaged")
        return float(value) * (math.sqrt(rank) if said.get("use_rslora") else 1.0)


def _alphas(metadata: Mapping[str, str], config: Mapping[str, Any], what: str) -> Alphas:
    """diffusers writes PEFT's settings of all parts as JSON into the metadata, `unet.lora_alpha` and so on."""
    settings: dict[str, dict[str, Any]] = {"": dict(config)} if config else {}
    try:
        said = strict_json.parse(metadata.get("lora_adapter_metadata", "{}"))
    except ValueError:
        said = {}
    for name, value in said.items() if isinstance(said, dict) else ():
        part, _, key = name.rpartition(".") if name.count(".") == 1 else name.partition(".")[::1]
        settings.setdefault("unet" if part == "transformer" else part, {})[key] = value
    return Alphas(settings, what)


def merged(
    weights: Mapping[str, Tensor], loras: Sequence[tuple[Sequence[Adapted], float]], *, what: str
) -> dict[str, Tensor]:
    """The weights of one part that LoRAs change, changed; their dtypes stay, and `weights` isn't touched.

    Args:
        weights: the part's tensors by zoo's names.
        loras: each with its scale; those of other parts must be left out by the caller.
        what: the part's name in errors.

    Raises WeightsError where a module's weight isn't there or has another shape.
    """
    added: dict[str, Tensor] = {}
    for adapted, scale in loras:
        for one in adapted:
            name = one.target.weight
            if name not in weights:
                raise WeightsError(
                    f"{what} has no weight '{name}' for the LoRA to change; give the model it is for", code="lora-unfit"
                )
            weight = weights[name]
            one = one.to(weight.device)
            rows = _rows(weight, one, what)
            old = weight[rows].float()
            change = _reshaped(one.difference(), old, one, what)
            if one.magnitude is not None:
                change = _normalized(old + change, one, what) - old
            # Summed before they are rounded to the weight's dtype, so that their order doesn't matter.
            total = added.setdefault(name, torch.zeros(weight.shape, dtype=torch.float32, device=weight.device))
            total[rows] += scale * change
    return {name: (weights[name].float() + total).to(weights[name].dtype) for name, total in added.items()}


def _rows(weight: Tensor, one: Adapted, what: str) -> slice:
    if one.target.third is None:
        return slice(None)
    third, rest = divmod(weight.shape[0], 3)
    if rest:
        raise WeightsError(
            f"{what}: '{one.target.weight}' has {weight.shape[0]} rows and is no fused q, k and v", code="lora-unfit"
        )
    return slice(one.target.third * third, (one.target.third + 1) * third)


def _reshaped(change: Tensor, old: Tensor, one: Adapted, what: str) -> Tensor:
    """A 1x1 convolution and a linear layer are the same numbers in two shapes."""
    same = change.shape[:2] == old.shape[:2] and math.prod(change.shape) == math.prod(old.shape)
    if not same or (change.ndim == old.ndim and change.shape != old.shape):
        raise WeightsError(
            f"{what}: the LoRA's '{one.target.module}' is for a weight of {_say(change)} where the model's is "
            f"{_say(old)}; it is for another model",
            code="lora-unfit",
        )
    return change.reshape(old.shape)


def _normalized(changed: Tensor, one: Adapted, what: str) -> Tensor:
    """m * V / |V|."""
    assert one.magnitude is not None
    m = one.magnitude.float()
    count = math.prod(m.shape)
    axis = 1 if one.by_columns and count == changed.shape[1] else 0
    if count != changed.shape[axis]:
        raise WeightsError(
            f"{what}: the magnitudes of '{one.target.module}' are {_say(m)} for a weight of {_say(changed)}",
            code="lora-damaged",
        )
    others = [d for d in range(changed.ndim) if d != axis]
    shape = [1] * changed.ndim
    shape[axis] = -1
    return m.reshape(shape) * changed / torch.linalg.vector_norm(changed, dim=others, keepdim=True)


def _say(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
