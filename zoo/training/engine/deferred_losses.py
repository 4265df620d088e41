"""Reading a step's loss some steps later, so that the host doesn't wait for the device.

Reading a number from a device waits until all its queued work is done. Instead the host reads the losses of
`LAG` steps ago, and the device itself makes a step that isn't finite change nothing: from the first such
step on a flag is set, and optimizers and averages change nothing. When the host reads the flag, weights,
moments and averages are still those from before that step.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch
from torch import Tensor

LAG = 4


class Lagged:
    """Losses and the flag of one run's steps, on their way from the device to the host."""

    def __init__(self, device: torch.device, lag: int = LAG) -> None:
        self.lag = lag
        self.flag = torch.zeros((), device=device)  # 1 from the first step on that isn't finite
        self._way: deque[tuple[int, Tensor, Any]] = deque()

    def judge(self, loss: Tensor, norm: Tensor) -> Tensor:
        """Set the flag by a step's loss and gradient norm, before the optimizers use the gradient; (3,) for `send`."""
        finite = torch.isfinite(loss) & torch.isfinite(norm)
        # In place: a recorded step writes to the flag that everybody reads.
        self.flag.copy_(torch.maximum(self.flag, (~finite).to(self.flag.dtype)))
        return torch.stack([loss.float(), norm.float(), self.flag])

    def send(self, step: int, facts: Tensor) -> None:
        """Send what `judge` gave to the host."""
        if facts.device.type != "cuda":
            self._way.append((step, facts.clone(), None))
            return
        host = torch.empty(3, pin_memory=True)
        host.copy_(facts, non_blocking=True)
        event = torch.cuda.Event()
        event.record()
        self._way.append((step, host, event))

    def arrived(self, *, all: bool = False) -> list[tuple[int, float, float]]:
        """Steps, losses and norms that are due: all but the last `lag`, or all; none after the first bad one."""
        found: list[tuple[int, float, float]] = []
        while len(self._way) > (0 if all else self.lag):
            step, facts, event = self._way.popleft()
            if event is not None:
                event.synchronize()
            loss, norm, bad = facts.tolist()
            found.append((step, loss, norm))
            if bad:
                break
        return found

    def reset(self) -> None:
        """Drop what is on its way, and clear the flag."""
        self._way.clear()
        self.flag.zero_()


def is_bad(loss: float, norm: float) -> bool:
    """Whether a step changes nothing."""
    return not (math.isfinite(loss) and math.isfinite(norm))
