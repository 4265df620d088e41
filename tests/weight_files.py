"""Weight files of any size for tests of their headers: numbers are a hole in the file, names and shapes are given."""

from __future__ import annotations

import gzip
import json
import math
import struct
from collections.abc import Mapping
from pathlib import Path

MANIFESTS = Path(__file__).parent / "golden" / "manifests"
WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "U8": 1}


def manifest(name: str, key: str) -> dict[str, tuple[int, ...]]:
    """A list of tests/golden/manifests: name -> shape."""
    found = json.loads(gzip.decompress((MANIFESTS / f"{name}.json.gz").read_bytes()))[key]
    return {n: tuple(s) for n, s in found.get("keys", found).items()}


def sparse(path: Path, shapes: Mapping[str, tuple[int, ...]], *, dtype: str = "F16",
           metadata: Mapping[str, str] | None = None) -> Path:  # fmt: skip
    """A safetensors file with these tensors, which takes no room on the disk."""
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, shape in shapes.items():
        start, end = end, end + math.prod(shape) * WIDTHS[dtype]
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    return raw(path, json.dumps(header).encode(), end)


def raw(path: Path, header: bytes, numbers: int = 0) -> Path:
    """A file with this header, and so many bytes after it."""
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + numbers)
    return path


def under(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """The same under a prefix."""
    return {prefix + name: shape for name, shape in shapes.items()}


def stable_diffusion_1(*, channels: int = 4) -> dict[str, tuple[int, ...]]:
    """A whole checkpoint of Stable Diffusion 1 in the original layout."""
    unet = manifest("ldm_unet", "ldm_unet/v1-inference")
    unet["input_blocks.0.0.weight"] = (320, channels, 3, 3)
    text = manifest("stable_diffusion", "transformers/clip-text")
    return {
        **under("model.diffusion_model.", unet),
        **under("first_stage_model.", manifest("autoencoder_kl", "original/kl-f8")),
        **under("cond_stage_model.transformer.text_model.", text),
    }
