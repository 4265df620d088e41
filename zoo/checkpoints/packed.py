"""Eight-bit storage of weights: int8 numbers and one scale a row, in place of a float matrix.

A tensor NAME (rows, ...) is stored as `NAME.int8` of its shape and `NAME.scale` (rows,) in float16, the largest
magnitude of each row over 127; vectors, and tensors that aren't floating-point, stay as they are. Half of float16's
bytes; each number is off by at most half a scale. It is a way to store, not to compute: loaded weights are float.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from zoo.schema.errors import WeightsError

VALUES, SCALE = ".int8", ".scale"
_LARGEST = 127


def pack(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Floating-point matrices and filters as int8 with their scales; others unchanged."""
    out: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or tensor.ndim < 2:
            out[name] = tensor
            continue
        rows = tensor.float()
        # Rounded up to what is stored, so that no number of a row ends above 127 scales.
        scale = rows.flatten(1).abs().amax(1) / _LARGEST
        scale = (scale.half() * (1 + 2**-10)).half().clamp(min=torch.finfo(torch.float16).tiny)
        broad = scale.float().reshape(-1, *[1] * (rows.ndim - 1))
        out[name + VALUES] = (rows / broad).round().clamp(-_LARGEST, _LARGEST).to(torch.int8)
        out[name + SCALE] = scale
    return out


def unpack(tensors: Mapping[str, Tensor], *, what: str) -> dict[str, Tensor]:
    """`pack` undone: every tensor by its own name, in float32 where it was packed; a file without any is unchanged.

    Raises WeightsError for a scale that is missing or of another shape.
    """
    out = {}
    for name, tensor in tensors.items():
        if tensor.dtype == torch.int8 and name.endswith(VALUES):
            plain = name.removesuffix(VALUES)
            scale = tensors.get(plain + SCALE)
            if scale is None or tensor.ndim < 2 or scale.shape != tensor.shape[:1]:
                raise WeightsError(
                    f"{what}: '{name}' has no scale for each of its rows in '{plain + SCALE}'; "
                    "get the file from its publisher again",
                    code="tensor-missing",
                )
            out[plain] = tensor.float() * scale.float().reshape(-1, *[1] * (tensor.ndim - 1))
        elif not (name.endswith(SCALE) and name.removesuffix(SCALE) + VALUES in tensors):
            out[name] = tensor
    return out
