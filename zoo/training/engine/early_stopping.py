"""Early stopping (Prechelt 1998): a run ends when the validation loss stops improving."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass
class Stopping:
    """Counts validations since the lowest loss; `patience` 0 never stops."""

    patience: int
    best: float = math.inf
    since: int = 0

    def better(self, loss: float) -> bool:
        """Record a validation; returns whether it is the best so far."""
        found = loss < self.best
        self.best, self.since = (loss, 0) if found else (self.best, self.since + 1)
        return found

    @property
    def over(self) -> bool:
        """Whether to stop."""
        return 0 < self.patience <= self.since

    def state(self) -> dict[str, Any]:
        """Plain values; no validation yet is None, which JSON can hold."""
        facts = asdict(self)
        return {"best": None if math.isinf(self.best) else facts["best"], "since": self.since}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`; the patience is this run's."""
        self.best = math.inf if state["best"] is None else float(state["best"])
        self.since = int(state["since"])
