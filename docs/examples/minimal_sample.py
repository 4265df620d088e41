"""A sampler in one loop: noise to images with the weights of minimal_train.py, made of zoo's parts.

    python docs/examples/minimal_sample.py -o discs.png

The loop is Euler's method on the probability-flow ODE in lambda = sigma / alpha, which is DDIM (Song et al. 2021,
eq. 12): any of zoo's samplers does the same with `sampler(denoise, sampler.plan(schedule), x, noise=...)`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from minimal_train import SIZE, make_denoiser
from safetensors.torch import load_file
from torch import Tensor

from zoo.diffusion.denoiser import Denoiser
from zoo.pipeline.generation import sheet, to_pil
from zoo.samplers.grid import Trailing


@torch.inference_mode()
def sample(denoiser: Denoiser, *, count: int, steps: int, seed: int = 0) -> Tensor:
    """(count, 3, SIZE, SIZE) in [-1, 1]."""
    schedule = denoiser.schedule
    times = [*Trailing()(schedule, steps), 0.0]  # t = 1 is noise, t = 0 an image
    levels = [tuple(float(a) for a in schedule(t)) for t in times[:-1]] + [(1.0, 0.0)]
    x = levels[0][1] * torch.randn(count, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(seed))
    for t, (alpha, sigma), (alpha_next, sigma_next) in zip(times, levels, levels[1:], strict=False):
        c_skip, c_out, c_in = denoiser.parameterization(alpha, sigma)
        time = torch.full((count,), denoiser.time_input(float(t)))
        x0 = (c_skip * x + c_out * denoiser.network(c_in * x, time)).clamp(-1.0, 1.0)
        eps = (x - alpha * x0) / sigma
        x = alpha_next * x0 + sigma_next * eps
    return x


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Draw with the weights of minimal_train.py.")
    parser.add_argument("--weights", type=Path, default=Path("discs.safetensors"))
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("-o", "--out", type=Path, default=Path("discs.png"))
    options = parser.parse_args()
    denoiser = make_denoiser().eval()
    denoiser.network.load_state_dict(load_file(options.weights))
    images = sample(denoiser, count=16, steps=options.steps)
    sheet([to_pil(image) for image in images * 0.5 + 0.5]).save(options.out)
    print(options.out)


if __name__ == "__main__":
    main()
