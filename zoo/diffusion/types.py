"""What flows between the parts: conditions, predictions, steps, and the protocols of the parts themselves.

Notation (docs/notation.md): `x_t = alpha_t * x0 + sigma_t * eps`, t in [0, 1], t = 0 clean, t = 1 the noisiest
point of the schedule. Shape letters: B batch, C channels, H W pixels, h w latents, L tokens, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias, runtime_checkable

if TYPE_CHECKING:  # plans are made and checked without torch
    import numpy as np
    import torch
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Condition:
    """What a denoiser is conditioned on besides x_t and t; every field is optional and has the batch first."""

    tokens: Tensor | None = None  # (B, L, D) text states
    mask: Tensor | None = None  # (B, L) bool, True where a token counts
    vector: Tensor | None = None  # (B, D) pooled embedding
    label: Tensor | None = None  # (B,) int64 class
    image: Tensor | None = None  # (B, D) or (B, L, D) embedding of an image, read apart from the text's
    concat: Tensor | None = None  # (B, C, H, W) concatenated to the network's input channels
    level: Tensor | None = None  # (B,) noise-augmentation level in [0, 1]
    scalars: Mapping[str, Tensor] | None = None  # by name, each (B,): other numbers that a network reads

    def _map(self, function: Callable[[Tensor], Tensor]) -> Condition:
        present = {f.name: getattr(self, f.name) for f in fields(self)}
        return Condition(**{k: None if v is None else _each(function, v) for k, v in present.items()})

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Condition:
        """Move every field; `dtype` touches floating-point fields only, and no level or scalar.

        Those are embedded as time is: bfloat16 would read 999 as 1000.
        """
        moved = self._map(lambda v: v.to(device=device, dtype=dtype if v.is_floating_point() else None))
        return moved.merge(Condition(level=self.level, scalars=self.scalars)._map(lambda v: v.to(device=device)))

    def rows(self, index: slice | Tensor) -> Condition:
        """The condition of some samples of the batch."""
        return self._map(lambda v: v[index])

    def merge(self, other: Condition) -> Condition:
        """Both conditions' fields; a field present in both is taken from `other`, scalars name by name."""
        present = {f.name: getattr(other, f.name) for f in fields(other)}
        if self.scalars is not None and other.scalars is not None:
            present["scalars"] = {**self.scalars, **other.scalars}
        return replace(self, **{k: v for k, v in present.items() if v is not None})

    def _padded(self, length: int) -> Condition:
        """With zeros after its tokens up to a length, and a mask that says which count."""
        if self.tokens is None:
            return self
        given = self.tokens
        tokens = given.new_zeros(given.shape[0], length, given.shape[2])
        mask = tokens.new_zeros(tokens.shape[:2]).bool()
        tokens[:, : given.shape[1]] = given
        mask[:, : given.shape[1]] = True if self.mask is None else self.mask
        return replace(self, tokens=tokens, mask=mask)

    @staticmethod
    def stack(parts: Sequence[Condition]) -> Condition:
        """Join along the batch, for one network call on several conditions.

        Tokens of several lengths are padded with zeros to the longest, and masked. Raises ValueError where one part has
        a field, or a scalar, that another lacks.
        """
        import torch

        joined: dict[str, Any] = {}
        lengths = {part.tokens.shape[1] for part in parts if part.tokens is not None}
        if len(lengths) > 1 or (lengths and len({part.mask is None for part in parts}) > 1):
            parts = [part._padded(max(lengths)) for part in parts]
        for f in fields(Condition):
            values = [getattr(p, f.name) for p in parts]
            present = [v for v in values if v is not None]
            if present and len(present) != len(values):
                raise ValueError(f"conditions can't be stacked: '{f.name}' is set in some and missing in others")
            if f.name != "scalars":
                joined[f.name] = torch.cat(present) if present else None
                continue
            if any(scalars.keys() != present[0].keys() for scalars in present):
                raise ValueError("conditions can't be stacked: they have different scalars")
            names = present[0] if present else ()
            joined["scalars"] = {name: torch.cat([s[name] for s in present]) for name in names} if present else None
        return Condition(**joined)


def _each(function: Callable[[Tensor], Tensor], value: Any) -> Any:
    return {name: function(v) for name, v in value.items()} if isinstance(value, Mapping) else function(value)


class Prediction(NamedTuple):
    """A denoiser's output at x_t. A sampler reads `x0`, whatever the network's parameterization."""

    x0: Tensor  # (B, C, *spatial), float32 or wider
    variance_logit: Tensor | None = None  # learned range, in [-1, 1] (Nichol & Dhariwal 2021, eq. 15)
    score: Tensor | None = None  # grad_x log p(y | x_t) of a classifier or a measurement
    x0_cond: Tensor | None = None  # the condition's own x0, where guidance has moved x0 away from it
    log_variance: Tensor | None = None  # learned as such, of the step on the schedule's own points
    output: Tensor | None = None  # the network's own output, from which x0 is computed; for losses


@dataclass(frozen=True, slots=True)
class Step:
    """One network evaluation of a sampling run; all numbers are host floats.

    The network is evaluated at (t, alpha, sigma) and the state moves on to (t_next, alpha_next, sigma_next).
    `coefficients` are the sampler's update weights, computed by `plan` in float64; `own` are further numbers, by name,
    that only this sampler's part of the loop reads.
    """

    index: int
    t: float
    alpha: float
    sigma: float
    t_next: float
    alpha_next: float
    sigma_next: float
    coefficients: tuple[float, ...] = ()
    own: Mapping[str, float] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, slots=True)
class StepTable:
    """A sampling run as data: one row a network evaluation, in order.

    begin: where x starts, if the first row raises its noise (churn) before it evaluates the network. at_most: whether
    a run may use fewer rows, as adaptive step sizes do.
    """

    steps: tuple[Step, ...]
    begin: Step | None = None
    at_most: bool = False

    def __len__(self) -> int:
        return len(self.steps)

    @property
    def evaluations(self) -> int:
        """How many times the bound denoiser is called."""
        return len(self.steps)

    @property
    def start(self) -> Step:
        """The row where x starts: x = alpha * x0 + sigma * eps."""
        return self.steps[0] if self.begin is None else self.begin


class Coefficients(NamedTuple):
    """x0 = c_skip * x_t + c_out * F(c_in * x_t), with F the network (Karras et al. 2022, eq. 7)."""

    c_skip: float
    c_out: float
    c_in: float


DenoiseFn: TypeAlias = "Callable[[Tensor, Step], Prediction]"
# A network's output for (x, time, arguments by name); time is a number for all samples, or (B,).
Evaluate: TypeAlias = "Callable[[Tensor, float | Tensor, Mapping[str, Any]], Tensor]"


class StepReport(NamedTuple):
    """What a sampler's callback receives after each step."""

    index: int
    total: int
    x_t: Tensor
    x0: Tensor


Callback: TypeAlias = Callable[[StepReport], Any]
AfterStep: TypeAlias = "Callable[[Tensor, Step], Tensor]"


@runtime_checkable
class NoiseSchedule(Protocol):
    """t -> (alpha_t, sigma_t) in float64 numpy, and back. `T` is the number of discrete points, None if continuous."""

    @property
    def T(self) -> int | None: ...
    def __call__(self, t: float | np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...
    def t_from_log_snr(self, log_snr: float | np.ndarray) -> np.ndarray: ...


@runtime_checkable
class Parameterization(Protocol):
    """How the network's output is read: coefficients right for any alpha and sigma."""

    def __call__(self, alpha: Any, sigma: Any) -> Coefficients: ...
    def target(self, x0: Any, eps: Any, alpha: Any, sigma: Any) -> Any: ...


class NoiseSource(Protocol):
    """Standard normal noise by address; returns (len(samples), *shape) float32 on the CPU."""

    def __call__(
        self,
        shape: Sequence[int],
        *,
        purpose: str,
        samples: Sequence[int],
        stage: int = 0,
        step: int = 0,
        draw: int = 0,
    ) -> Tensor: ...


class StepNoise(Protocol):
    """A noise source bound to a run's samples, stage, shape and device: called by a sampler's loop."""

    def __call__(self, step: int, draw: int = 0) -> Tensor: ...


@runtime_checkable
class Sampler(Protocol):
    """Frozen settings: `plan` makes the table, calling runs a pure loop over it."""

    def plan(
        self, schedule: NoiseSchedule, steps: int | None = None, *, interval: tuple[float, float] = (1.0, 0.0)
    ) -> StepTable: ...

    def __call__(
        self,
        denoise: DenoiseFn,
        table: StepTable,
        x: Tensor,
        *,
        noise: StepNoise,
        callback: Callback | None = None,
        after_step: AfterStep | None = None,
    ) -> Tensor: ...


@runtime_checkable
class Guidance(Protocol):
    """A wrapper over a bound denoiser; an ordered list of wrappers composes, first innermost."""

    def wrap(
        self, denoise: DenoiseFn, *, denoiser: Any, cond: Condition, null: Condition | None, table: StepTable
    ) -> DenoiseFn: ...


@runtime_checkable
class Autoencoder(Protocol):
    """images (B, 3, H, W) in [-1, 1] <-> scaled latents (B, channels, H / factor, W / factor)."""

    channels: int
    factor: int

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor: ...
    def decode(self, latents: Tensor) -> Tensor: ...


class Acceleration(Protocol):
    """Another way to evaluate a denoiser's network, started again for each run (zoo.acceleration)."""

    def begin(self, denoiser: Any, table: StepTable) -> Evaluate: ...


class LowRes(Protocol):
    """The small image that a super-resolution network is conditioned on -> Condition (zoo.diffusion.low_res)."""

    def noise_shape(self, small: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int] | None: ...
    def __call__(
        self, small: Tensor, *, size: tuple[int, int], level: Tensor | None = None, eps: Tensor | None = None
    ) -> Condition: ...


@runtime_checkable
class Conditioner(Protocol):
    """Inputs, one a sample -> Condition; `null` is what the weights were trained with for no condition.

    Two class attributes, literals that are read from the source, say what it takes and gives (zoo.config.conditions):
    `source`, one of `prompts` (the default), `labels`, `image` and `request`; and `fills`, the fields of a Condition.
    """

    def __call__(self, given: Sequence[Any], /) -> Condition: ...
    def null(self, batch: int) -> Condition: ...


def source_of(conditioner: Conditioner) -> str:
    """A conditioner's source: prompts, labels, image or request."""
    return getattr(conditioner, "source", "prompts")


def sources(conditioners: Mapping[str, Conditioner]) -> set[str]:
    """The sources of a pipeline's conditioners."""
    return {source_of(conditioner) for conditioner in conditioners.values()}
