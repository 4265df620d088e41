"""Tables of docs/memory.md: decoding by rows, and weights in eight bits."""

from __future__ import annotations

import statistics
from pathlib import Path

from benchmarks.views import MISSING, machine_of, markdown, read


def decode(results: Path) -> str:
    """Each way of decoding, at each size; and the line."""
    record = read("decode", results)
    if record is None:
        return MISSING
    head = ("pixels", "way", "seconds", "processor seconds", "extra memory", "from float32: mean (largest)")
    rows, said = [], []
    lines = record["settings"]["lines"]
    for size, found in record["values"].items():
        for name, way in found["ways"].items():
            away = f"{way['away_mean']:.4f} ({way['away_most']:.3f})" if "away_mean" in way else ""
            seconds, cpu = (f"{statistics.median(way[key]):.1f}" for key in ("seconds", "cpu_seconds"))
            rows.append((size, name, seconds, cpu, f"{statistics.median(way['bytes']) / 1e6:.0f} MB", away))
        over = found["rows_over_tiled"]
        said.append(
            f"{size} pixels: {over['seconds']['median']:.2f} of the seconds of diffusers' tiled decode "
            f"({over['cpu_seconds']['median']:.2f} of the processor's), {over['memory']:.2f} of its extra memory"
        )
    text = (
        f"{record['settings']['dtype']}, channels-last, random weights of Stable Diffusion's size; distances in the "
        f"image's standard deviation. By rows, over turns: {'; '.join(said)}. The line at 1024 pixels: "
        f"{lines['seconds']} of the time, {lines['memory']} of the memory."
    )
    return f"{markdown(head, rows)}\n\n{text} Measured on {machine_of(record)}."


def eight_bit(results: Path) -> str:
    """Bytes and distances of each kind."""
    record = read("eight-bit", results)
    if record is None:
        return MISSING
    head = ("pipeline", "weights", "bytes", "images moved: mean (largest) of 255")
    rows = [
        (f"`{name}`", kind, f"{found['bytes'] / 1e6:.1f} MB", f"{found['mean']:.2f} ({found['most']:.1f})")
        for name, kinds in record["values"].items()
        for kind, found in kinds.items()
    ]
    said = f"{len(record['settings']['prompts'])} images each, the same seed; eight bits beside float32."
    return f"{markdown(head, rows)}\n\n{said} Measured on {machine_of(record)}."
