"""Weights that zoo neither ships nor downloads: where they are looked for, and their hashes.

A file is hashed before it is opened, and opened as tensors alone (`weights_only=True`, or safetensors). Where it is
missing the refusal is one sentence that says which file is needed: the requested value is then unavailable, and never
silently another number.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from zoo.checkpoints.files import read_tensors
from zoo.schema import files
from zoo.schema.errors import WeightsError


class Unavailable(WeightsError):
    """A requested component needs a weight file that isn't there."""


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A weight file with a known hash: what it is for, its names, and the environment variable that points at it."""

    purpose: str
    names: tuple[str, ...]
    sha256: str
    bytes: int
    variable: str

    def find(self, path: str | None = None) -> Path:
        """The file: by path, by environment variable, or in a cache, in this order; Unavailable where there is none.

        Its content isn't checked yet.
        """
        for given, source in ((path, "given"), (os.environ.get(self.variable), f"of ${self.variable}")):
            if given:
                found = Path(given).expanduser()
                if not found.is_file():
                    raise Unavailable(
                        f"{self._needs()}; the path {source}, '{given}', is no file", code="extractor-unavailable"
                    )
                return found
        for folder in caches():
            for name in self.names:
                if (folder / name).is_file():
                    return folder / name
        raise Unavailable(
            f"{self._needs()}; give its path, set ${self.variable} to it, or put it in '{caches()[0]}'",
            code="extractor-unavailable",
        )

    def read(self, path: str | None = None) -> dict[str, Tensor]:
        """Its tensors; WeightsError where the file found isn't this one."""
        found = self.find(path)
        hashed = sha256_of(found)
        if hashed != self.sha256:
            raise WeightsError(
                f"'{found}' is damaged or another file (SHA-256 {hashed[:12]}…, {found.stat().st_size} bytes): "
                f"{self._needs()}",
                code="weights-hash-wrong",
            )
        return read_tensors(found)

    def _needs(self) -> str:
        return f"{self.purpose} is unavailable: needs {self.names[0]}, SHA-256 {self.sha256} ({self.bytes:,} bytes)"


def caches() -> list[Path]:
    """zoo's own cache, and that of torch.hub, where other libraries leave their downloads."""
    return [files.cache_folder(), Path(torch.hub.get_dir()) / "checkpoints"]


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    try:
        return files.sha256_of(path)
    except OSError as error:
        raise Unavailable(
            f"the weight file '{path}' can't be read ({error.strerror}); give the path of one",
            code="extractor-unavailable",
        ) from error


def hash_of(module: nn.Module) -> str:
    """SHA-256 over a module's tensors by name, shape and value: the hash of weights that are in no file."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
