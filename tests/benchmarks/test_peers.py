"""Cells: loops and decoders of zoo and diffusers on one set of fresh weights, and what stops none of them."""

from __future__ import annotations

import json
import sys
from time import perf_counter
from types import SimpleNamespace

import pytest
import torch

from benchmarks import peers
from benchmarks.on_gpu import speed
from benchmarks.peers import ahead, cell, exported, kernels, loops, metric_libraries, metrics, networks, ways
from benchmarks.peers.compilations import compilations
from benchmarks.peers.fresh import fresh
from tests.bench.test_run import EXAMPLE, TINY, keys
from zoo.bench import machine, record
from zoo.bench.report import read_record
from zoo.bench.run import run_suite
from zoo.bench.suite import read_suite

DDPM, SD, SDXL = speed.MODELS
QUICK = {"precompute": True, "channels_last": True, "compile": False, "graphs": False}


@pytest.fixture(autouse=True)
def quick_peak(monkeypatch):
    monkeypatch.setattr(machine, "peak", lambda *_: {"tflops": 0.2, "copy_gigabytes_per_second": 10.0})


def suite(*rows):
    tiny = speed.suite(device="cpu", tiny=True)
    asked = [{"kind": "diffusers", "fast": QUICK, **row} for row in rows]
    return read_suite({**tiny, "settings": {"repeats": 2}, "matrix": [], "include": asked}, kinds=peers.ROW_KINDS)


def measured(folder, *rows, **words):
    return run_suite(suite(*rows), folder=folder, **words)


def by_library(made):
    return [(r["asked"]["part"], r["asked"]["library"], r["status"]) for r in made["rows"]]


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize("model", [DDPM, SD, SDXL])
def test_loops_and_decoders_agree_on_the_same_tensors(model, tmp_path):
    made, path = measured(tmp_path, {"model": model})
    parts = ("loop",) if model == DDPM else ("loop", "decode")
    assert by_library(made) == [(p, who, "measured") for p in parts for who in ("zoo", "zoo eager", "diffusers")]
    assert len(made["pairs"]) == 2 * len(parts)
    for pair in made["pairs"]:
        assert pair["agreement"]["agrees"], pair
        assert pair["agreement"]["largest_difference"] > 0  # of something
        assert len(pair["ratios"]) == 2
    assert record.gaps(made) == []
    assert {row["group"] for row in made["rows"]} == set(made["noise"])
    rows = {(r["asked"]["part"], r["asked"]["library"]): r for r in made["rows"]}
    ours, plain, theirs = (rows["loop", who] for who in ("zoo", "zoo eager", "diffusers"))
    assert ours["speed"]["step_seconds"]["steps"] == 3 * (2 + 2)  # its turns, and as the baseline
    assert theirs["speed"]["step_seconds"]["steps"] == 3 * 2
    assert (ours["fast"]["precompute"], plain["fast"], plain["asked"]["fast"]) == (True, None, False)
    assert ours["memory"]["weights_bytes"] == theirs["memory"]["weights_bytes"]
    assert ours["work"]["flops_per_image"] == theirs["work"]["flops_per_image"] > 0
    assert ours["random_weights"]
    assert "random weights" in ours["quality"]["reason"]
    assert "only a cuda device" in ours["kernels"]["reason"]
    assert ours["compile"] is None
    # Latents are no images; the pixels that DDPM's loop ends with are.
    assert (ours["speed"]["images_per_second"] is None) == (model != DDPM)
    read = read_record(path)
    assert len(read.pairs) == len(made["pairs"])
    assert {row.protocol for row in read.rows} == {f"diffusers, {part}" for part in parts}


@pytest.mark.slow
@pytest.mark.peer
def test_other_weights_do_not_agree(tmp_path, monkeypatch):
    plain = networks.network_of

    def other(stage):
        made = plain(stage)
        made.conv_out.weight = torch.nn.Parameter(made.conv_out.weight * 1.1)
        return made

    monkeypatch.setattr(networks, "network_of", other)
    made, _ = measured(tmp_path, {"model": DDPM})
    assert [p["agreement"]["agrees"] for p in made["pairs"]] == [False, False]


@pytest.mark.slow
@pytest.mark.peer
def test_a_batch_is_looped_and_not_decoded(tmp_path):
    made, _ = measured(tmp_path, {"model": SDXL, "batch": 2, "fast": False})
    assert by_library(made) == [("loop", "zoo", "measured"), ("loop", "diffusers", "measured")]
    assert made["pairs"][0]["agreement"]["agrees"]


@pytest.mark.slow
@pytest.mark.peer
def test_half_precision_tells_the_distance_and_does_not_judge_it(tmp_path):
    made, _ = measured(tmp_path, {"model": DDPM, "precision": "bfloat16", "fast": False})
    assert made["pairs"][0]["agreement"]["agrees"] is None
    assert 1e-6 < made["pairs"][0]["agreement"]["largest_difference"] < 0.3


@pytest.mark.slow
def test_compiled_ways_say_what_compiling_took(tmp_path, monkeypatch):
    asked = {"model": DDPM, "fast": {**QUICK, "compile": True}}
    cold = {f"{suite(asked).rows[0].id}-loop-zoo": {"seconds": 12.5, "reason": None}}
    (tmp_path / ahead.FILE).write_text(json.dumps({"schema": ahead.SCHEMA, "compiled": cold}))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", ahead.environment(tmp_path)["TORCHINDUCTOR_CACHE_DIR"])
    made, _ = measured(tmp_path / "out", asked)
    assert by_library(made) == [("loop", who, "measured") for who in ("zoo", "diffusers", "diffusers compiled")]
    ours, plain, theirs = (row["compile"] for row in made["rows"])
    assert (ours["cold_seconds"], ours["backend"], ours["reason"]) == (12.5, "eager", None)
    assert ours["first_call_seconds"] > 0
    assert plain is None
    assert theirs["cold_seconds"] is None
    assert theirs["reason"]
    assert made["rows"][0]["fast"]["backend"] == "eager"
    assert any("no fused projections for UNet2DModel" in note for note in made["rows"][2]["notes"])
    assert all(pair["agreement"]["agrees"] for pair in made["pairs"])
    assert [pair["peer"].partition(" 0")[0] for pair in made["pairs"]] == ["diffusers", "diffusers compiled"]


@pytest.mark.slow
def test_without_diffusers_zoo_is_measured_alone_and_the_pair_says_so(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.partition(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "diffusers", None)
    made, path = measured(tmp_path, {"model": SD})
    assert sorted(by_library(made)) == sorted(
        (part, who, "unavailable" if who == "diffusers" else "measured")
        for part in ("loop", "decode")
        for who in ("zoo", "zoo eager", "diffusers")
    )
    assert [(p["theirs"], p["ratio"]) for p in made["pairs"]] == [(None, None)] * 4
    assert all("needs diffusers" in p["reason"] for p in made["pairs"])
    assert read_record(path).pairs[0].ratio is None


@pytest.mark.slow
def test_what_is_late_is_not_reached_and_comes_next_time(tmp_path):
    made, _ = measured(tmp_path, {"model": DDPM}, seconds=1e-9)
    assert [(r["status"], bool(r["reason"])) for r in made["rows"]] == [("not reached", True)]
    made, _ = measured(tmp_path, {"model": DDPM}, resume=True)
    assert {r["status"] for r in made["rows"]} == {"measured"}


@pytest.mark.slow
def test_a_row_whose_own_time_is_over_is_not_begun(tmp_path, monkeypatch):
    monkeypatch.setattr(cell, "compile_seconds", lambda *_: 1e9)
    made, _ = measured(tmp_path, {"model": DDPM, "fast": {**QUICK, "compile": True}, "seconds": 60})
    assert [(r["id"].count("-"), r["status"], r["reason"]) for r in made["rows"]] == [(0, "not reached", cell.LATE)]


@pytest.mark.slow
def test_a_decoder_that_is_late_is_a_note(tmp_path, monkeypatch):
    monkeypatch.setattr(cell.Cell, "late", lambda *_: True)
    made, _ = measured(tmp_path, {"model": SD})
    assert {r["asked"]["part"] for r in made["rows"]} == {"loop"}
    assert "no time was left for its decode" in made["rows"][0]["notes"]
    assert made["rows"][0]["kernels"]["reason"] == "no time was left to count them"


@pytest.mark.slow
def test_a_mode_that_breaks_stops_no_other(tmp_path, monkeypatch):
    def broken(*_, **__):
        raise ValueError("a compiler's own\nsecond line")

    monkeypatch.setattr(ways, "diffusers_loop", broken)
    made, _ = measured(tmp_path, {"model": DDPM}, {"model": SD, "batch": 2})
    assert [status for _, who, status in by_library(made) if who == "diffusers"] == ["failed"] * 2
    assert [status for _, who, status in by_library(made) if who != "diffusers"] == ["measured"] * 4
    assert made["pairs"][0]["reason"] == "ValueError: a compiler's own"


@pytest.mark.slow
def test_a_compiled_way_that_breaks_the_device_takes_no_earlier_number_along(tmp_path, monkeypatch):
    """As an illegal memory access does: from its second call on, everything in the process fails."""
    broken, saved = [], []
    ours, theirs = ways.zoo_loop, ways.diffusers_loop

    def checked(loop):
        def run(steps):
            if broken:
                raise RuntimeError("CUDA error: an illegal memory access was encountered")
            return loop(steps)

        return run

    def breaks(given, called, clock):
        loop = theirs(given, called, clock)
        if not isinstance(called, torch._dynamo.eval_frame.OptimizedModule):
            return checked(loop)

        def run(steps):
            if not saved:
                (path,) = tmp_path.glob("*.json")
                saved.extend(by_library(json.loads(path.read_text())))
            elif steps != cell.FIRST:
                broken.append(True)
            return loop(steps)

        return checked(run)

    monkeypatch.setattr(ways, "zoo_loop", lambda *words: checked(ours(*words)))
    monkeypatch.setattr(ways, "diffusers_loop", breaks)
    made, _ = measured(tmp_path, {"model": DDPM, "fast": {**QUICK, "compile": True}})
    assert saved == [("loop", "zoo", "measured"), ("loop", "diffusers", "measured")]
    assert by_library(made) == [*saved, ("loop", "diffusers compiled", "failed")]
    assert "in turn with diffusers compiled, it broke: RuntimeError" in made["rows"][0]["notes"][-1]
    first, second = made["pairs"]
    assert len(first["ratios"]) == 2
    assert (second["ratio"], second["reason"]) == (None, made["rows"][2]["reason"])


@pytest.mark.slow
def test_of_compiled_ways_the_one_that_is_quickest_beside_zoo_is_the_pair(tmp_path, monkeypatch):
    monkeypatch.setitem(ways.MODES, "diffusers again", "default")
    ratios = iter([3.0, 2.0])
    real = cell.pair_of

    def paired(*words):
        return real(*words) | {"ratio": next(ratios)}

    monkeypatch.setattr(cell, "pair_of", paired)
    made, _ = measured(tmp_path, {"model": DDPM, "fast": {**QUICK, "compile": True}})
    assert [row["status"] for row in made["rows"]] == ["measured"] * 4
    assert [(p["peer"].partition(" 0")[0], p["ratio"]) for p in made["pairs"][1:]] == [("diffusers again", 2.0)]
    assert made["rows"][0]["notes"] == ["random weights: speed only"]  # its figures are of the first turns


@pytest.mark.slow
def test_a_row_that_zoo_breaks_in_is_one_failed_row(tmp_path, monkeypatch):
    monkeypatch.setattr(ways, "zoo_loop", lambda *_: lambda _: torch.ones(1) @ torch.ones(2))
    monkeypatch.setattr(cell, "count", lambda _: "not counted")
    made, _ = measured(tmp_path, {"model": SD, "batch": 2})
    assert by_library(made) == [("loop", "zoo", "failed")]
    assert made["pairs"] == []


@pytest.mark.slow
def test_a_network_that_diffusers_does_not_have_is_told(tmp_path):
    asked = suite({"model": DDPM})
    config = {**asked.rows[0].config}
    config["stages"][0]["denoiser"]["network"]["middle_attention"] = False
    made, _ = run_suite(asked, folder=tmp_path)
    assert sorted(by_library(made)) == [
        ("loop", "diffusers", "failed"), ("loop", "zoo", "measured"), ("loop", "zoo eager", "measured"),
    ]  # fmt: skip
    assert "attention in its middle" in made["pairs"][0]["reason"]


@pytest.mark.slow
def test_fresh_weights_are_the_seeds_and_nothing_starts_at_zero():
    row = suite({"model": SDXL}).rows[0]
    one, same, other = (fresh(row, seed).stages[0].denoiser.network.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["out.2.weight"], other["out.2.weight"])
    assert all(tensor.abs().sum() > 0 for tensor in one.values())


@pytest.mark.slow
def test_rounds_end_with_the_time_after_two(tmp_path, monkeypatch):
    monkeypatch.setattr(cell, "ROUNDS_SECONDS", 0.0)
    asked = read_suite({
        **speed.suite(device="cpu", tiny=True), "settings": {"repeats": 9}, "matrix": [],
        "include": [{"kind": "diffusers", "model": DDPM, "fast": QUICK}],
    }, kinds=peers.ROW_KINDS)  # fmt: skip
    made, _ = run_suite(asked, folder=tmp_path)
    assert len(made["pairs"][0]["ratios"]) == 2


def test_kernels_of_a_step_are_the_difference_of_two_runs(monkeypatch):
    def profiled(run, steps, device):
        return {"kernels": 100 + 30 * steps, "launches": 50 + steps, "copies": 7}

    monkeypatch.setattr(kernels, "_profiled", profiled)
    found = kernels.kernels(lambda _: None, "cuda", of="step")
    assert (found["kernels"], found["launches"], found["copies"], found["reason"]) == (30.0, 1.0, 0.0, None)
    assert kernels.kernels(lambda _: None, "cuda", of="call")["kernels"] == 220.0
    monkeypatch.setattr(kernels, "_profiled", lambda *_: {"kernels": 0, "launches": 0, "copies": 0})
    assert kernels.kernels(lambda _: None, "cuda", of="step")["reason"] == "the profiler saw no kernel"


def test_events_are_read_between_steps_alone(monkeypatch):
    class Event:
        now = 0.0

        def __init__(self, **_):
            self.at = None

        def record(self):
            Event.now += 2.0
            self.at = Event.now

        def elapsed_time(self, later):
            return later.at - self.at

    monkeypatch.setattr(torch.cuda, "Event", Event)
    clock = loops.StepClock("cuda")
    for _ in range(2):
        clock.start()
        clock.step()
        clock.step()
    assert clock.record() == {"p50": 0.002, "p90": 0.002, "steps": 4, "by": "events on the device"}


@pytest.mark.slow
def test_compilations_ahead_are_the_suites_and_stay_cold(tmp_path):
    asked = suite({"model": DDPM, "fast": {**QUICK, "compile": True}}, {"model": SD}, {"model": "latent-text2img"})
    ahead.write(tmp_path, compilations(asked, seconds=60.0))
    found = ahead.read(tmp_path)
    identity = asked.rows[0].id
    assert list(found) == [f"{identity}-loop-zoo", f"{identity}-loop-diffusers-compiled"]
    assert all(entry["seconds"] > 0 for entry in found.values())
    ahead.write(tmp_path, [(f"{identity}-loop-zoo", {"seconds": 0.0})])
    assert ahead.read(tmp_path) == found
    assert list(compilations(asked, seconds=-1.0)) == []
    assert set(ahead.environment(tmp_path)) >= {"TORCHINDUCTOR_CACHE_DIR", "TORCHINDUCTOR_FX_GRAPH_CACHE"}


def test_a_compilation_needs_the_time_that_is_known_of_it(tmp_path, monkeypatch):
    row = SimpleNamespace(asked=SimpleNamespace(device="cuda"))
    monkeypatch.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert cell.compile_seconds(row, "a") == cell.COMPILE_SECONDS
    ahead.write(tmp_path, [("a", {"seconds": 30.0})])
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", ahead.environment(tmp_path)["TORCHINDUCTOR_CACHE_DIR"])
    assert cell.compile_seconds(row, "a") == 15.0
    row.asked.device = "cpu"
    assert cell.compile_seconds(row, "a") == 0.0


def test_text_pipelines_are_exported_and_others_are_not():
    asked = suite({"model": DDPM}, {"model": SDXL}, {"model": "latent-text2img"})
    assert [exported.holds(row) for row in asked.rows] == [False, False, True]


def test_sdxls_vector_is_what_its_pipeline_makes_of_text_and_sizes():
    assert networks.size_width(2816) == 256
    vector = torch.randn(2, 88)
    made, given = networks.pooled_and_sizes(vector, 1024)
    assert torch.equal(made[:, :40], vector[:, :40])
    assert given["time_ids"].tolist() == [[1024, 1024, 0, 0, 1024, 1024]] * 2
    assert given["text_embeds"].shape == (2, 40)
    assert made.shape == vector.shape


def test_a_cell_is_over_when_its_time_is():
    one = cell.Cell(run=None, row=None, part="loop", given=None, until=perf_counter() + 60)
    assert not one.late()
    assert one.late(needed=90)


def test_zoo_and_diffusers_are_compared_on_the_same_weights(tmp_path):
    model = json.loads(json.dumps(TINY))
    model["conditioners"] = {
        "text": {"name": "clip-text", "width": 8, "heads": 2, "layers": 1, "context_length": 8, "embed_dim": 8}
    }
    model["stages"][0] |= {"autoencoder": {"name": "kl", "width": 8, "mult": [1, 2], "blocks": 1, "groups": 4}}
    model["stages"][0]["denoiser"]["network"] |= {"in_channels": 4, "out_channels": 4}
    model["stages"][0]["sampler"] = {"name": "ddim", "steps": 2}
    suite = read_suite({
        "schema": "zoo.suite/1", "kind": "diffusers", "name": "peers", "models": {"tiny": model},
        "settings": {"repeats": 1, "warm_up": 0}, "include": [{"model": "tiny", "batch": 1, "fast": True}],
    }, kinds=peers.ROW_KINDS)  # fmt: skip
    made, _ = run_suite(suite, folder=tmp_path)
    assert {r["status"] for r in made["rows"]} == {"measured"}, made["rows"][0]["reason"]
    assert [(r["asked"]["part"], r["asked"]["library"]) for r in made["rows"]] == [
        (part, library) for part in ("network", "decode", "pipeline") for library in ("zoo", "diffusers")
    ]
    assert len(made["pairs"]) == 3
    assert keys(made["pairs"][0]) == keys(EXAMPLE["pairs"][0])
    ids = {r["id"] for r in made["rows"]}
    assert all(p["agreement"]["agrees"] and {p["ours"], p["theirs"]} <= ids for p in made["pairs"]), made["pairs"]
    # Each part was interleaved on its own, and has a noise of its own.
    assert {r["group"] for r in made["rows"]} == set(made["noise"])
    assert len(made["noise"]) == 3
    assert record.gaps(made) == []


def test_metrics_are_compared_on_the_same_pictures_and_what_is_missing_is_said(tmp_path, monkeypatch):
    class Stub(torch.nn.Module):
        """Features without Inception: means of eight parts."""

        def __init__(self, *_, **__):
            super().__init__()
            self.network = torch.nn.Linear(1, 1)

        def images(self, pictures, *, batch=64):
            return (pictures.float() / 128 - 1).flatten(1).unflatten(1, (8, -1)).mean(dim=2)

        def forward(self, pictures):
            return (self.images(pictures),)

    for module in (metrics, metric_libraries):
        monkeypatch.setattr(module, "Inception2015", Stub)
    monkeypatch.setattr("torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3", Stub)
    monkeypatch.setattr(metric_libraries, "find_spec", lambda name: name if name == "torch_fidelity" else None)
    suite = read_suite({
        "schema": "zoo.suite/1", "kind": "metrics", "name": "metrics",
        "settings": {"repeats": 1, "count": 20}, "include": [{"model": "inception-2015", "batch": 8}],
    }, kinds=peers.ROW_KINDS)  # fmt: skip
    made, _ = run_suite(suite, folder=tmp_path)
    assert [p["name"].rpartition(": ")[2] for p in made["pairs"]] == ["features", "frechet", "kernel"]
    assert {r["group"] for r in made["rows"] if r["status"] == "measured"} == set(made["noise"])
    assert [p["agreement"]["agrees"] for p in made["pairs"]] == [True] * 3, [p["agreement"] for p in made["pairs"]]
    absent = {r["asked"]["library"]: r["reason"] for r in made["rows"] if r["status"] == "unavailable"}
    assert absent == {"torchmetrics": "torchmetrics is not installed", "clean-fid": "clean-fid is not installed"}
