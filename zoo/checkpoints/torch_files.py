"""What torch's own files hold (`.ckpt`, `.pt`, `.pth`, `.bin`), without torch and without unpickling.

Since 1.6 such a file is a zip: `NAME/data.pkl`, a pickle that names storages, and `NAME/data/KEY`, each storage's bytes
uncompressed. Before, it was five pickles and then the storages in a row. A tensor is a call of torch's rebuilding
function on a storage, and may share it with others.
"""

from __future__ import annotations

import math
import struct
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zoo.checkpoints.headers import BITS, HEADER_LIMIT, TENSOR_LIMIT, Header, TensorEntry
from zoo.checkpoints.pickles import Call, Name, Persistent, Pickle, PickleError, read_pickle
from zoo.schema.errors import WeightsError
from zoo.schema.files import read_plain

_MEMBERS = 20_000  # of a zip; a storage is one
_DEPTH = 6  # of dictionaries between the file's and a tensor
_STORAGES = {
    "FloatStorage": "F32", "DoubleStorage": "F64", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8", "ByteStorage": "U8",
    "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128",
}  # fmt: skip
# torch.uint16 and the like, as an argument of `_rebuild_tensor_v3`, whose storages are untyped bytes.
_DTYPES = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32",
    "int16": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64", "bool": "BOOL",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "complex64": "C64",
}  # fmt: skip
# What may be called: it builds plain data. Everything else refuses the file, as unpickling would run it.
_TENSOR_CALLS = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v3")
_PARAMETER_CALLS = ("torch._utils._rebuild_parameter", "torch._utils._rebuild_parameter_with_state")
HARMLESS = {
    *_TENSOR_CALLS, *_PARAMETER_CALLS, "collections.OrderedDict", "collections.defaultdict", "torch.Size",
    "torch.device", "argparse.Namespace", "numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar",
    "numpy.dtype", "_codecs.encode", "pathlib.PosixPath", "builtins.set", "__builtin__.set",
}  # fmt: skip
# Of a file that is several dictionaries of tensors: which is the model, best first.
_MODELS = ("state_dict", "ema", "state_dict_ema", "model_ema1", "model_ema", "params_ema", "model", "net", "module")
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def read_torch(path: Path) -> Header:
    """The header of a torch file; WeightsError naming it and the reason where it is none, damaged or would run code."""
    try:
        if read_plain(path, 4)[:2] == b"PK":
            pickle, places = _read_zip(path)
            container = "torch zip (pickle)"
        else:
            pickle, places = _read_legacy(path)
            container = "torch file of before 1.6 (pickle)"
    # What zipfile raises for a damaged directory or member, besides its own error.
    except (zipfile.BadZipFile, EOFError, RuntimeError, ValueError, struct.error, zlib.error, OverflowError) as error:
        raise WeightsError(
            f"the weight file '{path}' is damaged, or no file of torch's: {error}; get it from its publisher again",
            code="weights-unreadable",
        ) from error
    run = [name for name in pickle.calls if name not in HARMLESS]
    if run:
        raise WeightsError(
            f"'{path}' would run '{run[0]}'{f' and {len(run) - 1} more' if run[1:] else ''} when it is unpickled; "
            "nothing was executed: get the model as safetensors, or from a publisher you trust",
            code="pickle-refused",
        )
    return _header(path, container, pickle, places)


def check_torch(path: Path) -> None:
    """WeightsError for a file that torch would unfold into more than it holds; torch itself refuses what would run."""
    try:
        read_torch(path)
    except WeightsError as error:
        if error.code != "pickle-refused":
            raise


# -- the containers


def _read_zip(path: Path) -> tuple[Pickle, Mapping[str, tuple[int, int]]]:
    """The pickle of a zip, and where each storage's bytes are."""
    _refuse_large_directory(path)
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        found = [m for m in members if m.filename.count("/") <= 1 and m.filename.endswith("data.pkl")]
        if len(found) != 1:
            kind = "a TorchScript program" if any(m.filename.endswith("constants.pkl") for m in members) else "a zip"
            raise PickleError(f"it is {kind} without one data.pkl")
        if any(m.filename.endswith("/constants.pkl") for m in members):
            raise PickleError("it is a TorchScript program (torch.jit.save), which is code, not weights")
        if found[0].file_size > HEADER_LIMIT:
            raise PickleError(f"its data.pkl has {found[0].file_size} bytes, over the limit of {HEADER_LIMIT}")
        pickle = read_pickle(archive.read(found[0]))  # a checksum is in the zip
        root = found[0].filename.removesuffix("data.pkl") + "data/"
        places = {}
        with path.open("rb") as file:
            for member in members:
                if member.filename.startswith(root):
                    if member.compress_type != zipfile.ZIP_STORED:
                        raise PickleError(f"its storage '{member.filename[:80]}' is compressed, which torch never does")
                    # The name's and the extra field's lengths stand in the member's own header as well, and may differ.
                    file.seek(member.header_offset + 26)
                    lengths = file.read(4)
                    start = (
                        member.header_offset + 30 + sum(int.from_bytes(lengths[i : i + 2], "little") for i in (0, 2))
                    )
                    places[member.filename.removeprefix(root)] = (start, start + member.file_size)
    size = path.stat().st_size
    if any(end > size for _, end in places.values()):
        raise PickleError("a storage ends behind the file's end")
    return pickle, places


def _refuse_large_directory(path: Path) -> None:
    """PickleError where the zip's end is missing, or lists more members than are worth reading."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 65_557))
        tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0:
        raise PickleError(f"it is cut off: a zip's end is missing after {size} bytes")
    members = int.from_bytes(tail[at + 10 : at + 12], "little")
    length = int.from_bytes(tail[at + 12 : at + 16], "little")
    wide = tail.rfind(b"PK\x06\x06")
    if wide >= 0:
        members = int.from_bytes(tail[wide + 32 : wide + 40], "little")
        length = int.from_bytes(tail[wide + 40 : wide + 48], "little")
    if members > _MEMBERS or length > 256 * _MEMBERS:
        raise PickleError(f"it lists {members} files in {length} bytes, over the limit of {_MEMBERS}")


def _read_legacy(path: Path) -> tuple[Pickle, Mapping[str, tuple[int, int]]]:
    """Pickles in a row (a magic number, a version, the system, the value, storages' keys), then the storages."""
    data = read_plain(path, HEADER_LIMIT)
    first = read_pickle(data)
    if first.value != _LEGACY_MAGIC:
        # Any other pickle: what it would call is what there is to say of it.
        named = [n for n in (*first.calls, *first.names) if n not in HARMLESS]
        if named and first.calls:
            return first, {}
        raise PickleError("it is a pickle, and none that torch.save wrote")
    version = read_pickle(data, first.end)
    system = read_pickle(data, version.end)
    value = read_pickle(data, system.end)
    keys = read_pickle(data, value.end)
    value.calls += [*version.calls, *system.calls, *keys.calls]
    if not isinstance(keys.value, list):
        raise PickleError("its list of storages is none")
    sizes = {s[2]: s for s in map(_storage, _persistent(value.value)) if s is not None}
    places, at = {}, keys.end
    for key in keys.value:
        dtype, numbers, _ = sizes.get(str(key), (None, 0, ""))
        if dtype is None:  # a storage of something that holds no tensor by name: nothing after it can be placed
            break
        places[str(key)] = (at + 8, at + 8 + numbers * BITS[dtype] // 8)
        at = places[str(key)][1]
    if at > path.stat().st_size:
        raise PickleError(f"it is cut off: {path.stat().st_size} bytes where its storages end at {at}")
    return value, places


# -- the values


def _header(path: Path, container: str, pickle: Pickle, places: Mapping[str, tuple[int, int]]) -> Header:
    groups: dict[str, dict[str, TensorEntry]] = {}
    values: dict[str, int | float | str] = {}
    for group, name, value in _leaves(pickle.value):
        found = _tensor(value, path, places)
        if found is not None:
            groups.setdefault(group, {})[name] = found
        elif isinstance(value, (int, float, str)) and len(values) < 50 and not group:
            values[name] = value if not isinstance(value, str) else value[:200]
        if sum(map(len, groups.values())) > TENSOR_LIMIT:
            raise WeightsError(
                f"the weight file '{path}' lists more than the {TENSOR_LIMIT} tensors that are read",
                code="weights-header-damaged",
            )
    if not groups:
        raise WeightsError(
            f"'{path}' is a pickle that holds no tensors by name; give a checkpoint", code="weights-no-state-dict"
        )
    model = next((name for name in _MODELS if name in groups), "" if "" in groups else None)
    if model is None:  # an IP-Adapter's `image_proj` and `ip_adapter`, an embedding's `string_to_param`
        tensors = {f"{group}.{name}": t for group, found in groups.items() for name, t in found.items()}
        notes = []
    else:
        tensors = groups[model]
        notes = [f"the tensors under '{model}' are read"] if model else []
        notes += [f"'{g}' holds {len(more)} more tensors, not read" for g, more in groups.items() if g != model]
    other = [n for n in pickle.names if not n.startswith("torch.") and n not in HARMLESS]
    if other:
        notes.append(f"its pickle names {', '.join(other[:3])}, which nothing here runs")
    return Header(path, container, tensors, {}, tuple(notes), values)


def _leaves(root: Any) -> Iterator[tuple[str, str, Any]]:
    """(top-level group, name within it, value) of nested mappings; a mapping of tensors at the top is the group ''."""
    waiting: list[tuple[str, str, Any, int]] = [("", "", root, 0)]
    seen: set[int] = set()
    while waiting:
        group, name, value, depth = waiting.pop()
        inner = _mapping(value)
        if inner is None:
            yield group, name, value
            continue
        if id(value) in seen or depth > _DEPTH:  # one mapping in many places would be written out as often
            continue
        seen.add(id(value))
        for key, item in reversed(inner):
            if not isinstance(key, (str, int)):
                continue
            if depth == 0 and _mapping(item) is not None:
                waiting.append((str(key), "", item, 1))
            else:
                waiting.append((group, f"{name}.{key}" if name else str(key), item, depth + 1))


def _mapping(value: Any) -> list[tuple[Any, Any]] | None:
    """The items of a dictionary, an OrderedDict, a list of tensors, or a module's parameters."""
    if isinstance(value, Call):
        if str(value.what) not in ("collections.OrderedDict", "collections.defaultdict"):
            return None
        return [(value.items[i], value.items[i + 1]) for i in range(0, len(value.items) - 1, 2)]
    if isinstance(value, (list, tuple)) and any(isinstance(v, Call) for v in value):
        return list(enumerate(value))
    return list(value.items()) if isinstance(value, dict) else None


def _tensor(value: Any, path: Path, places: Mapping[str, tuple[int, int]]) -> TensorEntry | None:
    """The tensor that a call would rebuild; None for anything else. WeightsError where its storage can't hold it."""
    if isinstance(value, Call) and str(value.what) in _PARAMETER_CALLS and isinstance(value.arguments, tuple):
        value = value.arguments[0] if value.arguments else None
    if not isinstance(value, Call) or str(value.what) not in _TENSOR_CALLS or not isinstance(value.arguments, tuple):
        return None
    arguments: list[Any] = [*value.arguments, None, None, None, None]
    storage, offset, shape, stride = (_storage(arguments[0]), *arguments[1:4])
    if not isinstance(shape, tuple) or not isinstance(stride, tuple):
        shape, stride, offset = (), (), -1  # a damaged one, which the next lines refuse
    numbers = [offset, *shape, *stride]
    if storage is None or len(shape) != len(stride) or not all(type(n) is int and 0 <= n < 2**60 for n in numbers):
        raise WeightsError(
            f"the weight file '{path}' is damaged: a tensor in its pickle has no storage or shape",
            code="weights-truncated",
        )
    dtype, count, key = storage
    if dtype == "bytes":
        named = arguments[6] if len(value.arguments) > 6 else None
        dtype = _DTYPES.get(named.name, "U8") if isinstance(named, Name) else "U8"
        count = count * 8 // BITS[dtype]
    last = offset + sum((n - 1) * s for n, s in zip(shape, stride, strict=True)) if math.prod(shape) else offset - 1
    width = BITS[dtype] // 8
    start, end = places.get(key, (0, count * width))
    if last >= count or end - start < count * width:
        raise WeightsError(
            f"the weight file '{path}' is damaged: its storage '{key[:40]}' has {end - start} bytes, too few "
            f"for a tensor of shape {tuple(shape)}; get it again",
            code="weights-truncated",
        )
    dense, expected = 1, []
    for n in reversed(shape):
        expected.insert(0, dense)
        dense *= n
    flat = all(n == 1 or s == e for n, s, e in zip(shape, stride, expected, strict=True))
    begin = start + offset * width
    return TensorEntry(dtype, shape, path, begin, begin + math.prod(shape) * width, None if flat else stride)


def _storage(value: Any) -> tuple[str, int, str] | None:
    """(dtype, numbers, key) of `('storage', Name, key, location, numbers[, view])`."""
    pid = value.pid if isinstance(value, Persistent) else None
    if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], Name):
        return None
    if not isinstance(pid[4], int) or not 0 <= pid[4] < 2**60:
        return None
    dtype = _STORAGES.get(pid[1].name) or ("bytes" if pid[1].name == "UntypedStorage" else None)
    return (dtype, pid[4], str(pid[2])) if dtype else None


def _persistent(root: Any) -> Iterator[Any]:
    """Every persistent id under a value."""
    waiting, seen = [root], set()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, Persistent):
            yield value
        elif isinstance(value, Call):
            waiting += [value.arguments, value.items, value.state]
        elif isinstance(value, (list, tuple)):
            waiting += value
        elif isinstance(value, dict):
            waiting += value.values()
