"""The ways in which a comparison runs one thing: zoo as each row says, diffusers as it is and compiled."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.peers import networks
from benchmarks.peers.fresh import bytes_of
from benchmarks.peers.loops import Loop, Scene, StepClock, diffusers_decode, diffusers_loop, zoo_decode, zoo_loop
from zoo.acceleration.accelerated import speed_up
from zoo.acceleration.fast import Fast, choose, speed_up_decoder
from zoo.autoencoders.kl import AutoencoderKL
from zoo.bench import record
from zoo.bench.rows import Row
from zoo.bench.suite import PARTS
from zoo.pipeline.stage import Stage

ZOO, EAGER = "zoo", "zoo eager"  # as the row says, and without the fast path
PLAIN = "diffusers"
# Of torch.compile. On the CPU a loop is traced and no code generated: C++ for a U-Net takes minutes.
BACKENDS = {"cuda": "inductor"}
MODES = {"diffusers compiled": "default", "diffusers reduce-overhead": "reduce-overhead"}


@dataclass(eq=False)
class Way:
    """A library's way of doing a part."""

    row: Row  # under which it is recorded
    library: str
    part: str
    run: Loop
    weights: int  # bytes
    clock: StepClock
    fast: dict[str, Any] | None = None
    compiled: str | None = None  # torch.compile's mode
    notes: list[str] = field(default_factory=list)
    made: Tensor | None = None  # by the latest call

    @property
    def id(self) -> str:
        """The id of its row in the record."""
        return record.row_of(self.row, "measured", part=self.part, library=self.library)["id"]


def compiles(row: Row) -> bool:
    """Whether a row requests torch.compile: by name, or by a fast path that leaves it to a cuda device."""
    fast = row.asked.fast
    if isinstance(fast, bool):
        return fast and row.asked.device.startswith("cuda")
    return bool(fast.get("compile", row.asked.device.startswith("cuda")))


def backend(device: str) -> str:
    """torch.compile's, for a device."""
    return BACKENDS.get(device.partition(":")[0], "eager")


def eager(row: Row) -> Row:
    """The row without the fast path."""
    return dataclasses.replace(row, asked=dataclasses.replace(row.asked, fast=False))


def parts_of(row: Row) -> tuple[str, ...]:
    """The loop, and of one image its decoding; a batch is decoded by the same network."""
    assert row.config is not None
    kl = row.config["stages"][0]["autoencoder"].get("name") == "kl"
    return ("loop", "decode") if kl and row.asked.batch == 1 else ("loop",)


def latents_of(given: Scene) -> Tensor:
    """What is decoded: noise of the size of latents, in the autoencoder's precision."""
    draw = torch.Generator().manual_seed(0)
    stage, asked = given.stage, given.row.asked
    side = stage.size // stage.autoencoder.factor
    drawn = torch.randn(asked.batch, stage.autoencoder.channels, side, side, generator=draw)
    return drawn.to(asked.device, getattr(torch, asked.precision))


def zoo_way(row: Row, part: str, given: Scene, *, library: str = ZOO, under: Row | None = None) -> Way:
    """zoo, eager or as far fast as the row says; a fast one has its own copy, since it lays its weights out anew.

    Args:
        under: the row that it is recorded under, if that is another.
    """
    stage, fast = given.stage, None
    if row.asked.fast:
        switches: Any = {} if isinstance(row.asked.fast, bool) else dict(row.asked.fast)
        chosen = choose(torch.device(row.asked.device), **{**dict.fromkeys(PARTS), **switches})
        chosen = dataclasses.replace(chosen, backend=backend(row.asked.device))
        stage, fast = _quick(stage, part, chosen), chosen.record()
    clock = StepClock(row.asked.device)
    network: Any = stage.denoiser.network if part == "loop" else stage.autoencoder
    run = zoo_loop(given, stage, clock) if part == "loop" else zoo_decode(given, network, latents_of(given))
    return Way(
        row=under or row, library=library, part=part, run=run, weights=bytes_of(network), clock=clock, fast=fast,
        compiled="default" if compiles(row) else None,
    )  # fmt: skip


def _quick(stage: Stage, part: str, fast: Fast) -> Stage:
    """The stage with a copy of what the part runs, under the fast path (what `Pipeline.compile` does to all of it)."""
    if part == "loop":
        denoiser = copy.deepcopy(stage.denoiser)
        speed_up(denoiser, fast)
        return dataclasses.replace(stage, denoiser=denoiser)
    autoencoder = copy.deepcopy(stage.autoencoder)
    speed_up_decoder(autoencoder, fast)
    return dataclasses.replace(stage, autoencoder=autoencoder)


def diffusers_ways(row: Row, part: str, given: Scene, *, modes: bool, plain: bool = True) -> Iterator[Way]:
    """diffusers eager, and compiled in each mode that differs on this device; nothing is compiled before a call.

    Raises ImportError without diffusers.
    """
    networks.quiet()
    stage, device = given.stage, row.asked.device
    if part == "loop":
        module = networks.network_of(stage)
    else:
        assert isinstance(stage.autoencoder, AutoencoderKL)
        module = networks.autoencoder_of(stage.autoencoder)
    weights = bytes_of(module)

    def way(library: str, called: Any, mode: str | None, notes: list[str]) -> Way:
        clock = StepClock(device)
        if part == "loop":
            run = diffusers_loop(given, called, clock)
        else:
            run = diffusers_decode(given, called, float(stage.autoencoder.scale), latents_of(given))  # type: ignore[attr-defined]
        return Way(
            row=row, library=library, part=part, run=run, weights=weights, clock=clock, compiled=mode, notes=notes
        )

    if plain:
        yield way(PLAIN, module if part == "loop" else module.decode, None, [])
    if modes:
        laid, notes = networks.laid_out(module)
        for library, mode in MODES.items():
            if mode == "default" or device.startswith("cuda"):  # without graphs the other mode is the same
                words: Any = {"mode": mode} if backend(device) == "inductor" else {"backend": backend(device)}
                called = torch.compile(laid if part == "loop" else laid.decode, **words)
                yield way(library, called, mode, list(notes))
