"""Decoding latents whole, by rows and by tiles, in turns with diffusers' whole and tiled decode: seconds and memory.

The autoencoder has the size of Stable Diffusion's and random weights, the same on both sides, channels-last. Memory is
the highest that the process reached in a call over what it held before, the median over turns. Seconds are by the clock
and, less disturbed by whatever else runs on the machine, of the processor. Images are compared with the float32 decode.

    python -m benchmarks.decode                       # the record
    python -m benchmarks.decode --sizes 128 --quick   # to see that it runs
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
from collections.abc import Callable
from time import process_time
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import record
from zoo.autoencoders.kl import AutoencoderKL
from zoo.bench.measure import Timed, once, peak_memory, start_memory
from zoo.families.diffusers.config import kl_config
from zoo.families.diffusers.layout import kl_tensors

PEER = "diffusers tiled"
LINES = {"seconds": 0.8, "memory": 1.05}  # of rows over diffusers' tiled decode, at 1024 pixels in bfloat16
ROUNDS = {512: 3, 1024: 3, 2048: 1}
Way = Callable[[Tensor], Tensor]


def randomised(module: nn.Module) -> Any:
    """Every parameter drawn, so that no layer does nothing and values stay about one."""
    generator = torch.Generator().manual_seed(0)
    for name, parameter in module.named_parameters():
        draw = torch.randn(parameter.shape, generator=generator)
        near_one = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        parameter.data = draw * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1 * draw + near_one
    return module.eval().requires_grad_(False)


def ways(dtype: torch.dtype) -> dict[str, Way]:
    """Latents -> images, each way."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL as Theirs

    ours = randomised(AutoencoderKL())
    theirs: Any = Theirs.from_config(kl_config(ours))
    theirs.eval().requires_grad_(False)
    theirs.load_state_dict(kl_tensors(ours.state_dict()), strict=True)
    for module in (ours, theirs):
        module.to(dtype=dtype, memory_format=torch.channels_last)

    def zoo(by: str) -> Way:
        def call(z: Tensor) -> Tensor:
            ours.decoder.by = by
            return ours.decode(z)

        return call

    def diffusers(tiled: bool) -> Way:
        def call(z: Tensor) -> Tensor:
            theirs.use_tiling, theirs.tile_latent_min_size, theirs.tile_sample_min_size = tiled, 64, 512
            return theirs.decode(z).sample

        return call

    return {
        "zoo whole": zoo("whole"), "zoo rows": zoo("rows"), "zoo tiles": zoo("tiles"),
        "diffusers whole": diffusers(False), PEER: diffusers(True),
    }  # fmt: skip


def measured(size: int, rounds: int, dtype: torch.dtype, only: list[str] | None = None) -> dict[str, Any]:
    """Each way's seconds and bytes, in turns, and how far its image is from that of float32, whole."""
    z = torch.randn(1, 4, size // 8, size // 8, generator=torch.Generator().manual_seed(1))
    right = None if size > 1024 or only else ways(torch.float32)["zoo whole"](z)
    found: dict[str, Any] = {}
    each = {name: way for name, way in ways(dtype).items() if only is None or name in only}
    for way in each.values():  # the libraries' code is in memory before it is measured
        way(z[..., :8, :8].to(dtype))
    for number in range(rounds):
        for name in list(each)[:: 1 if number % 2 else -1]:
            made: list[Tensor] = []
            trim()
            before, used = start_memory("cpu"), process_time()
            seconds = once(Timed(name, lambda _, n=name, m=made: m.append(each[n](z.to(dtype))), "cpu", 1), number)
            used, peak = process_time() - used, peak_memory("cpu", before)
            row = found.setdefault(name, {"seconds": [], "cpu_seconds": [], "bytes": []})
            row["seconds"].append(round(seconds, 3))
            row["cpu_seconds"].append(round(used, 3))
            row["bytes"].append(peak["host_peak_bytes"] - peak["host_before_bytes"])
            if right is not None and number == 0:
                away = (made[0].float() - right).abs() / right.std()
                row |= {"away_mean": float(away.mean()), "away_most": float(away.max())}
            print(size, name, f"{seconds:.2f} s, cpu {used:.2f} s, {row['bytes'][-1] / 1e6:.0f} MB", flush=True)
    return found


def compared(found: dict[str, Any]) -> dict[str, Any]:
    """Rows over diffusers' tiles: seconds by turn, and memory."""
    rows, tiled = found["zoo rows"], found[PEER]

    def turns(key: str) -> dict[str, Any]:
        return record.median_of([a / b for a, b in zip(rows[key], tiled[key], strict=True)], 3)

    memory = statistics.median(rows["bytes"]) / statistics.median(tiled["bytes"])
    return {"seconds": turns("seconds"), "cpu_seconds": turns("cpu_seconds"), "memory": round(memory, 3)}


def trim() -> None:
    """Give freed memory back to the system, so that a call's peak is its own (glibc)."""
    release = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if release is not None:
        release(0)


def main() -> None:
    """Measure, print, write the record."""
    parser = argparse.ArgumentParser(description="Decoding whole, by rows and by tiles.")
    parser.add_argument("--sizes", type=int, nargs="+", default=list(ROUNDS))
    parser.add_argument("--ways", nargs="+", help="only these, and no record")
    parser.add_argument("--rounds", type=int, help="turns of each way; by size")
    parser.add_argument("--quick", action="store_true", help="one round and no record")
    options = parser.parse_args()
    values: dict[str, Any] = {}
    with torch.inference_mode():
        for size in options.sizes:
            rounds = options.rounds or (1 if options.quick else ROUNDS.get(size, 3))
            found = measured(size, rounds, torch.bfloat16, options.ways)
            values[str(size)] = {"ways": found} | ({} if options.ways else {"rows_over_tiled": compared(found)})
            print(size, values[str(size)].get("rows_over_tiled"))
            if not options.quick and options.ways is None:  # after each size: the largest takes long
                settings = {"dtype": "bfloat16", "memory_format": "channels_last", "lines": LINES, "tile": 64}
                made = record.make(
                    "decode", settings=settings, values=values, threads=torch.get_num_threads(),
                    packages=("torch", "diffusers"),
                )  # fmt: skip
                print(record.write(made))


if __name__ == "__main__":
    main()
