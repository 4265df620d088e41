"""The layout of score SDE's `NCSNpp` (Song et al. 2021b) -> zoo's `song-unet`, which has EDM's names for it.

Its modules are numbered in the order they run, `all_modules.N`, attention apart from its block, with q, k and v in
three matrices. Arguments give what tensors don't show: the size in training, the filter (`1 1`, or `1 3 3 1` where the
original's config says `fir: true`), which SDE (`vp`, `sub-vp` or `ve`, the config's `training.sde`), and whether a
checkpoint's averaged weights are meant or the plain ones.

The converted network gives eps, under `parameterization: eps`:

| sde | trained on | schedule | time_input |
|---|---|---|---|
| `vp`, `sub-vp` | data in [-1, 1] | vp-sde, sub-vp | t999 |
| `ve`, continuous | data in [0, 1], so sigma is half of ours | ve, both sigmas doubled | log-sigma-quarter |

For `ve` the difference is folded into the weights: the original gives -eps / sigma, and takes ln(sigma) where ours
takes ln(2 sigma) / 4, which makes frequencies four times as high and turns each pair of sine and cosine by an angle.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from zoo.networks.song_unet import square
from zoo.schema.errors import WeightsError

Module = dict[str, Tensor]
SDE = Literal["vp", "sub-vp", "ve"]
_RES_BLOCK = {
    "GroupNorm_0": "norm0",
    "Conv_0": "conv0",
    "Dense_0": "affine",
    "GroupNorm_1": "norm1",
    "Conv_1": "conv1",
    "Conv_2": "skip",
}
# What a kind of module has, and nothing else; of a residual block the last may be missing.
_KINDS = {
    "frequencies": {"W"},
    "layer": {"weight", "bias"},
    "filtered convolution": {"Conv2d_0.weight", "Conv2d_0.bias"},
    "combination": {"Conv_0.weight", "Conv_0.bias"},
    "attention": {f"NIN_{i}.{leaf}" for i in range(4) for leaf in "Wb"} | {"GroupNorm_0.weight", "GroupNorm_0.bias"},
    "residual block": {f"{inner}.{leaf}" for inner in _RES_BLOCK for leaf in ("weight", "bias")},
}
_SHORTCUT = {"Conv_2.weight", "Conv_2.bias"}


def averaged_tensors(checkpoint: Mapping[str, Any]) -> dict[str, Tensor]:
    """The averaged weights of a score SDE checkpoint, which it keeps in a list, under the names of the raw ones.

    The plain ones are `checkpoint["model"]`. WeightsError where there is no average, or one of another model.
    """
    raw, averages = checkpoint.get("model"), (checkpoint.get("ema") or {}).get("shadow_params")
    if not isinstance(raw, Mapping) or not isinstance(averages, Sequence):
        raise WeightsError(
            "this checkpoint has no averaged weights ('model' and 'ema' with its 'shadow_params'); take the plain ones "
            "of its 'model', and say that you did",
            code="average-missing",
        )
    learned = [n for n in raw if not n.endswith(("sigmas", "all_modules.0.W"))]
    if [tuple(raw[n].shape) for n in learned] != [tuple(t.shape) for t in averages]:
        raise WeightsError(
            "this checkpoint's averaged weights aren't those of its model; take its 'model' instead",
            code="average-unfit",
        )
    return {**raw, **dict(zip(learned, averages, strict=True))}


def song_tensors_from_score_sde(
    state: Mapping[str, Tensor], *, resolution: int, resample_filter: Sequence[float], sde: SDE
) -> dict[str, Tensor]:
    """The tensors of an NCSNpp under the names of a `song-unet`, which then gives eps (see the module)."""
    if sde not in get_args(SDE):
        raise WeightsError(
            f"unknown sde '{sde}', and the tensors of every SDE look alike; say vp, sub-vp or ve, as the config that "
            "these were trained with does (training.sde: vpsde, subvpsde or vesde)",
            code="choice-unknown",
        )
    reader = _Reader(_modules(state), taps=resample_filter)
    levels, blocks = reader.shape()
    if resolution % 2 ** (levels - 1):
        raise WeightsError(
            f"these tensors halve a picture {levels - 1} times, and resolution is {resolution}; mend it",
            code="layout-wrong",
        )
    sides = [f"{resolution >> level}x{resolution >> level}" for level in range(levels)]
    if reader.next == "frequencies":
        reader.out["map_noise.freqs"] = reader.take("frequencies")["W"]
    reader.layer("map_layer0")
    reader.layer("map_layer1")
    reader.layer(f"enc.{sides[0]}_conv")
    for level, side in enumerate(sides):
        if level > 0:
            reader.block(f"enc.{side}_down", resampled=True)
            reader.handed_down(f"enc.{side}_aux")
        for i in range(blocks):
            reader.block(f"enc.{side}_block{i}")
    for level, side in reversed(list(enumerate(sides))):
        if level == levels - 1:
            reader.block(f"dec.{side}_in0")
            reader.block(f"dec.{side}_in1")
        else:
            reader.block(f"dec.{side}_up", resampled=True)
        for i in range(blocks + 1):
            reader.block(f"dec.{side}_block{i}")
        if reader.next == "layer":
            if level < levels - 1 and f"dec.{sides[-1]}_aux_norm.weight" in reader.out:
                reader.filter(f"dec.{side}_aux_up")
            reader.layer(f"dec.{side}_aux_norm")
            reader.layer(f"dec.{side}_aux_conv")
    if reader.next is not None:
        raise WeightsError(
            f"a {reader.next} is left over, which isn't NCSNpp's; name the layout that these are of",
            code="layout-wrong",
        )
    return _told_of_eps(reader.out) if sde == "ve" else reader.out


class _Reader:
    """The modules in their order, and the tensors made from them."""

    def __init__(self, modules: Sequence[Module], *, taps: Sequence[float]) -> None:
        self.modules, self.taps = deque(modules), taps
        self.out: dict[str, Tensor] = {}

    @property
    def next(self) -> str | None:
        """The kind of the module that comes next."""
        return _kind(self.modules[0]) if self.modules else None

    def shape(self) -> tuple[int, int]:
        """How many levels there are, and blocks in each: one block more on the way up, and two in the middle."""
        found = [m for m in self.modules if _kind(m) == "residual block"]
        # A block of as many channels has a convolution in its shortcut where it halves or doubles, and only there.
        shortcuts = [m["Conv_2.weight"].shape for m in found if "Conv_2.weight" in m]
        halving = sum(shape[0] == shape[1] for shape in shortcuts)
        levels = halving // 2 + 1
        return levels, (len(found) - halving - 2 - levels) // (2 * levels)

    def take(self, kind: str) -> Module:
        """The next module, which is one of this kind."""
        if self.next != kind:
            raise WeightsError(
                f"these tensors have a {self.next or 'last module'} where NCSNpp has a {kind}; name the layout that "
                "they are of",
                code="layout-wrong",
            )
        return self.modules.popleft()

    def layer(self, place: str) -> None:
        """A linear layer, a convolution or a norm."""
        self.out |= {f"{place}.{leaf}": t for leaf, t in self.take("layer").items()}

    def filter(self, place: str) -> None:
        """The filter of a module that resamples, which the original doesn't keep."""
        self.out[f"{place}.resample_filter"] = square(self.taps)

    def handed_down(self, place: str) -> None:
        """The path of the image beside a level's first block, where it is passed down."""
        if self.next == "filtered convolution":
            self.out |= {
                f"{place}_residual.{n.removeprefix('Conv2d_0.')}": t
                for n, t in self.take("filtered convolution").items()
            }
            self.filter(f"{place}_residual")
        elif self.next == "combination":
            self.filter(f"{place}_down")
            self.out |= {f"{place}_skip.{n.removeprefix('Conv_0.')}": t for n, t in self.take("combination").items()}

    def block(self, place: str, *, resampled: bool = False) -> None:
        """A residual block, and the attention that follows it."""
        for name, tensor in self.take("residual block").items():
            inner, _, leaf = name.rpartition(".")
            self.out[f"{place}.{_RES_BLOCK[inner]}.{leaf}"] = tensor
        if resampled:
            self.filter(f"{place}.conv0")
            self.filter(f"{place}.skip")
        if self.next == "attention":
            parts = self.take("attention")
            for leaf in ("weight", "bias"):
                self.out[f"{place}.norm2.{leaf}"] = parts[f"GroupNorm_0.{leaf}"]
            # Its matrices are (in, out); the rows here are [channel][q, k, v].
            rows = torch.stack([parts[f"NIN_{i}.W"].T for i in range(3)], 1).flatten(0, 1)
            self.out[f"{place}.qkv.weight"] = rows[..., None, None]
            self.out[f"{place}.qkv.bias"] = torch.stack([parts[f"NIN_{i}.b"] for i in range(3)], 1).flatten()
            self.out[f"{place}.proj.weight"] = parts["NIN_3.W"].T[..., None, None]
            self.out[f"{place}.proj.bias"] = parts["NIN_3.b"]


def _modules(state: Mapping[str, Tensor]) -> list[Module]:
    found: dict[int, Module] = {}
    for name, tensor in state.items():
        head, _, rest = name.removeprefix("module.").partition(".")
        number, _, leaf = rest.partition(".")
        if head == "sigmas":  # the table of noise levels, which a schedule is
            continue
        if head != "all_modules" or not number.isdecimal():
            raise WeightsError(
                f"the tensor '{name}' has no place in NCSNpp's layout; name the layout that it is of",
                code="layout-wrong",
            )
        found.setdefault(int(number), {})[leaf] = tensor
    return [found[number] for number in sorted(found)]


def _kind(module: Module) -> str:
    names = set(module)
    for kind, wanted in _KINDS.items():
        if names == wanted or (kind == "residual block" and names == wanted - _SHORTCUT):
            return kind
    return f"module of {', '.join(sorted(names)[:3])}"


def _told_of_eps(out: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of a `ve` network on data in [0, 1]: rewritten to take ln(2 sigma) / 4 and give eps."""
    if "map_noise.freqs" not in out:
        raise WeightsError(
            "networks of the VE SDE have random frequencies in continuous time, and this has none; say vp",
            code="layout-wrong",
        )
    freqs, layer = out["map_noise.freqs"].double(), out["map_layer0.weight"]
    turn = 2.0 * math.pi * math.log(2.0) * freqs
    sines, cosines = layer.double().chunk(2, dim=1)
    turned = [sines * turn.cos() + cosines * turn.sin(), cosines * turn.cos() - sines * turn.sin()]
    negative = {n: -t for n, t in out.items() if "_aux_conv." in n}
    return {
        **out, **negative, "map_noise.freqs": (4.0 * freqs).to(layer.dtype),
        "map_layer0.weight": torch.cat(turned, dim=1).to(layer.dtype),
    }  # fmt: skip
