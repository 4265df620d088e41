"""Random weights that no layer hides behind: nothing is left at zero or one, so every switch shows in the output."""

import torch
from torch import nn


def randomise(module, *, seed=0):
    """Matrices N(0, 1 / fan_in), norms 1 + 0.1 N, biases 0.1 N; in float64 and evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    module.double().eval().requires_grad_(False)
    norms = {id(m.weight) for m in module.modules() if isinstance(m, (nn.GroupNorm, nn.LayerNorm))}
    for parameter in module.parameters():
        draw = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        if parameter.ndim >= 2:
            parameter.copy_(draw * (parameter.shape[0] / parameter.numel()) ** 0.5)
        else:
            parameter.copy_((1.0 if id(parameter) in norms else 0.0) + 0.1 * draw)
    return module


def normal(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative(found, expected):
    """The largest difference, in standard deviations of what is expected."""
    return float((found - expected).abs().max() / expected.std())
