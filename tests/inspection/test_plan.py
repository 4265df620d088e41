"""A plan is what real networks have and do, found by headers alone; the settings that it names fit and build."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
import torch

import zoo
from tests.refusals import refused
from zoo.autoencoders.kl import AutoencoderKL
from zoo.bench import needs
from zoo.bench.measure import Operations
from zoo.bench.needs import How, Live, needs_of, unread
from zoo.cli.main import run
from zoo.config.check import resolve
from zoo.config.models import model_names, read_model
from zoo.families.explain import explain
from zoo.families.stand_in import write_stand_in
from zoo.inspection.cost import cost_of
from zoo.inspection.plan import arguments, plan, read_bytes, read_pixels, settings
from zoo.schema.errors import UsageError, WeightsError
from zoo.schema.registry import registry

NAME = "latent-text2img"
# Published sizes, of ../shared/reference: TFLOP of one guided evaluation and of a decode, parameters of the U-Net.
PUBLISHED = {"sd-1.5": (1.607, 2.515, 859_520_964), "sdxl-base": (13.52, 10.47, 2_567_463_684)}

# Of a variant, or of a name whose model is drawn in another size: parameters of the published U-Net, pixels a side.
SIZES = {
    "sd-1": (859_520_964, 512), "sd-1-inpainting": (859_535_364, 512), "sd-1-lcm": (859_602_884, 512),
    "sd-2": (865_910_724, 512), "sd-2.1": (865_910_724, 768), "sd-2-inpainting": (865_925_124, 512),
    "sd-2-depth": (865_913_604, 512), "sd-2-unclip": (870_173_124, 768), "sd-2-x4": (473_398_020, 512),
    "sdxl-base": (2_567_463_684, 1024), "sdxl-turbo": (2_567_463_684, 512),
    "sdxl-base-inpainting": (2_567_478_084, 1024), "sdxl-refiner": (2_259_526_660, 1024),
}  # fmt: skip


@pytest.fixture(scope="module")
def made():
    return plan(NAME, batch=4, steps=7)


def test_a_plan_has_the_parameters_and_evaluations_of_the_pipeline(made):
    cost = cost_of(resolve(NAME, None, {"steps": 7}), registry())
    assert [part.name for part in made.needs.parts] == ["text", "base.denoiser", "base.autoencoder"]
    assert sum(part.parameters for part in made.needs.parts) == cost.parameters
    assert made.evaluations == cost.stages[0].evaluations == 7
    assert made.needs.weight_bytes(How()) == 4 * cost.parameters
    assert made.needs.weight_bytes(How(precision="bfloat16")) == 2 * cost.parameters
    denoiser = made.needs.parts[1]
    assert denoiser.weight_bytes(How(weights="int8")) < 1.5 * denoiser.parameters  # most of them a byte


@pytest.mark.slow
def test_operations_are_those_of_a_real_call(made):
    pipe = zoo.build(NAME)
    with Operations([pipe.stages[0].denoiser.network]) as counted:
        pipe("red apple", steps=1)
    denoiser = made.needs.parts[1]
    assert denoiser.operations == counted.calls[0][0]
    around = sum(part.operations for part in made.needs.parts) - denoiser.operations
    assert counted.total - counted.calls[0][0] == pytest.approx(around + made.needs.parts[0].operations, rel=0.02)


def test_nothing_but_headers_is_read(monkeypatch, tmp_path):
    def never(*_, **__):
        raise AssertionError("weights were read")

    for place in ("read_verified", "load_strict"):
        monkeypatch.setattr(f"zoo.assemble.{place}", never)
    assert unread(resolve(NAME)).stages[0].denoiser.network.time_embed[0].weight.is_meta


DECODES = """
import torch
from zoo.autoencoders.kl import AutoencoderKL
from zoo.bench.measure import peak_memory, start_memory

model = AutoencoderKL(width=32, groups=8).eval().to(memory_format=torch.channels_last)
z = torch.randn(1, 4, 64, 64)
with torch.no_grad():
    model.decode(z[..., :8, :8])  # the libraries' code
    before = start_memory("cpu")
    model.decode(z)
found = peak_memory("cpu", before)
print(found["reason"] or found["host_peak_bytes"] - found["host_before_bytes"])
"""


# glibc's malloc keeps freed blocks in its heap, which pieces of other sizes don't fit into; with a fixed threshold
# every larger block is the system's again once it is freed, and what is left is what torch asked for.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "least", "most"), [({}, 0.6, 2.0), ({"MALLOC_MMAP_THRESHOLD_": "65536"}, 0.95, 1.1)]
)
@torch.no_grad()
def test_planned_activations_are_near_what_a_process_takes(settings, least, most):
    # A process of its own: an allocator that other tests have filled asks the system for nothing more.
    told = subprocess.run(
        [sys.executable, "-c", DECODES], capture_output=True, text=True, check=True, env={**os.environ, **settings}
    )
    found = told.stdout.strip()
    if not found.isdigit():
        pytest.skip(found)
    model = AutoencoderKL(width=32, groups=8).eval().to("meta", memory_format=torch.channels_last)
    live = Live(model.parameters())
    with live.watching([]) as seen:
        model.decode(torch.randn(1, 4, 64, 64, device="meta"))
    assert least < int(found) / seen.peak < most


def test_tensors_count_until_nothing_holds_them():
    live = Live([])
    with live.watching([]) as seen:
        x = torch.empty(100, device="meta")
        y = x + 1
        del x
        z = y * 2  # two at once
        del y, z
        view = torch.empty(50, device="meta").view(5, 10)  # fewer, and once
    assert seen.peak == 800
    assert live.now == 200
    del view
    assert live.now == 0


def test_settings_that_leave_images_as_they_are_come_first(made):
    tried = settings(made, ("float32", "bfloat16"))
    assert tried[0] == How(batch=4)
    first = next(i for i, how in enumerate(tried) if how.precision == "bfloat16" or how.weights)
    assert not any(how.decode == "tiles" for how in tried[:first])
    assert {how.batch for how in tried} == {4, 2, 1}


def test_less_memory_is_found_by_giving_up_more():
    least = plan(NAME, batch=4, memory=1, steps=7)
    assert least.how is None
    assert least.least is not None
    chosen = [plan(NAME, batch=4, memory=memory, steps=7) for memory in (10**10, least.least)]
    assert chosen[0].how == How(batch=4)
    assert chosen[1].how is not None
    assert chosen[1].how != chosen[0].how
    for one in chosen:
        assert one.how is not None
        assert one.needs.peak_bytes(one.how) + 600_000_000 <= (one.limit or 0)


@pytest.mark.slow
def test_the_arguments_of_a_plan_build_the_pipeline():
    options, built = arguments(How(precision="bfloat16", batch=2, offload=True, decode="rows", weights="int8"))
    assert options == [
        "--dtype",
        "bfloat16",
        "--offload",
        "--decode",
        "rows",
        "--quantize",
        "int8",
        "--batch-size",
        "2",
    ]
    drawn = zoo.build(NAME, **built)("red apple", steps=1)
    assert drawn.record["memory"] == {"offload": True, "decode": "rows", "weights": "int8"}
    assert drawn.record["dtype"] == "bfloat16"
    assert arguments(How()) == ([], {})


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_model_is_planned_without_its_file(name, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_MODELS", str(tmp_path))
    guided, decode, parameters = PUBLISHED[name]
    found = {part.kind: part for part in plan(name).needs.parts}
    assert found["denoiser"].operations / 1e12 == pytest.approx(guided, rel=1e-3)
    assert found["autoencoder"].operations / 1e12 == pytest.approx(decode, rel=1e-3)
    assert found["denoiser"].parameters == parameters


@pytest.mark.slow
@pytest.mark.parametrize("name", model_names())
def test_every_published_model_is_planned_without_its_file(name, monkeypatch, tmp_path):
    monkeypatch.setenv("ZOO_MODELS", str(tmp_path))
    found = plan(name)
    denoiser = next(part for part in found.needs.parts if part.kind == "denoiser")
    published = SIZES.get(name) or SIZES[read_model(name).variant]
    assert (denoiser.parameters, found.size[-1]) == published
    assert all(part.operations > 0 and part.activations["whole"] > 0 for part in found.needs.parts)
    kinds = [part.kind for part in found.needs.parts]
    assert kinds.count("denoiser") == kinds.count("autoencoder") == 1
    two = ("sdxl-base", "sdxl-base-inpainting", "sd-2-unclip")
    assert kinds.count("conditioners") == 1 + (read_model(name).variant in two)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cascade-text2img", "class2img", "upscale-2x", "pixel-ddpm-32"])
def test_every_kind_of_pipeline_has_a_plan(name):
    found = needs_of(unread(resolve(name)))
    assert sum(part.parameters for part in found.parts) == cost_of(resolve(name), registry()).parameters
    assert all(part.operations > 0 and part.activations["whole"] > 0 for part in found.parts)


def test_a_stand_in_is_a_header_and_a_hole(tmp_path):
    path = write_stand_in("sdxl-base", tmp_path / "sd_xl_base_1.0.safetensors")
    report = explain(path)
    assert (report.family, report.variant) == ("Stable Diffusion XL", "base, and fine-tunes")
    assert all(part.exact for part in report.parts)
    assert path.stat().st_blocks * 512 < 2**20 < path.stat().st_size
    with refused("weights-missing", WeightsError, naming="sd-9"):
        write_stand_in("sd-9", path)


@pytest.mark.parametrize(
    ("text", "count"), [("8GB", 8 * 10**9), ("8 GiB", 8 * 2**30), ("1.5g", 1_500_000_000), ("4096", 4096)]
)
def test_memory_is_read_in_the_usual_units(text, count):
    assert read_bytes(text) == count


@pytest.mark.parametrize("text", ["", "8XB", "-1GB", "0", "GB", "1e9"])
def test_other_amounts_are_refused(text):
    with refused("option-value-invalid", UsageError):
        read_bytes(text)


def test_sizes_are_read():
    assert (read_pixels(None), read_pixels("64"), read_pixels("64x96")) == (None, 64, (64, 96))
    with refused("size-invalid", UsageError):
        read_pixels("64x")


def test_a_row_of_a_suite_holds_the_plan_or_why_there_is_none():
    config = resolve(NAME).config
    found = needs.planned(config, size=None, how=How())
    assert found["planned_weight_bytes"] == plan(NAME).needs.weight_bytes(How())
    assert found["planned_activation_bytes"] > 0
    wrong = needs.planned({**config, "stages": []}, size=None, how=How())
    assert wrong["planned_weight_bytes"] is None
    assert wrong["planned_reason"]


def test_the_command_line_says_what_fits(capsys):
    assert run(["plan", NAME, "--memory", "8GB", "--steps", "3"]) == 0
    said = capsys.readouterr().out
    assert "it fits into 8.00 GB with float32, batch 1:" in said
    assert f"zoo generate PROMPT --model {NAME} --steps 3" in said
    assert run(["plan", NAME, "--memory", "100MB", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told["fits"] is False
    assert told["least_bytes"] > told["memory_bytes"]
    assert run(["plan", NAME, "--precision", "float8"]) == 2
