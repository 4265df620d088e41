"""What a denoiser is conditioned on in training: captions, class labels, a smaller image.

A share of the captions or labels is replaced by the null condition, which classifier-free guidance
needs (Ho & Salimans 2022). The smaller image is made from the training image itself by area average, and
augmented as Ho et al. 2021 (section 4.2) do: Gaussian noise of a level that the network takes, and sometimes a blur
that it doesn't.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zoo.conditioners.class_label import ClassLabel
from zoo.conditioners.clip_text import ClipText
from zoo.data.captions import caption
from zoo.diffusion.draws import stream
from zoo.diffusion.types import Condition, LowRes
from zoo.schema.errors import ConfigError
from zoo.schema.ranges import within
from zoo.training.engine.objective import Batch, put

Rows = Sequence[Mapping[str, Any]]
KEPT_TEXTS = 100_000  # whose token ids are kept


class Told(Protocol):
    """The condition by captions or labels, for a batch and for the sample sheet."""

    def given(self, batch: Batch) -> Mapping[str, Tensor]:
        """What the host decides about a batch's condition, on the device (`Objective.given`)."""
        ...

    def __call__(self, batch: Batch) -> Condition:
        """The condition of a batch, some of a training batch's replaced by the null one."""
        ...

    def shown(self, rows: Rows) -> Condition:
        """The condition of some rows, for a sheet without prompts."""
        ...

    def asked(self, prompts: Sequence[str]) -> Condition:
        """The condition of a sheet's prompts."""
        ...

    def null(self, count: int) -> Condition | None:
        """The null condition; None where the network isn't trained on it."""
        ...


class Captions:
    """Captions through a text tower, as a rule a frozen one; the null condition is the empty caption."""

    def __init__(
        self, conditioner: ClipText, train: Rows, validation: Rows, *, dropout: float, keep: float,
        vector: bool = False, frozen: bool = True, precision: torch.dtype = torch.float32,
    ) -> None:  # fmt: skip
        self.conditioner, self.train, self.validation = conditioner, train, validation
        self.dropout, self.keep, self.vector = dropout, keep, vector
        self.frozen, self.precision = frozen, precision
        self._known_ids: dict[str, Tensor] = {}

    def through(self, tower: ClipText) -> Captions:
        """The same captions through a tower that is being trained, or through its average."""
        made = Captions(
            tower, self.train, self.validation, dropout=self.dropout, keep=self.keep, vector=self.vector, frozen=False,
            precision=self.precision,
        )  # fmt: skip
        made._known_ids = self._known_ids
        return made

    def texts(self, batch: Batch) -> list[str]:
        """The captions of a batch."""
        if not batch.training:
            return [self.validation[i]["text"] for i in batch.rows]
        dropped = batch.uniform("condition-dropout") < self.dropout
        kept = batch.uniform("caption") < self.keep  # the number that `caption` draws first
        return [
            ""
            if drop
            else self.train[row]["text"]
            if keep
            else caption(self.train[row], stream(batch.seed, "caption", int(sample)), keep=self.keep)
            for row, sample, keep, drop in zip(batch.rows, batch.samples, kept, dropped, strict=True)
        ]

    def _ids(self, texts: Sequence[str]) -> Tensor:
        """(B, L) token ids; earlier captions are not encoded again."""
        new = [text for text in dict.fromkeys(texts) if text not in self._known_ids]
        if new:
            if len(self._known_ids) > KEPT_TEXTS:
                self._known_ids.clear()
                new = list(dict.fromkeys(texts))
            self._known_ids.update(zip(new, self.conditioner.tokenize(new), strict=True))
        return torch.stack([self._known_ids[text] for text in texts])

    def _condition(self, texts: Sequence[str]) -> Condition:
        return self._encoded(put(self._ids(texts), self.conditioner.positional_embedding.device))

    def _encoded(self, ids: Tensor) -> Condition:
        low = not self.frozen and self.precision != torch.float32
        device = self.conditioner.positional_embedding.device.type
        with nullcontext() if not self.frozen else torch.no_grad(), torch.autocast(device, self.precision, enabled=low):
            tokens, vector = self.conditioner.states(ids)
        return Condition(tokens=tokens, vector=vector if self.vector else None)

    def given(self, batch: Batch) -> Mapping[str, Tensor]:
        return {"ids": put(self._ids(self.texts(batch)), self.conditioner.positional_embedding.device)}

    def __call__(self, batch: Batch) -> Condition:
        return self._encoded((self.given(batch) if batch.given is None else batch.given)["ids"])

    def shown(self, rows: Rows) -> Condition:
        return self._condition([row["text"] for row in rows])

    def asked(self, prompts: Sequence[str]) -> Condition:
        return self._condition(prompts)

    def null(self, count: int) -> Condition | None:
        return self._condition([""] * count)


class Labels:
    """The class of each row, from one of its columns; the null condition is the null label."""

    def __init__(
        self, column: str, train: Rows, validation: Rows, *, dropout: float, conditioner: ClassLabel | None = None
    ) -> None:
        self.dropout = dropout
        self.conditioner = conditioner or ClassLabel(names=class_names(train, column), null_class=dropout > 0.0)
        if dropout > 0.0 and not self.conditioner.null_class:
            raise ConfigError(
                "labels are to be dropped and the conditioner has no null_class; set it, or "
                "objective.condition_dropout: 0",
                code="null-class-unfit",
            )
        self.train, self.validation = (label_numbers(rows, column, self.conditioner) for rows in (train, validation))
        self.column = column

    def given(self, batch: Batch) -> Mapping[str, Tensor]:
        labels = batch.take(self.train if batch.training else self.validation)
        if batch.training and self.dropout > 0.0:
            dropped = put(batch.uniform("condition-dropout") < self.dropout, labels.device)
            labels = labels.masked_fill(dropped, len(self.conditioner.names))
        return {"label": labels}

    def __call__(self, batch: Batch) -> Condition:
        return Condition(label=(self.given(batch) if batch.given is None else batch.given)["label"])

    def shown(self, rows: Rows) -> Condition:
        return Condition(label=label_numbers(rows, self.column, self.conditioner))

    def asked(self, prompts: Sequence[str]) -> Condition:
        return self.conditioner(list(prompts))

    def null(self, count: int) -> Condition | None:
        return self.conditioner.null(count) if self.conditioner.null_class else None


class Nothing:
    """Unconditional."""

    def given(self, batch: Batch) -> Mapping[str, Tensor]:
        return {}

    def __call__(self, batch: Batch) -> Condition:
        return Condition()

    def shown(self, rows: Rows) -> Condition:
        return Condition()

    def asked(self, prompts: Sequence[str]) -> Condition:
        raise ConfigError(
            "objective.sheet_prompts are given and nothing reads them; add a conditioner or take them out",
            code="prompts-unread",
        )

    def null(self, count: int) -> Condition | None:
        return None


def class_names(rows: Rows, column: str) -> list[str]:
    """The values of a column, sorted; ConfigError where a row has none."""
    values = set()
    for row in rows:
        value = row.get(column)
        if not isinstance(value, str | int) or isinstance(value, bool):
            raise ConfigError(
                f"objective.labels names the column '{column}' and '{row.get('file_name')}' has no text or number "
                "there; name another column or mend the data",
                code="metadata-key-missing",
            )
        values.add(str(value))
    return sorted(values)


def label_numbers(rows: Rows, column: str, conditioner: ClassLabel) -> Tensor:
    """(N,) int64 class of each row; ConfigError for a value that is no class."""
    class_names(rows, column)
    numbers = {name: i for i, name in enumerate(conditioner.names)}
    strange = {str(row[column]) for row in rows} - numbers.keys()
    if strange:
        raise ConfigError(
            f"the column '{column}' holds {min(strange)!r}, which is no class of the training rows; mend the "
            "data, or name all classes in a conditioner block {name: class-label, names: [...]}",
            code="label-unknown",
        )
    return torch.tensor([numbers[str(row[column])] for row in rows], dtype=torch.int64)


class SmallPictures:
    """The smaller image that a super-resolution network is conditioned on, augmented in training.

    Args:
        size: pixels a side of the smaller image.
        max_level: noise levels are drawn evenly from [0, max_level] while training; validation adds no noise.
        blur_probability: share of training images that are blurred, by a Gaussian whose deviation in pixels is drawn
            evenly from blur_sigma.
    """

    def __init__(
        self, low_res: LowRes, *, size: int, max_level: float, blur_probability: float, blur_sigma: tuple[float, float]
    ) -> None:
        within(0.0, 1.0, {"objective.max_level": max_level, "objective.blur_probability": blur_probability})
        within(0.0, math.inf, {"objective.blur_sigma": blur_sigma}, "()")
        self.low_res, self.size, self.max_level = low_res, size, max_level
        self.blur_probability, self.blur_sigma = blur_probability, blur_sigma
        self.noised = low_res.noise_shape((size, size), (size, size)) is not None

    def __call__(self, batch: Batch, pictures: Tensor) -> Condition:
        """images (B, 3, H, W) in [-1, 1] -> Condition(concat, level)."""
        small, size = shrink(pictures, self.size), (pictures.shape[2], pictures.shape[3])
        shape = self.low_res.noise_shape((self.size, self.size), size)
        if batch.training and self.blur_probability > 0.0:
            draws = batch.uniforms("blur", 2)
            low, high = self.blur_sigma
            sigmas = np.where(draws[:, 0] < self.blur_probability, low + draws[:, 1] * (high - low), 0.0)
            small = blur(small, put(torch.from_numpy(sigmas).float(), small.device), top=float(sigmas.max()))
        if shape is None or not batch.training:
            level = None if shape is None else torch.zeros(len(small), device=small.device)
            return self.low_res(small, size=size, level=level)
        level = (self.given(batch) if batch.given is None else batch.given)["level"]
        return self.low_res(small, size=size, level=level, eps=batch.noise(shape, "level-noise"))

    def given(self, batch: Batch) -> Mapping[str, Tensor]:
        """The noise level of each sample, where the smaller image is noised."""
        return {"level": put(batch.uniform("level") * self.max_level, batch.device)} if self.noised else {}


def shrink(pictures: Tensor, size: int) -> Tensor:
    """(B, C, H, W) -> (B, C, size, size) by area average."""
    return F.interpolate(pictures, (size, size), mode="area")


def blur(pictures: Tensor, sigmas: Tensor, *, top: float | None = None) -> Tensor:
    """Each image convolved with a Gaussian of its own deviation in pixels, edges reflected; 0 leaves it as it is.

    `top` is the largest deviation where it is known on the host, which then doesn't wait for the device.
    """
    top = float(sigmas.max()) if top is None else top
    if top == 0.0:
        return pictures
    radius = min(max(1, int(np.ceil(3.0 * top))), min(pictures.shape[2:]) - 1)
    offsets = torch.arange(-radius, radius + 1, device=pictures.device, dtype=pictures.dtype)
    kernel = torch.exp(-0.5 * (offsets[None] / sigmas.clamp_min(1e-6)[:, None]) ** 2)
    kernel = kernel / kernel.sum(dim=1, keepdim=True)  # (B, 2 radius + 1)
    b, c, h, w = pictures.shape
    x = F.pad(pictures, (radius,) * 4, mode="reflect").reshape(1, b * c, h + 2 * radius, w + 2 * radius)
    rows = kernel.repeat_interleave(c, dim=0)
    x = F.conv2d(x, rows[:, None, :, None], groups=b * c)
    x = F.conv2d(x, rows[:, None, None, :], groups=b * c)
    blurred = x.reshape(b, c, h, w)
    return torch.where(sigmas.view(-1, 1, 1, 1) > 0.0, blurred, pictures)
