"""Make `zoo/families/key_lists.xz` from lists of published models' tensors.

    python -m benchmarks.key_lists ../shared/reference/manifests

Each `*.json.gz` there has lists by name, `{"keys": {tensor: shape}}`, counted on the original classes. Lists that
follow from others are added: diffusers' names of a U-Net in the original's, the original names of open_clip's text
towers in transformers', and U-Nets with more input channels. Image towers are counted here, on open_clip's class.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from open_clip.transformer import VisionTransformer

from zoo.families.diffusers.layout import open_clip_names, unet_names
from zoo.families.key_lists import FILE, KeyLists, Shapes, encode

# U-Nets of Stable Diffusion whose names in diffusers' layout aren't counted, and what theirs are called.
_DIFFUSERS = {
    "sd/v1-inpainting-unet": "sd15-inpainting/unet",
    "sd/v1-instruct-pix2pix-unet": "sd15-instruct-pix2pix/unet",
    "sd2_unet/v2-inpainting-inference": "sd2-inpainting/unet",
    "sd2_unet/v2-midas-inference": "sd2-depth/unet",
    "sd2_unet/v2-1-stable-unclip-h-inference": "sd21-unclip-h/unet",
    "sd2_unet/v2-1-stable-unclip-l-inference": "sd21-unclip-l/unet",
    "sdxl_unet/sd_xl_inpainting": "sdxl-inpainting/unet",
}
_PREFIX = "model.diffusion_model."  # of a single file's denoiser, which some lists have
# New list -> the one it is, with this many input channels.
_WIDENED = {
    "sd/v1-instruct-pix2pix-unet": ("ldm_unet/v1-inference", 8),
    "sdxl_unet/sd_xl_inpainting": ("sdxl_unet/sd_xl_base", 9),
}
# New list -> (the text tower in transformers' names, layers that the file has more than the class).
_TOWERS = {"openclip-h/text": ("openclip-h/text(23L)", 1), "openclip-bigG/text": ("openclip-bigG/text+proj", 0)}

_IMAGES: dict[str, dict[str, Any]] = {
    "openclip-h/vision": {"width": 1280, "layers": 32, "heads": 16, "output_dim": 1024},
    "openclip-l/vision": {"width": 1024, "layers": 24, "heads": 16, "output_dim": 768},
}


def read_manifests(folder: Path) -> dict[str, Shapes]:
    """Every list of a folder, by name."""
    found: dict[str, Shapes] = {}
    for path in sorted(folder.glob("*.json.gz")):
        for name, entry in json.loads(gzip.decompress(path.read_bytes())).items():
            found[name] = {t.removeprefix(_PREFIX): tuple(shape) for t, shape in entry["keys"].items()}
    return found


def derived(lists: dict[str, Shapes]) -> Iterator[tuple[str, Shapes]]:
    """Lists that follow from counted ones."""
    more: dict[str, Shapes] = {}
    for name, (base, channels) in _WIDENED.items():
        first = "input_blocks.0.0.weight"
        shape = lists[base][first]
        more[name] = {**lists[base], first: (shape[0], channels, *shape[2:])}
    for name, theirs in _DIFFUSERS.items():
        tensors = (lists | more)[name]
        names = unet_names(tensors)
        more[theirs] = {names[n]: shape for n, shape in tensors.items()}
    for name, (base, added) in _TOWERS.items():
        tower = {n.removeprefix("text_model."): s for n, s in lists[base].items()}
        layers = 1 + max(int(found[1]) for n in tower if (found := re.match(r"encoder\.layers\.(\d+)\.", n)))
        for extra in range(layers, layers + added):
            last = {n: s for n, s in tower.items() if n.startswith(f"encoder.layers.{layers - 1}.")}
            tower |= {n.replace(f".{layers - 1}.", f".{extra}.", 1): s for n, s in last.items()}
        more[name] = open_clip_shapes(tower)
    yield from more.items()
    for name, sizes in _IMAGES.items():
        with torch.device("meta"):
            tower = VisionTransformer(image_size=224, patch_size=14, mlp_ratio=4.0, **sizes)
        yield name, {n: tuple(tensor.shape) for n, tensor in tower.state_dict().items()}


def open_clip_shapes(tower: Shapes) -> dict[str, tuple[int, ...]]:
    """Shapes of a text tower in transformers' layout -> those of open_clip's, where q, k and v are one."""
    out: dict[str, tuple[int, ...]] = {}
    for name, ours in open_clip_names(tower).items():
        shape = tower[name]
        out[ours] = (out[ours][0] + shape[0], *shape[1:]) if ours in out else shape
    return out


def main(folder: str) -> None:
    """Write the file, read it back, and say what it holds."""
    lists = read_manifests(Path(folder))
    lists |= dict(derived(lists))
    data = encode(lists)
    read = KeyLists(data)
    wrong = [name for name, tensors in lists.items() if read[name] != dict(tensors)]
    if wrong:
        raise SystemExit(f"'{wrong[0]}' isn't read back as it was")
    FILE.write_bytes(data)
    print(f"{FILE.name}: {len(lists)} lists, {sum(map(len, lists.values()))} tensors, {len(data)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
