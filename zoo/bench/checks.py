"""Rows of kind checks: does a device, a precision or a part of the fast path agree with the CPU in float32?

| check | what is compared with the CPU | it agrees where |
|---|---|---|
| `images` | what the pipeline draws | float32: no value of 255 differs by more than 2; half precision: all finite |
| `img2img`, `inpaint` | the same from a given image, and of a part of one | as above |
| `features` | an extractor's features of eight images | the relative error of the features is at most 1e-3 |
| `training` | the first step's loss; a run resumed after two of four steps | to 1 %; to 1e-5 of the run that wasn't |
| `memory` | nothing: memory is limited until the batch doesn't fit | the batch was halved and the images came |

TensorFloat-32 is off while float32 is judged; the distance with it on is recorded beside.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

import zoo
from zoo.acceleration.device import indexed
from zoo.bench import pipelines, record
from zoo.bench.pipelines import Builder, flags
from zoo.bench.rows import Row
from zoo.diffusion.draws import stream
from zoo.schema.errors import ZooError

if TYPE_CHECKING:
    from zoo.bench.run import Run

GREY_LEVELS = 2.0  # of 255, in float32
FEATURE_ERROR = 1e-3  # relative
LOSS_ERROR, RESUME_ERROR = 1e-2, 1e-5  # relative
SHARE_OF_MEMORY = 0.02  # that the check of memory leaves a process
Found = dict[str, Any]


class Skipped(Exception):
    """A check that can't be made here, and why."""


def compare(run: Run, rows: list[Row]) -> None:
    """Every row's check, one after another; what the CPU drew is kept for the rows that share it."""
    for row in rows:
        run.tell(f"checking {row.asked.name}")
        began = perf_counter()
        status, reason, found = "measured", None, None
        try:
            found = _check(run, row)
        except Skipped as skipped:
            status, reason = "unavailable", str(skipped)
        except Exception as error:
            status, reason = "failed", pipelines.told(error)
        out = record.row_of(row, status, reason)
        if found is not None:
            out["check"] = found
            out["precision"] = {"dtype": row.asked.precision, **flags()}
            out["quality"] = record.quality("a check of correctness")
        out["wall_seconds"] = round(perf_counter() - began, 3)
        run.record["rows"].append(out)
        run.save()


def disagreements(record: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a record whose check didn't agree."""
    return [row for row in record["rows"] if (row.get("check") or {}).get("agrees") is False]


def _check(run: Run, row: Row) -> Found:
    check = row.asked.check
    if check == "features":
        return _features(row)
    if check == "training":
        return _training(row)
    if check == "memory":
        return _memory(run, row)
    return _images(run, row)


# -- images


def _images(run: Run, row: Row) -> Found:
    graphs = isinstance(row.asked.fast, Mapping) and row.asked.fast.get("graphs")
    if graphs and not row.asked.device.startswith("cuda"):
        raise Skipped("CUDA graphs need a cuda device")
    key = json.dumps([row.config, row.asked.check, row.asked.batch, row.asked.size], sort_keys=True)
    if key not in run.references:
        assert row.config is not None
        pipe = _fresh(run, row)
        run.references[key] = pipe(**_called(pipe, run, row), seed=run.suite.settings.seed).tensor
    expected: Tensor = run.references[key]
    built = Builder(run.suite.settings, counting=False).build(row)
    called = _called(built.pipe, run, row)
    with precise(True):
        drawn = built.pipe(**called, seed=run.suite.settings.seed).tensor
    found = distance(drawn, expected)
    exact = row.asked.precision == "float32"
    found |= {
        "against": "cpu float32", "tolerance": GREY_LEVELS if exact else None,
        "agrees": found["finite"] and (not exact or found["largest"] <= GREY_LEVELS),
    }  # fmt: skip
    if exact and row.asked.device.startswith("cuda") and not row.asked.fast:
        with precise(False):
            rounded = built.pipe(**called, seed=run.suite.settings.seed).tensor
        found["with_tf32"] = distance(rounded, expected)
    return found


def _fresh(run: Run, row: Row) -> Any:
    """The row's pipeline on the CPU in float32, with nothing of the fast path, and the same random weights if any."""
    torch.manual_seed(run.suite.settings.seed)
    return zoo.build(row.resolved or row.config)  # type: ignore[arg-type]


def _called(pipe: Any, run: Run, row: Row) -> dict[str, Any]:
    """What both sides are called with."""
    words = pipelines.words(pipe, row.asked.batch, run.suite.settings.prompts, row.asked.size)
    if row.asked.check in ("img2img", "inpaint"):
        side = row.asked.size or pipe.stages[-1].size
        words["image"] = pipelines.picture(side, side)
        if row.asked.check == "img2img":
            words["strength"] = 0.6
        else:
            mask = torch.zeros(1, side, side)
            mask[:, :, : side // 2] = 1.0
            words["mask"] = mask
    return words


def distance(drawn: Tensor, expected: Tensor) -> Found:
    """How far images in [0, 1] are apart, in grey levels of 255."""
    apart = (drawn.float() - expected.float()).abs() * 255.0
    finite = bool(torch.isfinite(apart).all())
    return {
        "what": "grey levels", "finite": finite,
        "largest": round(float(apart.max()), 4) if finite else None,
        "mean": round(float(apart.mean()), 5) if finite else None,
    }  # fmt: skip


@contextmanager
def precise(on: bool) -> Iterator[None]:
    """float32 as it is written, or by TensorFloat-32 where a device has that."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = not on
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


# -- memory


def _memory(run: Run, row: Row) -> Found:
    device = torch.device(row.asked.device)
    if device.type != "cuda":
        raise Skipped(f"memory of {row.asked.device} can't be limited for one process; it needs a cuda device")
    device = indexed(device)
    built = Builder(run.suite.settings, counting=False).build(row)
    torch.cuda.empty_cache()
    torch.cuda.set_per_process_memory_fraction(SHARE_OF_MEMORY, device)
    try:
        ready = pipelines.prepare(built)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, device)
        torch.cuda.empty_cache()
    if isinstance(ready, str):
        raise ZooError(ready, code="memory-exceeded")
    images = built.last.tensor
    return {
        "what": "batches tried", "tried": list(built.tried), "finite": bool(torch.isfinite(images).all()),
        "agrees": len(built.tried) > 1 and len(images) == built.tried[-1],
    }  # fmt: skip


# -- extractors


def _features(row: Row) -> Found:
    from zoo.evaluation.extractors.extractor import look
    from zoo.evaluation.extractors.weight_file import Unavailable
    from zoo.evaluation.selection import build
    from zoo.schema.registry import registry

    name, images = row.asked.model, smooth(8, 64)
    # Inception's weights don't ship; the same network with random ones shows as much.
    seeded = name in registry().names("extractor") and "seed" in registry().entry("extractor", name).signature().names
    block: Any = {"name": name, "seed": 0} if seeded else name
    try:
        on_cpu, there = (build(block, registry(), torch.device(d)) for d in ("cpu", row.asked.device))
    except (Unavailable, ZooError) as error:
        raise Skipped(f"the extractor '{name}' can't be built here: {error}") from error
    with precise(True):
        expected, found = look(on_cpu, images)["pool"], look(there, images)["pool"]
    error = float((found - expected).norm() / expected.norm())
    return {
        "what": "relative error of features", "finite": bool(torch.isfinite(found).all()), "largest": error,
        "tolerance": FEATURE_ERROR, "against": "cpu float32", "agrees": error <= FEATURE_ERROR,
    }  # fmt: skip


def smooth(count: int, size: int, *, seed: int = 0, purpose: str = "check") -> Tensor:
    """Random smooth images, uint8 (count, 3, size, size), the same everywhere."""
    drawn = torch.from_numpy(stream(seed, purpose).standard_normal((count, 3, 8, 8)).astype(np.float32))
    enlarged = torch.nn.functional.interpolate(drawn, (size, size), mode="bicubic")
    return enlarged.mul(60).add(128).clamp(0, 255).round().to(torch.uint8)


# -- training

TINY_RECIPE: dict[str, Any] = {
    "schema": "zoo.recipe/1", "name": "check", "data": {"name": "image-folder", "size": 16},
    "objective": {"name": "denoising"},
    "network": {
        "name": "unet", "in_channels": 3, "out_channels": 3, "width": 16, "mult": [1, 2], "blocks": 1,
        "attention": "plain", "attention_levels": [1], "heads": 2, "context_width": None, "groups": 8,
    },
    "schedule": {"name": "cosine", "steps": 1000}, "parameterization": "v",
    "train": {"steps": 4, "batch_size": 8, "precision": "fp32", "warmup_steps": 1, "save_every": 2, "validate_every": 4,
              "sheet_every": 100, "average": 0.5},
}  # fmt: skip


def _training(row: Row) -> Found:
    """Four steps on the device, the same after a kill at two, and the first loss on the CPU."""
    with tempfile.TemporaryDirectory() as place, precise(True):
        folder = Path(place)
        recipe = folder / "check.yaml"
        _write_data(folder / "data")
        recipe.write_text(json.dumps({**TINY_RECIPE, "data": {**TINY_RECIPE["data"], "path": str(folder / "data")}}))
        losses: dict[str, list[float]] = {}

        def trained(name: str, device: str, *, stop_at: int | None = None, resume: bool = False) -> Path | None:
            seen = losses.setdefault(name, [])
            try:
                done = zoo.train(
                    recipe, folder=folder / name, device=device, resume=resume, callback=_listener(seen, stop_at)
                )
            except _Killed:
                return None
            return done.card.with_suffix(".safetensors")

        trained("cpu", "cpu", stop_at=1)
        straight = trained("straight", row.asked.device)
        trained("resumed", row.asked.device, stop_at=3)
        again = trained("resumed", row.asked.device, resume=True)
        assert straight is not None
        assert again is not None
        apart = _weights_apart(straight, again)
    first = abs(losses["straight"][0] - losses["cpu"][0]) / abs(losses["cpu"][0])
    return {
        "what": "relative error of the first loss", "against": "cpu float32", "largest": first,
        "tolerance": LOSS_ERROR, "finite": bool(np.isfinite(losses["straight"]).all()),
        "resumed": {"largest": apart, "tolerance": RESUME_ERROR, "what": "weights of a run resumed at step 2 of 4"},
        "agrees": first <= LOSS_ERROR and apart <= RESUME_ERROR,
    }  # fmt: skip


class _Killed(Exception):
    """Ends a run from its callback, as a kill would."""


def _listener(losses: list[float], stop_at: int | None) -> Callable[[Any], None]:
    def listen(progress: Any) -> None:
        losses.append(progress.loss)
        if stop_at is not None and progress.step >= stop_at:
            raise _Killed

    return listen


def _write_data(folder: Path) -> None:
    """Sixteen images to train on and eight to validate with."""
    from PIL import Image

    folder.mkdir()
    rows = []
    for i, image in enumerate(smooth(24, 16)):
        name = f"{i:02d}.png"
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(folder / name)
        rows.append({"file_name": name, "text": f"image {i}", "split": "train" if i < 16 else "val"})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows) + "\n")


def _weights_apart(one: Path, other: Path) -> float:
    """The norm of the difference of two files' weights, over the norm of one."""
    from safetensors.torch import load_file

    a, b = (torch.cat([v.float().flatten() for _, v in sorted(load_file(f).items())]) for f in (one, other))
    return float((a - b).norm() / a.norm())
