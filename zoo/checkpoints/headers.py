"""What a weight file says it holds: tensors' names, dtypes, shapes and places, read from its header alone.

Nothing here trusts the file, imports torch or reads a tensor's numbers. A safetensors header is read entry by entry
against its grammar, so a header that is no list of tensors (long, nested, with a name twice) costs no more than its
bytes. What a header can't show is damage to the numbers behind it: that takes the file's hash.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from zoo.schema.errors import WeightsError
from zoo.schema.files import read_plain

HEADER_LIMIT = 8 * 2**20  # bytes of a header, or of a pickle's instructions
TENSOR_LIMIT = 65_536
_ENTRY_LIMIT = 1024  # characters of what a header says of one tensor
_AXES = 16
_SIZE_LIMIT = 2**60  # numbers in a tensor: beyond any file

# dtype -> bits of one number; safetensors' names, which the other containers' are translated to.
BITS = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U64": 64,
    "U32": 32, "U16": 16, "U8": 8, "BOOL": 8, "C64": 64, "C128": 128,
}  # fmt: skip
_PLAIN = re.compile(
    rb'\{"dtype":"([A-Z0-9_]{2,12})","shape":\[((?:\d{1,18}(?:,\d{1,18}){0,15})?)\],"data_offsets":\[(\d{1,18}),(\d{1,18})\]\}'
)
_STRING = rb'"(?:[^"\\\x00-\x1f]|\\.)*+"'
_KEY = re.compile(rb"[ \t\r\n]*(" + _STRING + rb")[ \t\r\n]*:[ \t\r\n]*")
_VALUE = re.compile(_STRING)
_NEXT = re.compile(rb"[ \t\r\n]*([,}])")


class TensorEntry(NamedTuple):
    """One tensor: its bytes from the file's beginning, and its stride in numbers where it isn't contiguous."""

    dtype: str
    shape: tuple[int, ...]
    file: Path
    start: int
    end: int
    stride: tuple[int, ...] | None = None

    @property
    def numbers(self) -> int:
        """How many numbers it has."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Header:
    """What a file, or several that are one model, holds.

    `notes` are sentences on what was left out: other copies of the tensors, an optimizer, names in a pickle.
    """

    path: Path
    container: str
    tensors: Mapping[str, TensorEntry]
    metadata: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    values: Mapping[str, int | float | str] = field(default_factory=dict)  # plain values beside the tensors

    @property
    def parameters(self) -> int:
        """How many numbers all tensors have."""
        return sum(t.numbers for t in self.tensors.values())


def read_safetensors(path: Path) -> Header:
    """The header of a safetensors file; WeightsError for another or a damaged one."""
    size = path.stat().st_size
    data = read_plain(path, 9)[:9]
    length = int.from_bytes(data[:8], "little")
    if size < 8 or data[8:] not in (b"{", b""):
        kind = "empty" if not size else "no safetensors file and none of torch's, by its first bytes"
        raise WeightsError(
            f"'{path}' is {kind}; give the weight file, or get it from its publisher again",
            code="weights-format-unread",
        )
    if length > HEADER_LIMIT:
        raise _damaged(path, f"its header says it is {length} bytes long, over the limit of {HEADER_LIMIT}")
    if length > size - 8:
        raise _damaged(path, f"it ends within its header, after {size} of {8 + length} bytes")
    # Bytes, not a text, which takes four times as much where one letter of it is wide.
    text = read_plain(path, 7 + length)[8:]
    tensors, metadata = _parse(text, path, 8 + length)
    end = 8 + length
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].end)):
        if tensor.start != end:
            raise _damaged(path, f"'{_short(name)}' begins at byte {tensor.start}, the one before it ends at {end}")
        end = tensor.end
    if end != size:
        how = "is cut off" if end > size else "is longer than its header says"
        raise _damaged(path, f"it {how}: {size} bytes where its tensors end at {end}")
    return Header(path, "safetensors", tensors, metadata)


def _parse(text: bytes, path: Path, base: int) -> tuple[dict[str, TensorEntry], dict[str, str]]:
    """Tensors and metadata of a header, by its grammar: one object of flat objects."""
    tensors: dict[str, TensorEntry] = {}
    metadata: dict[str, str] | None = None
    place, more = 1, not re.match(rb"\{[ \t\r\n]*\}[ \t\r\n]*$", text)
    while more:
        found = _KEY.match(text, place)
        if found is None:
            raise _damaged(path, f"its header has no tensor's name at character {place}")
        name, place = _string(found[1], path), found.end()
        if name == "__metadata__":
            if metadata is not None:
                raise _damaged(path, "its header says '__metadata__' twice")
            metadata, place = _metadata(text, place, path)
        else:
            if name in tensors:
                raise _damaged(path, f"its header lists the tensor '{_short(name)}' twice")
            if len(tensors) == TENSOR_LIMIT:
                raise _damaged(path, f"its header lists more than the {TENSOR_LIMIT} tensors that are read")
            end = text.find(b"}", place, place + _ENTRY_LIMIT) + 1
            tensors[name] = _tensor(text[place:end], name, path, base)
            place = end
        following = _NEXT.match(text, place)
        if following is None:
            raise _damaged(path, f"its header is no list of tensors after '{_short(name)}'")
        place, more = following.end(), following[1] == b","
        if not more and text[place:].strip(b" \t\r\n\0"):
            raise _damaged(path, "its header goes on after its end")
    return tensors, metadata or {}


def _tensor(entry: bytes, name: str, path: Path, base: int) -> TensorEntry:
    """`{"dtype": "F16", "shape": [1], "data_offsets": [0, 2]}`; `base` is where the numbers begin."""
    if plain := _PLAIN.fullmatch(entry):  # as every writer writes it; the rest is for other spacing and order
        sizes = plain[2].split(b",") if plain[2] else []
        return _checked(plain[1].decode(), tuple(map(int, sizes)), int(plain[3]), int(plain[4]), name, path, base)
    try:
        # Flat: one brace, and no string inside but dtype's, so what is parsed has no depth.
        flat = entry.count(b"{") == 1 and entry.count(b"[") < 4
        said: list[tuple[str, Any]] = json.loads(entry, object_pairs_hook=list) if flat else []
        about = dict(said)
        dtype, shape, (start, end) = about["dtype"], tuple(about["shape"]), about["data_offsets"]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path, f"its header doesn't say what '{_short(name)}' is") from error
    whole = [*shape, start, end]
    if len(about) != 3 or len(said) != 3 or not all(type(n) is int and 0 <= n < _SIZE_LIMIT for n in whole):
        raise _damaged(path, f"its header doesn't say what '{_short(name)}' is")
    return _checked(dtype, shape, start, end, name, path, base)


def _checked(
    dtype: object, shape: tuple[int, ...], start: int, end: int, name: str, path: Path, base: int
) -> TensorEntry:  # fmt: skip
    """WeightsError unless its bytes are as many as its dtype and shape need."""
    if not isinstance(dtype, str) or dtype not in BITS:
        raise _damaged(path, f"'{_short(name)}' is of the dtype {str(dtype)[:20]!r}, which safetensors doesn't have")
    numbers = math.prod(shape)
    if len(shape) > _AXES or numbers > _SIZE_LIMIT:
        raise _damaged(path, f"'{_short(name)}' has the shape of no tensor")
    if (end - start) * 8 != numbers * BITS[dtype]:
        raise _damaged(path, f"'{_short(name)}' has {end - start} bytes where {numbers} numbers of {dtype} are meant")
    return TensorEntry(dtype, shape, path, base + start, base + end)


def _metadata(text: bytes, place: int, path: Path) -> tuple[dict[str, str], int]:
    """An object of strings, and where it ends."""
    found: dict[str, str] = {}
    if text[place : place + 1] != b"{":
        raise _damaged(path, "its metadata is no object of strings")
    empty = re.compile(rb"[ \t\r\n]*\}").match(text, place + 1)
    if empty:
        return found, empty.end()
    place, more = place + 1, True
    while more:
        key = _KEY.match(text, place)
        value = _VALUE.match(text, key.end()) if key else None
        following = _NEXT.match(text, value.end()) if value else None
        if key is None or value is None or following is None:
            raise _damaged(path, "its metadata is no object of strings")
        name = _string(key[1], path)
        if name in found:
            raise _damaged(path, f"its metadata says '{_short(name)}' twice")
        if len(found) == TENSOR_LIMIT:
            raise _damaged(path, "its metadata has too many entries")
        found[name] = _string(value[0], path)
        place, more = following.end(), following[1] == b","
    return found, place


def _string(quoted: bytes, path: Path) -> str:
    try:
        return json.loads(quoted) if b"\\" in quoted else quoted[1:-1].decode("utf-8")
    except UnicodeDecodeError as error:
        raise _damaged(path, "its header is no UTF-8 text") from error
    except ValueError as error:
        raise _damaged(path, f"its header has a text that isn't JSON: {quoted[:60]!r}") from error


def merged(path: Path, headers: Iterable[Header]) -> Header:
    """Several files that are one model; WeightsError where two hold a tensor of one name."""
    tensors: dict[str, TensorEntry] = {}
    metadata: dict[str, str] = {}
    notes: list[str] = []
    containers = []
    for header in headers:
        both = next((name for name in header.tensors if name in tensors), None)
        if both is not None:
            raise WeightsError(
                f"'{header.path}' and '{tensors[both].file}' both hold the tensor '{_short(both)}'; "
                "they are not the shards of one model: get them again",
                code="index-unfit",
            )
        tensors |= header.tensors
        metadata |= header.metadata
        notes += header.notes
        containers.append(header.container)
    return Header(path, f"{containers[0]}, {len(containers)} shards", tensors, metadata, tuple(dict.fromkeys(notes)))


def _damaged(path: Path, reason: str) -> WeightsError:
    return WeightsError(
        f"the weight file '{path}' is damaged, or no weight file: {reason}; get it again", code="weights-header-damaged"
    )


def _short(name: str) -> str:
    return name if len(name) <= 80 else f"{name[:77]}..."
