"""The fast path draws the same pictures but for rounding; a step cache asks the deep network as often as it says."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace

import pytest
import torch

import zoo
import zoo.acceleration.graphs
from tests.refusals import refused
from tests.tiny import LetterCounts, TinyNet, randomise, tiny_cascade, tiny_pipeline
from zoo.acceleration.accelerated import cached, speed_up
from zoo.acceleration.engine import Engine
from zoo.acceleration.fast import Fast, speed_up_decoder
from zoo.acceleration.graphs import Graphed, record_cuda_graph
from zoo.acceleration.step_cache import DeepFeatures
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import V
from zoo.diffusion.schedules import CosineSchedule
from zoo.diffusion.types import Condition
from zoo.networks.efficient_unet import EfficientUNet
from zoo.networks.unet import UNet
from zoo.samplers.ddim import DDIM
from zoo.schema.errors import ConfigError

PROMPTS = ["red apple", "cat"]


def efficient() -> EfficientUNet:
    made = EfficientUNet(
        in_channels=3, width=8, mult=(1, 2), blocks=(1, 1), attention_levels=(1,), text_levels=(0, 1), head_width=8,
        context_width=16, vector_width=16, classes=3, null_class=True, groups=4,
    )  # fmt: skip
    return randomise(made, 3)  # type: ignore[return-value]


def everything(batch: int = 2) -> Condition:
    said = LetterCounts()(["apple", "pear"])
    return Condition(
        tokens=said.tokens, vector=said.vector, label=torch.tensor([0, 3]), level=torch.tensor([0.1, 0.4])
    )  # fmt: skip


def drawn(denoiser: Denoiser, cond: Condition, *, steps: int = 4) -> torch.Tensor:
    sampler = DDIM(steps=steps)
    table = sampler.plan(denoiser.schedule)
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        return sampler(denoiser.bind(cond, table), table, x, noise=lambda *_: torch.zeros_like(x))


def count(module: torch.nn.Module) -> list[int]:
    """How many rows each call of a module had."""
    calls: list[int] = []
    module.register_forward_hook(lambda _, inputs, __: calls.append(inputs[0].shape[0]))
    return calls


@pytest.mark.slow
@pytest.mark.parametrize("part", ["precompute", "channels_last", "packed", "all"])
def test_fast_draws_what_slow_draws_to_rounding(part):
    slow = tiny_pipeline()(PROMPTS, seed=3)
    switches = {name: part in (name, "all") for name in ("precompute", "channels_last", "packed")}
    fast = tiny_pipeline().compile(**switches)(PROMPTS, seed=3)
    assert (fast.tensor - slow.tensor).abs().max() < 1e-4  # a fortieth of a grey level
    assert fast.record["fast"] == {"compile": False, "graphs": False, **switches}
    assert "fast" not in slow.record


def test_a_cascade_is_fast_too_whatever_its_networks_can():
    slow, fast = tiny_cascade()("apple", seed=1), tiny_cascade().compile()("apple", seed=1)
    assert (fast.tensor - slow.tensor).abs().max() < 1e-4


def test_what_a_network_is_told_besides_text_is_embedded_for_each_sample():
    denoiser = Denoiser(network=efficient(), schedule=CosineSchedule(), parameterization=V())
    slow = drawn(denoiser, everything())
    speed_up(denoiser, Fast(precompute=True))
    fast = drawn(denoiser, everything())
    assert (fast - slow).abs().max() < 1e-4
    other = drawn(denoiser, everything().merge(Condition(label=torch.tensor([0, 1]))))
    torch.testing.assert_close(other[0], fast[0], atol=1e-5, rtol=0)
    assert (other[1] - fast[1]).abs().max() > 1e-3


def test_time_is_embedded_once_a_run_and_text_read_once():
    pipe = tiny_pipeline(steps=5).compile()
    unet = pipe.stages[0].denoiser.network
    time, keys = count(unet.time_embed), count(unet.readers()[0].to_k)
    pipe(PROMPTS)
    assert time == [5]
    assert keys == [4]  # both samples, guided and unguided


def test_networks_and_decoder_are_compiled_where_that_is_asked_for(monkeypatch):
    made = []

    def compiler(function, **_):
        made.append(function.__name__)
        return function

    monkeypatch.setattr(torch, "compile", compiler)
    slow, pipe = tiny_pipeline()(PROMPTS), tiny_pipeline().compile(compile=True, channels_last=True)
    assert sorted(made) == ["_call_parts", "_call_whole", "decode"]
    assert (pipe(PROMPTS).tensor - slow.tensor).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("device", "compile", "laid_out"),
    [("cpu", False, True), ("cpu", True, True), ("cuda", False, False), ("cuda", True, True)],
)  # fmt: skip
def test_on_cuda_a_decoder_is_laid_out_only_where_it_is_compiled(device, compile, laid_out, monkeypatch):
    class Decoder(torch.nn.Conv2d):
        def decode(self, z):
            return self(z)

        def parameters(self, recurse=True):
            for parameter in super().parameters(recurse):
                yield SimpleNamespace(device=torch.device(device), ndim=parameter.ndim)

    decoder = Decoder(4, 4, 3)
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    speed_up_decoder(decoder, Fast(channels_last=True, compile=compile))
    assert decoder.weight.is_contiguous(memory_format=torch.channels_last) is laid_out


def test_weights_that_moved_are_laid_out_and_recorded_anew():
    pipe = tiny_pipeline().compile(channels_last=True)
    before = pipe.stages[0].denoiser.acceleration.engine
    pipe.to(dtype=torch.bfloat16)
    assert pipe.stages[0].denoiser.acceleration.engine is not before
    assert pipe("apple").record["fast"]["channels_last"]


def test_a_precision_can_be_asked_for_with_the_rest():
    assert tiny_pipeline().compile(dtype=torch.bfloat16)("apple").record["dtype"] == "bfloat16"


def test_graphs_are_refused_where_there_are_none():
    with refused("device-unfit"):
        tiny_pipeline().compile(graphs=True)


def test_nan_of_a_fast_network_is_told():
    pipe = tiny_pipeline().compile()
    pipe.stages[0].denoiser.network.out[2].bias.data.fill_(float("nan"))
    with refused("network-not-finite"):
        pipe("apple")


@pytest.mark.parametrize("fast", [True, False])
def test_a_network_that_is_not_told_what_it_reads_says_so(fast):
    denoiser = Denoiser(network=efficient(), schedule=CosineSchedule(), parameterization=V())
    denoiser = denoiser if fast else cached(denoiser, DeepFeatures(blocks=1))
    if fast:
        speed_up(denoiser, Fast(precompute=True))
    said = everything()
    with refused("condition-missing", naming="'label'"):
        drawn(denoiser, Condition(tokens=said.tokens, vector=said.vector, level=said.level))
    with refused("condition-missing", naming="'context'"):
        drawn(denoiser, dataclasses.replace(said, tokens=None))


def replayed(function, moving, fixed):
    """A recorder that works on any device: it runs the function again, on the recording's own memory."""
    made = function(moving, fixed)
    with torch.inference_mode(False):  # a graph writes to its outputs whatever the mode
        outputs = tuple(output.clone() for output in made)

    def run():
        for place, value in zip(outputs, function(moving, fixed), strict=True):
            place.copy_(value)

    return outputs, run


def test_a_recording_reads_new_inputs_and_keeps_earlier_outputs():
    made = []

    def function(moving, fixed):
        made.append(1)
        x, deep = moving
        return (x * fixed["context"][0] + (0 if deep is None else deep),)

    graphed = Graphed(function, record=replayed)
    context = (torch.tensor([2.0, 2.0]),)
    x = torch.tensor([1.0, 2.0])
    first = graphed((x, None), {"context": context, "mask": None})
    x.mul_(10)  # in place, as samplers do
    second = graphed((x, None), {"context": context, "mask": None})
    third = graphed((x, None), {"context": (torch.tensor([3.0, 3.0]),), "mask": None})
    assert [t[0].tolist() for t in (first, second, third)] == [[2.0, 4.0], [20.0, 40.0], [30.0, 60.0]]
    assert len(graphed.recordings) == 1
    with_deep = graphed((x, torch.ones(2)), {"context": context, "mask": None})
    larger = graphed((torch.ones(3), None), {"context": (torch.ones(3),), "mask": None})
    assert with_deep[0].tolist() == [21.0, 41.0]
    assert larger[0].tolist() == [1.0, 1.0, 1.0]
    assert len(graphed.recordings) == 3


def test_no_recording_uses_the_workspace_of_another(monkeypatch):
    """torch 2.11 keeps cuBLAS' workspaces by stream and records all graphs on one: simulated here."""
    kept, recording, used = {}, [], []

    class Graph:
        def replay(self): ...

    @contextmanager
    def recorded(graph, **_):
        recording.append(graph)
        yield
        recording.pop()

    def product(moving, fixed):
        place = recording[-1] if recording else "eager"
        stream = "recorded" if recording else "eager"
        used.append((place, kept.setdefault(stream, place)))  # whose memory it is
        return moving

    stand_in = SimpleNamespace(
        device=lambda _: nullcontext(), stream=lambda _: nullcontext(), device_count=lambda: 1, CUDAGraph=Graph,
        Stream=lambda: SimpleNamespace(wait_stream=lambda _: None), graph=recorded,
        current_stream=lambda: SimpleNamespace(wait_stream=lambda _: None),
    )  # fmt: skip
    monkeypatch.setattr(torch, "cuda", stand_in)
    monkeypatch.setattr(torch._C, "_cuda_clearCublasWorkspaces", kept.clear, raising=False)
    for _ in range(2):
        record_cuda_graph(product, (torch.ones(1),), {})
        assert not kept
    assert len({graph for graph, _ in used if graph != "eager"}) == 2
    assert all(graph == owner for graph, owner in used)


def test_a_recorded_pipeline_draws_the_same_call_after_call(monkeypatch):
    monkeypatch.setattr(zoo.acceleration.graphs, "record_cuda_graph", replayed)
    slow, pipe = tiny_pipeline(), tiny_pipeline()
    for stage in (slow.stages, pipe.stages):
        stage[0] = with_cache(stage[0], DeepFeatures(every=2))
    speed_up(pipe.stages[0].denoiser, Fast(precompute=True, graphs=True))
    for prompts in (PROMPTS, ["dog", "sun"], PROMPTS):
        assert (pipe(prompts).tensor - slow(prompts).tensor).abs().max() < 1e-4


@pytest.mark.slow
def test_a_network_is_compiled_and_then_recorded(monkeypatch):
    monkeypatch.setattr(zoo.acceleration.graphs, "record_cuda_graph", replayed)
    slow, pipe = tiny_pipeline(), tiny_pipeline()
    fast = Fast(precompute=True, channels_last=True, compile=True, graphs=True, backend="eager")
    speed_up(pipe.stages[0].denoiser, fast)
    for prompts in (PROMPTS, ["dog", "sun"]):
        assert (pipe(prompts).tensor - slow(prompts).tensor).abs().max() < 1e-4
    assert len(pipe.stages[0].denoiser.acceleration.engine._parts.recordings) == 1
    torch._dynamo.reset()
    assert fast.record()["backend"] == "eager"
    assert "backend" not in Fast(compile=True).record()


def test_a_recording_is_left_out_where_a_gradient_is_asked_for():
    graphed = Graphed(lambda moving, fixed: (moving[0] ** 2,), record=replayed)
    x = torch.tensor([3.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(graphed((x, None), {})[0], x)
    assert gradient.tolist() == [6.0]
    assert not graphed.recordings
    graphed((x.detach(), None), {})
    assert len(graphed.recordings) == 1


def test_a_recording_made_in_inference_mode_is_replayed_outside_of_it():
    graphed = Graphed(lambda moving, fixed: (moving[0] + fixed["context"],), record=replayed)
    with torch.inference_mode():
        graphed((torch.ones(2), None), {"context": torch.ones(2)})
    with torch.no_grad():
        assert graphed((torch.ones(2), None), {"context": 2 * torch.ones(2)})[0].tolist() == [3.0, 3.0]


def test_only_what_is_asked_for_is_copied_out_of_a_recording(monkeypatch):
    outputs = []

    def recorder(function, moving, fixed):
        made = replayed(function, moving, fixed)
        outputs.append(len(made[0]))
        return made

    monkeypatch.setattr(zoo.acceleration.graphs, "record_cuda_graph", recorder)
    pipe = tiny_pipeline()
    speed_up(pipe.stages[0].denoiser, Fast(precompute=True, graphs=True))
    pipe("apple")
    pipe.stages[0] = with_cache(pipe.stages[0], DeepFeatures(every=2))
    speed_up(pipe.stages[0].denoiser, Fast(precompute=True, graphs=True))
    pipe("apple")
    assert outputs == [1, 2, 2]


@pytest.mark.slow
def test_more_methods_than_torch_compiles_of_one_code_are_each_compiled():
    calls = []

    def backend(graph, _):
        calls.append(graph)
        return graph.forward

    engines = []
    for number in range(torch._dynamo.config.recompile_limit + 2):
        engines.append(Engine(TinyWhole(number + 1), Fast(compile=True, backend=backend)))
        engines[-1].whole(torch.ones(1, number + 1), torch.ones(1), {})
    torch._dynamo.reset()
    assert len(calls) == len(engines)


class TinyWhole(torch.nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(width, width)

    def forward(self, x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + time


def with_cache(stage, cache):
    return dataclasses.replace(stage, denoiser=cached(stage.denoiser, cache))


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_cache_of_every_step_changes_no_bit(blocks):
    plain, cached = tiny_pipeline(), tiny_pipeline()
    cached.stages[0] = with_cache(cached.stages[0], DeepFeatures(every=1, blocks=blocks))
    assert torch.equal(cached(PROMPTS).samples, plain(PROMPTS).samples)


def test_a_cache_of_every_step_changes_no_bit_of_the_efficient_unet():
    plain = Denoiser(network=efficient(), schedule=CosineSchedule(), parameterization=V())
    assert torch.equal(drawn(cached(plain, DeepFeatures(every=1, blocks=1)), everything()), drawn(plain, everything()))
    shallow = drawn(cached(plain, DeepFeatures(every=2, blocks=1)), everything())
    assert 0 < (shallow - drawn(plain, everything())).abs().max() < 0.5


@pytest.mark.slow
@pytest.mark.parametrize(("steps", "every", "full"), [(4, 2, 2), (5, 2, 3), (7, 3, 3), (3, 9, 1)])
def test_the_deep_network_runs_as_often_as_the_record_says(steps, every, full):
    pipe = tiny_pipeline(steps=steps)
    plain = pipe(PROMPTS)
    pipe.stages[0] = with_cache(pipe.stages[0], DeepFeatures(every=every))
    unet = pipe.stages[0].denoiser.network
    deep, surface = count(unet.middle_block), count(unet.input_blocks[1])
    made = pipe(PROMPTS)
    assert (len(deep), len(surface)) == (full, steps)
    assert made.record["stages"] == [{"name": "base", "evaluations": steps, "full_evaluations": full}]
    assert plain.record["stages"] == [{"name": "base", "evaluations": steps}]
    assert not torch.equal(made.samples, plain.samples)


def test_a_call_starts_with_nothing_kept():
    pipe = tiny_pipeline(steps=3)
    pipe.stages[0] = with_cache(pipe.stages[0], DeepFeatures(every=3))
    first = pipe("apple")
    pipe("a cat")
    assert torch.equal(pipe("apple").samples, first.samples)


def test_what_cant_be_cut_is_refused():
    tiny = Denoiser(network=TinyNet(), schedule=CosineSchedule(), parameterization=V())
    with refused("step-cache-unfit", naming="TinyNet"):
        cached(tiny, DeepFeatures())
    with refused("step-cache-unfit"):
        cached(tiny_pipeline().stages[0].denoiser, DeepFeatures(blocks=4))
    with refused("number-out-of-range", ConfigError):
        DeepFeatures(every=0)


def test_a_cache_is_a_line_of_the_config():
    resolved = zoo.check("latent-text2img", ["stages.0.step_cache=deep-features", "stages.0.step_cache.every=3"])
    assert resolved["stages"][0]["step_cache"] == {"name": "deep-features", "every": 3}
    assert "step_cache" not in zoo.check("latent-text2img")["stages"][0]
    with refused("argument-unknown", naming="'every'"):
        zoo.check("latent-text2img", ["stages.0.step_cache={name: deep-features, evry: 2}"])


@pytest.mark.slow
def test_sdxls_network_has_its_published_size():
    with torch.device("meta"):
        model = UNet(
            width=320, mult=(1, 2, 4), attention_levels=(1, 2), depth=(1, 2, 10), head_width=64, context_width=2048,
            projection="linear", vector_width=2816,
        )  # fmt: skip
    assert sum(p.numel() for p in model.parameters()) == 2_567_463_684
    assert "label_emb.0.2.weight" in model.state_dict()
    assert model.reads == ("context", "mask", "vector")
    with refused("network-levels-invalid"):
        UNet(width=32, mult=(1, 2, 4), depth=(1, 2), heads=1)
