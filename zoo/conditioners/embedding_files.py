"""Textual inversion (Gal et al. 2022): files of learned token vectors, checked by their headers and read as bytes.

| layout | tensors | its token, where none is given |
|---|---|---|
| diffusers, `learned_embeds` | one under the token, (D,) or (n, D) | that name |
| AUTOMATIC1111, a pickle | `string_to_param` with one under `*` | its `name` |
| AUTOMATIC1111, safetensors | `emb_params` | the file's name |
| SDXL, two text encoders | `clip_l` and `clip_g` | the file's name |

Either container, safetensors or torch's. Nothing is unpickled: a header says where the numbers are. Imports no torch
until they are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from zoo.checkpoints.containers import read_header
from zoo.checkpoints.headers import Header, TensorEntry
from zoo.schema.errors import WeightsError
from zoo.schema.files import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

MOST_VECTORS = 75  # of a token: as many as a window of CLIP's has room for
LARGEST = 16 << 20  # bytes of a file
_BOTH = {"clip_l", "clip_g"}
_NAMELESS = ("emb_params", "string_to_param.*", *_BOTH)
_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_AGAIN = "give a file of textual inversion"


@dataclass(frozen=True)
class LearnedToken:
    """A file of one learned token: its vectors for each text encoder, by their width."""

    file: Path
    token: str
    sha256: str
    entries: Mapping[int, TensorEntry]  # width -> vectors (n, width), or (width,)
    count: int  # vectors, the same for each encoder

    def vectors(self, width: int) -> Tensor:
        """(n, width) float32; WeightsError for NaN, infinity, or a file that changed since its header was read."""
        import torch

        entry = self.entries[width]
        if sha256_of(self.file) != self.sha256:
            raise WeightsError(f"'{self.file}' changed while it was read; try again", code="weights-hash-wrong")
        with self.file.open("rb") as file:
            file.seek(entry.start)
            data = bytearray(file.read(entry.end - entry.start))
        made = torch.frombuffer(data, dtype=getattr(torch, _DTYPES[entry.dtype])).reshape(self.count, width).float()
        if not bool(made.isfinite().all()):
            raise WeightsError(
                f"the embedding '{self.file}' holds NaN or infinity; get it again, or leave it out",
                code="weights-not-finite",
            )
        return made


def read_embedding(file: str, token: str | None = None, sha256: str | None = None) -> LearnedToken:
    """What a file holds, by its header; `sha256` is the hash that it must have, if any.

    Raises WeightsError for a file that is missing, damaged, would run code, or is no textual inversion.
    """
    path = Path(file)
    if not path.is_file():
        raise WeightsError(
            f"the embedding '{file}' is missing; put it there, or give another path", code="weights-missing"
        )
    if path.stat().st_size > LARGEST:
        raise WeightsError(
            f"'{file}' has {path.stat().st_size} bytes, over the {LARGEST >> 20} MiB of learned tokens; {_AGAIN}",
            code="embedding-file-wrong",
        )
    header = read_header(path)
    named = _tensors(header)
    entries = {entry.shape[-1]: entry for entry in named.values()}
    counts = {1 if len(entry.shape) == 1 else entry.shape[0] for entry in named.values()}
    if len(counts) > 1 or not 1 <= max(counts) <= MOST_VECTORS or len(entries) < len(named):
        shapes = " and ".join(str(entry.shape) for entry in named.values())
        raise WeightsError(
            f"'{file}' holds vectors of shape {shapes}; a token has 1 to {MOST_VECTORS}, as many for each text encoder",
            code="embedding-file-wrong",
        )
    found = sha256_of(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(
            f"the embedding '{file}' is another one (SHA-256 {found[:12]}… where {sha256[:12]}… is meant); get the "
            "right one",
            code="weights-hash-wrong",
        )
    return LearnedToken(path, token or _token(header, next(iter(named))), found, entries, counts.pop())


def _tensors(header: Header) -> Mapping[str, TensorEntry]:
    """One matrix or vector of numbers, or SDXL's two."""
    tensors = header.tensors
    if len(tensors) != 1 and tensors.keys() != _BOTH:
        few = ", ".join(f"'{name[:40]}'" for name in list(tensors)[:3])
        raise WeightsError(
            f"'{header.path}' holds {len(tensors)} tensors ({few}), where a learned token is one, or clip_l and "
            f"clip_g; {_AGAIN}",
            code="embedding-file-wrong",
        )
    for name, entry in tensors.items():
        if entry.dtype not in _DTYPES or entry.stride is not None or len(entry.shape) not in (1, 2):
            raise WeightsError(
                f"'{header.path}' holds '{name[:40]}' of {entry.dtype} {entry.shape}, which is no vectors of a token; "
                f"{_AGAIN}",
                code="embedding-file-wrong",
            )
    return tensors


def _token(header: Header, name: str) -> str:
    """The token that a file names, or the file's own name."""
    said = header.values.get("name") if name == "string_to_param.*" else None if name in _NAMELESS else name
    return str(said).strip() if said and str(said).strip() else header.path.stem
