"""The same global batch gives the same run, however many processes share it and however they share it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor

from tests.refusals import refused
from tests.training.line import Line, largest_difference, settings, together, weights_of
from zoo.cli.main import run
from zoo.training.engine import checkpoint
from zoo.training.engine.distributed import Devices, _units, started
from zoo.training.engine.loop import Loop
from zoo.training.engine.objective import CPU, Batch
from zoo.training.provenance import hash_of_data

BLOCKS = 3


class Blocks(nn.Module):
    """A network with a list of blocks, which FSDP shards one by one, and parts of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 6, 3, padding=1)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Conv2d(6, 6, 1), nn.SiLU()) for _ in range(BLOCKS)])
        self.drop = nn.Dropout(0.25)
        self.last = nn.Conv2d(6, 1, 1)
        self.unused = nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.first(x)
        for block in self.blocks:
            h = h + self.drop(block(h))
        return self.last(h)


def make() -> Line:
    objective = Line()
    torch.manual_seed(1)
    objective.network = Blocks()
    return objective


def train(folder: Path, *, resume: bool = False, **changes) -> Loop:
    """What each process does; the first leaves the weights in `folder`."""
    plan = settings(average=[0.9, 0.99], **changes)
    with started(plan, CPU) as devices:
        loop = Loop(make(), plan, folder, identity="blocks", devices=devices)
        if resume:
            loop.resume()
        assert isinstance(next(loop.network.parameters()), DTensor) == devices.sharded
        loop.run()
        weights = {k: v.full_tensor() if hasattr(v, "full_tensor") else v for k, v in weights_of(loop).items()}
        if devices.rank == 0:
            save_file({k: v.contiguous() for k, v in weights.items()}, folder / "weights.safetensors")
    return loop


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, twenty steps."""
    folder = tmp_path_factory.mktemp("alone")
    train(folder)
    return folder


def scalars(folder: Path) -> dict[tuple[str, str], float]:
    lines = (folder / "scalars.csv").read_text().splitlines()[1:]
    rows = [line.split(",") for line in lines]
    return {(step, name): float(value) for step, name, value in rows if "images" not in name}


@pytest.mark.slow
@pytest.mark.parametrize("changes", [{"parallel": "ddp"}, {"parallel": "fsdp"}, {"parallel": "ddp", "accumulate": 2}])
def test_two_processes_end_in_one_process_s_weights(alone, tmp_path, changes):
    assert together(2, partial(train, tmp_path / "run", **changes), tmp_path / "log") == [(0, ""), (0, "")]
    difference = largest_difference(
        load_file(alone / "weights.safetensors"), load_file(tmp_path / "run" / "weights.safetensors")
    )
    assert difference < 1e-5
    ours, theirs = scalars(tmp_path / "run"), scalars(alone)
    assert ours == pytest.approx(theirs, rel=1e-4)
    assert ("20", "validation/loss") in ours


class Rivals(Line):
    """Judged by a second network, which learns to tell its outputs from noise."""

    def __init__(self) -> None:
        super().__init__(precision=torch.float32)
        self.adversary: nn.Module = nn.Conv2d(1, 1, 3, padding=1)

    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
        judged = self.adversary(network(batch.noise((2, 5, 5), "x"))).mean()
        return {"loss": super().loss(network, batch)["loss"] - 0.1 * judged}

    def adversary_loss(self, network: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
        with torch.no_grad():
            fake = network(batch.noise((2, 5, 5), "x"))
        told = self.adversary(fake).square() + (self.adversary(batch.noise((1, 5, 5), "real")) - 1).square()
        return {"loss": told.mean()}


def train_rivals(folder: Path) -> None:
    with started(settings(), CPU) as devices:
        Loop(Rivals(), settings(), folder, identity="rivals", devices=devices).run()


@pytest.mark.slow
def test_an_adversary_too_ends_where_it_does_in_one_process(tmp_path):
    assert together(1, partial(train_rivals, tmp_path / "one"), tmp_path / "log") == [(0, "")]
    assert together(2, partial(train_rivals, tmp_path / "two"), tmp_path / "log") == [(0, ""), (0, "")]
    one, two = (checkpoint.read(tmp_path / f / "checkpoints/step-00000020")[0] for f in ("one", "two"))
    for name in ("network", "adversary"):
        assert largest_difference(one[name], two[name]) < 1e-5


class Steep(Line):
    def loss(self, network: nn.Module, batch: Batch) -> Mapping[str, torch.Tensor]:
        # Only the second process's samples overflow the loss scale.
        return {"loss": (1.0 + 20.0 * (batch.places >= 2).mean()) * super().loss(network, batch)["loss"]}


def train_steep(folder: Path) -> None:
    plan = settings(precision="fp16", steps=8)
    with started(plan, CPU) as devices:
        loop = Loop(Steep(precision=torch.float16), plan, folder, identity="steep", devices=devices)
        loop.run()
        assert 0 < loop.skipped < 8
        assert len(set(devices.gather(loop.skipped))) == 1


@pytest.mark.slow
def test_fp16_skips_the_same_steps_in_every_process(tmp_path):
    assert together(2, partial(train_steep, tmp_path / "two"), tmp_path / "log") == [(0, ""), (0, "")]


@pytest.mark.slow
def test_accumulation_is_the_whole_batch_in_parts(alone, tmp_path):
    train(tmp_path, accumulate=4)
    first, second = (load_file(f / "weights.safetensors") for f in (alone, tmp_path))
    assert largest_difference(first, second) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("ways", [("fsdp", None), (None, "fsdp"), ("ddp", "fsdp")])
def test_a_run_goes_on_with_another_number_of_processes(alone, tmp_path, ways):
    for steps, way in zip((10, 20), ways, strict=True):
        changes = {"steps": 20, **({"parallel": way} if way else {})}
        part = partial(stop_at, 10) if steps == 10 else partial(train, resume=True)
        work = partial(part, tmp_path / "run", **changes)
        assert together(2 if way else 1, work, tmp_path / "log") == [(0, "")] * (2 if way else 1)
    difference = largest_difference(
        load_file(alone / "weights.safetensors"), load_file(tmp_path / "run" / "weights.safetensors")
    )
    assert difference < 1e-5


def stop_at(step: int, folder: Path, **changes) -> None:
    plan = settings(average=[0.9, 0.99], **changes)
    with started(plan, CPU) as devices:
        loop = Loop(make(), plan, folder, identity="blocks", devices=devices)
        while loop.step < step:
            loop.train_step()
        loop.save()


def train_watched(folder: Path) -> None:
    """Train; fails where a process other than the first writes a checkpoint."""
    write = checkpoint.save

    def watched(*args, **kwargs):
        assert os.environ["RANK"] == "0"
        return write(*args, **kwargs)

    checkpoint.save = watched
    train(folder, steps=5, patience=3)


@pytest.mark.slow
def test_only_the_first_process_writes(tmp_path):
    assert together(2, partial(train_watched, tmp_path / "run"), tmp_path / "log") == [(0, ""), (0, "")]
    assert json.loads((tmp_path / "run/checkpoints/step-00000005/manifest.json").read_text())["state"]["world"] == 2


def train_poisoned(folder: Path) -> None:
    plan = settings()
    with started(plan, CPU) as devices:
        objective = make()
        objective.poison = 4 * 3 + 3  # the last sample of step 3: the second process has it
        Loop(objective, plan, folder, identity="blocks", devices=devices).run()


@pytest.mark.slow
def test_a_loss_of_one_process_that_is_not_finite_stops_all(tmp_path):
    for code, said in together(2, partial(train_poisoned, tmp_path / "run"), tmp_path / "log"):
        assert code == 1
        assert "NumericError: the loss of step 3" in said
        assert "the loss itself overflows" in said


def test_a_world_that_does_not_divide_the_batch_is_refused_first(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with (
        refused("batch-indivisible"),
        started(settings(), CPU),
    ):
        pytest.fail("it began")


@pytest.mark.parametrize(
    ("part", "refusal"),
    [
        (nn.BatchNorm2d(6), "batch-unsplittable: BatchNorm2d"),
        (nn.Dropout2d(0.1), "batch-unsplittable: Dropout2d"),
        (nn.MultiheadAttention(4, 2, dropout=0.1), "batch-unsplittable: MultiheadAttention"),
    ],
)
def test_what_mixes_samples_is_refused_where_a_batch_is_split(tmp_path, part, refusal):
    objective = make()
    objective.network.extra = part
    Loop(objective, settings(), tmp_path, identity="blocks")
    for changes, devices in (({"accumulate": 2}, Devices()), ({}, Devices(rank=0, world=2))):
        with refused(refusal):
            Loop(objective, settings(**changes), tmp_path, identity="blocks", devices=devices)


def test_an_objective_that_compares_samples_is_not_split(tmp_path):
    objective = make()
    objective.whole_batch = True
    with refused("batch-unsplittable"):
        Loop(objective, settings(accumulate=2), tmp_path, identity="blocks")


def test_muon_and_fp16_are_refused_where_tensors_are_cut():
    with refused("parallel-unfit"):
        settings(parallel="fsdp", optimizer="muon")
    with refused("parallel-unfit"):
        settings(parallel="fsdp", precision="fp16")


def test_the_units_of_sharding_are_the_elements_of_lists_that_are_called():
    network = Blocks()
    level = nn.Module()  # a folder of blocks, as autoencoders have: it has no forward
    level.block = nn.ModuleList([nn.Conv2d(1, 1, 1)])
    network.down = nn.ModuleList([level])
    assert _units(network) == [*network.blocks, level.block[0]]


@pytest.fixture
def recipe(tmp_path):
    """A dozen pictures and an autoencoder to train on them."""
    (tmp_path / "data").mkdir()
    draw = np.random.default_rng(0)
    rows = []
    for i in range(12):
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(tmp_path / "data" / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": "noise", "split": "val" if i < 3 else "train"})
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    recipe = {
        "schema": "zoo.recipe/1", "name": "toy", "objective": "autoencoder-kl",
        "data": {"name": "image-folder", "path": str(tmp_path / "data"), "size": 16},
        "autoencoder": {
            "name": "kl", "channels": 4, "z_channels": 4, "width": 8, "mult": [1, 2], "blocks": 1, "groups": 4,
        },
        "train": {"steps": 6, "batch_size": 4, "precision": "fp32", "average": [0.9, 0.99]},
    }  # fmt: skip
    (tmp_path / "toy.yaml").write_text(yaml.safe_dump(recipe))
    return tmp_path / "toy.yaml"


def command(*arguments: str) -> None:
    code = run(["train", *arguments])
    assert code == 0, f"exit code {code}"


@pytest.mark.slow
def test_the_command_runs_under_torchrun(recipe, tmp_path):
    def trained(folder: str, *more: str) -> partial[None]:
        return partial(command, str(recipe), "--run", str(tmp_path / folder), *more)

    assert [code for code, _ in together(1, trained("one"), tmp_path / "log")] == [0]
    assert [code for code, _ in together(2, trained("two"), tmp_path / "log")] == [0, 0]
    for name in ("toy", "toy-ema0.99"):
        ours, theirs = (load_file(tmp_path / f / "export" / f"{name}.safetensors") for f in ("two", "one"))
        assert largest_difference(ours, theirs) < 2e-3  # half precision
    (sitting,) = json.loads((tmp_path / "two/run.json").read_text())["sittings"]
    assert (sitting["world"], sitting["parallel"], sitting["from_step"]) == (2, "ddp", 0)

    more = trained("two", "--resume", "--set", "train.steps=8")
    assert [code for code, _ in together(1, more, tmp_path / "log")] == [0]
    facts = json.loads((tmp_path / "two/run.json").read_text())
    assert [(s["world"], s["from_step"]) for s in facts["sittings"]] == [(2, 0), (1, 6)]
    first = json.loads((tmp_path / "one/run.json").read_text())
    assert first["first_weights"] == facts["first_weights"]
    assert first["data"] == facts["data"] == hash_of_data(str(tmp_path / "data"))
    (tmp_path / "data" / "metadata.jsonl").write_text("")
    assert hash_of_data(str(tmp_path / "data")) != facts["data"]

    for code, said in together(3, trained("three"), tmp_path / "log"):
        assert code == 1
        assert "exit code 2" in said
    assert not (tmp_path / "three").exists()


def fitted(folder: Path) -> None:
    """A run that fits a time, by clocks of which each process has another."""
    plan = settings(seconds=60.0, steps=100, decay_steps=10, validate_every=10, sheet_every=10, save_every=10)
    with started(plan, CPU) as devices:
        now = [0.0]

        def clock() -> float:
            now[0] += 0.25 + 9.0 * devices.rank
            return now[0]

        loop = Loop(make(), plan, folder / "run", identity="blocks", devices=devices, clock=clock)
        loop.run()
        (folder / f"steps-{devices.rank}").write_text(str(loop.step))


@pytest.mark.slow
def test_processes_whose_clocks_differ_fit_a_time_together(tmp_path):
    """What is due, and when the run ends, is the first process's to say; else they would wait for each other."""
    (tmp_path / "run").mkdir()
    assert [code for code, _ in together(2, partial(fitted, tmp_path), tmp_path / "said")] == [0, 0]
    steps = [(tmp_path / f"steps-{rank}").read_text() for rank in range(2)]
    assert steps[0] == steps[1]
    assert int(steps[0]) > 10
