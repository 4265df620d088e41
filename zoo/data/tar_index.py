"""Where the files of a tar archive lie, read from its headers alone (POSIX.1-1988 ustar, pax, GNU long names).

Members are found once and read by offset ever after, so a shard can be visited in any order. Only plain files count;
links, devices and names that leave the archive are refused, and every size is held against the file before it is used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from zoo.schema.errors import UsageError

BLOCK = 512
LARGEST_EXTENSION = 2**20  # bytes of a pax header or a long name
LARGEST_INDEX = 20_000_000  # members of one archive
_REFUSED = {b"1": "a link", b"2": "a link", b"3": "a device", b"4": "a device", b"6": "a pipe"}
_GZIP, _ZSTD, _XZ = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ"


class Member(NamedTuple):
    """A plain file in an archive: its name, and where its bytes are."""

    name: str
    offset: int
    size: int


def index(path: Path) -> tuple[list[Member], str]:
    """The plain files of a tar in their order, and a hash of all headers; UsageError naming what is wrong."""
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            return list(_members(file, path, digest)), digest.hexdigest()
    except OSError as error:
        raise UsageError(
            f"the shard '{path}' can't be read: {error.strerror or error}", code="shard-unreadable"
        ) from error


def read(path: Path, member: Member) -> bytes:
    """A member's bytes."""
    try:
        with path.open("rb") as file:
            file.seek(member.offset)
            data = file.read(member.size)
    except OSError as error:
        raise UsageError(
            f"the shard '{path}' can't be read: {error.strerror or error}", code="shard-unreadable"
        ) from error
    if len(data) != member.size:
        raise UsageError(
            f"the shard '{path}' changed while it was in use: '{member.name}' is cut off", code="shard-truncated"
        )
    return data


def _members(file: BinaryIO, path: Path, digest: hashlib._Hash) -> Iterator[Member]:
    end = file.seek(0, 2)
    at, count = 0, 0
    name: str | None = None  # of the next member, from an extension
    size: int | None = None
    while True:
        file.seek(at)
        header = file.read(BLOCK)
        if len(header) < BLOCK:
            raise UsageError(
                f"the shard '{path}' is cut off{_compressed(header) if at == 0 else ''}; get it again",
                code="shard-truncated",
            )
        if header == bytes(BLOCK):
            return
        if _checksum(header) != _number(header[148:156], path):
            raise UsageError(
                f"'{path}' is not a tar file, or damaged at byte {at}{_compressed(header)}", code="shard-damaged"
            )
        digest.update(header)
        kind = header[156:157]
        length = _number(header[124:136], path)
        if kind not in (b"x", b"g", b"L", b"K"):
            length = length if size is None else size
        begin, at = at + BLOCK, at + BLOCK + -(-length // BLOCK) * BLOCK
        if begin + length > end:
            raise UsageError(
                f"the shard '{path}' is cut off: a member reaches beyond its end; get it again", code="shard-truncated"
            )
        if kind in (b"x", b"g", b"L", b"K"):
            if length > LARGEST_EXTENSION:
                raise UsageError(
                    f"the shard '{path}' has a header of {length} bytes; at most {LARGEST_EXTENSION} are read",
                    code="shard-too-large",
                )
            said = file.read(length)
            digest.update(said)
            if kind == b"L":
                name = _text(said.rstrip(b"\0"))
            elif kind == b"x":
                fields = _pax(said, path)
                name = fields.get("path", name)
                if "size" in fields:
                    size = _decimal(fields["size"], path)
            continue
        if name is None:
            prefix = header[345:500] if header[257:262] == b"ustar" and header[262:263] == b"\0" else b""
            name = "/".join(_text(part.partition(b"\0")[0]) for part in (prefix, header[:100]) if part.strip(b"\0"))
        if kind in _REFUSED:
            raise UsageError(
                f"'{name}' in the shard '{path}' is {_REFUSED[kind]}; shards hold plain files only",
                code="shard-member-unread",
            )
        _check_name(name, path)
        count += 1
        if count > LARGEST_INDEX:
            raise UsageError(f"the shard '{path}' has over {LARGEST_INDEX} members; split it", code="shard-too-large")
        if kind in (b"0", b"\0", b"7") and not name.endswith("/"):
            yield Member(name, begin, length)
        elif kind not in (b"5", b"0", b"\0", b"7"):
            raise UsageError(
                f"'{name}' in the shard '{path}' is of the unknown type {kind!r}; shards hold plain files only",
                code="shard-member-unread",
            )
        name = size = None


def _check_name(name: str, path: Path) -> None:
    inside = PurePosixPath(name)
    if inside.is_absolute() or ".." in inside.parts or "\0" in name or "\\" in name or not name:
        raise UsageError(
            f"the shard '{path}' names the file '{name}', which leaves its folder; make the shard anew",
            code="file-outside-folder",
        )


def _checksum(header: bytes) -> int:
    return sum(header[:148]) + 8 * ord(" ") + sum(header[156:])


def _number(field: bytes, path: Path) -> int:
    """Octal text, or GNU's base 256 where the first bit is set."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    text = field.partition(b"\0")[0].strip()
    if not all(c in b"01234567" for c in text):
        raise UsageError(
            f"'{path}' is not a tar file, or damaged: a header holds the number {field!r}", code="shard-damaged"
        )
    return int(text or b"0", 8)


def _decimal(text: str, path: Path) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise UsageError(f"the shard '{path}' states the size {text[:20]!r}; make the shard anew", code="shard-damaged")
    return int(text)


def _pax(data: bytes, path: Path) -> dict[str, str]:
    """Records of the form `LENGTH KEY=VALUE\\n`, LENGTH counting all of it."""
    fields: dict[str, str] = {}
    at = 0
    while at < len(data) and data[at : at + 1] != b"\0":
        digits, space, _ = data[at : at + 12].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[at + len(digits) + 1 : at + length]
        if length <= len(digits) + 1 or at + length > len(data) or not record.endswith(b"\n") or b"=" not in record:
            raise UsageError(f"the shard '{path}' has a damaged pax header; make the shard anew", code="shard-damaged")
        key, _, value = record[:-1].partition(b"=")
        fields[_text(key)] = _text(value)
        at += length
    if any(key.startswith("GNU.sparse") for key in fields):
        raise UsageError(
            f"the shard '{path}' holds a sparse file; shards hold plain files only", code="shard-member-unread"
        )
    return fields


def _text(data: bytes) -> str:
    return data.decode("utf-8", errors="surrogateescape")


def _compressed(header: bytes) -> str:
    """A hint where a shard is compressed: offsets mean nothing there."""
    return ": it is compressed, decompress it first" if header.startswith((_GZIP, _ZSTD, _XZ)) else ""
