"""Training a denoiser by regression (Ho et al. 2020, eq. 14).

x_t = alpha_t * x0 + sigma_t * eps at a random t; the network's output is compared with the target of its
parameterization. In pixels, latents or arrays (signals, volumes); conditioned on captions, class labels, a smaller
image, or nothing (zoo.training.objectives.conditions). How often each t is drawn: zoo.training.objectives.timesteps;
how much its error counts: zoo.training.objectives.weighting. With `loss` hybrid or vlb the network has learned
variances too (zoo.training.objectives.variational; Nichol & Dhariwal 2021, section 3.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from zoo.autoencoders.identity import Identity
from zoo.data.arrays import ArrayDataset
from zoo.data.captions import all_texts
from zoo.data.dataset import Dataset
from zoo.diffusion.denoiser import At, Denoiser
from zoo.diffusion.types import Autoencoder, Evaluate
from zoo.schema.errors import ConfigError
from zoo.training.engine.objective import CPU, Batch, put
from zoo.training.objectives import arguments, variational, weighting
from zoo.training.objectives.arguments import Times, Weighting
from zoo.training.objectives.condition_sources import check_hears, told_of
from zoo.training.objectives.conditions import Captions, Labels, SmallPictures, Told
from zoo.training.objectives.sample_sheets import draw
from zoo.training.objectives.samples import open_samples
from zoo.training.objectives.text_tower import export_tower, trainable
from zoo.training.objectives.timesteps import Importance, draw_of

SHOWN = 16  # samples of a sheet


class Denoising:
    """Trains a denoiser on images, latents or arrays, optionally conditioned on captions, labels or a smaller image.

    Args:
        loss: `simple` is the weighted squared error; `vlb` the variational bound, `hybrid` simple + vlb_weight * vlb
            with the mean's gradient stopped in vlb. Both need a network with twice the samples' channels.
        weighting: of the squared error of x0; min_snr: gamma of `min-snr`, where None weights by SNR; p2_gamma, p2_k.
        times: density of t; time_mean, time_deviation: of logit-normal and log-normal.
        labels: column of the rows whose values, sorted, are the classes.
        condition_dropout: share of captions or labels replaced by the null condition, which guidance needs.
        train_conditioner: whether the text tower is trained too; it is then exported as NAME-text.
        low_size: pixels a side of the smaller image, with a `low_res` block in the recipe; max_level: its noise
            levels are drawn from [0, max_level]; blur_probability, blur_sigma: how often and how far it is blurred.
        guidance, sheet_steps, sheet_prompts: of the sample sheet only; without prompts it shows validation rows.
    """

    papers = (
        "2006.11239 Denoising Diffusion Probabilistic Models",
        "2303.09556 Efficient Diffusion Training via Min-SNR Weighting Strategy",
    )
    fits = "zoo.training.objectives.arguments:denoising"
    trains = "network"
    reads = ("autoencoder", "conditioner", "schedule", "parameterization", "time_input", "time_rounding", "low_res")
    needs = ("schedule", "parameterization")

    def __init__(
        self, *, network: Denoiser, train: Dataset | ArrayDataset, validation: Dataset | ArrayDataset, cache: Path,
        autoencoder: Autoencoder | None = None, conditioner: Any = None,
        loss: Literal["simple", "hybrid", "vlb"] = "simple", vlb_weight: float = 0.001,
        weighting: Weighting = "min-snr", min_snr: float | None = 5.0, p2_gamma: float = 1.0, p2_k: float = 1.0,
        times: Times = "uniform", time_mean: float | None = None, time_deviation: float | None = None,
        labels: str | None = None, condition_dropout: float = 0.1, keep_caption: float = 0.6,
        train_conditioner: bool = False,
        low_size: int | None = None, max_level: float = 1.0, blur_probability: float = 0.0,
        blur_sigma: tuple[float, float] = (0.4, 0.6),
        guidance: float = 4.0, sheet_steps: int = 25, sheet_prompts: Sequence[str] = (),
        precision: torch.dtype = torch.float32, device: torch.device = CPU,
    ) -> None:  # fmt: skip
        arguments.denoising(
            loss=loss, vlb_weight=vlb_weight, weighting=weighting, min_snr=min_snr, p2_k=p2_k, times=times,
            time_mean=time_mean, time_deviation=time_deviation, condition_dropout=condition_dropout,
            p2_gamma=p2_gamma, keep_caption=keep_caption, low_size=low_size, max_level=max_level,
            blur_probability=blur_probability, blur_sigma=blur_sigma, guidance=guidance, sheet_steps=sheet_steps,
        )  # fmt: skip
        self.device, self.network, self.precision = device, network, precision
        self.rows, self.validation_rows = len(train), len(validation)
        self.kind, self.vlb_weight = loss, vlb_weight
        self.weighting: Weighting = weighting
        self.min_snr, self.p2_gamma, self.p2_k = min_snr, p2_gamma, p2_k
        self.guidance, self.sheet_steps = guidance, sheet_steps
        self.autoencoder: Autoencoder = Identity() if autoencoder is None else autoencoder
        self.samples = open_samples(train, validation, self.autoencoder, cache=cache, device=device)
        self.shape = self.samples.shape
        self._check(network, loss)
        self.told = told_of(
            network, conditioner, train.rows, validation.rows, labels=labels, dropout=condition_dropout,
            keep=keep_caption, precision=precision,
        )  # fmt: skip
        self.tuned = train_conditioner
        if train_conditioner:
            self._tune(train)
        self.small = self._small(network, low_size, max_level, blur_probability, tuple(blur_sigma))
        self.shown = np.arange(0, len(validation), max(1, len(validation) // SHOWN))[:SHOWN]
        self.sheet_prompts, self.validation = list(sheet_prompts), validation
        if self.sheet_prompts:
            self.told.asked(self.sheet_prompts)
        check_hears(network, self.told, self.small, channels=self.shape[0])
        self.times = draw_of(times, network.schedule, mean=time_mean, deviation=time_deviation)
        if isinstance(self.times, Importance):  # state of the run, which is in its checkpoints
            self.state, self.load_state = self.times.state, self.times.load_state

    # -- checks

    def _check(self, network: Denoiser, loss: str) -> None:
        multiple = getattr(network.network, "size_multiple", 1)
        wrong = next((length for length in self.shape[1:] if length % multiple), None)
        if wrong is not None:
            raise ConfigError(
                f"the network takes sizes that are multiples of {multiple} and the data's are {wrong}; change "
                "data.size, or have fewer levels in network.mult",
                code="size-indivisible",
            )
        channels = self.shape[0]
        given = getattr(network.network, "out_channels", None)
        self.learned = given == 2 * channels
        if given is not None and given != channels and not (self.learned and loss != "simple"):
            more = f", or {2 * channels} with objective.loss hybrid or vlb" if loss == "simple" else ""
            raise ConfigError(
                f"the network gives {given} channels for samples of {channels} with objective.loss '{loss}'; "
                f"set network.out_channels to {channels if loss == 'simple' else 2 * channels}{more}",
                code="channels-unfit",
            )
        if loss != "simple" and not self.learned:
            raise ConfigError(
                f"objective.loss '{loss}' learns the variance, which needs {2 * channels} channels; set "
                f"network.out_channels to {2 * channels}",
                code="channels-unfit",
            )
        if loss != "simple":  # the bound trains this variance, and the weights' contract declares it
            if network.variance == "learned":
                raise ConfigError(
                    f"objective.loss '{loss}' trains a variance in a range and the denoiser says variance 'learned'; "
                    "say learned_range",
                    code="variance-unfit",
                )
            network.variance = "learned_range"
        # The discretised decoder is one of 8-bit images.
        bounded = isinstance(network.schedule, variational.DiscreteSchedule) and network.schedule.steps > 1
        if loss != "simple":
            variational.discrete(network.schedule)
            if self.samples.pixels_by is not None:
                raise ConfigError(
                    f"objective.loss '{loss}' is a bound for 8-bit images; {self.samples.pixels_by}, or use simple",
                    code="bound-undefined",
                )
        self.bounded = self.samples.pixels_by is None and bounded

    def _small(
        self, network: Denoiser, size: int | None, level: float, probability: float, sigma: tuple[float, ...]
    ) -> SmallPictures | None:
        if (network.low_res is None) != (size is None):
            raise ConfigError(
                "a network that enlarges needs both the recipe's block low_res and objective.low_size; add the one "
                "that is missing",
                code="low-res-unstated",
            )
        if network.low_res is None or size is None:
            return None
        if self.samples.pixels_by is not None:
            raise ConfigError(
                f"low_res conditioning is trained on pixels; {self.samples.pixels_by}, or take low_res out",
                code="latents-unfit",
            )
        if not 0 < size < self.shape[-1]:
            raise ConfigError(
                f"objective.low_size is {size} for pictures of {self.shape[-1]}; make it smaller",
                code="low-res-size-unfit",
            )
        return SmallPictures(
            network.low_res, size=size, max_level=level, blur_probability=probability, blur_sigma=(sigma[0], sigma[1])
        )

    def _tune(self, train: Dataset | ArrayDataset) -> None:
        if not isinstance(self.told, Captions):
            raise ConfigError(
                "objective.train_conditioner: nothing is told in words; add a conditioner of text, or take it out",
                code="conditioner-missing",
            )
        if self.told.vector:
            raise ConfigError(
                "objective.train_conditioner trains token states, and this network reads the pooled embedding; leave "
                "it out",
                code="conditioner-untrainable",
            )
        # Part of what is trained: the optimizer, averages and checkpoints hold it with the network.
        self.network.add_module("conditioner", trainable(self.told.conditioner, all_texts(train.rows)))

    def _told(self, network: Denoiser) -> Told:
        """The condition source, with the tower that `network` holds where the tower is trained too."""
        if not self.tuned:
            return self.told
        assert isinstance(self.told, Captions)
        tower: Any = network.conditioner
        return self.told.through(tower)

    # -- the loss

    @property
    def records(self) -> bool:
        """Whether all that the host decides about a batch is in `given`."""
        blurred = self.small is not None and self.small.blur_probability > 0.0  # as far as the batch's widest needs
        if self.kind != "simple" or isinstance(self.times, Importance) or blurred:
            return False
        return self.samples.kept is not None and self.samples.kept.device.type == self.device.type

    def given(self, network: Denoiser, batch: Batch) -> dict[str, Any]:
        """What the host decides about a batch: its t and what depends on that alone, its captions or labels, ..."""
        return {
            **batch.own(), **self._noised(network, self.times(batch)[0]), **self.told.given(batch),
            **({} if self.small is None else self.small.given(batch)),
            **self.samples.given(batch),
        }  # fmt: skip

    def _noised(self, network: Denoiser, t: np.ndarray) -> dict[str, Any]:
        """What depends on t alone, worked out on the host, where a value can be looked at without waiting."""
        at = network.at(t, dimensions=1 + len(self.shape))
        c_out_squared = torch.as_tensor(at.c_out).square()
        weight = weighting.weights(
            self.weighting, (at.alpha / at.sigma).square(), c_out_squared, min_snr=self.min_snr,
            p2_gamma=self.p2_gamma, p2_k=self.p2_k, sigma_data=getattr(network.parameterization, "sigma_data", 0.5),
        )  # fmt: skip
        values = {name: getattr(at, name) for name in At.__slots__} | {"c_out_squared": c_out_squared, "weight": weight}
        return {n: put(value, self.device) if isinstance(value, Tensor) else value for n, value in values.items()}

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """`loss`, `output` and `x0`: the plain squared errors of the output and of the x0 it implies; of images in
        validation also `bits_per_dimension`, an estimate of the bound from each sample's one t."""
        assert isinstance(network, Denoiser)
        x0 = self.samples(batch)
        eps = batch.noise(tuple(x0.shape[1:]), "eps")
        t = importance = None
        given = batch.given
        if given is None:
            t, importance = self.times(batch)
            given = self._noised(network, t)
        at, weight = At(**{name: given[name] for name in At.__slots__}), given["weight"]
        x_t = at.alpha * x0 + at.sigma * eps
        cond = self._told(network)(batch)
        if self.small is not None:
            cond = cond.merge(self.small(batch, x0))
        said = network(x_t, at, cond, evaluate=self._evaluate(network))
        output: Any = said.output
        error = (output - network.parameterization.target(x0, eps, at.alpha, at.sigma)).square()
        scalars = {"output": error.mean(), "x0": (given["c_out_squared"] * error).mean()}
        weighted = weight * error
        bound = self._bound(network, batch, t, x0=x0, x_t=x_t, x0_hat=said.x0, logit=said.variance_logit)
        if bound is not None and not batch.training:
            prior = variational.prior(variational.discrete(network.schedule), x0)
            scalars["bits_per_dimension"] = (bound + prior).mean()
        if self.kind == "simple" and not isinstance(self.times, Importance):
            # One mean over all: the order of sums is part of a run's identity.
            return {"loss": weighted.mean(), **scalars}
        each = weighted.flatten(1).mean(dim=1)
        if self.kind != "simple":
            assert bound is not None
            each = bound if self.kind == "vlb" else each + self.vlb_weight * bound
        if isinstance(self.times, Importance):
            assert t is not None
            assert importance is not None
            self.times.record(batch, t, each)
            each = each * put(torch.from_numpy(importance).float(), self.device)
        return {"loss": each.mean(), **scalars}

    def _bound(
        self, network: Denoiser, batch: Batch, t: np.ndarray | None, *, x0: Tensor, x_t: Tensor, x0_hat: Tensor,
        logit: Tensor | None,
    ) -> Tensor | None:  # fmt: skip
        """(B,) T times the bound's term at each sample's t, whose mean estimates its sum; None where not wanted."""
        if self.kind == "simple" and (batch.training or not self.bounded):
            return None
        assert t is not None  # which no batch is given that has a bound
        schedule = variational.discrete(network.schedule)
        # Nichol & Dhariwal 2021, section 3.1: in the hybrid the bound trains the variance and L_simple the mean.
        x0_hat = x0_hat.detach() if self.kind == "hybrid" else x0_hat
        return schedule.T * variational.term(schedule, t, x0=x0, x_t=x_t, x0_hat=x0_hat, logit=logit)

    def _evaluate(self, network: Denoiser) -> Evaluate:
        """The network under autocast, with the fastest attention for its device."""

        def evaluate(x: Tensor, time: float | Tensor, arguments: Mapping[str, Any]) -> Tensor:
            # For a few dozen positions plain matrix products are a fifth faster on a CPU than fused attention.
            with (
                torch.autocast(self.device.type, self.precision, enabled=self.precision != torch.float32),
                sdpa_kernel(SDPBackend.MATH) if self.device.type == "cpu" else nullcontext(),
            ):
                x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
                return network.network(x, time, **arguments)

        return evaluate

    # -- sample sheets and export

    @torch.no_grad()
    def sheet(self, network: nn.Module) -> Tensor:
        """The sheet's prompts or validation rows, drawn from fixed noise by the averaged weights, eight a row."""
        assert isinstance(network, Denoiser)
        told = self._told(network)
        if self.sheet_prompts:
            count, cond = len(self.sheet_prompts), told.asked(self.sheet_prompts)
        else:
            count = len(self.shown)
            cond = told.shown([self.validation.rows[int(i)] for i in self.shown])
        if self.small is not None:
            places = np.resize(self.shown, count)
            pictures = Batch(rows=places, samples=places, seed=0, training=False, device=self.device)
            cond = cond.merge(self.small(pictures, self.samples(pictures)))
        drawn = draw(
            network, self.autoencoder, cond.to(self.device), told.null(count), count=count,
            shape=self.shape, guidance=self.guidance, steps=self.sheet_steps, device=self.device,
        )  # fmt: skip
        return self.samples.sheet(drawn)

    def export(self, network: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The network's weights alone; the card holds their contract."""
        assert isinstance(network, Denoiser)
        shape, inner = self.shape, network.network
        joined = 0 if self.small is None else shape[0]
        contract: dict[str, Any] = {
            "in_channels": shape[0] + joined, "out_channels": shape[0] * (2 if self.learned else 1),
            "size": shape[-1], "size_multiple": getattr(inner, "size_multiple", 1), **self.samples.contract(),
        }  # fmt: skip
        if isinstance(self.told, Captions):
            contract["context_width"] = self.told.conditioner.width
        if isinstance(self.told, Labels):
            names = list(self.told.conditioner.names)
            contract |= {"classes": len(names), "null_class": self.told.conditioner.null_class, "names": names}
        if self.small is not None:
            contract["low_res"] = self.small.size
        return inner.state_dict(), {"contract": contract}

    def export_others(self, network: nn.Module) -> dict[str, tuple[dict[str, Tensor], dict[str, Any]]]:
        """Further trained weights, by the ending of their name: `text`, the tower."""
        if not self.tuned:
            return {}
        assert isinstance(self.told, Captions)
        tower: Any = network.conditioner
        return {"text": export_tower(tower, self.told.train)}
