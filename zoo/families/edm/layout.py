"""The layout of EDM's `DhariwalUNet` (Karras et al. 2022: ADM's network) -> zoo's U-Net.

It names its blocks by resolution, in the order they run; its attention keeps q, k and v of a channel side by side where
OpenAI's keeps those of a head; its classes are a matrix that a one-hot label is multiplied by. The up-sampling block
that begins a level there ends the one below here.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from zoo.schema.errors import WeightsError

HEAD_WIDTH = 64  # DhariwalUNet's, everywhere

_ENDS = {"map_layer0": "time_embed.0", "map_layer1": "time_embed.2", "out_norm": "out.0", "out_conv": "out.2"}
_RES_BLOCK = {
    "norm0": "in_layers.0",
    "conv0": "in_layers.2",
    "affine": "emb_layers.1",
    "norm1": "out_layers.0",
    "conv1": "out_layers.3",
    "skip": "skip_connection",
}
_ATTENTION = {"norm2": "norm", "qkv": "qkv", "proj": "proj_out"}


def unet_tensors_from_edm(state: Mapping[str, Tensor], *, prefix: str = "model.") -> dict[str, Tensor]:
    """The tensors of a preconditioned DhariwalUNet under zoo's names, rows of attention in the `legacy` order.

    Buffers (filters of its resampling, the preconditioning's table) aren't weights and are left out.
    """
    named = {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}
    named = {n: t for n, t in named.items() if not n.endswith("resample_filter")}
    places, attends = _places(named)
    out: dict[str, Tensor] = {}
    for name, tensor in named.items():
        stem, _, leaf = name.rpartition(".")
        if stem == "map_label":
            out["label_emb.weight"] = tensor.T
        elif stem in _ENDS:
            out[f"{_ENDS[stem]}.{leaf}"] = tensor
        elif stem in places:  # the first convolution
            out[f"{places[stem]}.{leaf}"] = tensor
        else:
            block, _, inner = stem.rpartition(".")
            if block not in places or inner not in {**_RES_BLOCK, **_ATTENTION}:
                raise WeightsError(
                    f"the tensor '{name}' has no place in DhariwalUNet's layout; name the one it is of",
                    code="layout-wrong",
                )
            if inner in _RES_BLOCK:
                out[f"{places[block]}.{_RES_BLOCK[inner]}.{leaf}"] = tensor
            else:
                tensor = _by_head(tensor) if inner == "qkv" else tensor
                # Its 1x1 convolutions are over images, zoo's over positions.
                tensor = tensor[..., 0] if tensor.ndim == 4 else tensor
                out[f"{attends[block]}.{_ATTENTION[inner]}.{leaf}"] = tensor
    return out


def _by_head(rows: Tensor) -> Tensor:
    """Rows [head][channel][q, k, v] -> [head][q, k, v][channel]."""
    heads = max(1, rows.shape[0] // 3 // HEAD_WIDTH)
    return rows.unflatten(0, (heads, -1, 3)).transpose(1, 2).flatten(0, 2)


def _places(named: Mapping[str, Tensor]) -> tuple[dict[str, str], dict[str, str]]:
    """Where each block stands, and where its attention."""
    blocks = list(dict.fromkeys(".".join(n.split(".")[:2]) for n in named if n.startswith(("enc.", "dec."))))
    if not blocks:
        raise WeightsError(
            "these tensors have no 'enc' and 'dec' and are not DhariwalUNet's; name their own layout",
            code="layout-wrong",
        )
    places: dict[str, str] = {}
    attends: dict[str, str] = {}
    inputs = outputs = 0
    for block in blocks:
        has = f"{block}.qkv.weight" in named
        if block.startswith("enc."):
            where, slot = f"input_blocks.{inputs}", 0
            inputs += 1
        elif block.endswith("_in0"):
            where, slot = "middle_block", 0
        elif block.endswith("_in1"):
            where, slot = "middle_block", 1 + len(attends.keys() & {f"{block[:-1]}0"})
        elif block.endswith("_up"):
            last = next(b for b in blocks if places.get(b) == f"output_blocks.{outputs - 1}.0")
            where, slot = f"output_blocks.{outputs - 1}", 1 + (last in attends)
        else:
            where, slot = f"output_blocks.{outputs}", 0
            outputs += 1
        places[block] = f"{where}.{slot}"
        if has:
            attends[block] = f"{where}.{slot + 1}"
    return places, attends
