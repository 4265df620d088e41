"""Records of suites that were never run, invented figures and images: what `zoo report` is tried and tested on.

python -c "from pathlib import Path; from benchmarks.invented import write; write(Path('invented'))"
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

JUDGE = {"name": "emoji-evaluator", "sha256": "cfa563d6c888b5b6362297256913610dfd2ecf59016e2d2c461ae225f9945beb"}
PROMPTS = ["red apple, 3d style", "cat face, noto style", "sun, flat style", "blue car, color style"]
EVALUATIONS = {"ddim": 1, "dpmpp-2m": 1, "unipc": 1, "heun": 2}
CURVE = {"ddim": 9.0, "dpmpp-2m": 4.5, "unipc": 4.0, "heun": 6.0}  # steps at which half of the quality is there
LAPTOP = {"processor": "Invented Laptop 5", "cores": 2, "threads": 2, "memory_bytes": 8 << 30, "system": "Linux"}
SERVER = {
    "processor": "Invented Server 9", "cores": 16, "threads": 16, "memory_bytes": 128 << 30, "system": "Linux",
    "accelerators": [{"device": "cuda:0", "name": "Invented Accelerator", "driver": "580.1",
                      "power_limit_watts": 700.0}],
}  # fmt: skip


def records() -> dict[str, dict[str, Any]]:
    """Three runs by file name: a sweep, some of it a day later, and another machine."""
    sweep = [(s, n) for s in EVALUATIONS for n in (5, 10, 20, 30)]
    first = [row(s, n, seed=i) for i, (s, n) in enumerate(sweep)]
    first.append(random_row())
    first.append(absent_row("unavailable", "the device 'cuda' is not there (no accelerator was found)", "cuda"))
    first.append(absent_row("failed", "no memory for one picture at 2048 px on cpu", "cpu"))
    later = [row(s, n, seed=50 + i, faster=1.13) for i, (s, n) in enumerate(sweep[:6])]
    server = [row(s, n, seed=90 + i, precision=p, device="cuda") for i, (s, n, p) in enumerate(
        (s, n, p) for s in ("ddim", "dpmpp-2m") for n in (10, 30) for p in ("float32", "bfloat16")
    )]  # fmt: skip
    return {
        "invented-2026-11-20.json": record("invented", "2026-11-20T09:00:00+00:00", LAPTOP, first),
        "invented-2026-11-21.json": record("invented", "2026-11-21T09:30:00+00:00", LAPTOP, later, complete=False),
        "invented-gpu-2026-11-21.json": record(
            "invented-gpu", "2026-11-21T11:00:00+00:00", SERVER, server, pairs=pairs(server[0]["id"])
        ),
    }


def record(
    name: str, started: str, machine: dict[str, Any], rows: list[dict[str, Any]], *, complete: bool = True,
    pairs: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:  # fmt: skip
    """A run of a suite."""
    return {
        "schema": "zoo.suite-record/1",
        "suite": {
            "name": name, "kind": "pipelines", "summary": "Invented figures: nothing was measured.", "sha256": "0" * 64,
            "settings": {"warm_up": 1, "repeats": 5, "seed": 0, "order": "interleaved", "quality_samples": 64,
                         "quality_ranges": 4, "prompts": PROMPTS, "overrides": []},
        },
        "run": {"started": started, "finished": started, "wall_seconds": 117.2, "complete": complete, "resumed": 0},
        "code": {"zoo": "0.1.0", "commit": "0123456789abcdef0123456789abcdef01234567", "dirty": not complete},
        "machine": {"accelerators": [], "world_size": 1, **machine},
        "versions": {"python": "3.12.3", "torch": "2.15.0", "cuda": None, "cudnn": None, "diffusers": None},
        "peaks": {"cpu/float32": {"matmul_tflops": 0.21, "tflops": 0.21, "matmul_size": 1024}},
        "noise": {"g": {"row": "the first", "seconds": [0.48, 0.49], "relative_spread": 0.012}},
        "rows": rows, "pairs": pairs or [],
    }  # fmt: skip


def row(
    sampler: str, steps: int, *, seed: int, faster: float = 1.0, precision: str = "float32", device: str = "cpu"
) -> dict[str, Any]:
    """A measured configuration."""
    rng = np.random.default_rng(seed)
    evaluations = steps * EVALUATIONS[sampler]
    a_second = 80.0 / (evaluations + 3) * faster * float(rng.uniform(0.96, 1.04))
    if device == "cuda":
        a_second *= 60 if precision == "bfloat16" else 32
    good = steps / (steps + CURVE[sampler]) - (0.01 if precision == "bfloat16" else 0.0)
    identity = hashlib.sha256(f"{sampler}{steps}{precision}{device}".encode()).hexdigest()[:12]
    host = int(5.1e8 + 1.2e6 * steps + (4e7 if sampler in ("unipc", "dpmpp-2m") else 0))
    hit, distance = round(0.19 * good + float(rng.normal(0, 0.004)), 4), round(0.31 + 0.25 * (1 - good), 4)
    latency = [round(4 / a_second * float(rng.uniform(0.99, 1.05)), 4) for _ in range(5)]
    # A call's: both stages, what is done before and after them, and what nothing else accounts for.
    share = {"text": 0.03, "base": 0.62, "upscale": 0.22, "encoding": 0.0, "decoding": 0.1, "rest": 0.03}
    seconds = {part: round(4 / a_second * s, 5) for part, s in share.items() if s}
    note = ["8 pictures a batch needed too much memory; 4 were drawn"] if (steps, sampler) == (30, "heun") else []
    asked = {
        "model": "latent-text2img", "sampler": sampler, "steps": steps, "guidance": 2.5, "precision": precision,
        "batch": 4, "device": device, "fast": False, "step_cache": None, "size": None, "library": "zoo",
        "part": "pipeline",
    }  # fmt: skip
    device_peak = (900_000_000 if precision == "float32" else 520_000_000) if device == "cuda" else None
    hit_key, distance_key = "hit[emoji-evaluator@cfa563d6,test]@64", "fd[emoji-evaluator@cfa563d6]@64"
    return {
        "id": identity, "name": f"latent-text2img {sampler} {steps} g=2.5 {precision} b4 {device}", "group": "g",
        "status": "measured", "reason": None,
        "notes": note, "asked": asked, "random_weights": False,
        "run": {
            "stages": [{"name": "base", "size": 64, "sampler": {"name": sampler, "steps": steps},
                        "evaluations": evaluations, "full_evaluations": evaluations, "guidance": []}],
            "evaluations": evaluations, "batch": 4, "seeds": [0, 1, 2, 3], "labels": "prompts in turn",
            "noise_device": "cpu",
        },
        "speed": {"latency_seconds": {"p50": sorted(latency)[2], "p90": max(latency), "runs": latency},
                  "images_per_second": round(a_second, 4)},
        "memory": {"host_peak_bytes": host, "host_before_bytes": 430_000_000, "device_peak_bytes": device_peak,
                   "planned_weight_bytes": 57_600_000, "planned_activation_bytes": 110_000_000, "planned_reason": None,
                   "reason": None},
        "energy": {"joules_per_image": round(300 / a_second, 3) if device == "cuda" else None,
                   "reason": None if device == "cuda" else "the driver tells no power of cpu"},
        "work": {"share_of_peak": round(0.2 + 0.01 * good, 4), "reason": None},
        "profile": {"seconds": seconds, "calls": 5, "of": "the measured calls", "reason": None},
        "quality": {
            "values": {
                hit_key: value(hit, "higher", floor=0.00045, interval=[hit - 0.03, hit + 0.03]),
                distance_key: value(distance, "lower", floor=0.31, deviation=0.006),
            },
            "reason": None, "samples": [f"invented-{identity}.png"],
        },
    }  # fmt: skip


def value(
    found: float, better: str, *, floor: float, deviation: float | None = None, interval: list[float] | None = None
) -> dict[str, Any]:
    """A value under its key."""
    return {
        "value": found, "deviation": deviation, "interval": interval, "n": 64,
        "seed_ranges": [[64 * i, 64 * (i + 1)] for i in range(4)],
        "floor": {"key": "floor", "value": floor}, "better": better, "extractor": JUDGE,
        "reference": {"name": "emoji-core-128.zip", "split": "test", "n": 889, "pictures_sha256": None},
        "pictures": {"format": "uint8 RGB, in memory", "size": 64},
    }  # fmt: skip


def random_row() -> dict[str, Any]:
    """A network of random weights: fast, and of no quality."""
    made = row("ddim", 10, seed=7)
    made["asked"] = {**made["asked"], "model": "stand-in"}
    return {
        **made, "id": "feedfeedfeed", "name": "stand-in ddim 10 g=2.5 float32 b4 cpu", "random_weights": True,
        "notes": ["random weights: speed only"],
        "quality": {"values": {}, "reason": "the weights are random", "samples": []},
    }  # fmt: skip


def absent_row(status: str, reason: str, device: str) -> dict[str, Any]:
    """A configuration that has no values."""
    asked = {**row("ddim", 10, seed=0)["asked"], "device": device, "precision": "bfloat16"}
    names = ("run", "precision", "fast", "speed", "memory", "energy", "work", "quality")
    return {"id": status[:8], "name": f"latent-text2img ddim 10 {device}", "group": "g", "status": status,
            "reason": reason, "notes": [], "asked": asked, "random_weights": False, **dict.fromkeys(names)}  # fmt: skip


def pairs(ours: str) -> list[dict[str, Any]]:
    """Two comparisons with another library."""
    agreement = {"largest_difference": 2.1e-06, "of": "output", "tolerance": 1e-4, "agrees": True}
    first = {"name": "U-Net step, float32", "ours": ours, "theirs": "c1", "peer": "diffusers 0.42.0", "what": "seconds"}
    return [
        {**first, "ratio": 1.21, "ratios": [1.19, 1.21, 1.24], "agreement": agreement},
        {**first, "name": "whole pipeline, 30 steps", "ratio": 0.98, "ratios": [0.97, 0.98, 1.01],
         "agreement": {**agreement, "largest_difference": 3e-3, "agrees": False}},
    ]  # fmt: skip


def sheet(seed: int, steps: int, count: int = 4, size: int = 64) -> Image.Image:
    """Discs on white, the blurrier the fewer the steps."""
    rng = np.random.default_rng(3)
    grain = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size - 0.5
    tiles = []
    for _ in range(count):
        colour, (cx, cy), r = rng.uniform(40, 230, 3), rng.uniform(-0.12, 0.12, 2), rng.uniform(0.2, 0.34)
        inside = 1 / (1 + np.exp((np.hypot(x - cx, y - cy) - r) * 4 * steps))
        light = 1 - 0.6 * np.hypot(x - cx + 0.1, y - cy + 0.1)
        picture = 255 * (1 - inside[..., None]) + inside[..., None] * colour * light[..., None]
        tiles.append(picture + grain.normal(0, 40 / steps, picture.shape))
    return Image.fromarray(np.concatenate(tiles, axis=1).clip(0, 255).astype(np.uint8))


def write(folder: Path) -> list[Path]:
    """Write the records and their images into a folder; returns the records' files."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, made in records().items():
        for i, one in enumerate(made["rows"]):
            for picture in (one["quality"] or {}).get("samples", []):
                sheet(i, one["asked"]["steps"]).save(folder / picture)
        path = folder / name
        path.write_text(json.dumps(made, indent=1) + "\n")
        written.append(path)
    return written
