"""Latents that were encoded once are read back as they were written, or made again."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from zoo.autoencoders.kl import AutoencoderKL
from zoo.data.latents import encode_all


class Few:
    """Four images of noise."""

    rows = tuple({"file_name": f"{i}.png"} for i in range(4))

    def fingerprint(self) -> str:
        return "four"

    def images(self) -> np.ndarray:
        return np.random.default_rng(0).integers(0, 256, (4, 3, 8, 8), dtype=np.uint8)


@pytest.fixture(scope="module")
def autoencoder():
    torch.manual_seed(0)
    return AutoencoderKL(width=8, mult=(1, 2), blocks=1, groups=4, channels=2).eval()


@pytest.mark.parametrize("damage", ["one bit", "the seal", "cut", "empty"])
def test_a_damaged_cache_is_made_again(damage, autoencoder, tmp_path):
    first = encode_all(autoencoder, Few(), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    assert torch.equal(encode_all(autoencoder, Few(), cache=tmp_path), first)
    broken = bytearray(whole)
    if damage == "one bit":
        broken[-5] ^= 1  # of a value
    elif damage == "the seal":
        broken[broken.index(b'sha256":"') + 10] ^= 1
    else:
        del broken[len(broken) // 2 if damage == "cut" else 0 :]
    file.write_bytes(broken)
    assert torch.equal(encode_all(autoencoder, Few(), cache=tmp_path), first)
    assert file.read_bytes() == whole
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
