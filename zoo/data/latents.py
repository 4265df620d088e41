"""Latents of a dataset, encoded once and kept on disk, named by what they were made from."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from zoo.data.dataset import Dataset
from zoo.data.pictures import from_uint8
from zoo.types import Autoencoder


@torch.no_grad()
def encode_all(autoencoder: Autoencoder, data: Dataset, *, cache: Path, batch: int = 64) -> Tensor:
    """The mode of every picture's latent, float32 (N, channels, h, w), from `cache` where it is already there.

    The file's name holds a hash of the weights, the rows and the size, so a changed one is never mistaken for it.
    """
    path = cache / f"latents-{_identity(autoencoder, data)}.safetensors"
    if path.exists():
        try:
            return load_file(path)["latents"]
        except (SafetensorError, KeyError, OSError):
            path.unlink(missing_ok=True)  # a damaged cache is made again
    assert isinstance(autoencoder, nn.Module)
    device = next((p.device for p in autoencoder.parameters()), torch.device("cpu"))
    parts = torch.from_numpy(data.images()).split(batch)
    latents = torch.cat([autoencoder.encode(from_uint8(part.to(device))).cpu() for part in parts])
    cache.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    save_file({"latents": latents.contiguous()}, temporary)
    temporary.replace(path)
    return latents


def _identity(autoencoder: Autoencoder, data: Dataset) -> str:
    digest = hashlib.sha256(data.fingerprint().encode())
    for row in data.rows:
        digest.update(row["file_name"].encode())
    assert isinstance(autoencoder, nn.Module)
    for name, tensor in autoencoder.state_dict().items():
        digest.update(name.encode())
        digest.update(tensor.float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
