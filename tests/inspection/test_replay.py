"""A picture is drawn again from its record alone, and what stands in the way is named."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.refusals import refused
from tests.tiny import tiny_cascade, tiny_pipeline
from zoo.config.cards import read_card
from zoo.config.check import resolve
from zoo.diffusion.noise import AddressedNoise, Renumbered
from zoo.inspection.replay import replay
from zoo.pipeline.generation import Generation, read_record
from zoo.schema.errors import UsageError

NAMES = ("emoji-base-32-text", "emoji-kl-f4", "emoji-latent-64")


def tiny(**arguments: Any):
    """A tiny pipeline that says in its record that it is the shipped one, at 32 pixels and four steps."""
    config = resolve("latent-text2img", {"stages.0.size": 32, "stages.0.sampler.steps": 4}).config
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()
    hashes = {name: read_card(name).sha256 for name in NAMES}
    record = {"config": config, "config_sha256": digest, "weights": hashes}
    return tiny_pipeline(steps=4, eta=0.5, record=record, **arguments)


PIPE = tiny()


def again(path, *, pipe=PIPE, **options):
    return replay(path, build=lambda *_, **__: pipe, **options)


def rewrite(path, change, *, pixels=None):
    """The picture with its record changed."""
    record = read_record(path)
    change(record)
    picture = np.array(Image.open(path)) if pixels is None else pixels
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None] / 255
    Generation(samples=tensor, drawn=tensor, record=record).save(path, grid=True)
    return path


@pytest.fixture
def one(tmp_path):
    (file,) = PIPE("cat", seed=5, negative="dog").save(tmp_path / "one.png")
    return file


def test_what_was_drawn_alone_is_bit_equal(one):
    found = again(one)
    assert (found.verdict, found.maximum, found.mean, found.share, found.because) == ("equal", 0, 0.0, 0.0, ())
    assert str(found) == "bit-equal: every value of every pixel is the same"
    assert json.loads(json.dumps(found.to_dict()))["verdict"] == "equal"


def test_one_row_of_a_batch_is_drawn_alone_by_the_number_of_its_sample(tmp_path):
    files = PIPE(["cat", "dog"], n=2, seed=9, steps=3, guidance=2.0).save(tmp_path / "rows")
    for i in (1, 2):
        found = again(files[i])
        assert found.verdict in ("equal", "within")
        assert found.because == ("it was drawn in a batch of 4, and now alone",)
    # With another row's number it is another picture, so the number does matter.
    moved = again(rewrite(files[2], lambda r: r["images"][0].update(sample=3)))
    assert moved.verdict == "different"
    assert moved.maximum > 2


def test_a_sheet_is_drawn_again_whole_and_at_another_size(tmp_path):
    (sheet,) = PIPE(["cat", "dog", "cow"], size=(32, 48), seed=1).save(tmp_path / "sheet.png", grid=True)
    assert again(sheet).verdict == "equal"


def test_a_run_that_was_asked_for_nothing_is_drawn_again(tmp_path):
    (sheet,) = PIPE(n=2, seed=1, batch_size=1).save(tmp_path / "sheet.png", grid=True)
    assert again(sheet).verdict == "equal"


def test_what_was_made_from_a_picture_needs_that_picture(tmp_path):
    rng = np.random.default_rng(0)
    given = Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8))
    mask = Image.new("L", (32, 32))
    mask.paste(255, (0, 0, 16, 32))
    files = PIPE("cat", n=3, image=given, mask=mask, strength=0.7, seed=2).save(tmp_path / "rows")
    assert again(files[2], image=given, mask=mask).verdict in ("equal", "within")
    with refused("record-input-missing", naming="--mask"):
        again(files[2], image=given)
    with refused("record-input-missing", naming="--image"):
        again(files[2], mask=mask)
    with refused("record-input-unfit"):
        again(files[2], image=given.transpose(Image.Transpose.ROTATE_90), mask=mask)
    (plain,) = PIPE("cat").save(tmp_path / "plain.png")
    with refused("record-input-unfit", naming="--image"):
        again(plain, image=given)


def test_a_picture_changed_after_it_was_drawn_is_different_and_by_how_much(one):
    pixels = np.array(Image.open(one))
    pixels[3, 4, 1] ^= 64
    found = again(rewrite(one, lambda r: None, pixels=pixels))
    assert (found.verdict, found.maximum) == ("different", 64)
    assert found.share == pytest.approx(1 / pixels.size)
    assert found.mean == pytest.approx(64 / pixels.size)
    assert "changed after" in str(found)
    assert again(one, tolerance=64).verdict == "within"


def test_reasons_are_named(one):
    def change(record):
        record["versions"]["torch"] = "1.0.0"
        record["device"] = "cuda:77"
        record["weights"]["emoji-kl-f4"] = "0" * 64
        record["config"]["summary"] = "another"
        record["seed"] = 6

    found = again(rewrite(one, change))
    assert found.verdict == "different"
    for word in ("torch was 1.0.0", "cuda:77", "'emoji-kl-f4' are others", "config in its record"):
        assert word in str(found), word


def test_a_resized_picture_is_told_without_drawing(one):
    pixels = np.array(Image.open(one).resize((64, 64)))
    found = replay(rewrite(one, lambda r: None, pixels=pixels), build=lambda *_, **__: pytest.fail("built"))
    assert found.verdict == "different"
    assert "64x64" in str(found)
    assert "32x32" in str(found)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda r: r.update(noise="FixedNoise"), "record-noise-given"),
        (lambda r: r.update(seed=None), "record-noise-given"),
        (lambda r: r.update(seed=-1), "seed-invalid"),
        (lambda r: r["weights"].update({"nobody-has-these": "0" * 64}), "record-weights-missing: nobody-has-these"),
        (lambda r: r.pop("config"), "record-incomplete: config"),
        (lambda r: r["images"][0].update(sample="3"), "record-changed: images.0"),
        (lambda r: r["images"][0].update(sample=2**70), "record-changed: images.0"),
        (lambda r: r["images"][0].update(label=[1]), "record-changed: images.0"),
        (lambda r: r["images"].extend([r["images"][0]] * 70_000), "record-too-large"),
        (lambda r: r["asked"].update(guidance="much"), "record-changed: asked.guidance"),
        (lambda r: r["asked"].update(steps=10**9), "record-changed: 1000000000"),
        (lambda r: r["asked"].update(size="big"), "record-changed"),
        (lambda r: r["stages"][0].update(name="other"), "record-changed"),
        (lambda r: r["config"]["stages"][0].update(denoiser={"network": {"name": "unet"}}), "record-weights-fresh"),
        (lambda r: r.update(stages=[r["stages"][0]] * 2), "record-changed"),
    ],
)
def test_what_cannot_be_drawn_again_is_one_sentence_and_nothing_runs(one, monkeypatch, change, sentence):
    monkeypatch.setattr(PIPE.stages[0].denoiser.network, "forward", lambda *a, **k: pytest.fail("a network ran"))
    with refused(sentence, UsageError) as caught:
        again(rewrite(one, change))
    assert "one.png" in str(caught.value)


def test_a_config_in_a_record_names_registry_keys_only(one):
    """It goes through the same door as any config: what is no name is refused and nothing is imported."""
    rewrite(one, lambda r: r["config"]["stages"][0].update(sampler={"name": "os:system", "steps": 4}))
    with refused("component-unknown", UsageError, naming="'os:system'"):
        replay(one)


def test_a_picture_that_is_cut_off_is_told(one):
    one.write_bytes(one.read_bytes()[:-400])
    with refused("image-damaged"):
        again(one)


def test_stages_that_ran_are_the_ones_that_run_again(tmp_path):
    config = resolve("latent-text2img").config
    stage = {**config["stages"][0], "autoencoder": {"name": "identity"}}
    sizes = (8, 16)
    stages = [{**stage, "name": f"s{s}", "size": s} for s in sizes]
    record = {"config": {**config, "stages": stages}, "weights": {n: read_card(n).sha256 for n in NAMES}}
    pipe = tiny_cascade(sizes=sizes, record=record)
    (whole,) = pipe("cat", seed=4).save(tmp_path / "whole.png")
    (first,) = pipe("cat", seed=4, stages=1).save(tmp_path / "first.png")
    small = pipe("cat", seed=4, stages=1).images[0]
    (second,) = pipe.stage("s16")("cat", seed=4, image=small).save(tmp_path / "second.png")
    assert again(whole, pipe=pipe).verdict == "equal"
    assert again(first, pipe=pipe).verdict == "equal"
    assert again(second, pipe=pipe, image=small).verdict == "equal"


def test_renumbered_noise_is_the_sources_own():
    source = AddressedNoise(3)
    shape = (2, 3)
    some = Renumbered(source=source, numbers=(5, 2))(shape, purpose="start", samples=[0, 1], stage=1, step=4)
    assert torch.equal(some, source(shape, purpose="start", samples=[5, 2], stage=1, step=4))
    assert not torch.equal(some, source(shape, purpose="start", samples=[0, 1], stage=1, step=4))


def test_a_picture_with_a_seed_of_its_own_is_drawn_again(tmp_path):
    files = PIPE(["cat", "dog"], n=2, seed=[5, 6]).save(tmp_path / "rows")
    assert [again(file).verdict for file in files] == ["equal"] * 4
    (sheet,) = PIPE(["cat", "dog"], seed=[5, 6]).save(tmp_path / "sheet.png", grid=True)
    assert again(sheet).verdict == "equal"
