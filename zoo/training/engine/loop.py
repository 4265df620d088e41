"""The training loop: one optimizer step after another, each the same whether the run was interrupted or not.

Everything random is addressed by (seed, purpose, global sample number), so a checkpoint holds weights, their averages
and the optimizer's state, and no generator's; and so a step's batch may be split over parts and devices. A loss or
gradient that isn't finite stops the run, with everything as it was before that step: on a CPU it is looked at before
the optimizer step, on an accelerator some steps later, the device itself changing nothing meanwhile
(zoo.training.engine.deferred_losses).
"""

from __future__ import annotations

import math
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import nn

from zoo.diffusion.draws import rows_of_batch, stream
from zoo.schema.errors import ConfigError, NumericError
from zoo.training.engine import checkpoint
from zoo.training.engine.adversary import Adversary
from zoo.training.engine.deferred_losses import LAG, Lagged, is_bad
from zoo.training.engine.distributed import Devices, LossOf, whole
from zoo.training.engine.dropout import AddressedDropout, check_splits
from zoo.training.engine.early_stopping import Stopping
from zoo.training.engine.ema import Average
from zoo.training.engine.interrupts import Interrupts
from zoo.training.engine.loggers import Logger
from zoo.training.engine.logging import Scalars
from zoo.training.engine.objective import Batch, Objective
from zoo.training.engine.optimizers import optimizers
from zoo.training.engine.overflow import first_overflow
from zoo.training.engine.recorded import RecordedStep, Recorder
from zoo.training.engine.settings import TrainSettings
from zoo.training.engine.state import Resumable, averages_of
from zoo.training.engine.time_limit import Fitting

MEND = "the last checkpoint is unharmed: resume with a lower train.learning_rate or train.precision=fp32"


@dataclass(frozen=True)
class Progress:
    """What the loop reports after each step."""

    step: int
    steps: int
    loss: float
    images_per_second: float
    seconds_left: float


class Loop(Resumable):
    """Trains `objective.network`; `run()` goes to the last step, from a checkpoint where one was resumed."""

    def __init__(
        self, objective: Objective, settings: TrainSettings, folder: Path, *, identity: str,
        devices: Devices | None = None, lag: int | None = None, clock: Callable[[], float] = time.perf_counter,
        loggers: Sequence[Logger] = (), record: Recorder | None = None,
    ) -> None:  # fmt: skip
        """`lag`: after how many steps a loss is read; 0 on a CPU and `LAG` on cuda where none is given. `record`: what
        records a step where `train.graphs` requests it; CUDA graphs where none is given."""
        self.fitting = Fitting(settings) if settings.seconds > 0.0 else None
        settings = settings if self.fitting is None else self.fitting.begin()
        self.objective, self.settings, self.folder, self.identity = objective, settings, folder, identity
        self.clock, self.loggers = clock, loggers
        self.devices = devices or Devices(device=objective.device)
        self.part = settings.share(self.devices.world)  # samples of one forward pass
        if self.part < settings.batch_size:
            if getattr(objective, "whole_batch", False):
                raise ConfigError(
                    f"{type(objective).__name__} looks at a batch as a whole, so the batch can't be split; "
                    "use one device and train.accumulate 1",
                    code="batch-unsplittable",
                )
            for part in (objective.network, getattr(objective, "adversary", None)):
                if part is not None:
                    check_splits(part)
        network: nn.Module = objective.network.to(objective.device)
        flat = all(p.ndim < 5 for p in network.parameters())  # volumes have no such memory format
        if settings.channels_last and flat and not self.devices.sharded:  # FSDP cuts contiguous weights only
            network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network = network
        self.averages = [Average(network, decay=decay) for decay in settings.averages]
        self.average = self.averages[0]
        self._switch(network)
        self.dropout = AddressedDropout(network)
        self.loss_of = self.devices.wrap(LossOf(objective.loss, network))
        if self.devices.sharded:
            for average in self.averages:
                average.follow(network)
        self.optimizers = optimizers(
            network, settings.optimizer, learning_rate=settings.learning_rate, weight_decay=settings.weight_decay,
            betas=settings.betas,
        )  # fmt: skip
        self.scaler = torch.amp.GradScaler(objective.device.type, enabled=settings.precision == "fp16")
        has_adversary = getattr(objective, "adversary", None) is not None
        self.adversary = Adversary(objective, settings, self.devices) if has_adversary else None
        self.stopping = Stopping(settings.patience)
        self.lagged = self._lagged(lag)
        self.recorded = self._recorded(record)
        self.known = (0, math.nan)  # the newest step whose loss the host has read, counted from 1, and that loss
        self.step = 0
        self.skipped = 0  # steps not taken because their fp16 gradient overflowed
        self.seconds = 0.0  # of training, over all sittings

    def _lagged(self, lag: int | None) -> Lagged | None:
        """The deferred reading of losses; None where each must be read at once.

        fp16's scaler, an adversary, and an objective that remembers losses decide on the host; several processes
        must agree.
        """
        device = self.objective.device
        lag = (LAG if device.type == "cuda" else 0) if lag is None else lag
        decides = self.scaler.is_enabled() or self.adversary is not None or hasattr(self.objective, "state")
        if lag == 0 or decides or self.devices.world > 1:
            return None
        return Lagged(device, lag)

    def _recorded(self, record: Recorder | None) -> RecordedStep | None:
        """The step as a recording, where the settings request it and the device has such."""
        if not self.settings.graphs or (record is None and self.objective.device.type != "cuda"):
            return None
        if self.lagged is None or not getattr(self.objective, "records", False):
            what = f"objective {type(self.objective).__name__}, as it is set up, decides on the host while it computes"
            why = what if self.lagged is not None else "what fp16 and several processes do with a loss is decided there"
            raise ConfigError(f"train.graphs: {why}; leave graphs out", code="graphs-unfit")
        return RecordedStep(self.objective, self._on_device, optimizers=self.optimizers, record=record)

    def _switch(self, network: nn.Module) -> None:
        """Gradient checkpointing and compilation, where the settings request them."""
        if self.settings.checkpointing:
            able = [m for m in network.modules() if hasattr(m, "checkpointing")]
            if not able:
                raise ConfigError(
                    f"train.checkpointing: no part of the network ({type(network).__name__}) can recompute its "
                    "activations; leave it out",
                    code="checkpointing-unfit",
                )
            for module in able:
                module.checkpointing = True  # type: ignore[assignment]
        if self.settings.compile:
            # In place, so that names stay; an objective calls the network, or the parts of one that has no forward.
            for module in (network, *network.children()):
                if type(module).forward is not nn.Module.forward:
                    module.compile(dynamic=False)  # a training batch always has one shape

    # -- checkpoints

    def resume(self) -> list[str]:
        """Continue from the newest checkpoint that verifies, as if no later step had been taken."""
        notes = super().resume()
        if self.recorded is not None:
            self.recorded.forget()  # moments are other tensors now
        for path in (self.folder / "best").glob("step-*") if self.devices.rank == 0 else ():
            if int(path.name.removeprefix("step-")) > self.step:  # of steps that will be taken again
                shutil.rmtree(path)
        return notes

    # -- the run

    def batch(self, step: int) -> Batch:
        """Batch `step` of the run, whole."""
        size, seed = self.settings.batch_size, self.settings.seed
        return Batch(
            rows=rows_of_batch(seed, step, size, self.objective.rows),
            samples=np.arange(step * size, (step + 1) * size, dtype=np.int64),
            seed=seed,
            device=self.objective.device,
        )

    def shares(self, step: int) -> list[Batch]:
        """This process's share of batch `step`, one entry a forward pass."""
        count = self.settings.accumulate
        first = self.devices.rank * count
        return [_cut(self.batch(step), (first + i) * self.part, self.part) for i in range(count)]

    def _loss(self, share: Batch) -> Mapping[str, torch.Tensor]:
        self.dropout.batch = share
        return self.loss_of(share)

    def _backward(self, shares: Sequence[Batch]) -> Iterator[Mapping[str, torch.Tensor]]:
        """Backward through each share, gradients added up; each share's scalars."""
        for i, share in enumerate(shares):
            with self.devices.gradients_meet(self.loss_of, i + 1 == len(shares)):
                scalars = self._loss(share)
                self.scaler.scale(scalars["loss"] / len(shares)).backward()
            yield scalars

    def _gradients(self, shares: Sequence[Batch]) -> dict[str, float]:
        """`_backward`, and the scalars' means over the global batch."""
        sums: dict[str, float] = {}
        for scalars in self._backward(shares):
            for key, value in scalars.items():
                sums[key] = sums.get(key, 0.0) + float(value.detach()) / len(shares)
        return self.devices.mean(sums)

    def train_step(self) -> float:
        """One optimizer step; returns the newest loss that is known, on a CPU its own.

        Raises NumericError where a loss or gradient isn't finite, with everything as it was before that step.
        """
        settings, shares = self.settings, self.shares(self.step)
        self.network.train()
        # Nothing of zoo's draws from torch's generator; what a network from elsewhere draws is the same on resuming.
        torch.manual_seed(int(stream(settings.seed, "torch", self.step).integers(2**62)))
        if self.lagged is not None:
            self._step_unseen(shares, self.lagged)
            return self.known[1]
        loss = self._gradients(shares)["loss"]
        if not math.isfinite(loss):
            self._stop(f"the loss of step {self.step} is {loss}", shares)
        second = self.adversary.gradients(shares) if self.adversary is not None else {}
        scale = self.scaler.get_scale()
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
            for group in optimizer.param_groups:
                group["lr"] = settings.rate(self.step)
        norm = float(whole(nn.utils.clip_grad_norm_(self.network.parameters(), settings.largest_norm)))
        overflowed = not math.isfinite(norm)
        if overflowed and scale <= 1.0:  # of fp16, nothing is left to scale down
            self._stop(f"the gradient of step {self.step} is not finite", shares)
        bad = [k for k, v in second.items() if not math.isfinite(v)]
        if bad:
            raise NumericError(
                f"the adversary's {bad[0]} of step {self.step} is {second[bad[0]]}; {MEND}", code="training-not-finite"
            )
        for optimizer in self.optimizers:
            self.scaler.step(optimizer)  # skips what overflowed
        self.scaler.update()
        self.network.zero_grad(set_to_none=True)
        if self.adversary is not None:
            self.adversary.step(settings.rate(self.step))
        self.step += 1
        self.skipped += overflowed
        for average in () if overflowed else self.averages:
            average.update(self.network, self.step)
        self.known = (self.step, loss)
        return loss

    def _step_unseen(self, shares: Sequence[Batch], lagged: Lagged) -> None:
        """One optimizer step that the host doesn't wait for."""
        rates = [self.settings.rate(self.step), *(average.decay_at(self.step + 1) for average in self.averages)]
        facts = (self._on_device if self.recorded is None else self.recorded)(shares, rates)
        lagged.send(self.step, facts)
        self.step += 1
        self._look(lagged, all=math.isnan(self.known[1]))  # the first waits for the compiler anyway

    def _on_device(self, shares: Sequence[Batch], rates: Sequence[Any]) -> torch.Tensor:
        """All of a step that the device does, by the learning rate and each average's decay; what `Lagged` sends."""
        assert self.lagged is not None
        flag = self.lagged.flag
        loss = torch.stack([scalars["loss"].detach() for scalars in self._backward(shares)]).mean()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.largest_norm)
        facts = self.lagged.judge(loss, norm)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rates[0]
            optimizer.found_inf = flag  # type: ignore[attr-defined]
            optimizer.step()
        self.network.zero_grad(set_to_none=True)
        for average, decay in zip(self.averages, rates[1:], strict=True):
            average.update(self.network, decay=decay, stopped=flag)
        return facts

    def settle(self) -> None:
        """Read every loss; NumericError for one that isn't finite. For use before sheets and checkpoints."""
        self._look(self.lagged, all=True)

    def _look(self, lagged: Lagged | None, *, all: bool) -> None:
        """Read the losses that have arrived; NumericError, back at its step, for one that isn't finite."""
        for step, loss, norm in () if lagged is None else lagged.arrived(all=all):
            if is_bad(loss, norm):
                lagged.reset()  # type: ignore[union-attr]
                self.step = step
                bad = f"the loss of step {step} is {loss}"
                bad = bad if not math.isfinite(loss) else f"the gradient of step {step} is not finite"
                self._stop(bad, self.shares(step))
            self.known = (step + 1, loss)

    def _stop(self, what: str, shares: Sequence[Batch]) -> NoReturn:
        """Raise NumericError that names the module which overflowed first, found by repeating the step."""

        def agree(found: str | None) -> str | None:
            return next((f for f in self.devices.gather(found) if f is not None), None)

        # A gradient that overflows is named by the process whose own it is, so they aren't averaged here.
        with self.devices.gradients_meet(self.loss_of, False):
            losses = [lambda share=share: self._loss(share) for share in shares]
            who = first_overflow(losses, self.network, scale=self.scaler.get_scale(), agree=agree)
        raise NumericError(f"{what}: {who}; {MEND}", code="training-not-finite")

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Mean scalars of the averaged network over the validation rows, with the same noise every time."""
        size, count = self.settings.batch_size, self.objective.validation_rows
        self.average.gather()
        shares = []
        for start in range(0, count, size):
            rows = np.arange(start, min(start + size, count))
            whole_one = Batch(
                rows=rows, samples=rows, seed=self.settings.seed, training=False, device=self.objective.device
            )
            shares += [_cut(whole_one, place, self.part) for place in range(0, len(rows), self.part)]
        mine: dict[int, dict[str, float]] = {}
        for i in range(self.devices.rank, len(shares), self.devices.world):
            scalars = self.objective.loss(self.average.network, shares[i])
            mine[i] = {key: float(value) * len(shares[i].rows) for key, value in scalars.items()}
        found = {i: values for part in self.devices.gather(mine) for i, values in part.items()}
        sums: dict[str, float] = {}
        for i in sorted(found):
            for key, value in found[i].items():
                sums[key] = sums.get(key, 0.0) + value
        return {key: value / count for key, value in sums.items()}

    def run(self, on_progress: Callable[[Progress], Any] | None = None) -> Mapping[str, float]:
        """Train to the last step, saving on the way; returns the last validation scalars, or with patience the best.

        Ctrl-C or SIGTERM waits for the step that it falls into, and saves a checkpoint of it; the exception's notes
        say where. With several processes it ends them at once, and nothing is saved.
        """
        first = self.devices.rank == 0
        scalars = Scalars(self.folder, self.step, self.loggers) if first else None
        interrupts, begun = Interrupts(), self.step
        try:
            with interrupts.listening() if self.devices.world == 1 else nullcontext():
                last = self._steps(scalars, interrupts, on_progress if first else None)
        except (KeyboardInterrupt, SystemExit) as ended:
            if interrupts.whole and self.devices.world == 1 and self.step > begun:
                self.settle()
                ended.add_note(f"step {self.step:,} is saved in '{self.save()}'; go on with --resume")
            raise
        finally:
            if scalars is not None:
                scalars.close()
        for average in self.averages:
            average.gather()
        return self._take_best() if self.settings.patience else last or self.validate()

    def _steps(
        self, scalars: Scalars | None, interrupts: Interrupts, on_progress: Callable[[Progress], Any] | None
    ) -> Mapping[str, float]:
        """The steps of `run`, and the last validation of this sitting."""
        last: Mapping[str, float] = {}
        rate = 0.0
        before, opened = self.seconds, self.clock()
        while self.step < self.settings.steps and not self.stopping.over:
            begin = self.clock()
            with interrupts.held():
                loss = self.train_step()
                took = max(self.clock() - begin, 1e-9)
                self.seconds += took
                if self.fitting is not None:
                    self.seconds = self.devices.gather(before + self.clock() - opened)[0]  # all that counts
                    self.settings = self.fitting.after(self.step, self.seconds, self.settings)
            settings, ending = self.settings, self.clock()
            rate = settings.batch_size / took if rate == 0.0 else 0.95 * rate + 0.05 * settings.batch_size / took
            validated = self._due("validate_every") or self.step == settings.steps
            ended = self.step == settings.steps or self.stopping.over
            drawn, saved = self._due("sheet_every"), self._due("save_every")
            if validated or ended or saved or drawn:
                self.settle()
                loss = self.known[1]
            if validated:
                last = self.validate()
                if self.stopping.better(last["loss"]) and settings.patience:
                    self._keep_best(last)
            ended = self.step == settings.steps or self.stopping.over
            if scalars is not None:
                if self.step % 20 == 0 or ended or (self.fitting is not None and validated):
                    facts = {"train/loss": loss, "train/images_per_second": rate}
                    skipped = {"train/skipped_steps": self.skipped} if self.scaler.is_enabled() else {}
                    scalars.write(self.known[0], {**facts, **skipped})
                if validated:
                    scalars.write(self.step, {f"validation/{k}": v for k, v in last.items()})
            if drawn or ended:
                self.average.gather()
                sheet = self.objective.sheet(self.average.network) if scalars is not None else None
                if sheet is not None and scalars is not None:
                    scalars.picture(self.step, sheet)
            if saved or ended:
                self.save()
            if self.fitting is not None and (validated or drawn or saved):
                self.fitting.saw_ending(self.devices.gather(self.clock() - ending)[0])  # the same in all processes
            if on_progress is not None:
                left = (settings.steps - self.step) * settings.batch_size / rate
                if self.fitting is not None:
                    left = max(0.0, self.fitting.recipe.seconds - self.seconds)
                on_progress(Progress(self.step, settings.steps, loss, rate, left))
        return last

    def _due(self, name: str) -> bool:
        """Whether this step is one of every so many; of a run that fits a time, the recipe's share of its steps."""
        if self.fitting is not None:
            return self.fitting.due(name, self.step, self.settings.steps)
        return self.step % getattr(self.settings, name) == 0

    def _keep_best(self, validation: Mapping[str, float]) -> None:
        for average in self.averages:
            average.gather()
        if self.devices.rank == 0:
            facts = {"identity": self.identity, "validation": dict(validation)}
            checkpoint.save(self.folder / "best", self.step, averages_of(self.averages), facts, keep=1)

    def _take_best(self) -> Mapping[str, float]:
        """The averages as they were at the lowest validation loss."""
        self.devices.gather(None)  # the first process has written
        path, _ = checkpoint.newest(self.folder / "best")
        if path is None:
            return self.validate()
        tensors, facts, _ = checkpoint.read(path)
        for average, name in zip(self.averages, averages_of(self.averages), strict=True):
            average.load_state(tensors[name])
        return facts["validation"]


def _cut(batch: Batch, start: int, count: int) -> Batch:
    """`count` samples of a whole batch from place `start` on."""
    part = slice(start, start + count)
    if len(batch.rows[part]) == batch.of:
        return batch
    return Batch(
        rows=batch.rows[part], samples=batch.samples[part], seed=batch.seed, training=batch.training,
        device=batch.device, places=batch.places[part], of=batch.of,
    )  # fmt: skip
