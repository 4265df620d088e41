"""Rows that are pipelines: building them, calling them, and what the record says of a run."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

import zoo
from zoo.acceleration.accelerated import step_cache_of
from zoo.acceleration.device import out_of_memory
from zoo.bench.measure import Operations, Timed, warm_up
from zoo.bench.profile import Profile, in_measured_calls
from zoo.bench.rows import Asked, Row, Settings
from zoo.bench.suite import random_weights
from zoo.diffusion.types import source_of
from zoo.pipeline.pipeline import Pipeline
from zoo.pipeline.stage import lay_out, pixels, small_sizes
from zoo.schema.errors import ZooError

PROFILED = 3  # calls that are timed by part where the measured ones can't be
CACHED = "with a step cache evaluations differ in work"


def missing(device: str) -> str | None:
    """Why a device can't be used here; None where it can."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = str(error).splitlines()[0].partition(". ")[0][:160]
        return f"the device '{device}' is not there ({said})"
    return None


@dataclass
class Built:
    """A row's pipeline, and how it is called."""

    row: Row
    pipe: Pipeline
    settings: Settings
    operations: int | None = None  # of one image
    reason: str | None = None  # why they aren't known
    tried: list[int] = field(default_factory=list)
    last: Any = None  # the Generation of the latest call
    profile: Profile = field(init=False)

    def __post_init__(self) -> None:
        self.profile = Profile(self.row.asked.device)

    def words(self, batch: int, *, start: int = 0, prompts: Sequence[str] | None = None) -> dict[str, Any]:
        """What the pipeline is called with, for so many images."""
        return words(self.pipe, batch, prompts or self.settings.prompts, self.row.asked.size, start=start)

    def __call__(self, number: int) -> Any:
        """A batch of the round."""
        said = {**self.words(self.tried[-1]), "seed": self.settings.seed + number}
        in_passing = in_measured_calls(self.row.asked.device)
        self.last = self.profile.run(self.pipe, **said) if in_passing else self.pipe(**said)
        return self.last

    def by_part(self, repeats: int) -> dict[str, Any]:
        """Seconds of each part, for the record; in separate calls where the measured ones can't give them."""
        if not in_measured_calls(self.row.asked.device):
            try:
                for number in range(min(PROFILED, repeats)):
                    self.profile.run(self.pipe, **self.words(self.tried[-1]), seed=self.settings.seed + number)
            except Exception as error:
                return self.profile.record() | {"reason": told(error)}
        return self.profile.record()


class Builder:
    """Builds the rows of a group; those with the same networks in the same precision share them.

    `counting` counts the operations of each model once.
    """

    def __init__(self, settings: Settings, *, counting: bool = True) -> None:
        self.settings, self.counting = settings, counting
        self._first: dict[str, Pipeline] = {}
        self._counted: dict[str, Counted | str] = {}

    def build(self, row: Row) -> Built:
        """The pipeline of a row, on its device, in its precision, fast if requested."""
        asked = row.asked
        assert row.config is not None
        key = json.dumps([asked.model, asked.device, asked.precision, asked.fast, asked.step_cache], sort_keys=True)
        if random_weights(row.config):
            torch.manual_seed(self.settings.seed)
        first = self._first.get(key)
        # Built on the host, which costs no memory of the device, and moved unless an earlier row was.
        pipe = zoo.build(row.resolved or row.config)
        if first is not None:
            pipe.stages = [
                dataclasses.replace(own, denoiser=shared.denoiser, autoencoder=shared.autoencoder)
                for own, shared in zip(pipe.stages, first.stages, strict=True)
            ]
            pipe.conditioners, pipe.parts = first.conditioners, first.parts
        pipe.to(asked.device, getattr(torch, asked.precision))
        if first is not None:
            pipe.fast = first.fast
        work = json.dumps([asked.model, asked.guidance, asked.size])
        if self.counting and first is None and not isinstance(self._counted.get(work), Counted):
            self._counted[work] = count_operations(pipe, asked, self.settings)
        if first is None:
            if asked.fast:
                parts: dict[str, Any] = dict(asked.fast) if isinstance(asked.fast, dict) else {}
                pipe.compile(**parts)
            self._first[key] = pipe
        counted = CACHED if asked.step_cache else self._counted.get(work, "its networks were compiled before a count")
        built = Built(row=row, pipe=pipe, settings=self.settings)
        if isinstance(counted, Counted):
            built.operations = counted.of(pipe)
        else:
            built.reason = counted
        return built


def words(pipe: Pipeline, batch: int, prompts: Sequence[str], size: int | None, *, start: int = 0) -> dict[str, Any]:
    """What a pipeline is called with, for so many images: prompts in turn, classes in turn, an image to enlarge or to
    draw from."""
    said: dict[str, Any] = {} if size is None else {"size": size}
    heard = {source_of(c): c for c in pipe.conditioners.values()}
    if "prompts" in heard:
        said["prompts"] = [prompts[(start + i) % len(prompts)] for i in range(batch)]
    if "labels" in heard:
        names = getattr(heard["labels"], "names", ("0",))
        said["labels"] = [(start + i) % len(names) for i in range(batch)]
    if not heard:
        said["n"] = batch
    sizes = lay_out(pipe.stages, size)
    small = pixels(sizes[0]) if "image" in heard else small_sizes(pipe.stages, sizes)[0]
    if small is not None:
        said["image"] = picture(*small)
    return said


def picture(height: int, width: int) -> torch.Tensor:
    """An image, the same everywhere: three waves, (3, height, width) in [0, 1]."""
    y, x = torch.linspace(0, 6.0, height)[:, None], torch.linspace(0, 6.0, width)[None]
    return torch.stack([torch.sin(x + y), torch.sin(2 * x - y), torch.cos(x * y / 3)]) * 0.5 + 0.5


@dataclass(frozen=True)
class Counted:
    """Operations of one image: around the networks (text, decoding), and of one evaluation of each stage's network."""

    around: int
    evaluation: tuple[int, ...]

    def of(self, pipe: Pipeline) -> int:
        """Operations with a pipeline's own steps."""
        tables = [s.sampler.plan(s.denoiser.schedule, interval=s.interval) for s in pipe.stages]
        return self.around + sum(one * t.evaluations for one, t in zip(self.evaluation, tables, strict=True))


def count_operations(pipe: Pipeline, asked: Asked, settings: Settings) -> Counted | str:
    """The operations of an image, counted at one step; or why they can't be."""
    if any(step_cache_of(stage.denoiser) is not None for stage in pipe.stages):
        return CACHED
    called = words(pipe, 1, settings.prompts, asked.size)
    try:
        with Operations([stage.denoiser.network for stage in pipe.stages]) as counted:
            pipe(**called, steps=1)
    except (ZooError, RuntimeError, NotImplementedError) as error:
        return f"operations can't be counted: {str(error).splitlines()[0][:160]}"
    if not all(counted.calls.values()):
        return "operations can't be counted: a network was not called"
    inside = sum(sum(calls) for calls in counted.calls.values())
    return Counted(counted.total - inside, tuple(calls[0] for calls in counted.calls.values()))


def same_pictures(row: Row) -> str | None:
    """What decides a row's images but for rounding; None in half precision, where rounding matters.

    Every sample has its own noise, so the batch doesn't decide them, and neither does the fast path.
    """
    if row.asked.precision != "float32":
        return None
    return json.dumps([row.config, row.asked.device, row.asked.size], sort_keys=True)


def told(error: Exception) -> str:
    """A failing row's error as one sentence; an error of the code itself is raised."""
    if out_of_memory(error):
        return "there is no memory for it"
    if isinstance(error, ZooError | RuntimeError | OSError):
        return str(error).splitlines()[0][:300] if str(error) else type(error).__name__
    raise error


def prepare(built: Built, batch: int | None = None) -> Timed | str:
    """A row warmed up for its rounds, with the requested batch or the largest half of it that fits; or why not.

    Args:
        batch: try no more than this, which memory ran out for before.
    """
    asked, batch = built.row.asked, built.row.asked.batch if batch is None else batch
    while True:
        if built.tried:
            built.pipe.to()  # a fast pipeline forgets what it recorded for a larger batch
            if asked.device.startswith("cuda"):
                torch.cuda.empty_cache()
        built.tried.append(batch)
        timed = Timed(id=built.row.id, call=built, device=asked.device, batch=batch)
        try:
            warm_up(timed, built.settings.warm_up)
        except Exception as error:
            if not out_of_memory(error):
                return told(error)
            if batch == 1:
                return "there is no memory for one picture"
        else:
            built.profile.calls.clear()  # of the warm-up
            return timed
        # Outside of the handler, whose traceback keeps tensors alive.
        batch = batch // 2


def describe(built: Built, timed: Timed) -> dict[str, Any]:
    """`run`, `precision` and `fast` of a row, and the hashes of its weights."""
    record, asked = built.last.record, built.row.asked
    config = {stage["name"]: stage for stage in record["config"]["stages"]}
    stages = [
        {
            "name": stage["name"], "size": config[stage["name"]]["size"],
            "sampler": config[stage["name"]]["sampler"], "evaluations": stage["evaluations"],
            "full_evaluations": stage.get("full_evaluations", stage["evaluations"]),
            "guidance": config[stage["name"]]["guidance"],
        }
        for stage in record["stages"]
    ]  # fmt: skip
    heard = [source_of(c) for c in built.pipe.conditioners.values()]
    return {
        "weights": dict(record["weights"]),
        "run": {
            "stages": stages, "evaluations": sum(s["evaluations"] for s in stages), "batch": timed.batch,
            "batches_tried": list(built.tried),
            "seeds": [built.settings.seed + i for i in range(len(timed.seconds))],
            "labels": f"{' and '.join(heard)} in turn" if heard else "none", "noise_device": "cpu",
        },
        "precision": {"dtype": asked.precision, **flags()},
        "fast": built.pipe.fast.record(),
    }  # fmt: skip


def flags() -> dict[str, bool | str]:
    """torch's switches that change numbers or speed."""
    return {
        "tf32": torch.backends.cuda.matmul.allow_tf32,
        "tf32_convolutions": torch.backends.cudnn.allow_tf32,
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
    }
