"""A diffusion model from nothing in one file: data, loss, loop and weights, made of zoo's parts.

    python docs/examples/minimal_train.py --steps 400
    python docs/examples/minimal_sample.py

The data is made up, coloured discs on white, so that nothing has to be downloaded; put your own in `discs`. What `zoo
train` adds to this loop: checkpoints and resume, mixed precision, several devices, validation, captions, cards.
"""

from __future__ import annotations

import argparse
import copy
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import V
from zoo.diffusion.schedules import CosineSchedule
from zoo.networks.unet import UNet

SIZE = 16  # pixels a side
MIN_SNR = 5.0
AVERAGE = 0.99


def make_denoiser() -> Denoiser:
    """What is trained: a network, the noise it sees, and what its output means."""
    network = UNet(
        in_channels=3,
        out_channels=3,
        width=32,
        mult=[1, 2],
        blocks=1,
        attention="plain",
        attention_levels=[1],
        heads=2,
        context_width=None,
        groups=8,
    )
    # x_t = alpha_t x0 + sigma_t eps, with the alpha and sigma of Nichol & Dhariwal 2021, eq. 17; the network predicts
    # v = alpha_t eps - sigma_t x0 (Salimans & Ho 2022).
    return Denoiser(network=network, schedule=CosineSchedule(steps=1000), parameterization=V())


def discs(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, SIZE, SIZE) in [-1, 1]: a disc of any colour, place and radius on white."""
    centre = 4.0 + (SIZE - 8.0) * torch.rand(count, 2, 1, 1, generator=generator)
    radius = 2.5 + 3.0 * torch.rand(count, 1, 1, generator=generator)
    colour = torch.rand(count, 3, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")
    distance = ((y - centre[:, 0]) ** 2 + (x - centre[:, 1]) ** 2).sqrt()
    inside = (radius - distance + 0.5).clamp(0.0, 1.0).unsqueeze(1)
    return 2.0 * (inside * colour + (1.0 - inside)) - 1.0


def loss_of(denoiser: Denoiser, x0: Tensor, generator: torch.Generator) -> Tensor:
    """The denoising loss of a batch, (B, 3, H, W) -> a scalar: w(SNR) |x0' - x0|^2 at a random t for each sample."""
    # One t in each equal share of [0, 1]: less variance than drawing each by itself (Kingma et al. 2021).
    shares = (torch.arange(len(x0)) + torch.rand(len(x0), generator=generator)) / len(x0)
    t = ((shares * 1000).floor() + 1) / 1000  # the schedule's points
    alpha, sigma = (torch.from_numpy(a).float().view(-1, 1, 1, 1) for a in denoiser.schedule(t.double().numpy()))
    eps = torch.randn(x0.shape, generator=generator)
    x_t = alpha * x0 + sigma * eps

    # The network's output is read as x0' = c_skip x_t + c_out output, whatever it predicts.
    c_skip, c_out, c_in = denoiser.parameterization(alpha, sigma)
    time = torch.tensor([denoiser.time_input(float(one)) for one in t])
    output = denoiser.network(c_in * x_t, time)
    error = (c_skip * x_t + c_out * output - x0).square()
    weight = (alpha / sigma).square().clamp(max=MIN_SNR)  # Hang et al. 2023, eq. 8
    return (weight * error).mean()


def train(denoiser: Denoiser, *, steps: int, batch: int, seed: int = 0) -> Denoiser:
    """Train in place; returns a copy with the moving average of the weights, which draws better."""
    generator = torch.Generator().manual_seed(seed)
    average = copy.deepcopy(denoiser).eval().requires_grad_(False)
    optimizer = torch.optim.AdamW(denoiser.parameters(), lr=2e-3, weight_decay=0.0, betas=(0.9, 0.99))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda i: min(1.0, (i + 1) / 20, 2.0 * (1.0 - i / steps) + 0.01)
    )
    denoiser.train()
    for step in range(steps):
        loss = loss_of(denoiser, discs(batch, generator), generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(denoiser.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        for mean, new in zip(average.parameters(), denoiser.parameters(), strict=True):
            mean.lerp_(new, 1.0 - min(AVERAGE, (step + 1) / (step + 10)))
        if (step + 1) % max(1, steps // 10) == 0:
            print(f"step {step + 1} of {steps}: loss {loss.item():.4f}")
    return average


def main() -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description="Train a small diffusion model on coloured discs.")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("-o", "--out", type=Path, default=Path("discs.safetensors"))
    options = parser.parse_args()
    torch.manual_seed(0)
    average = train(make_denoiser(), steps=options.steps, batch=options.batch)
    save_file(average.network.state_dict(), options.out)
    print(options.out)


if __name__ == "__main__":
    main()
