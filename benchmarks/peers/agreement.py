"""One comparison of a record: how many times faster ours is, pair by pair, and how far the outputs are apart."""

from __future__ import annotations

import statistics
from typing import Any

from torch import Tensor

BETTER = "more than 1: ours is faster"


def pair(
    name: str, ours: str, theirs: str, peer: str, own: list[float], other: list[float], agrees: dict[str, Any]
) -> dict[str, Any]:
    """One comparison of the record."""
    ratios = [b / a for a, b in zip(own, other, strict=True)]
    return {
        "name": name, "ours": ours, "theirs": theirs, "peer": peer, "what": "seconds",
        "ratio": round(statistics.median(ratios), 4), "ratios": [round(r, 4) for r in ratios],
        "better": BETTER, "agreement": agrees,
    }  # fmt: skip


def no_pair(name: str, ours: str, peer: str, reason: str) -> dict[str, Any]:
    """A comparison that could not be made, and why."""
    return {
        "name": name, "ours": ours, "theirs": None, "peer": peer, "what": "seconds", "ratio": None, "ratios": [],
        "better": BETTER, "agreement": {}, "reason": reason,
    }  # fmt: skip


def agreement(ours: Tensor, theirs: Tensor, of: str, tolerance: float | None) -> dict[str, Any]:
    """The difference of two outputs; without a tolerance (half precision) the distance is recorded and not judged."""
    apart = float((ours.float().cpu() - theirs.float().cpu()).abs().max())
    return {
        "largest_difference": apart, "of": of, "tolerance": tolerance,
        "agrees": None if tolerance is None else apart <= tolerance,
    }  # fmt: skip


def relative_agreement(ours: Tensor, theirs: Tensor, of: str, tolerance: float | None) -> dict[str, Any]:
    """As `agreement`, in deviations of theirs: fresh weights give latents of any size."""
    deviation = theirs.float().std().clamp(min=1e-12)
    return agreement(ours.float() / deviation, theirs.float() / deviation, f"{of}, in deviations,", tolerance)
