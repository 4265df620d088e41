"""The header of a weight file of any container: which one it is, by its first bytes."""

from __future__ import annotations

from pathlib import Path

from zoo.checkpoints.headers import HEADER_LIMIT, Header, read_safetensors
from zoo.checkpoints.torch_files import read_torch
from zoo.schema.errors import UsageError, WeightsError
from zoo.schema.files import read_plain

# First bytes of files that are no weights, or weights of another container than those read here.
_SIGNATURES = {
    b"GGUF": "a GGUF file (llama.cpp's container of quantised weights)",
    b"\x89HDF\r\n": "an HDF5 file (Keras weights, perhaps)",
    b"\x93NUMPY": "a NumPy array",
    b"\x89PNG\r\n": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"\x1f\x8b": "a gzip file",
    b"\xfd7zXZ\x00": "an xz file",
    b"7z\xbc\xaf": "a 7-zip archive",
    b"Rar!": "a RAR archive",
    b"%PDF": "a PDF document",
    b"version https://git-lfs": "a Git LFS pointer, not the weights: run `git lfs pull` where it came from",
    b"<!DOCTYPE": "a web page, not the weights: the download failed",
    b"<html": "a web page, not the weights: the download failed",
}


def read_header(path: Path) -> Header:
    """The header of a weight file, whatever its container (by its bytes, not its name).

    Raises UsageError where there is no such file, WeightsError naming the file and the reason for any that isn't whole
    or isn't weights; a pickle that would run something else than torch's own rebuilding is refused by what it names.
    """
    if not path.exists():
        raise UsageError(
            f"there is no file or folder '{path}'; give the path of a weight file or a model's folder",
            code="file-missing",
        )
    try:
        first = read_plain(path, 512)
        # A header's length can begin with any bytes, a pickle's and a zip's first ones too; they then go on otherwise.
        if first[8:9] == b"{" and int.from_bytes(first[:8], "little") <= HEADER_LIMIT:
            return read_safetensors(path)
        if first[:2] == b"PK" or first[:1] == b"\x80":
            return read_torch(path)
        for signature, kind in _SIGNATURES.items():
            if first.startswith(signature):
                raise WeightsError(
                    f"'{path}' is {kind}; give a safetensors file or one of torch's", code="weights-format-unread"
                )
        return read_safetensors(path)
    except OSError as error:
        raise WeightsError(
            f"'{path}' can't be read: {error.strerror or error}; give a weight file", code="weights-unreadable"
        ) from error
