"""Training a classifier of noised images, for classifier guidance (Dhariwal & Nichol 2021, section 4 and appendix H).

Cross-entropy of the class given x_t, at t drawn uniformly, under the schedule of the denoiser that it is to guide: it
takes the same x_t and the same time. In pixels, or in latents where the denoiser's are.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.autoencoders.identity import Identity
from zoo.conditioners.class_label import ClassLabel
from zoo.data.dataset import Dataset
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.types import Autoencoder, source_of
from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import CPU, Batch
from zoo.training.objectives.array_batches import refuse_arrays
from zoo.training.objectives.conditions import class_names, label_numbers
from zoo.training.objectives.samples import open_samples
from zoo.training.objectives.timesteps import Drawn

BANDS = 4  # of t, for which validation reports how often the class is found


class Classifier:
    """Trains a classifier of noised images: (x_t, time) -> logits of the classes.

    Args:
        network: the classifier with its schedule and time input, as a denoiser has them.
        labels: column of the rows whose values, sorted, are the classes.
    """

    papers = ("2105.05233 Diffusion Models Beat GANs on Image Synthesis",)
    trains = "network"
    reads = ("autoencoder", "conditioner", "schedule", "time_input", "time_rounding")
    needs = ("schedule",)

    def __init__(
        self, *, network: Denoiser, train: Dataset, validation: Dataset, cache: Path, labels: str,
        autoencoder: Autoencoder | None = None, conditioner: Any = None, precision: torch.dtype = torch.float32,
        device: torch.device = CPU,
    ) -> None:  # fmt: skip
        self.device, self.network, self.precision = device, network, precision
        self.rows, self.validation_rows = len(train), len(validation)
        if conditioner is not None and source_of(conditioner) != "labels":
            raise ConfigError(
                "a classifier is told nothing but its classes; take the conditioner out, or give one of labels",
                code="condition-unread",
            )
        self.names = list(conditioner.names) if conditioner is not None else class_names(train.rows, labels)
        known = getattr(network.network, "classes", None)
        if known is not None and known != len(self.names):
            raise ConfigError(
                f"the column '{labels}' has {len(self.names)} classes and the network's classes is {known}; set "
                f"network.classes to {len(self.names)}",
                code="classes-unfit",
            )
        numbers = ClassLabel(names=self.names, null_class=False)
        self.labels = label_numbers(train.rows, labels, numbers)
        self.validation_labels = label_numbers(validation.rows, labels, numbers)
        refuse_arrays(train)
        coder = Identity() if autoencoder is None else autoencoder
        self.samples = open_samples(train, validation, coder, cache=cache, device=device)
        self.shape = self.samples.shape
        self.times = Drawn(network.schedule)

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Cross-entropy and `top1`; of a validation batch also `top1_T` at the middle T of each quarter of [0, 1]."""
        assert isinstance(network, Denoiser)
        x0 = self.samples(batch)
        label = batch.take(self.labels if batch.training else self.validation_labels)
        if not batch.training:  # each image at each band's middle, so that the shares don't depend on the batch
            return self._validate(network, x0, label, batch)
        t, _ = self.times(batch)
        logits = self._ask(network, x0, batch.noise(tuple(x0.shape[1:]), "eps"), t)
        right = (logits.argmax(dim=1) == label).float().mean()
        return {"loss": F.cross_entropy(logits, label), "top1": right}

    def _validate(self, network: Denoiser, x0: Tensor, label: Tensor, batch: Batch) -> Mapping[str, Tensor]:
        eps = batch.noise(tuple(x0.shape[1:]), "eps")
        losses, rights, scalars = [], [], {}
        for band in range(BANDS):
            logits = self._ask(network, x0, eps, [(band + 0.5) / BANDS] * len(x0))
            losses.append(F.cross_entropy(logits, label))
            rights.append((logits.argmax(dim=1) == label).float().mean())
            scalars[f"top1_{(band + 0.5) / BANDS:g}"] = rights[-1]
        return {"loss": torch.stack(losses).mean(), "top1": torch.stack(rights).mean(), **scalars}

    def _ask(self, network: Denoiser, x0: Tensor, eps: Tensor, t: Any) -> Tensor:
        at = network.at(t, dimensions=x0.ndim).move(lambda value: value.to(self.device))
        x_t = (at.alpha * x0 + at.sigma * eps).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32):
            return network.network(x_t, at.time).float()

    def sheet(self, network: nn.Module) -> Tensor | None:
        """None: a classifier draws no samples."""
        return None

    def export(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The classifier's weights; its card holds the classes and the schedule of x_t."""
        assert isinstance(network, Denoiser)
        contract = {
            "in_channels": self.shape[0],
            "size": self.shape[-1],
            "classes": len(self.names),
            "names": self.names,
        }
        return network.network.state_dict(), {"contract": contract}
