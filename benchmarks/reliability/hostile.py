"""Hostile files through every verb that reads their kind: texts, pickles, bombs and paths.

Each part gives `(name, kind of file, path)`; `through` runs every command line of the kind on it, after the same
command line on a good file, and lists what is wrong.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks.reliability import good
from benchmarks.reliability.trial import CANARY, tried
from tests.checkpoints.test_files import BOMBS
from tests.config.test_safe_yaml import BINARY, HOSTILE
from tests.images.test_given import EPS, bomb, chunk

Case = tuple[str, str, Path]  # its name, the kind of file, the file
# Put in the place of a component's name or of a path: what other projects import, evaluate or open.
WORDS = (
    "os:system", "os.system", "subprocess:Popen", "zoo.schema.registry:Registry", "builtins.eval", "__import__('os')",
    "$(touch canary)", "`touch canary`", "${oc.env:HOME}", "{{7*7}}", "%(canary)s", "eval: open('canary','w')",
)  # fmt: skip


def through(cases: Iterable[Case], home: Path, share: float = 1.0) -> dict[str, Any]:
    """Every case through every command line that reads its kind; counts, and what was wrong."""
    by_kind: dict[str, list[Case]] = defaultdict(list)
    for case in cases:
        by_kind[case[1]].append(case)
    trials, names, faults = 0, set[str](), []
    for kind, of in by_kind.items():
        some = of[:: max(1, round(1 / share))]
        names |= {name for name, _, _ in some}
        for verb, words in good.VERBS[kind].items():
            files = [kind, kind, *(path for _, _, path in some)]
            commands = [good.fill(words, file, home / "out" / str(i)) for i, file in enumerate(files)]
            _, usual, *found = tried(commands, home)
            trials += len(found)
            for (name, _, _), one in zip(some, found, strict=True):
                faults += [f"{verb}, {kind}, {name}: {fault}" for fault in one.faults(usual)]
    return {"cases": len(names), "trials": trials, "faults": faults}


def texts(home: Path) -> Iterator[Case]:
    """60 hostile texts, each as a config, a recipe, a suite, a record, the record in an image and a line of data."""
    canary = str(home / CANARY)
    whole = {
        name: (text.format(canary=canary) if "{canary}" in text or "{{" in text else text).encode(
            "utf-8", "surrogatepass"
        )
        for name, text in HOSTILE.items()
    }
    for name, data in {**whole, **BINARY}.items():
        for kind in ("config.yaml", "recipe.yaml", "suite.yaml", "record.json", "image.png", "data"):
            yield name, kind, _placed(data, kind, home / "texts" / name)
    for word in WORDS:
        for kind in ("config.yaml", "recipe.yaml", "suite.yaml"):
            value = _with_word(yaml.safe_load((home / kind).read_text()), word)
            yield word, kind, _placed(json.dumps(value).encode(), kind, home / "texts" / f"word {WORDS.index(word)}")


def _with_word(value: Any, word: str) -> Any:
    """A mapping with every component's name and every path replaced."""
    if isinstance(value, Mapping):
        named = {"schedule", "parameterization", "name", "path", "model", "objective"}
        return {k: word if k in named and isinstance(v, str) else _with_word(v, word) for k, v in value.items()}
    return [_with_word(one, word) for one in value] if isinstance(value, list) else value


def _placed(data: bytes, kind: str, folder: Path) -> Path:
    """The bytes as the text of a file of this kind."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / kind
    if kind == "data":
        path.mkdir()
        (path / "0.png").write_bytes(good.png(0))
        (path / "metadata.jsonl").write_bytes(data)
    elif kind == "image.png":
        text = chunk(b"iTXt", b"zoo\0\0\0\0\0" + data)
        picture = good.png(0, 32)
        path.write_bytes(picture[:-12] + text + picture[-12:])
    else:
        path.write_bytes(data)
    return path


class _Reduced:
    """An object that calls something when it is unpickled."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.reduced = (call, arguments)

    def __reduce__(self) -> Any:
        return self.reduced


def payloads(canary: Path) -> dict[str, bytes]:
    """Pickles that would leave a file."""
    touch = f"touch {canary}"
    by_hand = {
        "GLOBAL": b"cos\nsystem\n(S'" + touch.encode() + b"'\ntR.",
        "INST": b"(S'" + touch.encode() + b"'\nios\nsystem\n.",
        "OBJ": b"(cos\nsystem\nS'" + touch.encode() + b"'\no.",
        "posix": b"cposix\nsystem\n(S'" + touch.encode() + b"'\ntR.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c" + bytes([len(touch)]) + touch.encode() + b"\x85R.",
    }
    calls = {
        "os.system": _Reduced(os.system, touch), "eval": _Reduced(eval, f"open({str(canary)!r}, 'w')"),
        "exec": _Reduced(exec, f"open({str(canary)!r}, 'w')"), "open": _Reduced(open, str(canary), "w"),
        "import": _Reduced(__import__, "antigravity"),
    }  # fmt: skip
    return {**by_hand, **{name: pickle.dumps(call, 2) for name, call in calls.items()}}


def pickles(home: Path) -> Iterator[Case]:
    """20: ten payloads as object arrays of a statistics file, and as a file that is nothing but a pickle."""
    folder = home / "pickles"
    folder.mkdir()
    for name, data in payloads(home / CANARY).items():
        header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
        npy = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header) + 1) + header + b"\n" + data
        path = good.as_zip({"mu.npy": npy, "sigma.npy": npy, "header.npy": npy}, folder / f"{name}.npz")
        yield f"{name} in an array", "statistics.npz", path
        plain = folder / f"{name} alone.npz"
        plain.write_bytes(data)
        for kind in good.VERBS:
            if kind != "data":
                yield f"{name} alone", kind, plain


def bombs(home: Path) -> Iterator[Case]:
    """25 headers and archives that promise more than they hold."""
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
    yield "record of a million lists", "record.json", file("lists.json", b"[" + b"[]," * 2**20 + b"[]]")
    yield "record of one deep list", "record.json", file("deep.json", b"[" * 2**20)
    yield "record of a long number", "record.json", file("number.json", b'{"schema": ' + b"9" * 2**20 + b"}")


def _png_with(kind: bytes, data: bytes) -> bytes:
    picture = good.png(0, 32)
    return picture[:33] + chunk(kind, data) + picture[33:]


def paths(home: Path) -> Iterator[Case]:
    """40 names that leave a folder: in metadata, zips, tars and on command lines."""
    folder = home / "paths"
    folder.mkdir()
    (home.parent / "secret.png").write_bytes(good.png(9))
    (home.parent / "secret.txt").write_text("theirs")
    names = (
        "../secret.png", "../../secret.png", str(home.parent / "secret.png"), "a/../../secret.png", "./../secret.png",
        "..\\secret.png", "a\0b.png", "/etc/passwd", "//etc/passwd", "~/secret.png", "file:///etc/passwd", "", ".",
        "..",
        "x" * 5000, "/dev/zero", "/dev/stdin", "CON", "\u202esecret.png", "a\nb.png",
    )  # fmt: skip
    for number, name in enumerate(names):
        rows = [{"file_name": name, "text": "x", "split": "train"}, {"file_name": name, "text": "y", "split": "val"}]
        lines = "\n".join(json.dumps(row) for row in rows).encode()
        place = folder / f"folder {number}"
        place.mkdir()
        (place / "metadata.jsonl").write_bytes(lines)
        yield f"metadata names {name!r:.40}", "data", place
        if name and "\0" not in name:
            members = {"metadata.jsonl": lines, name[:200]: good.png(0)}
            yield f"a member is named {name!r:.40}", "data.zip", good.as_zip(members, folder / f"{number}.zip")
    for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
        member = tarfile.TarInfo("0.png")
        member.type, member.linkname = kind, "/etc/passwd"
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.addfile(member)
        (folder / f"link {number}.tar").write_bytes(out.getvalue())
        yield f"a tar's member of type {kind!r}", "data.tar", folder / f"link {number}.tar"
    linked = folder / "linked"
    linked.mkdir()
    for name, data in good.files().items():
        (linked / name).write_bytes(data)
    (linked / "0.png").unlink()
    (linked / "0.png").symlink_to("/etc/passwd")
    yield "a picture that is a link to another file", "data", linked
    os.mkfifo(folder / "pipe")
    for kind in good.VERBS:
        yield "a pipe", kind, folder / "pipe"
        yield "/dev/zero", kind, Path("/dev/zero")


def weights(home: Path) -> dict[str, Any]:
    """The header bombs and pickles that no command line takes by a path: read as a card's file and as weights."""
    from zoo.checkpoints.files import read_tensors, read_verified
    from zoo.schema.errors import ZooError

    faults, trials = [], 0
    folder = home / "weights"
    folder.mkdir()

    def read(name: str, data: bytes, reader: Callable[[Path], object], suffix: str) -> None:
        nonlocal trials
        path = folder / f"file{suffix}"
        path.write_bytes(data)
        trials += 1
        try:
            reader(path)
            faults.append(f"{name}: read")
        except ZooError:
            pass
        except BaseException as error:
            faults.append(f"{name}: untyped {type(error).__name__}: {error}")
        if (home / CANARY).exists():
            (home / CANARY).unlink()
            faults.append(f"{name}: executed")

    for name, make in BOMBS.items():
        data = make()
        facts = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        read(name, data, lambda path, facts=facts: read_verified(path, **facts), ".safetensors")
        read(name, data, read_tensors, ".safetensors")
    for name, data in payloads(home / CANARY).items():
        read(f"{name} in .pt", data, read_tensors, ".pt")
        out = io.BytesIO()
        torch.save({"a": torch.ones(2)}, out)
        with zipfile.ZipFile(out) as archive:
            members = {one: archive.read(one) for one in archive.namelist()}
        evil = {one: data if one.endswith("data.pkl") else value for one, value in members.items()}
        read(f"{name} in a torch zip", good.as_zip(evil, folder / "evil.pt").read_bytes(), read_tensors, ".ckpt")
    return {"cases": len(BOMBS) + len(payloads(home / CANARY)), "trials": trials, "faults": faults}
