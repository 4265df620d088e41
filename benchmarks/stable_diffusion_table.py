"""Stable Diffusion 1.5 at full size beside diffusers, as a table: a view of the record `stable-diffusion.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MISSING = "*Not measured yet.*"
HEAD = "| what | zoo | diffusers | faster |\n| --- | --- | --- | --- |"


def table(results: Path) -> str:
    """Loading, evaluating and explaining the U-Net, and how far its outputs are from diffusers'."""
    path = results / "stable-diffusion.json"
    if not path.is_file():
        return MISSING
    record = json.loads(path.read_text())
    values, machine = record["values"], record["machine"]
    load, faster = values["load"], values["times_faster"]
    rows = [
        _row(what, load["zoo"][f"{key}_seconds"], load["diffusers"][f"{key}_seconds"], faster[key])
        for key, what in (("load", "load the U-Net, its file's hash known"), ("ready", "the same, and read it once"))
    ]
    for dtype, ways in values["evaluation"].items():
        for name, found in ways.items():
            what = f"evaluate it in {dtype}" + (", fast path" if name == "zoo fast" else "")
            rows.append(_row(what, found["seconds"], found["diffusers_seconds"], found["times_faster"]))
    peak = {library: load[library]["peak_of_file"]["median"] for library in load}
    apart = values["apart"] | {f"U-Net in {d}": ways["zoo"]["apart"] for d, ways in values["evaluation"].items()}
    differences = ", ".join(f"{part.replace('_', ' ')} {value:.1e}" for part, value in apart.items())
    side = record["settings"]["side"]
    evaluated = f"; evaluations are of a latent of {side}x{side}" if values["evaluation"] else ""
    said = (
        f"A file of {values['bytes'] / 1e9:.2f} GB with random weights that diffusers wrote. zoo's first load, which "
        f"hashes it, takes {values['first_load_seconds']:.1f} s; `zoo explain` of it "
        f"{values['explain_seconds']['median']:.2f} s. A process holds {peak['zoo']:.2f} times the file's size more at "
        f"the most, one of diffusers' {peak['diffusers']:.2f}. Largest difference from diffusers' and transformers' "
        f"outputs, over the largest output: {differences}. Medians of {record['settings']['rounds']} rounds in turn, "
        f"with the range of their ratios, in processor seconds of one thread{evaluated}. Measured on "
        f"{machine['processor']}, torch {record['versions']['torch']}, diffusers {record['versions']['diffusers']}."
    )
    return "\n".join([HEAD, *rows]) + "\n\n" + said


def _row(what: str, ours: dict[str, Any], theirs: dict[str, Any], faster: dict[str, Any]) -> str:
    low, high = min(faster["runs"]), max(faster["runs"])
    ratio = f"{faster['median']:.2f}x ({low:.2f} to {high:.2f})"
    return f"| {what} | {ours['median']:.2f} s | {theirs['median']:.2f} s | {ratio} |"
