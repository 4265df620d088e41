"""safetensors files made of other files' bytes: tensors are renamed, cut, joined or turned, never computed.

Numbers are copied as they lie in their files, a piece at a time, so a file of any size takes little memory and every
bit stays. Shards and their index are as diffusers and transformers write them.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from zoo.checkpoints.headers import BITS, TensorEntry
from zoo.schema.errors import WeightsError
from zoo.schema.files import atomic, write_text

_PIECE = 16 * 2**20


@dataclass(frozen=True)
class Copied:
    """A tensor to write: the bytes of `sources` one after another; `transposed` turns a single matrix."""

    dtype: str
    shape: tuple[int, ...]
    sources: tuple[TensorEntry, ...]
    transposed: bool = False

    @property
    def bytes(self) -> int:
        """How many it takes."""
        return sum(s.end - s.start for s in self.sources)


def whole(entry: TensorEntry, shape: tuple[int, ...] | None = None) -> Copied:
    """A tensor as it is, in another shape of as many numbers if one is given."""
    return Copied(entry.dtype, entry.shape if shape is None else shape, (entry,))


def turned(entry: TensorEntry) -> Copied:
    """A matrix with rows and columns exchanged."""
    return Copied(entry.dtype, entry.shape[::-1], (entry,), transposed=True)


def third(entry: TensorEntry, part: int) -> Copied:
    """One of three equal parts of the rows."""
    length = (entry.end - entry.start) // 3
    start = entry.start + part * length
    piece = entry._replace(shape=(entry.shape[0] // 3, *entry.shape[1:]), start=start, end=start + length)
    return whole(piece)


def joined(entries: Sequence[TensorEntry]) -> Copied:
    """Several tensors of one dtype, row after row."""
    if len({(e.dtype, e.shape[1:]) for e in entries}) != 1:
        raise WeightsError(
            "tensors that are one in the other layout differ in dtype or width; get the model again",
            code="tensors-unfit",
        )
    return Copied(entries[0].dtype, (sum(e.shape[0] for e in entries), *entries[0].shape[1:]), tuple(entries))


def write_safetensors(path: Path, tensors: Mapping[str, Copied], metadata: Mapping[str, str]) -> None:
    """One file, whole or not at all."""
    # Wide numbers first, so that each begins at a multiple of its width, as safetensors orders them.
    order = sorted(tensors, key=lambda name: (-BITS[tensors[name].dtype], name))
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name in order:
        start, end = end, end + tensors[name].bytes
        header[name] = {"dtype": tensors[name].dtype, "shape": list(tensors[name].shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    files: dict[Path, BinaryIO] = {}
    try:
        with atomic(path) as out:
            out.write(struct.pack("<Q", len(text)) + text)
            for name in order:
                for source in tensors[name].sources:
                    if source.file not in files:
                        files[source.file] = source.file.open("rb")
                    _copy(files[source.file], out, source, tensors[name].transposed)
    finally:
        for file in files.values():
            file.close()


def write_sharded(
    folder: Path, stem: str, tensors: Mapping[str, Copied], metadata: Mapping[str, str], *, limit: int
) -> list[Path]:
    """One file `stem.safetensors`, or shards of at most `limit` bytes (a larger tensor alone) and their index."""
    shards: list[dict[str, Copied]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.bytes > limit:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.bytes
    if len(shards) == 1:
        write_safetensors(folder / f"{stem}.safetensors", shards[0], metadata)
        return [folder / f"{stem}.safetensors"]
    names = [f"{stem}-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    for name, shard in zip(names, shards, strict=True):
        write_safetensors(folder / name, shard, metadata)
    index = {
        "metadata": {"total_size": sum(t.bytes for t in tensors.values())},
        "weight_map": {tensor: name for name, shard in zip(names, shards, strict=True) for tensor in shard},
    }
    path = folder / f"{stem}.safetensors.index.json"
    write_text(path, json.dumps(index, indent=2, sort_keys=True) + "\n")
    return [*(folder / name for name in names), path]


def _copy(file: BinaryIO, out: BinaryIO, source: TensorEntry, transposed: bool) -> None:
    if source.stride is not None:
        raise WeightsError(
            f"'{source.file}' holds a tensor that isn't contiguous, whose bytes can't be copied in order; save it "
            "again as safetensors",
            code="weights-unreadable",
        )
    file.seek(source.start)
    left = source.end - source.start
    if transposed:
        import numpy as np

        width = BITS[source.dtype] // 8
        matrix = np.frombuffer(_exactly(file, left), dtype=f"V{width}").reshape(source.shape)
        out.write(np.ascontiguousarray(matrix.T).tobytes())
        return
    while left:
        piece = _exactly(file, min(left, _PIECE))
        out.write(piece)
        left -= len(piece)


def _exactly(file: BinaryIO, count: int) -> bytes:
    data = file.read(count)
    if len(data) != count:
        raise WeightsError(f"'{file.name}' became shorter while it was read; try again", code="weights-truncated")
    return data
