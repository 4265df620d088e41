"""Stable Diffusion 1.5 at full size beside diffusers, as a table: a view of two records of the benchmark."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MISSING = "*Not measured yet.*"
HEAD = "| what | zoo | diffusers | faster |\n| --- | --- | --- | --- |"


def table(results: Path) -> str:
    """Loading, evaluating and explaining the U-Net, and how far its outputs are from diffusers'."""
    loads, evaluations = (_read(results / f"stable-diffusion-{name}.json") for name in ("loads", "evaluations"))
    rows, said = [], ""
    if loads is not None:
        values = loads["values"]
        load, faster = values["load"], values["times_faster"]
        rows += [
            _row(what, load["zoo"][f"{key}_seconds"], load["diffusers"][f"{key}_seconds"], faster[key])
            for key, what in (("load", "load the U-Net, its hash known"), ("ready", "the same, and read it once"))
        ]
        peak = {library: load[library]["peak_of_file"]["median"] for library in load}
        said += (
            f"A file of {values['bytes'] / 1e9:.2f} GB with random weights that diffusers wrote. zoo's first load, "
            f"which hashes it, takes {values['first_load_seconds']:.1f} s; `zoo explain` of it "
            f"{values['explain_seconds']['median']:.2f} s. A process holds {peak['zoo']:.3f} times the file's size "
            f"more at the most, one of diffusers' {peak['diffusers']:.3f}. Largest difference from diffusers' and "
            f"transformers' outputs, over the largest output: {_apart(values['apart'])}. {_how(loads)}"
        )
    if evaluations is not None:
        side, values = evaluations["settings"]["side"], evaluations["values"]
        for dtype, ways in values.items():
            for name, found in ways.items():
                what = f"evaluate it in {dtype}" + (", fast path" if name == "zoo fast" else "")
                rows.append(_row(what, found["seconds"], found["diffusers_seconds"], found["times_faster"]))
        apart = {f"U-Net in {dtype}": ways["zoo"]["apart"] for dtype, ways in values.items()}
        said += f" Evaluations are of a latent of {side}x{side}; differences: {_apart(apart)}. {_how(evaluations)}"
    return "\n".join([HEAD, *rows]) + "\n\n" + said.strip() if rows else MISSING


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.is_file() else None


def _row(what: str, ours: dict[str, Any], theirs: dict[str, Any], faster: dict[str, Any]) -> str:
    low, high = min(faster["runs"]), max(faster["runs"])
    ratio = f"{faster['median']:.2f}x ({low:.2f} to {high:.2f})"
    return f"| {what} | {ours['median']:.2f} s | {theirs['median']:.2f} s | {ratio} |"


def _apart(found: dict[str, float]) -> str:
    return ", ".join(f"{part.replace('_', ' ')} {value:.1e}" for part, value in found.items())


def _how(record: dict[str, Any]) -> str:
    versions = record["versions"]
    return (
        f"Medians of {record['settings']['rounds']} rounds in turn with the range of their ratios, in processor "
        f"seconds of one thread of {record['machine']['processor']}, torch {versions['torch']}, diffusers "
        f"{versions['diffusers']}."
    )
