"""From a config to guidance that runs: a weaker network by its card, measured pictures, RePaint; real U-Nets inside."""

from __future__ import annotations

import json

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import zoo
from tests.test_assemble_cascade import GROUPS, SMALL_UNET, card, fresh
from tests.tiny import WIDTH, LetterCounts, randomise
from zoo.autoencoders.identity import Identity
from zoo.cli.main import run
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import Eps, V
from zoo.diffusion.schedules import CosineSchedule
from zoo.diffusion.types import Condition
from zoo.guidance.autoguidance import Autoguidance
from zoo.guidance.measurement import Masked
from zoo.guidance.posterior import Posterior
from zoo.images.space import Images
from zoo.networks.unet import UNet
from zoo.pipeline.pipeline import Pipeline, Stage
from zoo.samplers.ddim import DDIM
from zoo.samplers.repaint import RePaint

PICTURE = torch.linspace(0.2, 0.8, 3 * 16).reshape(3, 4, 4)
HELD = {"name": "posterior", "measurement": {"name": "downsampled", "factor": 2}, "noise": 0.05}


@pytest.fixture
def config(tmp_path):
    strong = card(tmp_path, "strong", fresh("unet", SMALL_UNET, 1), "unet", denoiser={}, config=SMALL_UNET)
    other = {"parameterization": "eps", "time_input": "index1000"}
    weak = card(tmp_path, "weak", fresh("unet", SMALL_UNET, 2), "unet", denoiser=other, config=SMALL_UNET)
    return {
        "schema": "zoo.pipeline/1", "summary": "Tiny.",
        "conditioners": {"label": {"name": "class-label", "names": GROUPS}},
        "stages": [{
            "name": "base", "size": 8, "listens": ["label"], "denoiser": strong,
            "sampler": {"name": "ddim", "steps": 3},
            "guidance": [
                {"name": "limited-interval", "low": 0.1, "guidance": {"name": "classifier-free", "scale": 2.0}},
                {"name": "limited-interval", "high": 20.0,
                 "guidance": {"name": "autoguidance", "denoiser": weak, "scale": 1.5}},
                {"name": "rescale", "space": "v"},
                "static-threshold",
            ],
        }],
    }  # fmt: skip


@pytest.mark.slow
def test_a_whole_list_is_built_and_each_of_it_counts(config):
    pipe = zoo.build(config)
    guidance = pipe.stages[0].guidance[1].guidance
    assert isinstance(guidance, Autoguidance)
    assert isinstance(guidance.denoiser, Denoiser)
    assert isinstance(guidance.denoiser.parameterization, Eps)
    assert guidance.denoiser in pipe.modules()
    assert set(pipe.record["weights"]) >= {w["weights"] for w in (
        config["stages"][0]["denoiser"], config["stages"][0]["guidance"][1]["guidance"]["denoiser"]
    )}  # fmt: skip
    made = pipe(labels=["food"]).samples
    for k in range(4):
        fewer = {**config, "stages": [{**config["stages"][0], "guidance": [
            block for i, block in enumerate(config["stages"][0]["guidance"]) if i != k
        ]}]}  # fmt: skip
        assert not torch.allclose(zoo.build(fewer)(labels=["food"]).samples, made, atol=1e-4), k


@pytest.mark.slow
@pytest.mark.parametrize(("method", "sampler"), [("pigdm", "dpmpp-2m"), ("dps", "ddpm"), ("pigdm", "heun")])
def test_samples_are_held_to_a_measured_picture(config, sampler, method):
    config["stages"][0]["guidance"] += [{**HELD, "method": method, "scale": 1.0}]
    far = []
    for scale in (0.0, 1.0):
        pipe = zoo.build(config, sampler=sampler, steps=6, overrides={"stages.0.guidance.4.scale": scale})
        made = pipe(labels=["food", "flags"], image=PICTURE)
        far.append(float((F.avg_pool2d(made.tensor, 2) - PICTURE).abs().mean()))
        alone = pipe(labels=["food", "flags"], image=PICTURE, batch_size=1)
        torch.testing.assert_close(alone.samples, made.samples, rtol=0.0, atol=1e-3)
    assert far[1] < far[0], far


class MaskedLetters(LetterCounts):
    """Tokens with a mask, of which attention keeps something for its gradient."""

    def forward(self, prompts):
        cond = super().forward(prompts)
        return Condition(tokens=cond.tokens, mask=torch.ones(cond.tokens.shape[:2], dtype=torch.bool))


def test_it_goes_back_through_attention_to_what_was_made_in_inference_mode():
    unet = UNet(
        in_channels=3, out_channels=3, width=8, mult=(1, 2), blocks=1, attention_levels=(1,), heads=2,
        context_width=WIDTH, groups=4,
    )  # fmt: skip
    stage = Stage(
        name="base", denoiser=Denoiser(network=randomise(unet, 1), schedule=CosineSchedule(), parameterization=V()),
        autoencoder=Identity(), sampler=DDIM(steps=3), space=Images(8), listens=("text",),
        guidance=(Posterior(measurement=Masked(), noise=0.1),),
    )  # fmt: skip
    pipe = Pipeline(conditioners={"text": MaskedLetters().requires_grad_(False)}, stages=[stage])
    mask = torch.zeros(8, 8)
    mask[2:6, 2:6] = 1.0
    made = pipe(["cat", "dog"], image=torch.full((3, 8, 8), 0.7), mask=mask)
    assert bool(torch.isfinite(made.samples).all())
    assert not any(isinstance(p, nn.Parameter) and p.grad is not None for p in unet.parameters())


@pytest.mark.slow
def test_repaint_holds_another_sampler_and_the_record_counts_both_ways(config):
    block = {"name": "repaint", "steps": 6, "jump": 2, "resamples": 3, "sampler": {"name": "ddim", "eta": 1.0}}
    pipe = zoo.build(config, overrides={"stages.0.sampler": block, "stages.0.sampler.sampler.eta": 0.5})
    sampler = pipe.stages[0].sampler
    assert isinstance(sampler, RePaint)
    assert sampler.sampler == DDIM(eta=0.5)
    mask = torch.zeros(8, 8)
    mask[:, 4:] = 1.0
    made = pipe(labels=["food"], image=torch.full((3, 8, 8), 0.7), mask=mask)
    assert made.record["stages"][0]["evaluations"] == 6 + 2 * 2 * 2
    assert torch.equal(made.tensor[..., :4], torch.full((1, 3, 8, 4), 0.7))


def test_the_command_line_takes_a_measured_picture(config, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    config["stages"][0]["guidance"] = [HELD]
    (tmp_path / "mine.yaml").write_text(json.dumps(config))
    Image.new("RGB", (4, 4), "red").save("red.png")
    assert run(["generate", "--model", "mine.yaml", "--label", "food", "--image", "red.png", "-o", "out.png"]) == 0
    assert Image.open("out.png").size == (8, 8)
    assert run(["generate", "--model", "mine.yaml", "--label", "food", "-o", "out.png"]) == 2
    assert "give an image" in capsys.readouterr().err
