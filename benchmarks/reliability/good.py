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
from PIL import Image
from safetensors.torch import save_file

import zoo

WIDTH = 32  # of the text encoder of the tiny Stable Diffusion
WEIGHTS = Path(__file__).parent.parent.parent / "zoo" / "weights"
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

ARRAYS: dict[str, Any] = {
    "schema": "zoo.recipe/1", "name": "toy", "objective": {"name": "denoising"},
    "data": {"name": "array-file", "path": "waves.npy", "values": [-1, 1]},
    "network": {"name": "unet", "dims": 1, "in_channels": 1, "out_channels": 1, "width": 8, "mult": [1], "blocks": 1,
                "attention": "plain", "heads": 1, "attention_levels": [0], "context_width": None, "groups": 4},
    "schedule": "cosine", "parameterization": "v", "train": {"steps": 1, "batch_size": 2, "precision": "fp32"},
}  # fmt: skip


def _cascade() -> dict[str, Any]:
    """CONFIG's stage, and one that enlarges what it draws."""
    (base,) = CONFIG["stages"]
    denoiser = base["denoiser"]
    network = {**denoiser["network"], "in_channels": 6, "level": True}
    low_res = {"name": "gaussian", "schedule": "cosine"}
    larger = {
        **base, "name": "larger", "size": 32, "augmentation": 0.1,
        "denoiser": {**denoiser, "network": network, "low_res": low_res},
    }  # fmt: skip
    return {**CONFIG, "stages": [{**base, "feeds": "low_res"}, larger]}


CASCADE = _cascade()
SIGNAL: dict[str, Any] = {"schema": "zoo.pipeline/1", "stages": [{
    "name": "signal", "feeds": "array", "size": 16, "sampler": {"name": "ddim", "steps": 1},
    "denoiser": {"weights": "waved/export/toy.yaml"},
}]}  # fmt: skip

# Kind of file: the command lines that read it. {file} is the file, {out} a fresh folder, the rest stands in `make`'s.
VERBS: dict[str, dict[str, list[str]]] = {
    "config.yaml": {
        "check": ["check", "{file}"],
        "diff": ["diff", "{file}", "config.yaml"],
        "generate": ["generate", "a", "--model", "{file}", "-o", "{out}/a.png"],
        "export": ["export", "{out}/exported", "--model", "{file}"],
        "plot trajectory": ["plot", "trajectory", "{file}", "a", "-o", "{out}/a.png"],
        "doctor": ["doctor", "cascade", "{file}", "--data", "data", "-n", "2"],
        "plan": ["plan", "{file}", "--memory", "8GB"],
        "prompts": ["prompts", "apple", "--model", "{file}"],
        "reproduce": ["reproduce", "{file}", "--dry-run"],
        "evaluate": [
            "evaluate", "{file}", "data", "-n", "2", "--metrics", "fd", "--extractor", EXTRACTOR, "--captions", "data",
        ],
    },
    "recipe.yaml": {"train": ["train", "{file}", "--run", "{out}/run"]},
    "suite.yaml": {"bench": ["bench", "{file}", "--dry-run"]},
    "card.yaml": {
        "check": ["check", "pixel-ddpm-32", "--set", "stages.0.denoiser={weights: {file}}"],
        "generate": [
            "generate", "--model", "pixel-ddpm-32", "--set", "stages.0.denoiser={weights: {file}}", "--steps", "1",
            "-o", "{out}/a.png",
        ],
        "reproduce": ["reproduce", "{file}", "--dry-run"],
        "doctor": ["doctor", "cascade", "cascade.yaml", "--data", "data", "-n", "2", "--extractor", "{file}"],
        "data check": ["data", "check", "data", "--conditioner", "{file}"],
    },
    "model.safetensors": {
        "explain": ["explain", "{file}", "--json"],
        "plan": ["plan", "{file}"],
        "convert": ["convert", "{file}", "{out}/folder", "--heads", "4"],
        "check": ["check", "{file}"],
        "generate": ["generate", "a", "--model", "{file}", "--size", "16", "--steps", "1", "-o", "{out}/a.png"],
        "autoencoder": ["check", "model.safetensors", "--autoencoder", "{file}"],
    },
    "lora.safetensors": {
        "explain": ["explain", "{file}"],
        "generate": ["generate", "a", "--model", "config.yaml", "--lora", "{file}", "-o", "{out}/a.png"],
    },
    "token.safetensors": {
        "generate": [
            "generate", "a", "--model", "model.safetensors", "--size", "16", "--steps", "1", "--embedding", "{file}",
            "-o", "{out}/a.png",
        ],
    },
    "shards.safetensors.index.json": {"explain": ["explain", "{file}"]},
    "model": {
        "explain": ["explain", "{file}"],
        "plan": ["plan", "{file}"],
        "convert": ["convert", "{file}", "{out}/a.safetensors"],
        "check": ["check", "{file}"],
    },
    "exported": {
        "check": ["check", "{file}"],
        "prompts": ["prompts", "apple", "--model", "{file}"],
        "explain": ["explain", "{file}"],
    },
    "run": {
        "report": ["report", "{file}", "-o", "{out}/report.html"],
        "train": ["train", "recipe.yaml", "--run", "{file}", "--resume"],
    },
    "measured": {"bench": ["bench", "suite.yaml", "--out", "{file}", "--resume"]},
    "captions": {"new": ["new", "text2img", "{file}", "--name", "made", "-o", "{out}"]},
    "drawn.npy": {"replay": ["replay", "{file}"], "diff": ["diff", "{file}", "signal.yaml"]},
    "waves.npy": {"train": ["train", "arrays.yaml", "--set", "data.path={file}", "--run", "{out}/run"]},
    "record.json": {"report": ["report", "{file}", "-o", "{out}/report.html"]},
    "image.png": {
        "replay": ["replay", "{file}"],
        "diff of a record": ["diff", "{file}", "class2img"],
        "generate again": ["generate", "--from", "{file}", "-o", "{out}/a.png"],
        "check": ["check", "{file}"],
    },
    "picture.png": {
        "generate from": [
            "generate", "red apple", "--image", "{file}", "--steps", "2", "--strength", "0.9", "-o", "{out}/a.png",
        ],
        "generate within": [
            "generate", "red apple", "--image", "picture.png", "--mask", "{file}", "--steps", "1",
            "--model", "latent-text2img", "-o", "{out}/a.png",
        ],
        "plot noising": ["plot", "noising", "{file}", "-o", "{out}/a.png"],
        "replay of": ["replay", "redrawn.png", "--image", "{file}"],
    },
    "data": {
        "data check": ["data", "check", "{file}", "--size", "16"],
        "data pack": ["data", "pack", "{file}", "{out}/packed"],
        "evaluate": ["evaluate", "{file}", "data", "--metrics", "fd", "--extractor", EXTRACTOR],
        "evaluate against": ["evaluate", "data", "{file}", "--metrics", "fd", "--extractor", EXTRACTOR],
        "train": ["train", "recipe.yaml", "--set", "data.path={file}", "--run", "{out}/run"],
        "new": ["new", "text2img", "{file}", "--name", "made", "-o", "{out}"],
        "doctor": ["doctor", "cascade", "cascade.yaml", "--data", "{file}", "-n", "2", "--steps", "1"],
        "bench": ["bench", "suite.yaml", "--data", "{file}", "--split", "val", "--dry-run"],
        "captions": [
            "evaluate", "config.yaml", "data", "-n", "2", "--metrics", "fd", "--extractor", EXTRACTOR, "--captions",
            "{file}",
        ],
        "draw as": ["reproduce", "class2img", "--data", "{file}", "--dry-run"],
    },
    "data.tar": {"data check": ["data", "check", "{file}", "--size", "16"]},
    "statistics.npz": {
        "evaluate": ["evaluate", "data", "{file}", "--metrics", "fd", "--extractor", EXTRACTOR],
    },
}  # fmt: skip
VERBS["data.zip"] = {verb: words for verb, words in VERBS["data"].items() if verb != "new"}  # of a folder alone
VERBS["model.ckpt"] = VERBS["model.safetensors"]
VERBS["token.pt"] = VERBS["token.safetensors"]
VERBS["data.tar"]["train"] = [
    *VERBS["data"]["train"], "--set", "data.name=webdataset",
]  # fmt: skip
# What is good for a verb where the kind's own file is good for others.
GOOD = {
    ("config.yaml", "export"): "latent.yaml", ("config.yaml", "prompts"): "latent.yaml",
    ("config.yaml", "reproduce"): "latent.yaml", ("config.yaml", "doctor"): "cascade.yaml",
    ("card.yaml", "reproduce"): "emoji-evaluator.yaml", ("card.yaml", "doctor"): "emoji-evaluator.yaml",
    ("card.yaml", "data check"): "emoji-base-32-text.yaml",
}  # fmt: skip


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
    texts = {"config.yaml": CONFIG, "suite.yaml": SUITE, "recipe.yaml": RECIPE, "arrays.yaml": ARRAYS,
             "cascade.yaml": CASCADE, "signal.yaml": SIGNAL}  # fmt: skip
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value, indent=1))  # YAML that shares no part with another
    torch.manual_seed(0)
    zoo.build("class2img", steps=1)(labels=["objects"]).save(folder / "image.png")
    shutil.copy(Path(__file__).parent.parent / "results" / "startup.json", folder / "record.json")
    (folder / "picture.png").write_bytes(png(7, 64))
    (folder / "data").mkdir()
    for name, data in files().items():
        (folder / "data" / name).write_bytes(data)
    as_zip(files(), folder / "data.zip")
    rows = [json.dumps({"text": "a thing", "split": "val" if i < 2 else "train"}).encode() for i in range(6)]
    pairs = {f"{i}.{end}": png(i) if end == "png" else row for i, row in enumerate(rows) for end in ("png", "json")}
    as_tar(pairs, folder / "data.tar")
    np.save(folder / "waves.npy", np.random.default_rng(0).uniform(-1, 1, (6, 1, 16)).astype(np.float32))
    np.savez(folder / "waves.npz", waves=np.load(folder / "waves.npy"))
    save_file({"a": torch.arange(64.0), "b": torch.ones(3, 3)}, folder / "weights.safetensors")
    torch.save({"a": torch.arange(64.0), "b": torch.ones(3, 3)}, folder / "weights.pt")
    shutil.copy(WEIGHTS / "emoji-ddpm-32.yaml", folder / "card.yaml")
    for name in ("emoji-ddpm-32.safetensors", "emoji-evaluator.yaml", "emoji-evaluator.safetensors",
                 "emoji-base-32-text.yaml", "emoji-base-32-text.safetensors"):  # fmt: skip
        shutil.copy(WEIGHTS / name, folder)
    shutil.copy(WEIGHTS.parent / "presets" / "latent-text2img.yaml", folder / "latent.yaml")
    _models(folder)
    _added(folder)
    (folder / "captions").mkdir()
    for i in range(6):
        (folder / "captions" / f"{i}.png").write_bytes(png(i))
        (folder / "captions" / f"{i}.txt").write_text(f"a thing {i}")
    _written(folder)
    return folder


def _models(folder: Path) -> None:
    """A tiny Stable Diffusion: its file of either container, shards with an index, and the folder it converts to."""
    from tests.families.test_convert import original
    from zoo.families.stable_diffusion.convert import convert

    tensors = original("sd-1", average=False, dtype=torch.float32)
    save_file(tensors, folder / "model.safetensors")
    torch.save({"state_dict": tensors}, folder / "model.ckpt")
    convert(folder / "model.safetensors", folder / "model", heads=4)
    shards = [dict(list(tensors.items())[::2]), dict(list(tensors.items())[1::2])]
    where: dict[str, str] = {}
    for number, shard in enumerate(shards):
        save_file(shard, folder / f"shards-{number}.safetensors")
        where |= dict.fromkeys(shard, f"shards-{number}.safetensors")
    index = {"metadata": {}, "weight_map": where}
    (folder / "shards.safetensors.index.json").write_text(json.dumps(index))


def _added(folder: Path) -> None:
    """A LoRA of the config's network, and a learned token of the model's text encoder in either container."""
    from zoo.families.lora.train import AdapterSettings, adapt, trained

    (stage,) = zoo.build(str(folder / "config.yaml")).stages
    adapt(stage.denoiser.network, AdapterSettings(rank=2))
    tensors, metadata = trained(stage.denoiser.network, AdapterSettings(rank=2))
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "lora.safetensors", metadata)
    token = {"<thing>": torch.linspace(-0.1, 0.1, WIDTH)}
    save_file(token, folder / "token.safetensors")
    torch.save(token, folder / "token.pt")


def _written(folder: Path) -> None:
    """What verbs write and read again."""
    from zoo.cli.main import run

    with contextlib.chdir(folder):
        for words in (
            ["evaluate", "data", "--extractor", EXTRACTOR, "--save-statistics", "statistics.npz"],
            ["train", "recipe.yaml", "--run", "run"], ["train", "arrays.yaml", "--run", "waved"],
            ["generate", "--model", "signal.yaml", "-o", "drawn.npy"], ["bench", "suite.yaml", "--out", "measured"],
            ["generate", "red apple", "--model", "latent-text2img", "--image", "picture.png", "--steps", "2",
             "-o", "redrawn.png"],
            ["export", "exported", "--model", "latent-text2img"],
        ):  # fmt: skip
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as said:
                code = run(words)
            if code != 0:
                raise RuntimeError(f"zoo {' '.join(words)} ended with {code}: {said.getvalue()}")
        (record,) = Path("measured").glob("*.json")
        unfinished = json.loads(record.read_text())
        unfinished["run"]["complete"] = False
        record.write_text(json.dumps(unfinished))


def fill(words: list[str], file: str | Path, out: Path) -> list[str]:
    """A command line of `VERBS` with its file and a new folder."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return [word.replace("{file}", str(file)).replace("{out}", str(out)) for word in words]
