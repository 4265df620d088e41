"""Noise schedules: how much of the clean sample and how much noise x_t holds, `x_t = alpha_t * x0 + sigma_t * eps`.

A schedule is a function of t in [0, 1], t = 0 clean and t = 1 its noisiest point, and it belongs to the weights: a
network reads x_t right only under the schedule it was trained with. `discrete` has those that T betas define,
`continuous` those with a closed form. Everything is float64 numpy: a run needs some dozens of numbers, once.
"""

from zoo.diffusion.schedules.continuous import (
    EDMSchedule,
    FlowSchedule,
    ShiftedCosineSchedule,
    SubVPSchedule,
    VarianceExploding,
    VESchedule,
    VPSDESchedule,
)
from zoo.diffusion.schedules.discrete import (
    CosineSchedule,
    DiscreteSchedule,
    LinearSchedule,
    QuadraticSchedule,
    ScaledLinearSchedule,
    SigmoidSchedule,
    TabulatedSchedule,
    ZeroTerminalSNR,
)

__all__ = [
    "CosineSchedule",
    "DiscreteSchedule",
    "EDMSchedule",
    "FlowSchedule",
    "LinearSchedule",
    "QuadraticSchedule",
    "ScaledLinearSchedule",
    "ShiftedCosineSchedule",
    "SigmoidSchedule",
    "SubVPSchedule",
    "TabulatedSchedule",
    "VESchedule",
    "VPSDESchedule",
    "VarianceExploding",
    "ZeroTerminalSNR",
]
