"""The phase `quality`: every shipped text pipeline's quality and throughput, in one record."""

from __future__ import annotations

from typing import Any

MODELS = ("latent-text2img", "cascade-text2img", "latent-sr-text2img")
SECONDS = 32.0  # for each, judging included: as many samples are drawn as fit, at least 2,000


def suite(*, device: str, tiny: bool) -> dict[str, Any]:
    """The phase as a suite of `zoo bench`; `tiny` draws so few that its figures mean nothing."""
    quality: dict[str, Any] = {
        "samples": 10_000, "least": 2_000, "metrics": ["fd", "kid"], "reference": "train", "hit_split": "val",
        "hit_samples": 200,
    }  # fmt: skip
    if tiny:
        quality |= {"samples": 8, "least": 4, "reference": "val", "hit_samples": 2}
        quality["metrics"] = ["fd", {"name": "kid", "subsets": 2, "size": 4}]
    how: dict[str, Any] = {"batch": 2, "steps": 1} if tiny else {"batch": 256, "precision": "bfloat16"}
    # What is compiled or recorded takes longer to prepare than these samples take to draw.
    fast = {"precompute": True, "channels_last": True, "compile": False, "graphs": False}
    models = MODELS[:1] if tiny else MODELS
    return {
        "schema": "zoo.suite/1", "name": "on-gpu-quality", "kind": "pipelines",
        "summary": "Quality and throughput of every shipped text pipeline, in one record.",
        "settings": {"warm_up": 1, "repeats": 3, "quality": quality},
        "include": [
            {"model": model, "device": device, "fast": fast, **({} if tiny else {"seconds": SECONDS}), **how}
            for model in models
        ],
    }  # fmt: skip
