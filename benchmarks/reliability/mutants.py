"""Files of every kind, damaged in one of five ways (cut, flipped, zeroed, appended to, exchanged), and read again.

What zoo seals must be refused wherever it was damaged. What carries a checksum must be refused, or read as if nothing
had happened: a bit that means nothing may flip. Anything else is read or refused. Nothing may raise what is no
`ZooError`, or bring the process down.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal, NamedTuple
from unittest import mock

import numpy as np
import torch

from tests import torture
from tests.processes import started
from zoo.schema.errors import ZooError

Class = Literal["sealed", "checked", "open"]


class Kind(NamedTuple):
    """A kind of file: what becomes of its mutants, where a good one is, and who reads it."""

    name: str
    held: Class
    file: str  # in the folder of good files
    read: Callable[[Path], Any]  # what it says, in any form that can be compared


def _hash(*arrays: Any) -> str:
    digest = hashlib.sha256()
    for array in arrays:
        values = array.numpy() if isinstance(array, torch.Tensor) else np.asarray(array)
        digest.update(f"{values.dtype} {values.shape}".encode() + np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()


def _checkpoint(path: Path) -> str:
    from zoo.training.engine import checkpoint

    tensors, state, step = checkpoint.read(path.parent)
    named = sorted((f"{a}.{b}", t) for a, of in tensors.items() for b, t in of.items())
    return _hash(*(t for _, t in named)) + json.dumps([state, step], sort_keys=True)


def _weights(path: Path, facts: dict[str, Any]) -> str:
    from zoo.checkpoints.files import read_verified

    return _hash(*(t for _, t in sorted(read_verified(path, **facts).items())))


def _latents(path: Path) -> str:
    from zoo.data.latents import _sealed

    found = _sealed(path)
    if found is None:
        raise ZooError("damaged: it is made again", code="data-damaged")
    return _hash(found)


def _shard(path: Path) -> str:
    from zoo.evaluation.extractors.features import _read

    found = _read(path, {})
    if found is None:
        raise ZooError("damaged: it is made again", code="data-damaged")
    return _hash(*(found[0][name] for name in sorted(found[0]))) + json.dumps(found[1], sort_keys=True)


def _statistics(path: Path) -> str:
    from zoo.evaluation.extractors.statistics_file import read_statistics

    found = read_statistics(path)
    return _hash(*(part for _, m in sorted(found.moments.items()) for part in (m.mean, m.scatter))) + str(found.count)


def _picture(path: Path) -> str:
    from zoo.images.inputs import read_image

    return _hash(read_image(path, size=(32, 32), count=1))


def _images(path: Path) -> str:
    from zoo.data.image_folder import ImageFolder

    data = ImageFolder(path=str(path if path.suffix == ".zip" else path.parent), size=16)
    return _hash(data.images()) + json.dumps(list(data.rows), sort_keys=True)


def _shards(path: Path) -> str:
    from zoo.data.web_dataset import WebDataset

    data = WebDataset(path=str(path), size=16)
    return _hash(data.images()) + json.dumps(list(data.rows), sort_keys=True)


def _numbers(path: Path) -> str:
    from zoo.data.arrays import ArrayFile

    data = ArrayFile(path=str(path))
    return _hash(data._arrays)


def _tensors(path: Path) -> str:
    from zoo.checkpoints.files import read_tensors

    return _hash(*(t for _, t in sorted(read_tensors(path).items())))


def _record(path: Path) -> str:
    from zoo.records.reading import check_whole, read_record

    return json.dumps(check_whole(read_record(path), source=str(path)), sort_keys=True)


def _array_record(path: Path) -> str:
    return _record(path.with_suffix(".npy"))


def _benchmark(path: Path) -> str:
    from zoo.bench.report import read_record

    return repr(read_record(path))


def _config(path: Path) -> str:
    import zoo

    return json.dumps(zoo.check(str(path)), sort_keys=True)


def _recipe(path: Path) -> str:
    from zoo.schema.registry import Registry
    from zoo.training.recipe import read_recipe

    return repr(read_recipe(path, Registry.installed()).raw)


def _suite(path: Path) -> str:
    from zoo.bench.suite import read_suite

    return repr(read_suite(str(path)))


def _card(path: Path) -> str:
    from zoo.config.cards import check_card, read_card
    from zoo.schema.registry import Registry

    return json.dumps(check_card(read_card(str(path)), Registry.installed()), sort_keys=True, default=str)


def _run_facts(path: Path) -> str:
    from zoo.schema.registry import Registry
    from zoo.training import provenance
    from zoo.training.recipe import read_recipe

    recipe = read_recipe(path.parent.parent / "recipe.yaml", Registry.installed())
    with contextlib.suppress(ZooError):
        provenance.check_data(path.parent, recipe)
    return ""


def _lora(path: Path) -> str:
    from zoo.families.lora.applied import carriers, read_entry

    found = read_entry({"file": str(path)}, carriers(_network(path.with_name("config.yaml")), ()))
    return _hash(*(part for of in found.values() for one in of for part in (one.down, one.up)))


@lru_cache
def _network(config: Path) -> torch.nn.Module:
    import zoo

    (stage,) = zoo.build(str(config)).stages
    return stage.denoiser.network


def _token(path: Path) -> str:
    from zoo.conditioners.embedding_files import read_embedding

    found = read_embedding(str(path))
    return found.token + _hash(*(found.vectors(width) for width in sorted(found.entries)))


def _index(path: Path) -> str:
    from zoo.checkpoints.folders import read_index

    return repr(read_index(path))


def _folder(path: Path, levels: int = 1) -> str:
    return _config(path.parents[levels - 1])


def _words(path: Path) -> str:
    from zoo.conditioners.words import read_words

    return repr(read_words.__wrapped__(path))


def _scalars(path: Path) -> str:
    from zoo.bench.report.runs import read_run
    from zoo.training.engine.logging import Scalars

    curves = repr(read_run(path.parent, "run").curves)
    copy = path.parent / "resumed"
    copy.mkdir(exist_ok=True)
    shutil.copy(path, copy)
    Scalars(copy, 2).close()
    return curves + (copy / path.name).read_text(errors="replace")


def _hashes(path: Path) -> str:
    from zoo.checkpoints import hashes

    with mock.patch.dict(os.environ, ZOO_CACHE=str(path.parent)):
        found = hashes._read()
    if not found:
        raise ZooError("damaged: files are hashed anew", code="data-damaged")
    return repr(found)


def _coco(path: Path) -> str:
    from zoo.data.coco import rows

    return repr(list(rows(path.parent.parent)))


def _explained(path: Path) -> str:
    from zoo.families.explain import explain

    return repr(explain(path))


def kinds(home: Path) -> list[Kind]:
    """Every kind of file that zoo reads, with a good one of each in `home`."""
    from PIL import Image

    from zoo.data.latents import _hash as latents_hash
    from zoo.evaluation import evaluate
    from zoo.schema.files import sha256_of

    place = torture.loop_in(home / "training")
    place.train_step()
    saved = place.save().relative_to(home)
    parts = sorted(file.name for file in (home / saved).iterdir())
    weights = home / "weights.safetensors"
    facts = {"bytes": weights.stat().st_size, "sha256": sha256_of(weights)}
    from safetensors.torch import save_file

    latents = torch.rand(4, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    save_file({"latents": latents}, home / "latents.safetensors", metadata={"sha256": latents_hash(latents)})
    toy = {"name": "random", "width": 4, "size": 16, "layers": 2}
    evaluate(str(home / "data"), str(home / "data"), metrics=["fd"], extractors=[toy], features=home / "features")
    shard = next((home / "features").rglob("*.npz")).relative_to(home)
    out = io.BytesIO()
    Image.open(home / "picture.png").convert("RGB").save(out, "JPEG")
    (home / "picture.jpg").write_bytes(out.getvalue())
    shutil.copy(Path(__file__).parent.parent.parent / "zoo" / "weights" / "emoji-kl-f4.yaml", home / "card.yaml")
    from zoo.checkpoints import hashes

    with mock.patch.dict(os.environ, ZOO_CACHE=str(home / "cache")):
        hashes._keep(str(weights), [weights.stat().st_size, 1, 2, 3, 4, facts["sha256"]])
    (home / "coco" / "annotations").mkdir(parents=True)
    captions = {
        "images": [{"id": i, "file_name": f"{i}.jpg"} for i in range(6)],
        "annotations": [{"id": 10 + i, "image_id": i, "caption": f"a thing {i}"} for i in range(6)],
    }
    (home / "coco" / "annotations" / "captions_val2014.json").write_text(json.dumps(captions))
    (home / "mutated-run").mkdir()
    data = {"path": "data", "files": 7, "sha256": "0" * 64}
    (home / "mutated-run" / "run.json").write_text(json.dumps({"schema": "zoo.run/1", "data": data, "sittings": []}))
    return [
        *(Kind(f"checkpoint's {name}", "sealed", f"{saved}/{name}", _checkpoint) for name in parts),
        Kind("weights of a card", "sealed", "weights.safetensors", partial(_weights, facts=facts)),
        Kind("cached latents", "checked", "latents.safetensors", _latents),
        Kind("features of a shard", "checked", str(shard), _shard),
        Kind("statistics", "checked", "statistics.npz", _statistics),
        Kind("PNG", "checked", "picture.png", _picture),
        Kind("JPEG", "open", "picture.jpg", _picture),
        Kind("record in a PNG", "checked", "image.png", _record),
        Kind("benchmark's record", "open", "record.json", _benchmark),
        Kind("metadata of a folder", "open", "data/metadata.jsonl", _images),
        Kind("data in a zip", "checked", "data.zip", _images),
        Kind("data in a tar", "open", "data.tar", _shards),
        Kind("numbers in .npy", "open", "waves.npy", _numbers),
        Kind("numbers in .npz", "checked", "waves.npz", _numbers),
        Kind("weights without a card", "open", "weights.pt", _tensors),
        Kind("safetensors without a card", "open", "weights.safetensors", _tensors),
        Kind("config", "open", "config.yaml", _config),
        Kind("recipe", "open", "recipe.yaml", _recipe),
        Kind("suite", "open", "suite.yaml", _suite),
        Kind("card", "open", "card.yaml", _card),
        Kind("record of an array", "open", "drawn.json", _array_record),
        Kind("LoRA", "open", "lora.safetensors", _lora),
        Kind("learned token", "open", "token.safetensors", _token),
        Kind("learned token in torch's file", "open", "token.pt", _token),
        Kind("model in one file", "open", "model.safetensors", _config),
        Kind("model in torch's file", "open", "model.ckpt", _explained),
        Kind("index of shards", "open", "shards.safetensors.index.json", _index),
        Kind("parts of a model's folder", "open", "model/model_index.json", _folder),
        Kind("network's settings", "open", "model/unet/config.json", partial(_folder, levels=2)),
        Kind("scheduler's settings", "open", "model/scheduler/scheduler_config.json", partial(_folder, levels=2)),
        Kind("config of an export", "open", "exported/zoo.yaml", _folder),
        Kind("words of a model", "open", "exported/text_encoder/words.json", _words),
        Kind("scalars of a run", "open", "run/scalars.csv", _scalars),
        Kind("kept hashes", "checked", "cache/hashes.json", _hashes),
        Kind("captions of COCO", "open", "coco/annotations/captions_val2014.json", _coco),
        Kind("facts of a run", "open", "mutated-run/run.json", _run_facts),
    ]  # fmt: skip


def spoil(kind: Kind, home: Path, count: int, seed: int, told: Path) -> None:
    """Read `count` mutants of a kind; leaves a JSON of counts and faults at `told`, and on the way where it is."""
    path, chance = home / kind.file, random.Random(f"{seed} {kind.name}")
    whole = path.read_bytes()
    usual = kind.read(path)
    found: dict[str, Any] = {"mutants": 0, "refused": 0, "same": 0, "other": 0, "faults": []}
    for number in range(count):
        path.write_bytes(torture.mutant(whole, chance))
        if number % 50 == 0:
            told.write_text(
                json.dumps({**found, "faults": [*found["faults"], f"{kind.name}: died near mutant {number}"]})
            )
        found["mutants"] += 1
        try:
            value = kind.read(path)
        except ZooError:
            found["refused"] += 1
        except BaseException as error:
            found["faults"].append(f"{kind.name}, mutant {number}: untyped {type(error).__name__}: {error!s:.100}")
        else:
            found["same" if value == usual else "other"] += 1
            if kind.held == "sealed" or (kind.held == "checked" and value != usual):
                found["faults"].append(
                    f"{kind.name}, mutant {number}: read as {'it was' if value == usual else 'another'}"
                )
    path.write_bytes(whole)
    told.write_text(json.dumps(found))


def run(home: Path, count: int = 2000, seed: int = 0) -> dict[str, Any]:
    """`count` mutants of every kind, a process a kind; counts by kind, and the faults of all."""
    faults, by_kind = [], {}
    for kind in kinds(home):
        told = home.parent / "mutants.told"
        told.write_text(json.dumps({"faults": [f"{kind.name}: died before its first mutant"]}))
        process = started(partial(spoil, kind, home, count, seed, told))
        process.join()
        found = json.loads(told.read_text())
        faults += found.pop("faults")
        by_kind[kind.name] = {"held": kind.held, **found}
    return {"cases": sum(found.get("mutants", 0) for found in by_kind.values()), "kinds": by_kind, "faults": faults}
