"""Loss weights at each noise level, on x0's squared error, functions of SNR = alpha^2 / sigma^2.

All parameterizations train on one loss, `w(SNR) * |x0' - x0|^2` with x0' the clean sample that the output implies;
what the papers weight differently is w (Kingma & Gao 2023).

| name | w | who uses it |
|---|---|---|
| `snr` | SNR: the plain error of eps | Ho et al. 2020, eq. 14; with schedule `ve`, denoising score matching |
| `min-snr` | min(SNR, gamma) | Hang et al. 2023, eq. 8 |
| `p2` | SNR / (k + SNR)^gamma | Choi et al. 2022, eq. 8 |
| `uniform` | 1: the plain error of x0 | |
| `edm` | SNR + 1 / sigma_data^2, as lambda(sigma) at sigma / alpha | Karras et al. 2022, table 1 |
| `simple` | 1 / c_out^2: the plain error of what the network gives | flow matching (Lipman et al. 2022, eq. 9), v |

Song & Ermon 2019 (eq. 5 and 6) hold the score s to -eps / sigma and weight its error by sigma^2; since the score is
-eps / sigma, sigma^2 * |s + eps / sigma|^2 = |eps' - eps|^2, which is `snr`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.training.objectives.arguments import Weighting


def weights(
    weighting: Weighting, snr: Tensor, c_out_squared: Tensor, *, min_snr: float | None = 5.0, p2_gamma: float = 1.0,
    p2_k: float = 1.0, sigma_data: float = 0.5,
) -> Tensor:  # fmt: skip
    """The weight of the squared error of the network's output, w * c_out^2, in the shape of `snr`."""
    if weighting == "simple":
        return torch.ones_like(snr)
    if weighting == "uniform":
        w = torch.ones_like(snr)
    elif weighting == "p2":
        w = snr / (p2_k + snr) ** p2_gamma
    elif weighting == "edm":
        w = snr + 1.0 / sigma_data**2
    elif weighting == "min-snr" and min_snr is not None:
        w = snr.clamp(max=min_snr)
    else:
        w = snr
    return w * c_out_squared
