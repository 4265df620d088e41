"""Good files of every kind, and the command lines that read each: what hostile ones are measured against."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file

import zoo

EXTRACTOR = "{name: random, width: 4, size: 16, layers: 2}"
CONFIG: dict[str, Any] = {
    "schema": "zoo.pipeline/1",
    "conditioners": {"text": {"name": "stand-in", "context_width": 8, "length": 4}},
    "stages": [{
        "name": "base", "listens": ["text"], "size": 16, "guidance": [{"name": "classifier-free", "scale": 2.0}],
        "denoiser": {
            "network": {"name": "unet", "in_channels": 3, "out_channels": 3, "width": 8, "mult": [1, 2], "blocks": 1,
                        "attention_levels": [1], "heads": 2, "context_width": 8, "groups": 4},
            "schedule": "cosine", "parameterization": "v",
        },
        "sampler": {"name": "ddim", "steps": 2},
    }],
}  # fmt: skip
SUITE = {
    "schema": "zoo.suite/1", "name": "tiny", "models": {"tiny": CONFIG}, "include": [{"model": "tiny", "batch": 1}],
}  # fmt: skip
RECIPE = {
    "schema": "zoo.recipe/1", "name": "toy", "objective": "autoencoder-kl",
    "data": {"name": "image-folder", "path": "data", "size": 16},
    "autoencoder": {"name": "kl", "channels": 4, "z_channels": 4, "width": 8, "mult": [1, 2], "blocks": 1, "groups": 4},
    "train": {"steps": 1, "batch_size": 2, "precision": "fp32"},
}  # fmt: skip

# Kind of file: the command lines that read it. {file} is the file, {out} a fresh folder, the rest stands in `make`'s.
VERBS: dict[str, dict[str, list[str]]] = {
    "config.yaml": {
        "check": ["check", "{file}"],
        "diff": ["diff", "{file}", "config.yaml"],
        "generate": ["generate", "a", "--model", "{file}", "-o", "{out}/a.png"],
        "export": ["export", "{out}/exported", "--model", "{file}"],
        "plot trajectory": ["plot", "trajectory", "{file}", "a", "-o", "{out}/a.png"],
        "doctor": ["doctor", "cascade", "{file}", "--data", "data", "-n", "2"],
        "describe": ["describe", "{file}"],
        "prompts": ["prompts", "a", "--model", "{file}"],
        "reproduce": ["reproduce", "{file}"],
        "evaluate": [
            "evaluate", "{file}", "data", "-n", "2", "--metrics", "fd", "--extractor", EXTRACTOR, "--captions", "data",
        ],
    },
    "recipe.yaml": {"train": ["train", "{file}", "--run", "{out}/run"], "describe": ["describe", "{file}"]},
    "suite.yaml": {"bench": ["bench", "{file}", "--dry-run"]},
    "record.json": {"report": ["report", "{file}", "-o", "{out}/report.html"]},
    "image.png": {
        "replay": ["replay", "{file}"],
        "diff of a record": ["diff", "{file}", "class2img"],
    },
    "picture.png": {
        "generate from": [
            "generate", "red apple", "--image", "{file}", "--steps", "2", "--strength", "0.9", "-o", "{out}/a.png",
        ],
        "generate within": [
            "generate", "red apple", "--image", "picture.png", "--mask", "{file}", "--steps", "1", "-o", "{out}/a.png",
        ],
        "plot noising": ["plot", "noising", "{file}", "-o", "{out}/a.png"],
    },
    "data": {
        "data check": ["data", "check", "{file}", "--size", "16"],
        "data pack": ["data", "pack", "{file}", "{out}/packed"],
        "evaluate": ["evaluate", "{file}", "data", "--metrics", "fd", "--extractor", EXTRACTOR],
        "evaluate against": ["evaluate", "data", "{file}", "--metrics", "fd", "--extractor", EXTRACTOR],
        "train": ["train", "recipe.yaml", "--set", "data.path={file}", "--run", "{out}/run"],
        "new": ["new", "text2img", "{file}", "--name", "made", "-o", "{out}"],
        "doctor": ["doctor", "cascade", "config.yaml", "--data", "{file}", "-n", "2"],
    },
    "data.tar": {"data check": ["data", "check", "{file}", "--size", "16"]},
    "statistics.npz": {
        "evaluate": ["evaluate", "data", "{file}", "--metrics", "fd", "--extractor", EXTRACTOR],
    },
}  # fmt: skip
VERBS["data.zip"] = VERBS["data"]


def png(seed: int, size: int = 16) -> bytes:
    """An image of noise."""
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)).save(out, "PNG")
    return out.getvalue()


def files() -> dict[str, bytes]:
    """What the data holds: six images, and a row for each."""
    rows = [{"file_name": f"{i}.png", "text": f"a thing {i}", "split": "val" if i < 2 else "train"} for i in range(6)]
    lines = "\n".join(json.dumps(row) for row in rows).encode()
    return {"metadata.jsonl": lines, **{f"{i}.png": png(i) for i in range(6)}}


def as_zip(members: dict[str, bytes], path: Path, how: int = zipfile.ZIP_STORED) -> Path:
    """Members in a zip."""
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def as_tar(members: dict[str, bytes], path: Path) -> Path:
    """Members in a tar."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return path


def make(folder: Path) -> Path:
    """All good files, in a folder that may be there; returns it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name, value in (("config.yaml", CONFIG), ("suite.yaml", SUITE), ("recipe.yaml", RECIPE)):
        (folder / name).write_text(yaml.safe_dump(value, sort_keys=False))
    torch.manual_seed(0)
    zoo.build("class2img", steps=1)(labels=["objects"]).save(folder / "image.png")
    shutil.copy(Path(__file__).parent.parent / "results" / "startup.json", folder / "record.json")
    (folder / "picture.png").write_bytes(png(7, 64))
    (folder / "data").mkdir()
    for name, data in files().items():
        (folder / "data" / name).write_bytes(data)
    as_zip(files(), folder / "data.zip")
    pairs = {f"{i}.{end}": png(i) if end == "png" else b"a thing" for i in range(6) for end in ("png", "txt")}
    as_tar(pairs, folder / "data.tar")
    np.save(folder / "waves.npy", np.random.default_rng(0).uniform(-1, 1, (6, 1, 16)).astype(np.float32))
    np.savez(folder / "waves.npz", waves=np.load(folder / "waves.npy"))
    save_file({"a": torch.arange(64.0), "b": torch.ones(3, 3)}, folder / "weights.safetensors")
    torch.save({"a": torch.arange(64.0), "b": torch.ones(3, 3)}, folder / "weights.pt")
    _statistics(folder)
    return folder


def _statistics(folder: Path) -> None:
    from zoo.cli.main import run

    words = [
        "evaluate",
        str(folder / "data"),
        "--extractor",
        EXTRACTOR,
        "--save-statistics",
        str(folder / "statistics.npz"),
    ]
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        code = run(words)
    if code != 0:
        raise RuntimeError("the statistics file was not written")


def fill(words: list[str], file: str | Path, out: Path) -> list[str]:
    """A command line of `VERBS` with its file and a new folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return [word.replace("{file}", str(file)).replace("{out}", str(out)) for word in words]
