"""The optimizers of training: AdamW, and Muon for the matrices with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.schema.errors import ConfigError

NAMES = ("adamw", "muon")
on_lists: Any = torch  # its operations on lists of tensors are documented, and not typed


def orthogonalized(update: Tensor, *, rounds: int = 5, joined: bool | None = None) -> Tensor:
    """The nearest matrix with all singular values near 1, by a quintic Newton-Schulz iteration in bfloat16.

    Jordan et al. 2024, "Muon": X <- a X + b (X X^T) X + c (X X^T)^2 X; (..., m, n) -> (..., m, n).

    `joined` puts each sum inside its product, three kernels a round and not eight: of a stack of matrices on cuda.
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = update.shape[-2] > update.shape[-1]
    x = (update.mT if tall else update).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    joined = x.device.type == "cuda" and x.ndim == 3 if joined is None else joined
    for _ in range(rounds):
        gram = x @ x.mT
        if joined:
            x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        else:
            x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for matrices and convolutions (read as out x in*k*k).

    The update is scaled by 0.2 sqrt(max(m, n)), which gives it the size of an AdamW step (Liu et al. 2025, "Muon is
    scalable for LLM training", section 2.2), so one learning rate serves both.

    `found_inf`, as in torch's fused optimizers, a tensor that is 1 where a step must change nothing.
    """

    found_inf: Tensor | None = None

    def __init__(
        self, params: Sequence[Tensor], *, lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(list(params), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[override]
        """One step; matrices of one shape are orthogonalized together."""
        assert closure is None
        for group in self.param_groups:
            members = [p for p in group["params"] if p.grad is not None]
            shapes: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
            for p, update in zip(members, self._momentum(members, group["momentum"]), strict=True):
                matrix = update.reshape(p.shape[0], -1)
                # One batched product suits an accelerator; on a CPU its bits depend on the batch.
                alike = matrix.shape if p.device.type == "cuda" else p.shape
                shapes.setdefault(tuple(alike), []).append((p, matrix))
            for found in shapes.values():
                updates = orthogonalized(torch.stack([matrix for _, matrix in found]))
                size = 0.2 * max(updates.shape[-2:]) ** 0.5
                of_one = [p for p, _ in found]
                changes = [update.view(p.shape) for p, update in zip(of_one, updates, strict=True)]
                self._take(of_one, changes, decay=group["lr"] * group["weight_decay"], rate=group["lr"] * size)

    def _take(self, params: list[Tensor], changes: list[Tensor], *, decay: Any, rate: Any) -> None:
        """p <- (1 - decay) p - rate * change, or p. Both are numbers, or on the device where a step is recorded."""
        if isinstance(rate, Tensor):
            on_lists._foreach_mul_(changes, rate)
            rate = 1.0
        if self.found_inf is None:
            on_lists._foreach_mul_(params, 1.0 - decay)
            on_lists._foreach_add_(params, changes, alpha=-rate)
            return
        # A masked step may hold NaN, which a factor of 0 would keep.
        changes = [torch.where(self.found_inf > 0, 0.0, change) for change in changes]
        on_lists._foreach_mul_(params, 1.0 - decay * (1.0 - self.found_inf))
        on_lists._foreach_add_(params, changes, alpha=-rate)

    def _momentum(self, params: list[Tensor], momentum: float) -> list[Tensor]:
        """Momentum with Nesterov's look ahead, in the shapes of the parameters."""
        grads = [p.grad for p in params if p.grad is not None]
        for p in params:
            if "momentum_buffer" not in self.state[p]:
                self.state[p]["momentum_buffer"] = torch.zeros_like(p)
        buffers = [self.state[p]["momentum_buffer"] for p in params]
        if self.found_inf is not None:
            grads = [torch.where(self.found_inf > 0, b, g) for b, g in zip(buffers, grads, strict=True)]
        on_lists._foreach_lerp_(buffers, grads, 1.0 - momentum)
        return list(on_lists._foreach_lerp(grads, buffers, momentum))


def optimizers(
    network: nn.Module, name: str, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """The optimizers that together train `network`; their parameters don't overlap. Only matrices are decayed.

    Frozen parameters, beside which a LoRA is trained, are left out.

    Raises ConfigError for an unknown name.
    """
    if name not in NAMES:
        raise ConfigError(f"train.optimizer is '{name}'; use one of {', '.join(NAMES)}", code="choice-unknown")
    own = [p for p in network.parameters() if p.requires_grad]
    matrices = [p for p in own if p.ndim > 1]
    if name == "muon":
        # The first and last layers see data, not features: AdamW's, as the method's authors advise.
        ends = {id(p) for module in _ends(network) for p in module.parameters()}
        inner = [p for p in matrices if id(p) not in ends]
        matrices = [p for p in matrices if id(p) in ends]
    vectors = [p for p in own if p.ndim <= 1]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    made: list[torch.optim.Optimizer] = [torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)]
    if name == "muon":
        made.append(Muon(inner, lr=learning_rate, weight_decay=weight_decay))
    return made


def _ends(network: nn.Module) -> list[nn.Module]:
    """The first and the last module with a matrix, and every embedding."""
    own = [m for m in network.modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))]
    convolutions = [m for m in own if isinstance(m, nn.Conv1d | nn.Conv2d | nn.Conv3d)] or own
    return [convolutions[0], convolutions[-1], *(m for m in own if isinstance(m, nn.Embedding))]
