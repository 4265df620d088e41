"""The engine's switches: what each changes, what it must not, and who is named when a step overflows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as recomputed

from tests.refusals import refused
from tests.training.line import Line, equal, largest_difference, settings, weights_of
from zoo.schema.errors import ConfigError
from zoo.training.engine import checkpoint, dropout
from zoo.training.engine.dropout import AddressedDropout
from zoo.training.engine.loop import Loop
from zoo.training.engine.objective import Batch


def trained(folder, objective=None, **changes) -> Loop:
    loop = Loop(objective or Line(), settings(**changes), folder, identity="line")
    loop.run()
    return loop


# -- averages


@pytest.mark.slow
def test_several_averages_are_each_what_they_would_be_alone(tmp_path):
    both = trained(tmp_path / "both", average=[0.5, 0.9])
    for decay, average in zip((0.5, 0.9), both.averages, strict=True):
        alone = trained(tmp_path / str(decay), average=decay)
        assert equal(alone.average.state(), average.state())
    files = {p.name for p in (tmp_path / "both/checkpoints/step-00000020").iterdir()}
    assert {"average.safetensors", "average-0.9.safetensors"} < files


def test_an_average_follows_its_formula(tmp_path):
    loop = Loop(Line(), settings(average=0.3), tmp_path, identity="line")
    expected = {k: v.clone() for k, v in loop.network.state_dict().items()}
    for step in range(1, 6):
        loop.train_step()
        decay = min(0.3, (1 + step) / (10 + step))
        expected = {k: decay * v + (1 - decay) * loop.network.state_dict()[k] for k, v in expected.items()}
    assert largest_difference(expected, loop.average.state()) < 1e-6


# -- dropout


def test_dropout_goes_by_sample_and_not_by_place():
    module = nn.Sequential(nn.Dropout(0.5))
    dropout = AddressedDropout(module)
    x = torch.ones(4, 3, 50)

    def drop(samples: list[int], seed: int = 0) -> Tensor:
        rows = torch.tensor(samples).numpy()
        dropout.batch = Batch(rows=rows, samples=rows, seed=seed)
        return module(x[: len(samples)])

    whole = drop([0, 1, 2, 3])
    assert torch.equal(torch.cat([drop([0, 1]), drop([2, 3])]), whole)
    assert torch.equal(drop([3, 2, 1, 0]).flip(0), whole)
    assert not torch.equal(drop([4, 5, 6, 7]), whole)
    assert not torch.equal(drop([0, 1, 2, 3], seed=1), whole)
    assert set(whole.unique().tolist()) == {0.0, 2.0}
    module.eval()
    assert torch.equal(drop([0, 1, 2, 3]), x)


def test_dropout_s_numbers_are_the_same_on_a_device():
    samples = np.array([0, 5, 900])
    for shape in ((7, 5, 3), (3,), (2, 2)):
        one_by_one = dropout._uniform(
            Batch(rows=samples, samples=samples, seed=3), "dropout/x", shape, torch.device("cpu")
        )
        assert torch.equal(dropout.quarters(3, "dropout/x", torch.from_numpy(samples), shape), one_by_one)


def test_dropout_drops_the_share_it_should_and_keeps_the_mean():
    module = nn.Sequential(nn.Dropout(0.3))
    dropout = AddressedDropout(module)
    rows = torch.arange(64).numpy()
    dropout.batch = Batch(rows=rows, samples=rows, seed=0)
    dropped = module(torch.ones(64, 1000))
    assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    assert float(dropped.mean()) == pytest.approx(1.0, abs=0.02)


@pytest.mark.slow
def test_dropout_survives_accumulation_and_resuming(tmp_path):
    objective = Line(dropout=0.4)
    whole = trained(tmp_path / "whole", Line(dropout=0.4))
    parts = trained(tmp_path / "parts", Line(dropout=0.4), accumulate=2)
    assert largest_difference(weights_of(whole), weights_of(parts)) < 1e-5
    loop = Loop(objective, settings(), tmp_path / "resumed", identity="line")
    for _ in range(7):
        loop.train_step()
    loop.save()
    torch.rand(3)  # another process draws something else
    resumed = Loop(Line(dropout=0.4), settings(), tmp_path / "resumed", identity="line")
    resumed.resume()
    resumed.run()
    assert equal(weights_of(resumed), weights_of(whole))


@pytest.mark.slow
def test_what_torch_s_generator_gives_is_the_same_on_resuming(tmp_path):
    def odd() -> Line:
        objective = Line()
        objective.network.add_module("odd", nn.Dropout2d(0.4))
        return objective

    whole = trained(tmp_path / "whole", odd())
    loop = Loop(odd(), settings(), tmp_path / "parts", identity="line")
    for _ in range(7):
        loop.train_step()
    loop.save()
    torch.rand(5)
    resumed = Loop(odd(), settings(), tmp_path / "parts", identity="line")
    resumed.resume()
    resumed.run()
    assert equal(weights_of(resumed), weights_of(whole))


# -- switches


@pytest.mark.slow
def test_compiling_changes_no_name_and_hardly_a_number(tmp_path, monkeypatch):
    compiled = []

    def compile(module, *args, **kwargs):
        compiled.append(module)
        module._compiled_call_impl = torch.compile(module._call_impl, backend="eager")

    monkeypatch.setattr(nn.Module, "compile", compile)
    plain = trained(tmp_path / "plain", Line(dropout=0.2), steps=4)
    assert not compiled
    fast = trained(tmp_path / "fast", Line(dropout=0.2), steps=4, compile=True)
    assert fast.network in compiled
    assert largest_difference(weights_of(plain), weights_of(fast)) < 1e-6


def test_channels_last_is_a_switch(tmp_path):
    first, second = (
        Loop(Line(), settings(channels_last=on), tmp_path / str(on), identity="line") for on in (True, False)
    )
    weights = [loop.network.get_parameter("0.weight") for loop in (first, second)]
    assert [w.is_contiguous(memory_format=torch.channels_last) for w in weights] == [True, False]
    for _ in range(3):
        first.train_step()
        second.train_step()
    assert largest_difference(weights_of(first), weights_of(second)) < 1e-5


class Recomputing(nn.Module):
    """A network that can recompute its activations."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.checkpointing, self.calls = inner, False, 0

    def body(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.inner(x)

    def forward(self, x: Tensor) -> Tensor:
        if self.checkpointing and self.training:
            out = recomputed(self.body, x, use_reentrant=False)
            assert isinstance(out, Tensor)
            return out
        return self.body(x)


def test_checkpointing_is_a_switch_of_networks_that_have_it(tmp_path):
    with refused("checkpointing-unfit"):
        Loop(Line(), settings(checkpointing=True), tmp_path / "none", identity="line")
    loops = []
    for on in (False, True):
        objective = Line(dropout=0.5)
        objective.network = Recomputing(objective.network)
        loops.append(trained(tmp_path / str(on), objective, steps=5, checkpointing=on))
    assert loops[1].network.calls > loops[0].network.calls
    assert largest_difference(weights_of(loops[0]), weights_of(loops[1])) < 1e-6  # dropout falls the same way twice


# -- fp16


class Steep(Line):
    """A loss whose gradient overflows float16 at a loss scale of 65536, and doesn't a few halvings later."""

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        return {"loss": 10.0 * super().loss(network, batch)["loss"]}


@pytest.mark.slow
def test_fp16_skips_and_counts_the_steps_that_overflow(tmp_path):
    loop = Loop(Steep(precision=torch.float16), settings(precision="fp16"), tmp_path / "whole", identity="line")
    before = weights_of(loop)
    loop.train_step()
    assert (loop.step, loop.skipped) == (1, 1)
    assert equal(before, weights_of(loop))
    loop.run()
    assert 1 <= loop.skipped < 18
    assert not equal(before, weights_of(loop))
    assert f"20,train/skipped_steps,{loop.skipped}" in (tmp_path / "whole/scalars.csv").read_text()

    stopped = Loop(Steep(precision=torch.float16), settings(precision="fp16"), tmp_path / "parts", identity="line")
    for _ in range(2):
        stopped.train_step()
    stopped.save()
    resumed = Loop(Steep(precision=torch.float16), settings(precision="fp16"), tmp_path / "parts", identity="line")
    resumed.resume()
    assert resumed.scaler.get_scale() == stopped.scaler.get_scale() < 65536
    resumed.run()
    assert resumed.skipped == loop.skipped
    assert equal(weights_of(resumed), weights_of(loop))


# -- early stopping


class Worsening(Line):
    """Validation is best at the third look."""

    def __init__(self) -> None:
        super().__init__()
        self.curve = [5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 3.0, 2.0]

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        found = super().loss(network, batch)
        return found if batch.training else {"loss": torch.tensor(self.curve[self.looks(network)])}

    def looks(self, network: nn.Module) -> int:
        return (self.loop.step - 1) // 2


def worsening(folder, **changes) -> Loop:
    objective = Worsening()
    plan = settings(batch_size=5, validate_every=2, patience=2, save_every=1, keep=20, **changes)
    loop = Loop(objective, plan, folder, identity="line")
    objective.loop = loop
    return loop


@pytest.mark.slow
def test_a_run_stops_when_validation_no_longer_falls_and_gives_the_best(tmp_path):
    loop = worsening(tmp_path / "whole")
    assert loop.run() == {"loss": 3.0}
    assert loop.step == 10
    best = checkpoint.read(tmp_path / "whole/checkpoints/step-00000006")[0]["average"]
    assert equal(best, loop.average.state())
    for stop in (3, 6, 7, 10):
        parts = worsening(tmp_path / str(stop))
        for path in sorted((tmp_path / "whole/checkpoints").iterdir())[:stop]:
            target = tmp_path / str(stop) / "checkpoints" / path.name
            target.mkdir(parents=True)
            for file in path.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
        if stop >= 6:
            (tmp_path / str(stop) / "best").symlink_to(tmp_path / "whole/best")
        parts.resume()
        assert parts.step == stop
        assert parts.run() == {"loss": 3.0}
        assert parts.step == 10
        assert equal(best, parts.average.state())


# -- overflows


class Overflowing(nn.Module):
    """Multiplies by itself until float32 has no more room; or has a gradient that is too large."""

    def __init__(self, *, forward: bool) -> None:
        super().__init__()
        self.straight, self.strength = forward, 1.0

    def forward(self, x: Tensor) -> Tensor:
        if self.straight:
            return x * (self.strength * 1e38) * 1e38 if self.strength > 1 else x
        return x + (x.abs() + 1e-30).sqrt() * 0 if self.strength > 1 else x


class Infinite(torch.autograd.Function):
    """The identity, with a gradient that isn't finite."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[override]
        return x.clone()

    @staticmethod
    def backward(ctx, grad):  # type: ignore[override]
        return grad * float("inf")


class Backwards(nn.Module):
    """Its gradient overflows when it is told to."""

    on = False

    def forward(self, x: Tensor) -> Tensor:
        out = Infinite.apply(x) if self.on else x
        assert isinstance(out, Tensor)
        return out


def with_part(part: nn.Module) -> Line:
    objective = Line()
    objective.network = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.Sequential(nn.SiLU(), part), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 1, 1)
    )
    return objective


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_module_that_overflowed_first_is_named(tmp_path, accumulate):
    part = Overflowing(forward=True)
    loop = Loop(with_part(part), settings(accumulate=accumulate), tmp_path, identity="line")
    loop.train_step()
    before = weights_of(loop)
    part.strength = 2.0
    with refused("training-not-finite", naming="'1.1'"):
        loop.train_step()
    assert loop.step == 1
    assert equal(before, weights_of(loop))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in loop.network.modules())


def test_the_module_whose_gradient_overflowed_first_is_named(tmp_path):
    part = Backwards()
    loop = Loop(with_part(part), settings(), tmp_path, identity="line")
    loop.train_step()
    before = weights_of(loop)
    part.on = True
    with refused("training-not-finite", naming="'1.1'"):
        loop.train_step()
    assert equal(before, weights_of(loop))


def test_a_weight_that_is_not_finite_is_named(tmp_path):
    loop = Loop(Line(), settings(), tmp_path, identity="line")
    with torch.no_grad():
        loop.network.get_parameter("3.bias")[1] = math.nan
    with refused("training-not-finite", naming="'bias'"):
        loop.train_step()


def test_a_batch_that_is_not_finite_is_not_blamed_on_a_module(tmp_path):
    class Poisoned(Line):
        def loss(self, network, batch):
            return {"loss": network(torch.full((4, 2, 5, 5), math.inf)).sum()}

    with refused("training-not-finite"):
        Loop(Poisoned(), settings(), tmp_path, identity="line").train_step()


# -- hooks of objectives


class Remembering(Line):
    """Its loss depends on what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = torch.zeros(3)

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        found = super().loss(network, batch)
        if batch.training:
            found = {"loss": found["loss"] * (1 + self.seen.sum())}
            self.seen = torch.cat([self.seen[1:], found["loss"].detach()[None] / 10])
        return found

    def state(self) -> dict[str, Tensor]:
        return {"seen": self.seen}

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        self.seen = tensors["seen"]


class Rivals(Line):
    """The network's output is also judged by a second network, which learns to tell it from noise."""

    def __init__(self) -> None:
        super().__init__()
        self.adversary = nn.Conv2d(1, 1, 3, padding=1)
        self.judged = 0.0

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        found = super().loss(network, batch)["loss"]
        x = batch.noise((2, 5, 5), "x")
        return {"loss": found - 0.1 * self.adversary(network(x)).mean()}

    def adversary_loss(self, network: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        with torch.no_grad():
            fake = network(batch.noise((2, 5, 5), "x"))
        real = batch.noise((1, 5, 5), "real")
        size = torch.stack([(p - 1).square().sum() for p in self.adversary.parameters()]).sum()
        return {"loss": self.adversary(fake).mean() - self.adversary(real).mean() + size}


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Remembering, Rivals])
def test_what_an_objective_holds_beside_its_network_resumes_bit_for_bit(tmp_path, kind):
    def everything(loop: Loop) -> dict[str, Tensor]:
        more = loop.adversary.network.state_dict() if loop.adversary else {"seen": loop.objective.seen}
        return {**weights_of(loop), **{f"more.{k}": v.clone() for k, v in more.items()}}

    whole = trained(tmp_path / "whole", kind())
    start = everything(Loop(kind(), settings(), tmp_path / "start", identity="line"))
    loop = Loop(kind(), settings(), tmp_path / "parts", identity="line")
    for _ in range(7):
        loop.train_step()
    loop.save()
    resumed = Loop(kind(), settings(), tmp_path / "parts", identity="line")
    resumed.resume()
    resumed.run()
    assert equal(everything(resumed), everything(whole))
    assert not any(torch.equal(v, start[k]) for k, v in everything(whole).items() if k.startswith("more."))


def test_an_adversary_that_overflows_changes_neither_network(tmp_path):
    class Spoiled(Rivals):
        def adversary_loss(self, network, batch):
            found = super().adversary_loss(network, batch)["loss"]
            return {"loss": found * (math.nan if int(batch.samples[0]) >= 8 else 1.0)}

    loop = Loop(Spoiled(), settings(), tmp_path, identity="line")
    loop.train_step()
    loop.train_step()
    before = weights_of(loop)
    with refused("training-not-finite"):
        loop.train_step()
    assert equal(before, weights_of(loop))


@pytest.mark.parametrize(
    ("wrong", "refusal"),
    [
        ({"average": []}, "number-out-of-range: average"), ({"average": [0.9, 0.9]}, "entries-repeated"),
        ({"average": 1.0}, "number-out-of-range: average"),
        ({"accumulate": 3}, "batch-indivisible"), ({"patience": -1}, "number-out-of-range: patience"),
        ({"parallel": "tp"}, "choice-unknown: parallel"),
        ({"optimizer": "sgd"}, "choice-unknown: optimizer"), ({"precision": "fp8"}, "choice-unknown: precision"),
        ({"accumulate": 0}, "number-out-of-range: accumulate"),
    ],
)  # fmt: skip
def test_settings_that_make_no_sense_are_refused_by_name(wrong, refusal):
    with refused(refusal, ConfigError):
        settings(**wrong)
