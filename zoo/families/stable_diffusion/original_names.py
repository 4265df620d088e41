"""Names in diffusers' layout -> the original's: `zoo.families.diffusers.layout` backwards, from names alone.

Names are laid out by the numbers in them and kept where that leads back from them to where they came from, so the
two are inverse by construction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from zoo.families.diffusers.layout import kl_names, unet_names

_BLOCK = re.compile(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)")
_MIDDLE = re.compile(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_RES_BLOCK = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_ENDS = {
    "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2", "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0", "conv_out": "out.2", "class_embedding": "label_emb",
    "class_embedding.linear_1": "label_emb.0.0", "class_embedding.linear_2": "label_emb.0.2",
    "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip
_KL_BLOCK = re.compile(
    r"(encoder|decoder)\.(?:down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)"
)
_KL_MIDDLE = re.compile(r"(encoder|decoder)\.mid_block\.(resnets|attentions)\.(\d+)\.(.+)")
_KL_INNER = {
    "conv_shortcut": "nin_shortcut", "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v",
    "to_out.0": "proj_out",
}  # fmt: skip
# Names of attention in autoencoders that diffusers wrote before 0.15.
_OLD = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
_OLD_NAME = re.compile(r"\.attentions\.(\d+)\.(query|key|value|proj_attn)\.")


def today(name: str) -> str:
    """An autoencoder's name as diffusers writes it now."""
    return _OLD_NAME.sub(lambda found: f".attentions.{found[1]}.{_OLD[found[2]]}.", name)


def original_unet_names(names: Iterable[str]) -> dict[str, str]:
    """A U-Net's names in diffusers' layout -> the original's; KeyError for a name that has no place there."""
    names = list(names)
    found = [f for f in map(_BLOCK.match, names) if f]
    blocks = 1 + max((int(f[4]) for f in found if f[1] == "down" and f[3] == "resnets"), default=0)
    attends = {f[2] for f in found if f[1] == "up" and f[3] == "attentions"}

    def place(name: str) -> str:
        stem, _, leaf = name.rpartition(".")
        if block := _BLOCK.match(name):
            side, level, kind, number, rest = block.groups()
            first = int(level) * (blocks + 1)
            if kind == "downsamplers":
                return f"input_blocks.{first + blocks + 1}.0.op.{leaf}"
            if kind == "upsamplers":
                return f"output_blocks.{first + blocks}.{1 + (level in attends)}.conv.{leaf}"
            where = (
                f"input_blocks.{first + int(number) + 1}" if side == "down" else f"output_blocks.{first + int(number)}"
            )
            return f"{where}.{int(kind == 'attentions')}.{_renamed(rest, _RES_BLOCK)}"
        if middle := _MIDDLE.match(name):
            number = 1 if middle[1] == "attentions" else 2 * int(middle[2])
            return f"middle_block.{number}.{_renamed(middle[3], _RES_BLOCK)}"
        return f"{_ENDS[stem]}.{leaf}"

    return _inverse(names, place, unet_names)


def original_kl_names(names: Iterable[str]) -> dict[str, str]:
    """A KL autoencoder's names in diffusers' layout (old ones too) -> the original's."""
    names = list(names)
    levels = 1 + max((int(f[2]) for f in map(_KL_BLOCK.match, names) if f), default=0)

    def place(name: str) -> str:
        name = today(name)
        if block := _KL_BLOCK.match(name):
            side, level, kind, number, rest = block.groups()
            where = f"encoder.down.{level}" if side == "encoder" else f"decoder.up.{levels - 1 - int(level)}"
            if kind.endswith("samplers"):
                return f"{where}.{kind.removesuffix('rs')}.{rest}"
            return f"{where}.{'attn' if kind == 'attentions' else 'block'}.{number}.{_renamed(rest, _KL_INNER)}"
        if middle := _KL_MIDDLE.match(name):
            inner = "attn_1" if middle[2] == "attentions" else f"block_{1 + int(middle[3])}"
            return f"{middle[1]}.mid.{inner}.{_renamed(middle[4], _KL_INNER)}"
        return name.replace(".conv_norm_out.", ".norm_out.")

    return _inverse(names, place, kl_names, today)


def _renamed(rest: str, table: Mapping[str, str]) -> str:
    """`norm1.weight` -> `in_layers.0.weight`; a transformer's inner names are the same."""
    stem, _, leaf = rest.rpartition(".")
    return f"{table.get(stem, stem)}.{leaf}"


def _inverse(
    names: list[str], place: Callable[[str], str], forward: Callable[[Iterable[str]], dict[str, str]],
    known: Callable[[str], str] = str,
) -> dict[str, str]:  # fmt: skip
    """The names by `place`, each of which `forward` leads back; KeyError for one that it doesn't."""
    placed = {name: place(name) for name in names}
    back = forward(placed.values())
    wrong = next((name for name, ours in placed.items() if back[ours] != known(name)), None)
    if wrong is not None or len(set(placed.values())) != len(placed):
        raise KeyError(wrong or "two names have one place")
    return placed
