"""Latents of a dataset, encoded once and kept on disk, named by what they were made from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from zoo.checkpoints.headers import read_safetensors
from zoo.data.dataset import Dataset
from zoo.data.pixels import from_uint8
from zoo.diffusion.types import Autoencoder
from zoo.schema.errors import WeightsError
from zoo.schema.files import write_atomically


@torch.no_grad()
def encode_all(autoencoder: Autoencoder, data: Dataset, *, cache: Path, batch: int = 64) -> Tensor:
    """The mode of every image's latent, float32 (N, channels, h, w), from `cache` where it is already there.

    The file's name holds a hash of the weights, the rows and the size, so a changed one is never mistaken for it.
    """
    path = cache / f"latents-{_identity(autoencoder, data)}.safetensors"
    kept = _sealed(path)
    if kept is not None and len(kept) == len(data.rows):
        return kept
    assert isinstance(autoencoder, nn.Module)
    device = next((p.device for p in autoencoder.parameters()), torch.device("cpu"))
    parts = torch.from_numpy(data.images()).split(batch)
    latents = torch.cat([autoencoder.encode(from_uint8(part.to(device))).cpu() for part in parts])
    cache.mkdir(parents=True, exist_ok=True)
    latents = latents.contiguous()
    write_atomically(path, save({"latents": latents}, metadata={"sha256": _hash(latents)}))
    return latents


def _sealed(path: Path) -> Tensor | None:
    """The latents of a cache file, if they are what was written; None where it is damaged, or isn't there."""
    try:
        if not path.is_file():  # a pipe would block
            return None
        read_safetensors(path)
        with safe_open(path, "pt") as file:
            seal = (file.metadata() or {}).get("sha256")
            latents = file.get_tensor("latents") if file.get_slice("latents").get_dtype() == "F32" else None
    except (SafetensorError, WeightsError, KeyError, OSError):
        return None
    return latents if latents is not None and _hash(latents) == seal else None


def _hash(latents: Tensor) -> str:
    return hashlib.sha256(f"{latents.dtype} {tuple(latents.shape)}".encode() + latents.numpy().tobytes()).hexdigest()


def _identity(autoencoder: Autoencoder, data: Dataset) -> str:
    digest = hashlib.sha256(data.fingerprint().encode())
    for row in data.rows:
        digest.update(row["file_name"].encode())
    assert isinstance(autoencoder, nn.Module)
    for name, tensor in autoencoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
