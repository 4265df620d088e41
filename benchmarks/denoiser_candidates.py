"""What the candidates for the next denoiser cost: parameters, forward GFLOP, processor time of a training step.

Each is emoji-base-32's network, at its 32x32 pixels, with the one change that its name says; `latents of 128 px` is the
latent denoiser's at the 32x32 latents that emoji-kl-f4 makes of 128 pixels. Processor time is that of all threads
together, the least of some steps taken in turn, so that other work on the machine hardly counts.

    python -m benchmarks.denoiser_candidates
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import record
from zoo.assemble import component
from zoo.config.cards import read_card

CANDIDATES: Mapping[str, Mapping[str, Any]] = {
    "emoji-base-32": {},
    "depth 2": {"depth": 2},
    "depth 3": {"depth": 3},
    "depth 2, attention at both levels": {"depth": [1, 2], "attention_levels": [0, 1]},
    "width 64": {"width": 64, "heads": 4},
    "depth 2, latents of 128 px": {"depth": 2, "patch": 1, "in_channels": 4, "out_channels": 4},
}
SIZE, BATCH = 32, 64


def inputs(network: Any, count: int) -> dict[str, Tensor]:
    """Arguments of a forward pass."""
    x = torch.randn(count, network.in_channels, SIZE, SIZE).contiguous(memory_format=torch.channels_last)
    return {"x": x, "time": torch.rand(count) * 999, "context": torch.randn(count, 24, 160)}


def step(network: nn.Module, given: Mapping[str, Tensor]) -> float:
    """Processor seconds, of all threads, of a forward and backward pass in bfloat16."""
    began = time.process_time()
    with torch.autocast("cpu", torch.bfloat16), sdpa_kernel(SDPBackend.MATH):
        out = network(given["x"], given["time"], context=given["context"]).float()
    out.square().mean().backward()
    network.zero_grad()
    return time.process_time() - began


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="What candidates for the next denoiser cost.")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each, in turn")
    options = parser.parse_args()
    card = read_card("emoji-base-32")
    networks: dict[str, Any] = {
        name: component("network", {"name": card.component, **card.raw["config"], **change}).to(
            memory_format=torch.channels_last
        )
        for name, change in CANDIDATES.items()
    }
    for network in networks.values():  # zeroed layers would give some gradients nothing to do
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.02)
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for _ in range(options.steps):
        for name, network in networks.items():
            seconds[name].append(step(network, inputs(network, BATCH)))
    values = {}
    for name, network in networks.items():
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(**inputs(network, 1))
        values[name] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "forward_gflop": round(counter.get_total_flops() / 1e9, 3),
            "images_per_processor_second": round(BATCH / min(seconds[name]), 1),
        }
        print(f"{name:<36} {values[name]}")
    made = record.make(
        "denoiser-candidates", settings={"batch": BATCH, "steps": options.steps, "precision": "bf16", "size": SIZE},
        values=values, threads=torch.get_num_threads(),
    )  # fmt: skip
    print(record.write(made))


if __name__ == "__main__":
    main()
