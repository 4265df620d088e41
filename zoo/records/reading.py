"""The record of how an image was made, read back from a PNG: untrusted data until it is checked.

`Generation.save` puts it into a text chunk `zoo`, as JSON (schema zoo.generation/1). Here a PNG is walked chunk by
chunk (W3C PNG, section 5), so that neither Pillow nor torch is needed and no pixel is decoded; size, checksum, depth
and form are checked before anything is built from them. A record names registry keys and weight cards only.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from zoo.schema import strict_json
from zoo.schema.errors import UsageError
from zoo.schema.files import read_plain

SCHEMA = "zoo.generation/1"
RECORD_KEY = "zoo"  # the PNG text chunk that holds the record
MAX_BYTES = 1 << 20  # of a record, unpacked
_MAX_CHUNKS = 20_000
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEYWORD = RECORD_KEY.encode() + b"\0"


def read_record(path: str | Path) -> dict[str, Any]:
    """The record inside a PNG that zoo wrote, or beside an .npy; UsageError where there is none, or a damaged one."""
    path = Path(path)
    if path.suffix.lower() == ".npy":
        if not path.with_suffix(".json").is_file():
            raise UsageError(
                f"the record of '{path}' should be beside it, in '{path.stem}.json'; bring both", code="record-missing"
            )
        return check_record(read_json(path.with_suffix(".json")), source=str(path.with_suffix(".json")))
    if not path.is_file():
        reason = "is not a regular file" if path.exists() else "does not exist"
        raise UsageError(f"the picture '{path}' {reason}; give a PNG that zoo wrote", code="file-missing")
    try:
        with path.open("rb") as file:
            text = _find(file, path)
    except OSError as error:
        raise UsageError(
            f"'{path}' can't be read ({error.strerror or error}); check its permissions", code="file-unreadable"
        ) from error
    if text is None:
        raise UsageError(
            f"'{path}' holds no record of zoo's: it isn't zoo's picture, or a program that saved it anew left it out",
            code="record-missing",
        )
    return parse_record(text, source=str(path))


def read_json(path: str | Path) -> dict[str, Any]:
    """The mapping in a JSON file, under the limits of a record."""
    path = Path(path)
    try:
        content = read_plain(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        error = error if isinstance(error, OSError) else OSError(str(error))
        raise UsageError(
            f"'{path}' can't be read ({error.strerror or error}); give a JSON file", code="file-unreadable"
        ) from error
    return _plain(content, str(path))


def parse_record(text: str | bytes, *, source: str) -> dict[str, Any]:
    """A record's JSON text as plain values of the schema this zoo knows; `source` is its name in errors."""
    return check_record(_plain(text, source), source=source)


def check_record(record: dict[str, Any], *, source: str) -> dict[str, Any]:
    """The record, if its schema is known and its parts have the form that zoo writes; UsageError if not."""
    found = record.get("schema")
    if found != SCHEMA:
        said = "says no schema" if found is None else f"has schema {str(found)[:60]!r}"
        raise UsageError(
            f"the record in '{source}' {said}, this zoo reads '{SCHEMA}'; use the zoo that drew it",
            code="schema-unknown",
        )
    for key, kind in _FORM.items():
        if key in record and not isinstance(record[key], kind):
            raise UsageError(
                f"the record in '{source}' is not one that zoo writes: '{key}' has another form", code="record-changed"
            )
    return record


def record_of(record: Mapping[str, Any], i: int) -> dict[str, Any]:
    """The record of one sample alone: its own settings (`run` of its entry) replace those that all share.

    Samples of a request may have steps, guidance, samplers and inputs of their own (zoo.pipeline.walk).
    """
    entries = record.get("images") or []
    entry = dict(entries[i]) if i < len(entries) else {}
    own = entry.pop("run", {})
    return {**record, **own, "images": [entry] if entries[i : i + 1] else []}


def check_whole(record: dict[str, Any], *, source: str) -> dict[str, Any]:
    """The record, if it holds all that a run needs; that of a pipeline assembled by hand has no config."""
    missing = next((key for key in ("config", "weights", "stages", "images") if not record.get(key)), None)
    if missing is not None:
        raise UsageError(
            f"the record in '{source}' says nothing of '{missing}': it is no whole one, or of a pipeline that was put "
            "together by hand; give a picture of a pipeline with a config",
            code="record-incomplete",
        )
    written = record["config"].get("stages")
    blocks = [*record["stages"], *record["images"], *(written if isinstance(written, list) and written else [None])]
    if not all(isinstance(block, dict) for block in blocks):
        raise UsageError(
            f"the record in '{source}' is not one that zoo writes: its stages or images have another form",
            code="record-changed",
        )
    return record


_FORM: dict[str, type | tuple[type, ...]] = {
    "config": dict, "weights": dict, "stages": list, "images": list, "asked": dict, "inputs": dict, "versions": dict,
    "device": str, "dtype": str, "noise": str, "seed": (int, type(None)), "config_sha256": str,
    "memory": dict, "parts": dict,
}  # fmt: skip


def _find(file: BinaryIO, path: Path) -> bytes | None:
    """The text of the first chunk with the record's keyword."""
    if file.read(len(_SIGNATURE)) != _SIGNATURE:
        raise UsageError(
            f"'{path}' is no PNG, and only those carry a record of zoo's; give the PNG that zoo wrote",
            code="record-missing",
        )
    for _ in range(_MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            raise UsageError(
                f"the picture '{path}' is cut off before its end; restore the whole file", code="image-truncated"
            )
        (length,), kind = struct.unpack(">I", head[:4]), head[4:]
        if kind == b"IEND":
            return None
        start = file.read(min(length, len(_KEYWORD))) if kind in (b"iTXt", b"tEXt", b"zTXt") else b""
        if start != _KEYWORD:
            file.seek(length + 4 - len(start), 1)
            continue
        if length > MAX_BYTES + 1024:
            raise UsageError(
                f"the record in '{path}' is larger than {MAX_BYTES} bytes, and zoo's are some kilobytes",
                code="record-too-large",
            )
        data, checksum = start + file.read(length - len(start)), file.read(4)
        if len(data) < length or len(checksum) < 4:
            raise UsageError(
                f"the picture '{path}' is cut off within its record; restore the whole file", code="image-truncated"
            )
        if struct.unpack(">I", checksum)[0] != zlib.crc32(data, zlib.crc32(kind)):
            raise UsageError(
                f"the record in '{path}' is damaged (its checksum is wrong); restore the file", code="record-damaged"
            )
        return _unpack(kind, data[len(_KEYWORD) :], path)
    raise UsageError(
        f"'{path}' has more than {_MAX_CHUNKS} chunks and no record among them; it isn't zoo's picture",
        code="record-missing",
    )


def _unpack(kind: bytes, rest: bytes, path: Path) -> bytes:
    """The text after the keyword: iTXt has a flag, a method, a language and a translated keyword before it."""
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        parts = rest[2:].split(b"\0", 2)
        rest = parts[2] if len(parts) == 3 else b""
    elif packed:
        rest = rest[1:]
    if not packed:
        return rest
    try:
        text = zlib.decompressobj().decompress(rest, MAX_BYTES + 1)
    except zlib.error as error:
        raise UsageError(
            f"the record in '{path}' is damaged (it can't be unpacked); restore the file", code="record-damaged"
        ) from error
    return text  # one byte over the limit is refused with the text


def _plain(text: str | bytes, source: str) -> dict[str, Any]:
    from zoo.schema.plain import to_plain

    if len(text) > MAX_BYTES:
        raise UsageError(
            f"the record in '{source}' is larger than {MAX_BYTES} bytes, and zoo's are some kilobytes",
            code="record-too-large",
        )
    try:
        value = strict_json.parse(text)
    except ValueError as error:  # numbers of thousands of digits too
        raise UsageError(
            f"the record in '{source}' is not JSON: {str(error)[:120]}; restore the file", code="record-damaged"
        ) from error
    if not isinstance(value, dict):
        raise UsageError(
            f"the record in '{source}' holds no mapping; it is not one that zoo writes", code="record-changed"
        )
    return to_plain(value, f"the record in '{source}'")
