"""Tables of what a new user meets: a first image from a fresh clone, and images beside other work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.views import MISSING, machine_of, markdown, read


def busy(results: Path) -> str:
    """Seconds of an image on an idle machine and beside busy processes, by how threads are set."""
    made = read("busy", results)
    if made is None:
        return MISSING
    settings, values = made["settings"], made["values"]
    kinds = ("default", "1 thread", "2 threads", "spinning")
    rows = []
    for load, whats in values["seconds"].items():
        name = "idle" if load == "idle" else f"beside {settings['busy_processes']} busy processes"
        for what, found in whats.items():
            over, limit = values["default_over_best"][load][what], values["limits"][load]
            said = f"{over:.2f}, {'within' if over <= limit else '**over**'} {limit:g}"
            rows.append((f"{name}, {what}", *(f"{found[kind]['median']:.2f} s" for kind in kinds), said))
    head = ("one image", *(f"`--threads {k[0]}`" if k[0].isdigit() else k for k in kinds), "default over the best")
    cut = values["ended_at_limit"]
    ended = f" {cut} runs were ended after {settings['limit_seconds']:g} s and count as that." if cut else ""
    return markdown(head, rows) + (
        f"\n\nMedians of {settings['rounds']} interleaved rounds. Cold: `zoo generate` in a new process; warm: again "
        f"in a process that has drawn before; spinning: threads wait as PyTorch's do by themselves.{ended} By "
        f"`python -m benchmarks.busy` on {machine_of(made)}."
    )


def first_picture(results: Path) -> str:
    """A newcomer's first image, by part."""
    made = read("first-picture", results)
    if made is None:
        return MISSING
    seconds, size = made["values"]["seconds"], made["values"]["bytes"]
    rows = [
        ("`git clone`", f"{seconds['clone']:.0f}", f"{size['clone'] / 1e6:.0f} MB over the network"),
        ("virtual environment", f"{seconds['venv']:.0f}", ""),
        (
            "`pip install .`", f"{seconds['install']:.0f}",
            f"{size['downloaded'] / 1e9:.1f} GB over the network, {size['environment'] / 1e9:.1f} GB on disk",
        ),
        ("`zoo generate`", f"{seconds['generate']:.0f}", f"{size['image'] / 1e3:.0f} kB, the image"),
        ("all", f"{made['values']['total_seconds']:.0f}", ""),
    ]  # fmt: skip
    said = f"With an empty cache of pip{_beside(made)}, by `python -m benchmarks.first_picture` on {machine_of(made)}."
    return markdown(("part", "seconds", "bytes"), rows) + f"\n\n{said}"


def first_picture_line(results: Path) -> str:
    """The same in a sentence."""
    made = read("first-picture", results)
    if made is None:
        return MISSING
    seconds, size = made["values"]["total_seconds"], made["values"]["bytes"]
    return (
        f"From a fresh clone this took {seconds / 60:.1f} minutes on {made['machine']['cores']} cores{_beside(made)}, downloaded "
        f"{size['downloaded'] / 1e9:.1f} GB and filled {size['environment'] / 1e9:.1f} GB: on Linux pip brings PyTorch "
        "with CUDA."
    )


def _beside(made: dict[str, Any]) -> str:
    """What else the machine did."""
    load = made["values"]["load_before"]
    return f", beside other work (load {load:.1f})" if load > 1.0 else ""
