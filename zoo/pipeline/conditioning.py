"""From a call's inputs to the conditions of its stages: every distinct text, label and number is encoded once a call.

Parts of a batch take their rows; stages that share a conditioner share its output. How several conditioners of
a stage join is set by `listens` (zoo.config.conditions).
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from zoo.config.conditions import JOINS, conditioners_of, givers, join_of
from zoo.diffusion.types import Condition, Conditioner, source_of
from zoo.guidance.interval import classifier_free_scale
from zoo.schema.errors import UsageError

if TYPE_CHECKING:
    from zoo.pipeline.parts import Parts
    from zoo.pipeline.prepared import Prepared
    from zoo.pipeline.stage import Stage

AT_ONCE = 64  # texts that a conditioner encodes in one batch


class Conditioning:
    """The conditions of one call, by stage and part. Encodings are kept until the call ends."""

    def __init__(
        self, conditioners: Mapping[str, Conditioner], stages: Sequence[Stage], request: Prepared,
        device: torch.device, parts: Parts,
    ) -> None:  # fmt: skip
        self.conditioners, self.stages, self.request, self.device = conditioners, stages, request, device
        self.parts = parts
        self._encoded: dict[tuple[int, Hashable], Condition] = {}  # by the conditioner's id and its input

    def __call__(self, number: int, part: slice) -> tuple[Condition, Condition | None]:
        """The condition of a stage's samples, and the null one (or the negative prompts'); None for weights without."""
        stage, request = self.stages[number], self.request
        cond: dict[str, Condition] = {}
        null: dict[str, Condition] = {}
        everyone, negative = True, request.negative[part]
        for name in stage.conditioners:
            conditioner = self.conditioners[name]
            source = source_of(conditioner)
            cond[name] = self._rows(conditioner, self._given(source, number, part, hasattr(conditioner, "noise_shape")))
            if source == "request":  # its numbers are no prompt, and the same in both but for those that it says
                null[name] = cond[name]
                if getattr(conditioner, "nothing", None):
                    given = [(*row, ("null", 1.0)) for row in self._given(source, number, part)]  # type: ignore[misc]
                    null[name] = self._rows(conditioner, given)
            elif any(negative) and source == "prompts":
                null[name] = self._negative(conditioner, negative)
            elif getattr(conditioner, "null_class", True):
                null[name] = self._nothing(conditioner, len(negative))
            else:
                everyone = False
        joined = join(stage.name, stage.listens, cond)
        return joined, join(stage.name, stage.listens, null) if everyone else None

    def _given(self, source: str, number: int, part: slice, noised: bool = False) -> Sequence[Hashable]:
        """A conditioner's inputs for a stage's samples, one each; equal ones are encoded once.

        noised: each sample's image is encoded with noise of its own.
        """
        request = self.request
        if source == "labels":
            return request.labels[part]
        if source == "request":
            stage = self.stages[number]
            return [tuple(numbers_of(stage, number, request, scale).items()) for scale in request.scales[part]]
        if source == "image":
            assert request.image is not None  # a request without one was refused
            same = request.image.stride(0) == 0 and not noised  # one for all samples
            return [("image", 0 if same else i) for i in range(len(request.samples))[part]]
        return request.prompts[part]

    def _rows(self, conditioner: Conditioner, given: Sequence[Hashable]) -> Condition:
        """The condition of each sample."""
        key = id(conditioner)
        if any((key, value) not in self._encoded for value in given):
            self._encode(conditioner, given)
        distinct = list(dict.fromkeys(given))
        place = torch.tensor([distinct.index(value) for value in given], device=self.device)
        return Condition.stack([self._encoded[key, value] for value in distinct]).rows(place)

    def _encode(self, conditioner: Conditioner, given: Sequence[Hashable]) -> None:
        """Encode what is given and, of prompts, all others of the call with it."""
        source, key = source_of(conditioner), id(conditioner)
        wanted: dict[Any, None] = dict.fromkeys(given)
        if source == "prompts":
            # Prompts and negative prompts apart: in one batch the rounding of one text would depend on the other.
            for texts in (self.request.prompts, self.request.negative):
                if set(given) <= set(texts):
                    wanted = dict.fromkeys(texts)
                    break
        new = [value for value in wanted if (key, value) not in self._encoded]
        for start in range(0, len(new), AT_ONCE):
            batch = new[start : start + AT_ONCE]
            values: Any = [self._value(source, value) for value in batch]
            noise = self._noise(conditioner, batch)
            said = self.parts.condition(conditioner, lambda values=values, noise=noise: conditioner(values, *noise))
            said = said.to(self.device)
            for i, value in enumerate(batch):
                self._encoded[key, value] = said.rows(slice(i, i + 1))

    def _noise(self, conditioner: Conditioner, batch: Sequence[Any]) -> tuple[Tensor, ...]:
        """The noise of images that a conditioner noises (`noise_shape`), one row each; nothing for another one."""
        shape = getattr(conditioner, "noise_shape", None)
        if shape is None:
            return ()
        samples = [self.request.samples[row] for _, row in batch]
        return (self.request.source(shape, purpose="embedding", samples=samples).to(self.device),)

    def _value(self, source: str, given: Any) -> Any:
        if source == "request":
            return dict(given)
        if source == "image":
            assert self.request.image is not None
            return self.request.image[given[1]].to(self.device)
        return given

    def _negative(self, conditioner: Conditioner, negative: Sequence[str]) -> Condition:
        """The condition of negative prompts; of a sample without one the null condition, as if it were alone."""
        words = [text for text in negative if text]
        if len(words) == len(negative):
            return self._rows(conditioner, negative)
        both = Condition.stack([self._nothing(conditioner, 1), self._rows(conditioner, words)])
        places = iter(range(1, len(words) + 1))
        return both.rows(torch.tensor([next(places) if text else 0 for text in negative], device=self.device))

    def _nothing(self, conditioner: Conditioner, count: int) -> Condition:
        """The null condition of `count` samples."""
        empty = getattr(conditioner, "null_prompt", None)
        if source_of(conditioner) == "prompts" and empty is not None:
            return self._rows(conditioner, [empty] * count)
        key = (id(conditioner), ("null",))
        if key not in self._encoded:
            self._encoded[key] = self.parts.condition(conditioner, lambda: conditioner.null(1)).to(self.device)
        return self._encoded[key].rows(torch.zeros(count, dtype=torch.int64, device=self.device))


def numbers_of(stage: Stage, number: int, request: Prepared, scale: float | None) -> dict[str, float]:
    """The numbers of a call for conditioners of source `request`, for one of its stages.

    Pixels: `height`, `width`, `original_height`, `original_width`, `crop_top`, `crop_left`, `target_height` and
    `target_width` (SDXL's names: the size itself, uncropped); `guidance`, the scale (`scale` of the call, or the
    stage's own), where the stage has one; `level`, to which a smaller image is noised.
    """
    numbers: dict[str, float] = {"level": float(stage.augmentation or 0.0)}
    if len(request.sizes[number]) == 2:
        height, width = request.sizes[number]
        numbers |= {"height": height, "width": width, "crop_top": 0.0, "crop_left": 0.0}
        numbers |= {f"{of}_height": height for of in ("original", "target")}
        numbers |= {f"{of}_width": width for of in ("original", "target")}
    for guidance in stage.guidance:
        own = classifier_free_scale(guidance)
        if own is not None:
            numbers["guidance"] = own if scale is None else scale
    return numbers


def join(stage: str, listens: Sequence[str] | Mapping[str, Any], given: Mapping[str, Condition]) -> Condition:
    """The outputs of a stage's conditioners as one condition; UsageError where two give one field and don't join."""
    if isinstance(listens, Mapping):
        joined = Condition()
        for field in listens:
            joined = joined.merge(_joined(stage, listens, field, given))
        return joined
    for field in JOINS:
        names = [name for name in listens if getattr(given[name], field) is not None]
        if len(names) > 1 and field != "scalars":
            raise UsageError(
                f"stage '{stage}' listens to '{names[0]}' and '{names[1]}', which both give {field}, and doesn't say "
                "how they join; write its listens field by field, like {tokens: {join: width, of: [NAME, NAME]}}",
                code="condition-join-missing",
            )
    joined = Condition()
    for name in conditioners_of(listens):
        joined = joined.merge(given[name])
    return joined


def _joined(stage: str, listens: Mapping[str, Any], field: str, given: Mapping[str, Condition]) -> Condition:
    """One field of a condition, from all its conditioners."""
    names = givers(listens, field)
    values: list[Any] = [getattr(given[name], field) for name in names]
    missing = next((name for name, value in zip(names, values, strict=True) if value is None), None)
    if missing is not None:
        raise UsageError(
            f"stage '{stage}' listens to '{missing}' for {field} and that gives none; name another",
            code="condition-field-missing",
        )
    if field == "scalars":
        return Condition(scalars={name: v for scalars in values for name, v in scalars.items()})
    by_length = join_of(listens, field) == "length"
    if len(values) > 1:
        like, dim = values[0], 1 if by_length else values[0].ndim - 1
        rest = [d for d in range(like.ndim) if d != dim]
        for name, value in zip(names, values, strict=True):
            if value.ndim != like.ndim or any(value.shape[d] != like.shape[d] for d in rest):
                raise UsageError(
                    f"stage '{stage}': {field} of '{names[0]}' {tuple(like.shape[1:])} and of '{name}' "
                    f"{tuple(value.shape[1:])} can't join by {'length' if by_length else 'width'}; "
                    f"{'join them by width' if by_length else 'they must be equally long'}",
                    code="condition-width-unfit",
                )
    value: Any = values[0] if len(values) == 1 else torch.cat(values, dim=1 if by_length else values[0].ndim - 1)
    if field != "tokens":
        alone: dict[str, Any] = {field: value}
        return Condition(**alone)
    return Condition(tokens=value, mask=_mask([given[name] for name in names], by_length))


def _mask(parts: Sequence[Condition], by_length: bool) -> Tensor | None:
    """Which joined tokens count: all where none has a mask; side by side, where any counts."""
    if all(part.mask is None for part in parts):
        return None
    tokens = [part.tokens for part in parts if part.tokens is not None]
    masks = [
        torch.ones(t.shape[:2], dtype=torch.bool, device=t.device) if part.mask is None else part.mask
        for part, t in zip(parts, tokens, strict=True)
    ]
    return torch.cat(masks, dim=1) if by_length else torch.stack(masks).any(dim=0)
