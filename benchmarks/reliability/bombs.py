"""Bombs: images, archives, weights, texts and folders that promise or unfold to more than they hold."""

from __future__ import annotations

import json
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import yaml

from benchmarks.reliability import good
from benchmarks.reliability.hostile import Case
from tests.checkpoints.test_files import BOMBS
from tests.images.test_given import EPS, bomb, chunk


def cases(home: Path) -> Iterator[Case]:
    """Over 25 headers and archives that promise more than they hold."""
    folder = home / "bombs"
    folder.mkdir()

    def file(name: str, data: bytes) -> Path:
        path = folder / name
        path.write_bytes(data)
        return path

    pictures = {
        "png of 81 megapixels": bomb(9000), "png of 400 megapixels": bomb(20000), "png of 2^31": bomb(2**31 - 1),
        "eps": EPS,
        "png with 300 MiB of text": _png_with(b"zTXt", b"zoo\0\0" + zlib.compress(bytes(300 * 2**20), 9)),
        "png with 300 MiB of iTXt": _png_with(b"iTXt", b"zoo\0\1\0\0\0" + zlib.compress(bytes(300 * 2**20), 9)),
        "png with 300 MiB of a profile": _png_with(b"iCCP", b"p\0\0" + zlib.compress(bytes(300 * 2**20), 9)),
        "gif of 2^16": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x80\0\0" + b"\0" * 6 + b"!\xf9\4\0\0\0\0\0,",
        "bmp of 2^30": b"BM" + struct.pack("<IHHIIiiHHIIIIII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0),
        "webp of 2^14": b"RIFF" + struct.pack("<I", 30) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff" * 6,
    }  # fmt: skip
    for name, data in pictures.items():
        for kind in ("picture.png", "image.png"):
            yield name, kind, file(f"{name}.png", data)
        many = {**good.files(), **{f"{i}.png": data for i in range(6)}}
        if len(data) < 10**6:
            yield name, "data.zip", good.as_zip(many, folder / f"{name}.zip")
    big = bytes(512 * 2**20)
    rows = good.files()
    archives = {
        "zip whose picture unpacks to 512 MiB": {**rows, "0.png": big},
        "zip whose metadata is one line of 512 MiB": {**rows, "metadata.jsonl": big},
        "zip of a million empty lines": {**rows, "metadata.jsonl": b"\n" * 2**24},
        "zip of a million lists": {**rows, "metadata.jsonl": b"[" * 2**20 + b"]" * 2**20},
        "zip of a long line of lists": {**rows, "metadata.jsonl": b"[" + b"[]," * 2**20 + b"[]]"},
    }
    for name, members in archives.items():
        yield name, "data.zip", good.as_zip(members, folder / f"{name}.zip", zipfile.ZIP_DEFLATED)
    del big
    claims = b"{'descr': '<f8', 'fortran_order': False, 'shape': (1048576, 2048), }"
    npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(claims) + 1) + claims + b"\n"
    yield (
        "arrays that claim 16 GiB", "statistics.npz",
        good.as_zip({"mu.npy": npy, "sigma.npy": npy}, folder / "claims.npz"),
    )  # fmt: skip
    yield (
        "arrays that unpack to 512 MiB", "statistics.npz",
        good.as_zip({"mu.npy": npy + bytes(2**29), "sigma.npy": npy}, folder / "unpacks.npz", zipfile.ZIP_DEFLATED),
    )  # fmt: skip
    tar = tarfile.TarInfo("0.png")
    tar.size = 2**33 - 1
    yield (
        "tar whose picture claims 8 GiB",
        "data.tar",
        file("claims.tar", tar.tobuf(tarfile.USTAR_FORMAT) + bytes(1024)),
    )
    many = yaml.safe_load((home / "suite.yaml").read_text())
    many["matrix"] = {"model": ["tiny"], "batch": list(range(1, 4000)), "steps": list(range(1, 4000))}
    del many["include"]
    yield "suite of 15 million rows", "suite.yaml", file("rows.yaml", yaml.safe_dump(many).encode())
    config = yaml.safe_load((home / "config.yaml").read_text())
    for name, key, value in (
        ("network of 10^9 blocks", "blocks", 10**9), ("network of 10^9 channels", "width", 10**9),
        ("network of a million levels", "mult", [1] * 20_000),
    ):  # fmt: skip
        large = json.loads(json.dumps(config))
        large["stages"][0]["denoiser"]["network"][key] = value
        yield name, "config.yaml", file(f"{name}.yaml", json.dumps(large).encode())
    for name, make in BOMBS.items():
        for kind in ("model.safetensors", "model.ckpt", "lora.safetensors", "token.safetensors", "token.pt"):
            yield name, kind, file(f"{name}.{kind.partition('.')[2]}", make())
    yield from _torch_bombs(home, folder)
    yield from _folder_bombs(home, folder)
    yield "record of a million lists", "record.json", file("lists.json", b"[" + b"[]," * 2**20 + b"[]]")
    yield "record of one deep list", "record.json", file("deep.json", b"[" * 2**20)
    yield "record of a long number", "record.json", file("number.json", b'{"schema": ' + b"9" * 2**20 + b"}")


def _png_with(kind: bytes, data: bytes) -> bytes:
    picture = good.png(0, 32)
    return picture[:33] + chunk(kind, data) + picture[33:]


def _torch_bombs(home: Path, folder: Path) -> Iterator[Case]:
    """torch's zip with storages or a pickle that unfold, and a directory without end."""
    with zipfile.ZipFile(home / "model.ckpt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in members if name.endswith("data.pkl"))
    changed = {
        "a compressed storage of 512 MiB": {**members, next(n for n in members if "/data/" in n): bytes(2**29)},
        "a pickle of 4 million lists": {**members, pickled: b"\x80\x02(" + b"]" * 2**22 + b"l."},
        "a pickle that doubles a tuple 60 times": {**members, pickled: b"\x80\x02)" + b"\x86".join([b"2"] * 60) + b"."},
        "a pickle of 512 MiB": {**members, pickled: bytes(2**29)},
    }
    for name, of in changed.items():
        yield name, "model.ckpt", good.as_zip(of, folder / f"{name}.ckpt", zipfile.ZIP_DEFLATED)
    many = dict.fromkeys((f"x/data/{i}" for i in range(60_000)), b"") | {"x/data.pkl": members[pickled]}
    yield "60,000 storages", "model.ckpt", good.as_zip(many, folder / "storages.ckpt")


def _folder_bombs(home: Path, folder: Path) -> Iterator[Case]:
    """Folders with one file that is larger than it looks: sparse, or of lists alone."""
    lists = b"[" + b"[]," * 2**20 + b"[]]"

    def changed(kind: str, name: str, inner: str, data: bytes | int) -> Case:
        path = folder / f"{kind} {inner} {name}".replace("/", " ").replace("*", "")
        shutil.copytree(home / kind, path, copy_function=os.link)
        (place,) = path.glob(inner)
        place.unlink()
        place.write_bytes(data if isinstance(data, bytes) else b"")
        if isinstance(data, int):
            os.truncate(place, data)
        return f"{inner} {name}", kind, path

    for kind, inner in (
        ("run", "run.json"), ("run", "scalars.csv"), ("run", "checkpoints/*/manifest.json"), ("measured", "*.json"),
        ("model", "model_index.json"), ("model", "scheduler/scheduler_config.json"), ("captions", "0.txt"),
        ("captions", "0.png"), ("exported", "zoo.yaml"), ("exported", "text_encoder/words.json"),
        ("data", "metadata.jsonl"),
    ):  # fmt: skip
        yield changed(kind, "of a sparse GiB", inner, 2**30)
        yield changed(kind, "of a million lists", inner, lists)
    yield changed("run", "of 3 million lines", "scalars.csv", b"1,loss,1\n" * 3_000_000)
    yield changed("run", "of 20,000 names", "scalars.csv", b"".join(b"1,loss %d,1\n" % i for i in range(20_000)))
    index = folder / "index"
    index.mkdir()
    for name, data in (("of a million lists", lists), ("of as many shards", json.dumps(
        {"weight_map": {f"t{i}": f"s{i}.safetensors" for i in range(30_000)}}).encode()),
    ):  # fmt: skip
        (index / f"{name}.safetensors.index.json").write_bytes(data)
        yield f"index {name}", "shards.safetensors.index.json", index / f"{name}.safetensors.index.json"
