"""The phase `speed`: zoo eager and fast against diffusers eager and compiled, most important cells first.

Networks have their published sizes and fresh weights (so no row of them is judged by its images), text encoders stay
out, and 20 steps replace 50 where a loop is long. `LINES` says what each comparison should reach; nothing asserts it,
and `beside` sets line and measurement side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

SUMMARY = "zoo and diffusers in turn on the same fresh weights: loops by step, decoders, shipped pipelines, features."
MODELS = ("ddpm-cifar10-random", "sd15-random", "sdxl-random")

Over = Literal["eager", "compiled", "lowest"]


@dataclass(frozen=True, kw_only=True)
class Line:
    """A ratio to reach: zoo over diffusers in one interleaved run, by zoo's best way there."""

    what: str
    model: str | None  # None: every comparison of the record
    part: str
    batches: tuple[int, ...]
    over: Over  # diffusers eager, its better compiled way, or the lowest ratio of all over eager
    ratio: float


LINES = (
    Line(
        what="DDPM size, DDIM loop", model="ddpm-cifar10-random", part="loop", batches=(1, 4), over="eager", ratio=5.0
    ),
    Line(what="SD 1.5 size, 512 px", model="sd15-random", part="loop", batches=(1,), over="eager", ratio=2.5),
    Line(what="SD 1.5 size, 512 px", model="sd15-random", part="loop", batches=(1,), over="compiled", ratio=1.15),
    Line(what="SD 1.5 size, 512 px", model="sd15-random", part="loop", batches=(16,), over="eager", ratio=1.3),
    Line(what="SDXL size, 1024 px", model="sdxl-random", part="loop", batches=(1,), over="eager", ratio=1.4),
    Line(what="VAE decode, 512 px", model="sd15-random", part="decode", batches=(1,), over="eager", ratio=1.25),
    Line(what="VAE decode, 1024 px", model="sdxl-random", part="decode", batches=(1,), over="eager", ratio=1.25),
    Line(what="nowhere under", model=None, part="", batches=(), over="lowest", ratio=0.98),
)


def suite(*, device: str, tiny: bool) -> dict[str, Any]:
    """The mapping of the suite. `tiny` has the same rows with networks that two cores run in seconds."""
    cuda = device.startswith("cuda")
    where = {"device": device, "precision": "bfloat16" if cuda else "float32"}
    # Without compilation, which takes long; graphs are for cuda only.
    graphs = {"precompute": True, "channels_last": True, "compile": False, "graphs": cuda}
    compiled = {**graphs, "compile": True}
    ddpm, sd, sdxl = MODELS
    large, shipped = (2, ["pixel-ddpm-32"]) if tiny else (64, ["shipped"])

    def cell(model: str, batch: int | list[int], fast: Mapping[str, bool], seconds: float) -> dict[str, Any]:
        return {"kind": "diffusers", "model": model, **where, "batch": batch, "fast": fast, "seconds": seconds}

    return {
        "schema": "zoo.suite/1", "name": "on-gpu-speed", "kind": "diffusers", "summary": SUMMARY,
        "settings": {"warm_up": 1, "repeats": 2 if tiny else 5, "count": 2 if tiny else 256, "sheets": False},
        "models": _models(tiny=tiny),
        # Blocks keep their order, so the most important ones are measured if time is short.
        "matrix": [
            cell(ddpm, 1, graphs, 20.0),
            cell(sd, 1, graphs, 30.0),
            cell(sd, 1, compiled, 60.0),
            cell(ddpm, 1, compiled, 40.0),
            cell(sdxl, 1, graphs, 40.0),
            cell(sd, 2 if tiny else [4, 16], graphs, 30.0),
            {"kind": "diffusers", "model": "latent-text2img", **where, "batch": 1 if tiny else 4, "fast": graphs,
             "sampler": {"name": "ddim", "steps": 2 if tiny else 20}, "seconds": 20.0},
            {"kind": "pipelines", "model": shipped, **where, "batch": [1, large], "fast": [False, graphs],
             "steps": 2 if tiny else 20, "seconds": 3.0},
            cell(ddpm, 2 if tiny else [4, 16, 64], graphs, 20.0),
            # In bfloat16 only features are timed: metrics have a suite of their own.
            {"kind": "metrics", "model": "inception-2015", "device": device, "precision": "bfloat16",
             "batch": 2 if tiny else 64, "seconds": 20.0},
            *([] if tiny else [cell(sdxl, 1, compiled, 90.0), cell(sd, 16, compiled, 90.0)]),
        ],
    }  # fmt: skip


def _models(*, tiny: bool) -> dict[str, Any]:
    """The three networks in their published sizes, or so small that their structure alone is left."""
    ddpm: dict[str, Any] = {"in_channels": 3, "out_channels": 3, "attention": "plain", "attention_levels": [1]}
    ddpm |= {"heads": 1, "context_width": None, "mult": [1, 2, 2, 2], "width": 128}
    sd: dict[str, Any] = {"heads": 8, "context_width": 768}
    sdxl: dict[str, Any] = {"mult": [1, 2, 4], "attention_levels": [1, 2], "depth": [1, 2, 10], "head_width": 64}
    sdxl |= {"context_width": 2048, "projection": "linear", "vector_width": 2816}
    kl: dict[str, Any] = {"name": "kl"}
    if tiny:
        small = {"width": 16, "mult": [1, 2], "groups": 4, "blocks": 1}
        ddpm |= small
        sd |= {**small, "attention_levels": [1], "heads": 2, "context_width": 16}
        sdxl |= {**small, "attention_levels": [1], "depth": [1, 2], "head_width": 8, "context_width": 16}
        sdxl["vector_width"] = 88
        kl |= {"width": 8, "mult": [1, 2, 2], "groups": 4, "blocks": 1}

    def sampler(steps: int) -> dict[str, Any]:
        return {"name": "ddim", "steps": min(steps, 3) if tiny else steps, "grid": "leading", "final": "first"}

    def config(summary: str, network: dict[str, Any], size: int, steps: int, **stage: Any) -> dict[str, Any]:
        conditioners = {}
        if "listens" in stage:  # in place of text encoders
            stand_in = {k: network[k] for k in ("context_width", "vector_width") if k in network}
            conditioners["text"] = {"name": "stand-in", **stand_in}
        denoiser = {"network": {"name": "unet", **network}, "schedule": "scaled-linear", "parameterization": "eps"}
        base = {"name": "base", "size": size, "denoiser": denoiser, "sampler": sampler(steps), **stage}
        return {
            "schema": "zoo.pipeline/1", "summary": f"{summary} Fresh weights.", "conditioners": conditioners,
            "stages": [base],
        }  # fmt: skip

    def latent(summary: str, network: dict[str, Any], size: int, scale: float, guidance: float) -> dict[str, Any]:
        guided = [{"name": "classifier-free", "scale": guidance}]
        text = {"listens": ["text"], "autoencoder": {**kl, "scale": scale}, "guidance": guided}
        return config(f"{summary} 20 steps stand for 50.", network, 32 if tiny else size, 20, **text)

    made = (
        config("The CIFAR-10 U-Net of Ho et al. 2020.", ddpm, 8 if tiny else 32, 50),
        latent("Stable Diffusion 1.5 at 512 pixels.", sd, 512, 0.18215, 7.5),
        latent("SDXL's base network at 1024 pixels.", sdxl, 1024, 0.13025, 5.0),
    )
    made[0]["stages"][0]["denoiser"]["schedule"] = "linear"
    return dict(zip(MODELS, made, strict=True))


def mark(record: dict[str, Any]) -> dict[str, Any]:
    """The record with `line` added to each pair that one of the lines covers."""
    rows = {row["id"]: row["asked"] for row in record["rows"]}
    for pair in record["pairs"]:
        if pair["ours"] not in rows or pair["theirs"] not in rows:
            continue
        ours, theirs = rows[pair["ours"]], rows[pair["theirs"]]
        found = [line.ratio for line in LINES for b in line.batches or (None,) if _fits(line, b, ours, theirs)]
        if found:
            pair["line"] = found[0]  # the most specific line comes first
    return record


def beside(record: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each line with what a record measured of it: `what`, `batch`, `over`, `line`, `measured`, `by`, `reason`.

    One entry a batch; `measured` is null with a reason where no comparison was made.
    """
    rows = {row["id"]: row for row in record["rows"]}
    known = [p for p in record["pairs"] if p["ratio"] is not None and p["ours"] in rows and p["theirs"] in rows]
    found = []
    for line in LINES:
        for batch in line.batches or (None,):
            fits = [
                pair for pair in known if _fits(line, batch, *(rows[pair[who]]["asked"] for who in ("ours", "theirs")))
            ]
            entry: dict[str, Any] = {"what": line.what, "batch": batch, "over": line.over, "line": line.ratio}
            if not fits:
                found.append({**entry, "measured": None, "by": None, "reason": _why(line, batch, record)})
                continue
            best = (min if line.over == "lowest" else max)(fits, key=lambda pair: pair["ratio"])
            found.append({**entry, "measured": best["ratio"], "by": rows[best["ours"]]["name"], "reason": None})
    return found


def _fits(line: Line, batch: int | None, ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    eager = theirs["library"] == "diffusers"
    if line.over == "lowest":
        return eager
    same = (ours["model"], ours["part"], ours["batch"]) == (line.model, line.part, batch)
    return same and eager == (line.over == "eager")


def _why(line: Line, batch: int | None, record: Mapping[str, Any]) -> str:
    """Why a planned comparison is missing: its reason, or its row's."""
    rows = {row["id"]: row for row in record["rows"]}
    for pair in record["pairs"]:
        asked = rows.get(pair["ours"], {}).get("asked", {})
        if pair["ratio"] is None and (asked.get("model"), asked.get("part")) == (line.model, line.part):
            return str(pair["reason"])
    same = [r for r in record["rows"] if (r["asked"]["model"], r["asked"]["batch"]) == (line.model, batch)]
    return next((str(row["reason"]) for row in same if row["reason"]), "no call got that far")
