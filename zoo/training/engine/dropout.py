"""Dropout by address: which features are dropped depends on the sample, not on its place in a batch or on the device.

Srivastava et al. 2014. torch draws masks from one sequential generator, so a resumed run, another split of the batch
or another number of devices would drop others. Here the mask of a layer is a function of (seed, the layer's name, the
global sample number); shares of masks are whole multiples of 2^-16. A layer called twice for a batch drops the same
features twice, which is what recomputed activations need.
"""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.dropout import _DropoutNd

from zoo.diffusion import philox
from zoo.diffusion.draws import stream
from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import Batch


class AddressedDropout:
    """Takes over every `nn.Dropout` of a network; `batch` says whose samples pass next."""

    def __init__(self, network: nn.Module) -> None:
        self.batch: Batch | None = None
        for name, module in network.named_modules():
            if type(module) is nn.Dropout and module.p > 0:
                module.forward = partial(self._drop, module, f"dropout/{name}")  # type: ignore[method-assign]

    @torch.compiler.disable
    def _drop(self, module: nn.Dropout, purpose: str, x: Tensor) -> Tensor:
        if not module.training or self.batch is None:
            return x
        samples = self.batch.samples
        if x.shape[0] % len(samples):
            raise ConfigError(
                f"'{purpose}' is handed {x.shape[0]} rows for a batch of {len(samples)} samples; its features can't be "
                "told by sample: set the network's dropout to 0",
                code="batch-unsplittable",
            )
        rows = [
            _uniform(self.batch, f"{purpose}/{copy}" if copy else purpose, tuple(x.shape[1:]), x.device)
            for copy in range(x.shape[0] // len(samples))
        ]
        keep = torch.cat(rows) >= round(module.p * 2**16)
        return x * keep.to(x.dtype) / (1.0 - module.p)


def _uniform(batch: Batch, purpose: str, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """(B, *shape) whole numbers in [0, 2^16), int32; a sample's are the quarters of the words of its stream."""
    if device.type != "cuda":
        streams = [stream(batch.seed, purpose, int(sample)) for sample in batch.samples]
        drawn = [one.integers(0, 2**16, size=shape, dtype=np.uint16) for one in streams]
        return torch.from_numpy(np.stack(drawn).astype(np.int32)).to(device)
    return quarters(batch.seed, purpose, batch.there("samples"), shape)


def quarters(seed: int, purpose: str, samples: Tensor, shape: tuple[int, ...]) -> Tensor:
    """The same numbers for all samples (B,) at once, on their device."""
    count = math.prod(shape)
    words = philox.words(philox.key_of(seed, purpose), samples, -(-count // 4))
    parts = torch.stack([(words >> shift) & 0xFFFF for shift in (0, 16, 32, 48)], dim=-1)
    return parts.flatten(1)[:, :count].reshape(len(samples), *shape).to(torch.int32)


def check_splits(network: nn.Module) -> None:
    """ConfigError where a network's output for a sample depends on the others of its batch, or on a generator."""
    for name, module in network.named_modules():
        kind = type(module).__name__
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            raise ConfigError(
                f"the network's '{name}' ({kind}) mixes the samples of a batch, so a split batch would be another run; "
                "use one device and accumulate 1, or group norm",
                code="batch-unsplittable",
            )
        odd = isinstance(module, _DropoutNd) and type(module) is not nn.Dropout and module.p > 0
        share = getattr(module, "dropout", 0.0)  # nn.MultiheadAttention's
        if odd or (isinstance(share, float) and share > 0):
            raise ConfigError(
                f"the network's '{name}' ({kind}) drops features by torch's own generator, which knows no samples, so "
                "a split batch would be another run; set its dropout to 0 or use nn.Dropout",
                code="batch-unsplittable",
            )
