"""`zoo check` refuses the arguments that a constructor refuses, and no others: every kind, odd values.

A component's constructor is run on torch's meta device, so that no memory is needed. A component of a kind that is made
by the check itself (schedules, grids, samplers, ...) is held by tests/test_check_is_build.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zoo.config.blocks import check_block, make
from zoo.guidance.classifier_free import ClassifierFree
from zoo.schema.errors import ZooError
from zoo.schema.registry import KINDS, registry

UNET: dict[str, Any] = {
    "name": "unet", "width": 16, "mult": [1, 2], "blocks": 1, "attention_levels": [1], "heads": 2, "groups": 8,
    "context_width": 8,
}  # fmt: skip
KL: dict[str, Any] = {"name": "kl", "width": 8, "mult": [1, 2], "blocks": 1, "groups": 4}
CLIP: dict[str, Any] = {
    "name": "clip", "embed_dim": 8, "image_size": 32, "image_width": 8, "image_layers": [1, 1, 1, 1], "text_width": 16,
    "text_heads": 2, "text_layers": 1, "context_length": 8,
}  # fmt: skip
VISION: dict[str, Any] = {"width": 16, "heads": 2, "layers": 1, "embed_dim": 8, "image_size": 28, "patch": 14}
# A small one of each component whose arguments can be wrong; what isn't said here is its default.
SMALL: Mapping[str, list[dict[str, Any]]] = {
    "network": [
        UNET,
        {**UNET, "attention": "plain", "context_width": None, "classes": 3},
        {"name": "efficient-unet", "width": 16, "mult": [1, 2], "blocks": [1, 1], "groups": 8, "attention_levels": [1],
         "head_width": 8},
        {"name": "song-unet", "width": 16, "mult": [1, 2], "blocks": 1, "resolution": 16},
        {"name": "classifier", "classes": 3, "size": 16, "width": 16, "mult": [1, 2], "blocks": 1, "groups": 8,
         "attention_levels": [1], "heads": 2},
        CLIP,
        {**CLIP, "image_blocks": "basic", "image_width": [8, 16], "image_layers": [1, 1]},
    ],
    "autoencoder": [KL, {**KL, "name": "vq", "codes": 8}, {"name": "taesd", "width": 8}, {"name": "identity"}],
    "conditioner": [
        {"name": "clip-text", "width": 16, "heads": 2, "layers": 2, "context_length": 8, "embed_dim": 8},
        {"name": "class-label", "names": ["a", "b"]}, {"name": "stand-in", "context_width": 8},
        {"name": "numbers", "names": ["crop_top"], "width": 4},
        {"name": "clip-image", "schedule": "cosine", **VISION},
    ],
    "guidance": [
        {"name": "classifier-free"}, {"name": "static-threshold"}, {"name": "dynamic-threshold"},
        {"name": "limited-interval", "guidance": "classifier-free"}, {"name": "rescale", "space": "v"},
        {"name": "posterior", "measurement": "masked"}, {"name": "embedded"},
    ],
    "measurement": [{"name": "masked"}, {"name": "downsampled"}, {"name": "blurred"}],
    "low_res": [{"name": "plain"}, {"name": "gaussian", "schedule": "linear"}],
    "safety": [{"name": "mean-brightness"}, {"name": "stable-diffusion", **VISION}],
    "dataset": [{"name": "sines", "size": 16, "count": 4}, {"name": "image-folder", "size": 8}],
    "extractor": [{"name": "random", "width": 2, "layers": 2, "size": 16}],
    "metric": [{"name": name} for name in registry().names("metric")],
}  # fmt: skip
# Of these kinds a check makes the component and asks it.
MADE = {"schedule", "parameterization", "grid", "sampler", "step_cache"}
# Made of a recipe's data, network and folder: tests/training/test_recipe*.py and test_loggers.py.
RUN = {"objective", "logger", "family"}
# Weights that don't ship come before all else.
LACKING = {
    "extractor": {"inception-2015", "dinov2", "timm", "openclip", "clip"},
    "conditioner": {"open-clip"},  # open_clip's own models are large: tests/conditioners/test_open_clip.py
    "guidance": {"classifier", "autoguidance"}, "dataset": {"webdataset", "array-file"},
    "guidance of a call": {"mask"},
}  # fmt: skip
ODD: Mapping[str, list[Any]] = {
    "int": [-4, 0, 1, 2, 3, 5, 8, 12, 33], "float": [-1.0, 0.0, 1e-5, 0.5, 1.0, 5.0, math.inf, -math.inf],
    "int | None": [None, -1, 0, 2, 3, 8], "float | None": [None, -1.0, 0.5], "bool": [True, False],
    "Sequence[int]": [[], [0], [-1], [1], [1, 2], [2, 3], [1, 0], [7], [0, 1, 2]],
    "Sequence[float]": [[], [0.0], [0.5, 1], [1, 2], [1.5], [math.inf], [1, 1, 1], [1, -1]],
    "int | Sequence[int]": [0, -2, 8, 7, [], [2, 2], [0], [8, 16], [1]],
    "Sequence[str]": [[], ["a"], ["a", "a"], ["", "b"]],
}  # fmt: skip


def cases() -> Iterator[tuple[str, dict[str, Any]]]:
    for kind, blocks in SMALL.items():
        for block in blocks:
            yield kind, block


def odd_values(kind: str, block: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Values that fit each argument's type, most of which are odd."""
    signature = registry().entry(kind, block["name"]).signature()
    return {p.name: ODD[p.annotation] for p in signature.parameters if p.annotation in ODD}


def checked(kind: str, block: Mapping[str, Any]) -> str | None:
    """What a check says against a block, None where it passes."""
    try:
        check_block(block, kind=kind, where="here", registry=registry())
    except ZooError as error:
        return str(error)
    return None


def built(kind: str, block: Mapping[str, Any]) -> str | None:
    """What its constructor says against it."""
    block = dict(block)
    if kind == "guidance" and "guidance" in block:
        block["guidance"] = ClassifierFree()
    try:
        with torch.device("meta" if kind in ("network", "autoencoder") else "cpu"):
            make(kind, block, registry())
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def agree(kind: str, block: Mapping[str, Any]) -> bool:
    said, raised = checked(kind, block), built(kind, block)
    assert (said is None) == (raised is None), f"{kind} {block}: check says {said}, the constructor {raised}"
    return said is None


@pytest.fixture(autouse=True, scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A folder of one picture, which the dataset's block names."""
    from PIL import Image

    place: Path = tmp_path_factory.mktemp("data")
    Image.new("RGB", (16, 16)).save(place / "a.png")
    (place / "metadata.jsonl").write_text('{"file_name": "a.png", "text": "a", "split": "train"}\n')
    for block in SMALL["dataset"][1:]:
        block["path"] = str(place)
    yield
    for block in SMALL["dataset"][1:]:
        del block["path"]


def test_every_kind_is_walked():
    assert set(SMALL) | MADE | RUN == set(KINDS)
    for kind, blocks in SMALL.items():
        there = {b["name"] for b in blocks} | LACKING.get(kind, set()) | LACKING["guidance of a call"]
        assert set(registry().names(kind)) <= there, kind


@pytest.mark.parametrize(("kind", "block"), cases(), ids=lambda v: v if isinstance(v, str) else v["name"])
def test_one_odd_argument_is_refused_by_the_check_if_by_the_constructor(kind, block):
    assert agree(kind, block)
    verdicts = {agree(kind, {**block, name: value}) for name, v in odd_values(kind, block).items() for value in v}
    takes = registry().entry(kind, block["name"]).signature().constants.get("fits")
    assert verdicts == ({True, False} if takes else {True}) or not verdicts


@pytest.mark.parametrize(
    ("kind", "block"),
    [c for c in cases() if c[0] in ("network", "autoencoder") and c[1]["name"] not in ("clip", "identity")],
    ids=lambda v: v if isinstance(v, str) else v["name"],
)  # fmt: skip
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_odd_arguments_together_too(kind, block, data):
    odd = odd_values(kind, block)
    some = data.draw(st.lists(st.sampled_from(sorted(odd)), min_size=2, max_size=4, unique=True))
    agree(kind, {**block, **{name: data.draw(st.sampled_from(odd[name]), label=name) for name in some}})
