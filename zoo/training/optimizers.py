"""The optimizers of training: AdamW, and Muon for the matrices with AdamW for the rest."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.errors import ConfigError

NAMES = ("adamw", "muon")


def orthogonalized(update: Tensor, *, rounds: int = 5) -> Tensor:
    """The nearest matrix with all singular values near 1, by a quintic Newton-Schulz iteration in bfloat16.

    Jordan et al. 2024, "Muon": X <- a X + b (X X^T) X + c (X X^T)^2 X; (..., m, n) -> (..., m, n).
    """
    a, b, c = 3.4445, -4.7750, 2.0315
    tall = update.shape[-2] > update.shape[-1]
    x = (update.mT if tall else update).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.mT if tall else x).to(update.dtype)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for matrices and convolutions (read as out x in*k*k).

    The update is scaled by 0.2 sqrt(max(m, n)), which gives it the size of an AdamW step (Liu et al. 2025, "Muon is
    scalable for LLM training", section 2.2), so one learning rate serves both.
    """

    def __init__(
        self, params: Sequence[Tensor], *, lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        super().__init__(list(params), {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure=None):  # type: ignore[override]
        """One step; matrices of one shape are orthogonalized together."""
        assert closure is None
        for group in self.param_groups:
            shapes: dict[tuple[int, ...], list[Tensor]] = {}
            for p in group["params"]:
                if p.grad is not None:
                    shapes.setdefault(tuple(p.shape), []).append(p)
            for shape, members in shapes.items():
                updates = torch.stack([self._momentum(p, group["momentum"]) for p in members])
                updates = orthogonalized(updates)
                size = 0.2 * max(updates.shape[-2:]) ** 0.5
                for p, update in zip(members, updates, strict=True):
                    p.mul_(1.0 - group["lr"] * group["weight_decay"])
                    p.add_(update.view(shape), alpha=-group["lr"] * size)

    def _momentum(self, p: Tensor, momentum: float) -> Tensor:
        grad = p.grad
        assert grad is not None
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        buffer = state["momentum_buffer"]
        buffer.lerp_(grad, 1.0 - momentum)
        return grad.lerp(buffer, momentum).reshape(p.shape[0], -1)  # Nesterov's look ahead


def optimizers(
    network: nn.Module, name: str, *, learning_rate: float, weight_decay: float, betas: tuple[float, float]
) -> list[torch.optim.Optimizer]:
    """The optimizers that together train `network`; their parameters don't overlap. Only matrices are decayed.

    Raises ConfigError for an unknown name.
    """
    if name not in NAMES:
        raise ConfigError(f"train.optimizer is '{name}'; use one of {', '.join(NAMES)}")
    matrices = [p for p in network.parameters() if p.ndim > 1]
    if name == "muon":
        # The first and last layers meet data, not features: AdamW's, as the method's authors advise.
        ends = {id(p) for module in _ends(network) for p in module.parameters()}
        inner = [p for p in matrices if id(p) not in ends]
        matrices = [p for p in matrices if id(p) in ends]
    vectors = [p for p in network.parameters() if p.ndim <= 1]
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
