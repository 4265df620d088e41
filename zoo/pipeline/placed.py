"""Where a pipeline's networks are, in which precision, with how much memory and how fast: never what they draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn

from zoo.acceleration.accelerated import speed_up
from zoo.acceleration.device import resolve
from zoo.acceleration.eight_bit import in_eight_bits
from zoo.acceleration.fast import Fast, choose, lay_out_weights, speed_up_decoder
from zoo.diffusion.types import Conditioner
from zoo.pipeline.parts import Parts, Saving, networks_in
from zoo.pipeline.safety import SafetyCheck
from zoo.pipeline.stage import Stage
from zoo.schema.errors import UsageError

__all__ = ["Placed"]


class Placed:
    """What a pipeline has that runs, and how it is told where and how to run; a Pipeline is one."""

    conditioners: Mapping[str, Conditioner]
    stages: Sequence[Stage]
    safety: SafetyCheck | None
    fast: Fast
    saving: Saving
    parts: Parts

    def modules(self) -> list[nn.Module]:
        """Every network of the pipeline, once."""
        parts: list[Any] = [*self.conditioners.values(), self.safety]
        for stage in self.stages:
            parts += [stage.denoiser, stage.autoencoder, *networks_in(stage.guidance)]
        return list({id(p): p for p in parts if isinstance(p, nn.Module)}.values())

    def to(
        self, device: torch.device | str | Mapping[str, Any] | None = None,
        dtype: torch.dtype | Mapping[str, torch.dtype] | None = None,
    ) -> Self:  # fmt: skip
        """Move every network, with `auto` to the best device available; returns this pipeline.

        Either may be a mapping of parts: {"autoencoder": torch.float32, "rest": torch.float16} (zoo.pipeline.parts).
        Samples stay float32 whatever the networks' dtype.
        """
        for said in (device, dtype):
            self.parts.check(said)
        if device is not None and self.parts.turns is not None:
            raise UsageError(
                "parts that are offloaded stay with the device that they take turns on; build the pipeline for another",
                code="option-conflict",
            )
        if isinstance(device, Mapping):
            place: Any = {part: resolve(one) for part, one in device.items()}
        else:
            place = None if device is None else resolve(device)
        for module in self.modules():
            module.to(device=self.parts.chosen(place, module), dtype=self.parts.chosen(dtype, module))
        self.prepared_again()
        return self

    def save_memory(
        self, *, offload: bool = False, decode: str = "whole", weights: str | None = None,
        device: torch.device | None = None,
    ) -> Self:  # fmt: skip
        """Draw with less memory (zoo.pipeline.parts.Saving); returns this pipeline.

        offload: parts take turns on the device, `device` or the one that they are on, and wait in the host's memory;
            on the CPU in their files. decode: `rows` or `tiles`. weights: `int8` or `fp8`, for good.
        """
        saving = Saving(offload=offload, decode=decode, weights=weights)  # type: ignore[arg-type]
        if self.saving.weights not in (None, weights) or (self.saving.offload and not offload):
            raise UsageError(
                "weights in eight bits and offloading can't be taken back; build the pipeline again",
                code="option-conflict",
            )
        if offload:
            _refuse_moving(graphs=self.fast.graphs, packed=self.fast.packed)
        decoders = [d for s in self.stages if hasattr(d := getattr(s.autoencoder, "decoder", None), "by")]
        if decode != "whole" and not decoders:
            raise UsageError(
                f"no autoencoder of this pipeline decodes by {decode}; leave decode out", code="decode-unfit"
            )
        for decoder in decoders:
            decoder.by = decode  # type: ignore[union-attr] - those that have it
        if weights is not None and self.saving.weights is None:
            for part in [*self.conditioners.values(), *(stage.denoiser.network for stage in self.stages)]:
                if isinstance(part, nn.Module):
                    in_eight_bits(part, weights)  # type: ignore[arg-type]
        self.saving = saving
        if offload and self.parts.turns is None:
            self.parts.take_turns(self.device if device is None else device, self.modules())
        self.prepared_again()
        return self

    def prepared_again(self) -> None:
        """After weights were moved: what the fast path made of them refers to their former memory."""
        if self.fast != Fast():
            self._speed_up(self.fast)

    def compile(
        self, *, precompute: bool | None = None, channels_last: bool | None = None, packed: bool | None = None,
        compile: bool | None = None, graphs: bool | None = None, dtype: torch.dtype | None = None,
    ) -> Self:  # fmt: skip
        """Turn the fast path on (zoo.acceleration.fast); returns this pipeline.

        Images change by rounding alone. Each part can be switched; None is what helps on this device. `dtype` moves
        the networks to another precision first. The first call after is slower where something is compiled.
        """
        if dtype is not None:
            self.to(dtype=dtype)
        if self.parts.turns is not None:
            _refuse_moving(graphs=graphs, packed=packed)
            graphs = packed = False
        self._speed_up(choose(
            self.device, precompute=precompute, channels_last=channels_last, packed=packed, compile=compile,
            graphs=graphs,
        ))  # fmt: skip
        return self

    def _speed_up(self, fast: Fast) -> None:
        self.fast = fast
        for conditioner in self.conditioners.values():
            lay_out_weights(conditioner, fast)
        for stage in self.stages:
            speed_up(stage.denoiser, fast)
            speed_up_decoder(stage.autoencoder, fast)

    @property
    def device(self) -> torch.device:
        """The first network's device, or that on which parts take turns."""
        if self.parts.turns is not None:
            return self.parts.turns.device
        parameters = (p for m in self.modules() for p in m.parameters())
        return next((p.device for p in parameters), torch.device("cpu"))

    def device_of(self, stage: Stage) -> torch.device:
        """Where a stage samples."""
        first = None if self.parts.turns is not None else next(stage.denoiser.parameters(), None)
        return self.device if first is None else first.device


def _refuse_moving(**parts: bool | None) -> None:
    """UsageError for parts of the fast path that are on, and can't be where weights are offloaded."""
    for name, on in parts.items():
        if on:
            raise UsageError(f"{name} needs weights that stay; leave {name} out", code="option-conflict")
