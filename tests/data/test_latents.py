"""Latents that were encoded once are read back as they were written, or made again."""

from __future__ import annotations

import hashlib
import json
import os

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


def _file(header: dict, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def _of(count: int, dtype: str = "F32", width: int = 4) -> bytes:
    """A file that is sealed as it should be, of other latents than these rows'."""
    shape, torch_type = [count, 2, 4, 4], torch.float32 if dtype == "F32" else torch.bfloat16
    data = bytes(count * 32 * width)
    seal = hashlib.sha256(f"{torch_type} {tuple(shape)}".encode() + data).hexdigest()
    entry = {"dtype": dtype, "shape": shape, "data_offsets": [0, len(data)]}
    return _file({"__metadata__": {"sha256": seal}, "latents": entry}, data)


HOSTILE = {
    "too few": _of(3), "another type": _of(4, "BF16", 2), "no latents": _file({}),
    "a header of 16 MiB": _file({"__metadata__": {"sha256": "0" * 2**24}}),
    "a header without end": (2**62).to_bytes(8, "little"),
    "a million names": _file({"__metadata__": {str(i): "" for i in range(600_000)}}),
}  # fmt: skip


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE)
def test_a_cache_of_anything_else_is_made_again(data, autoencoder, tmp_path):
    first = encode_all(autoencoder, Few(), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    file.write_bytes(data)
    assert torch.equal(encode_all(autoencoder, Few(), cache=tmp_path), first)
    assert file.read_bytes() == whole


def test_a_pipe_in_the_caches_place_does_not_block(autoencoder, tmp_path):
    first = encode_all(autoencoder, Few(), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.unlink()
    os.mkfifo(file)
    assert torch.equal(encode_all(autoencoder, Few(), cache=tmp_path), first)
    assert file.is_file()


def test_no_header_is_parsed_that_is_larger_than_a_weight_files(autoencoder, tmp_path, monkeypatch):
    import zoo.data.latents as module

    encode_all(autoencoder, Few(), cache=tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(HOSTILE["a header of 16 MiB"])
    monkeypatch.setattr(module, "safe_open", lambda *_: pytest.fail("the header was parsed"))
    assert module._sealed(file) is None
