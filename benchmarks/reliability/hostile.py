"""Hostile files through every verb that reads their kind: texts and pickles here, `bombs` and `paths` beside it.

Each part gives `(name, kind of file, path)`; `through` runs every command line of the kind on it, after the same
command line on a good file, and lists what is wrong.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file, save_file

from benchmarks.reliability import good
from benchmarks.reliability.trial import CANARY, tried
from tests.checkpoints.test_files import BOMBS
from tests.config.test_safe_yaml import BINARY, HOSTILE
from tests.images.test_given import chunk

Case = tuple[str, str, Path]  # its name, the kind of file, the file
# Put in the place of a component's name or of a path: what other projects import, evaluate or open.
WORDS = (
    "os:system", "os.system", "subprocess:Popen", "zoo.schema.registry:Registry", "builtins.eval", "__import__('os')",
    "$(touch canary)", "`touch canary`", "${oc.env:HOME}", "{{7*7}}", "%(canary)s", "eval: open('canary','w')",
)  # fmt: skip

# Kinds that are a text, and folders with the texts in them, one of which is hostile.
PLAIN = (
    "config.yaml", "recipe.yaml", "suite.yaml", "card.yaml", "record.json", "shards.safetensors.index.json",
)  # fmt: skip
FOLDERS = {
    "data": ["metadata.jsonl"], "captions": ["0.txt"], "measured": ["*.json"],
    "run": ["run.json", "scalars.csv", "checkpoints/*/manifest.json"],
    "model": ["model_index.json", "*/config.json", "scheduler/scheduler_config.json", "tokenizer/*.json"],
    "exported": ["zoo.yaml", "text_encoder/words.json", "model_index.json", "*/config.json"],
}  # fmt: skip


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
            whole = good.GOOD.get((kind, verb), kind)
            files = [whole, whole, *(path for _, _, path in some)]
            commands = [good.fill(words, file, home / "out" / str(i)) for i, file in enumerate(files)]
            _, usual, *found = tried(commands, home)
            if usual.code != 0 and not usual.printed:  # what is hostile would be measured against a refusal
                faults.append(f"{verb}, {kind}: a good file ended with {usual.code}: {usual.stderr.strip()[-200:]}")
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
        for kind in (*PLAIN, *FOLDERS, "image.png", "model.safetensors", "drawn.npy"):
            yield name, kind, _placed(data, kind, home, home / "texts" / name)
    for word in WORDS:
        for kind in ("config.yaml", "recipe.yaml", "suite.yaml"):
            value = _with_word(yaml.safe_load((home / kind).read_text()), word)
            data = json.dumps(value).encode()
            yield word, kind, _placed(data, kind, home, home / "texts" / f"word {WORDS.index(word)}")


def _with_word(value: Any, word: str) -> Any:
    """A mapping with every component's name and every path replaced."""
    if isinstance(value, Mapping):
        named = {"schedule", "parameterization", "name", "path", "model", "objective"}
        return {k: word if k in named and isinstance(v, str) else _with_word(v, word) for k, v in value.items()}
    return [_with_word(one, word) for one in value] if isinstance(value, list) else value


def _placed(data: bytes, kind: str, home: Path, folder: Path) -> Path:
    """The bytes as the text of a file of this kind; of a folder with several, as one of them, in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / kind
    if kind in FOLDERS:
        shutil.copytree(home / kind, path, copy_function=os.link)
        files = [place for pattern in FOLDERS[kind] for place in sorted(path.glob(pattern))]
        place = files[len(list(folder.parent.iterdir())) % len(files)]
        place.unlink()  # a link to the good one
        place.write_bytes(data)
    elif kind == "image.png":
        text = chunk(b"iTXt", b"zoo\0\0\0\0\0" + data)
        picture = good.png(0, 32)
        path.write_bytes(picture[:-12] + text + picture[-12:])
    elif kind == "model.safetensors":
        said = data.decode("utf-8", "replace")
        keys = ("zoo.folder", "modelspec.prediction_type", "modelspec.architecture", "lora_adapter_metadata")
        save_file(load_file(home / kind), path, metadata=dict.fromkeys(keys, said))
    elif kind == "drawn.npy":
        os.link(home / kind, path)
        path.with_suffix(".json").write_bytes(data)
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
            if kind not in FOLDERS:
                yield f"{name} alone", kind, plain


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
