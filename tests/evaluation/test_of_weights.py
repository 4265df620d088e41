"""What weights do by themselves, on toys with known answers, and on a CLIP's two towers."""

import json
from math import log10

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn

import zoo
from tests.refusals import refused
from zoo.config.cards import card_names, read_card
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import V
from zoo.diffusion.schedules import CosineSchedule
from zoo.evaluation.extractors.clip import Clip
from zoo.evaluation.weights import (
    TIMES,
    classification,
    measure_weights,
    reconstruction,
    retrieval,
    task_of,
    whole_clip,
)
from zoo.schema.errors import UsageError, WeightsError
from zoo.training import export


def noise(count, size=16):
    return torch.from_numpy(np.random.default_rng(0).integers(60, 190, (count, 3, size, size), dtype=np.uint8))


class Shifted(nn.Module):
    """An autoencoder that is wrong by one number everywhere."""

    factor = 4

    def __init__(self, by):
        super().__init__()
        self.by = nn.Parameter(torch.tensor(float(by)), requires_grad=False)

    def encode(self, x):
        return x

    def decode(self, z):
        return z + self.by


def test_reconstruction_is_of_eight_bit_pictures():
    exact = reconstruction(Shifted(0.0), noise(3))
    assert exact["psnr"] == [pytest.approx(100.0)] * 3
    assert exact["ssim"] == [pytest.approx(1.0)] * 3
    shifted = reconstruction(Shifted(10 / 127.5), noise(3))
    assert shifted["psnr"] == [pytest.approx(20 * log10(255 / 10))] * 3
    assert max(exact["psnr-bicubic"]) < 25  # noise can't be had back from a picture a quarter as wide


class Table:
    """A CLIP that knows its answers."""

    def __init__(self, seen, read):
        self.seen, self.read = seen, read

    def images(self, pictures):
        return self.seen

    def texts(self, captions):
        return self.read


def test_recall_counts_what_finds_its_own_and_equal_captions_are_each_others():
    base = torch.eye(6)
    names = [f"thing {i}" for i in range(6)]
    right = retrieval(Table(base, base), noise(6), names)
    assert all(right[f"{what}-recall-at-1"] == [True] * 6 for what in ("caption", "picture"))
    turned = retrieval(Table(base, base[[1, 0, 2, 3, 4, 5]]), noise(6), names)
    assert turned["caption-recall-at-1"] == [False, False, True, True, True, True]
    assert turned["picture-recall-at-1"] == [False, False, True, True, True, True]
    same = retrieval(Table(base, base[[1, 0, 2, 3, 4, 5]]), noise(6), ["thing 0", "thing 0", *names[2:]])
    assert same["caption-recall-at-1"] == [True] * 6
    lost = retrieval(Table(-base, base), noise(6), names)  # its own is the furthest of six
    assert lost["caption-recall-at-5"] == [False] * 6
    assert right["recall-at-5-chance"] == [5 / 6] * 6


class Bright(nn.Module):
    """Tells pictures above the middle from those below, and forgets it where it is told to."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)
        self.times = []

    def forward(self, x, time):
        self.times.append(float(time[0]))
        light = x.mean(dim=(1, 2, 3)) * self.scale
        return torch.stack([-light, light], dim=1)


def test_a_classifier_is_asked_at_four_times_of_the_same_noise():
    pictures = torch.cat([torch.full((3, 3, 16, 16), 20), torch.full((6, 3, 16, 16), 230)]).to(torch.uint8)
    labels = torch.tensor([0] * 3 + [1] * 6)
    network = Bright()
    denoiser = Denoiser(network=network, schedule=CosineSchedule(), parameterization=V())
    found = classification(denoiser, pictures, labels)
    assert found["top1-0.125"] == [1.0] * 9
    assert network.times == [denoiser.time_input(t) for t in TIMES]
    assert found["top1-most-common"] == [pytest.approx(6 / 9)] * 9
    assert classification(denoiser, pictures, 1 - labels)["top1-0.125"] == [0.0] * 9
    mean = np.mean([found[f"top1-{t:g}"] for t in TIMES], axis=0)
    assert found["top1"] == pytest.approx(mean.tolist())


@pytest.fixture
def both_towers(tmp_path):
    """The card of the shipped text tower with an untrained tower for images beside it, as clip-locked.yaml makes."""
    from benchmarks.budget import tensors_of

    card = read_card("emoji-base-32-text")
    towers = Clip(
        embed_dim=card.config["embed_dim"], image_size=64, image_width=16, image_layers=[1, 1, 1, 1],
        text_width=16, text_heads=2, text_layers=1, context_length=24,
    )  # fmt: skip
    sees = {k: v for k, v in towers.clip.state_dict().items() if k.startswith(("visual.", "logit_scale"))}
    facts = {k: v for k, v in card.raw.items() if k not in ("schema", "file", "published", "words")}
    facts["other"] = ["visual.", "logit_scale"]
    return str(export.write(tmp_path, "both", {**tensors_of(card.name), **sees}, facts))


def test_both_towers_of_a_text_conditioner_are_found_by_their_shapes(both_towers):
    assert task_of(read_card(both_towers)) == "retrieval"
    clip = whole_clip(read_card(both_towers))
    assert clip.image_size == 64
    captions = ["red apple, 3d style", "grinning face, noto style"]
    alone = zoo.load(both_towers)(captions).vector
    torch.testing.assert_close(clip.texts(captions), F.normalize(alone, dim=-1), atol=1e-5, rtol=1e-5)
    seen = clip.images(noise(2, size=64))
    torch.testing.assert_close(seen.norm(dim=1), torch.ones(2))
    with refused("backbone-unfit", WeightsError):
        whole_clip(read_card("emoji-base-32-text"))


@pytest.fixture
def data(tmp_path):
    rows = []
    for i, picture in enumerate(noise(8, size=32)):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": f"thing {i}", "group": "flags", "split": "test"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return tmp_path


@pytest.mark.slow
def test_a_shipped_classifier_is_measured_under_a_key_of_its_hash(data):
    found = measure_weights("emoji-classifier-32", data, split="test", n=7)
    sha = read_card("emoji-classifier-32").sha256[:8]
    assert found[0].key == f"top1[emoji-classifier-32@{sha}]@7"
    assert (found[0].count, found[0].ranges, found[0].range_count) == (7, 3, 2)
    assert 0.0 <= found[0].value <= 1.0
    assert measure_weights("emoji-classifier-32", f"{data}:test", n=7)[1] == found[1]


def test_what_can_not_be_measured_is_told(data):
    for name in ("emoji-latent-64", "emoji-sr-64"):
        with refused("weights-kind-wrong", UsageError):
            measure_weights(name, data)
    with refused("count-out-of-range", naming="give 3 to 8"):
        measure_weights("emoji-classifier-32", data, n=9)
    lines = (data / "metadata.jsonl").read_text()
    (data / "metadata.jsonl").write_text(lines.replace('"flags"', '"rocks"', 1))
    with refused("label-unknown", UsageError, naming="'rocks'"):
        measure_weights("emoji-classifier-32", data)
    (data / "metadata.jsonl").write_text(lines.replace('"group"', '"grope"'))
    with refused("metadata-key-missing", UsageError):
        measure_weights("emoji-classifier-32", data)


def test_every_shipped_weight_does_something_alone_or_draws_in_a_pipeline():
    from zoo.config.presets import presets_with

    assert [name for name in card_names() if task_of(read_card(name)) is None and not presets_with(name)] == []
