"""Conditions of a call: every text encoded once, conditioners joined as declared, numbers and images as sources."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import pytest
import torch
from torch import nn

import zoo
from tests.config import forced
from tests.config.test_incompatible import pixels
from tests.refusals import refused
from tests.tiny import WIDTH, LetterCounts, TinyNet, randomise, tiny_cascade, tiny_pipeline
from zoo.autoencoders.identity import Identity
from zoo.conditioners import vocabulary
from zoo.conditioners.clip_text import ClipText
from zoo.conditioners.numbers import Numbers
from zoo.conditioners.placeholder import StandIn
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import V
from zoo.diffusion.schedules import CosineSchedule
from zoo.diffusion.types import Condition
from zoo.guidance.classifier_free import ClassifierFree
from zoo.images.space import Images
from zoo.pipeline.conditioning import join
from zoo.pipeline.pipeline import Pipeline, Stage
from zoo.samplers.ddim import DDIM
from zoo.schema.errors import ConfigError, UsageError


def counted(monkeypatch, pipe):
    """How many texts each run of the tower had, and which words the byte-pair encoder."""
    tower = randomise(ClipText(width=WIDTH, heads=2, layers=2, embed_dim=WIDTH), 4)
    pipe.conditioners = {"text": tower}
    runs, encoded = [], []
    states, encoder = tower.states, vocabulary.tokenizer()
    plain = encoder.encode
    monkeypatch.setattr(tower, "states", lambda ids: runs.append(len(ids)) or states(ids))
    monkeypatch.setattr(encoder, "encode", lambda text: encoded.append(text) or plain(text))
    vocabulary.encode.cache_clear()
    vocabulary._encoded.cache_clear()
    return runs, encoded


def test_a_prompt_of_four_images_in_batches_of_two_through_two_stages_is_encoded_once(monkeypatch):
    pipe = tiny_cascade(sizes=(8, 16), steps=2)
    runs, encoded = counted(monkeypatch, pipe)
    pipe("a red apple", n=4, batch_size=2)
    assert runs == [1, 1]  # the prompt, and nothing
    assert sorted(encoded) == ["a", "apple", "red"]


def test_distinct_texts_are_encoded_once_whatever_they_are_asked_for(monkeypatch):
    pipe = tiny_cascade(sizes=(8, 16), steps=2)
    runs, encoded = counted(monkeypatch, pipe)
    prompts = ["sun", "moon", "sun", "a star"]
    pipe(prompts, negative=["dull", "", "dull", "grey"], n=2, batch_size=3)
    assert runs == [3, 3]  # sun, moon, a star; dull, nothing, grey
    assert sorted(encoded) == sorted(["sun", "moon", "a", "star", "dull", "grey"])
    pipe("sun")
    assert runs == [3, 3, 1, 1]  # another call
    assert len(encoded) == 6


def test_what_is_drawn_hangs_neither_on_batches_nor_on_the_other_prompts():
    pipe = tiny_pipeline()
    whole = pipe(["apple", "pear", "sun"], seed=5).samples
    parts = pipe(["apple", "pear", "sun"], seed=5, batch_size=1).samples
    torch.testing.assert_close(whole, parts, rtol=1e-4, atol=1e-5)
    negative = pipe(["apple", "pear"], negative=["dull", ""], seed=5).samples
    assert not torch.allclose(negative[0], whole[0], atol=1e-3)
    torch.testing.assert_close(negative[1], whole[1], rtol=1e-4, atol=1e-5)


def test_a_null_condition_that_is_no_prompts_is_asked_for_once():
    class Stored(LetterCounts):
        """The null condition is a vector of its own, as DeepFloyd's is."""

        asked = 0

        def null(self, batch):
            self.asked += 1
            return Condition(tokens=torch.full((batch, 6, WIDTH), 0.3), vector=torch.zeros(batch, WIDTH))

    stored, pipe = Stored().requires_grad_(False), tiny_pipeline()
    plain = pipe(["apple", "sun"], seed=1).samples
    pipe.conditioners = {"text": stored}
    found = pipe(["apple", "sun"], n=2, batch_size=1, seed=1).samples
    assert stored.asked == 1
    assert not torch.allclose(found[0], plain[0], atol=1e-3)


# -- several conditioners of one stage

A, B = StandIn(context_width=4, length=3, vector_width=2), StandIn(context_width=6, length=3, vector_width=5)


def given(**conditioners):
    return {name: c(["apple", "sun"]) for name, c in conditioners.items()}


def test_tokens_join_side_by_side_and_one_after_the_other_and_vectors_by_width():
    said = given(a=A, b=B)
    wide = join("base", {"tokens": {"join": "width", "of": ["b", "a"]}, "vector": ["a", "b"]}, said)
    assert torch.equal(wide.tokens, torch.cat([said["b"].tokens, said["a"].tokens], dim=2))
    assert torch.equal(wide.vector, torch.cat([said["a"].vector, said["b"].vector], dim=1))
    twice = given(a=A, c=StandIn(context_width=4, length=2))
    long = join("base", {"tokens": {"join": "length", "of": ["a", "c"]}}, twice)
    assert torch.equal(long.tokens, torch.cat([twice["a"].tokens, twice["c"].tokens], dim=1))
    assert long.vector is None  # which nobody asked for
    only = join("base", {"tokens": "a", "vector": "b"}, said)
    assert only.tokens is said["a"].tokens
    assert only.vector is said["b"].vector


def test_masks_follow_their_tokens():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    said = given(a=A, b=A)
    said["a"] = dataclasses.replace(said["a"], mask=mask)
    long = join("base", {"tokens": {"join": "length", "of": ["a", "b"]}}, said)
    assert torch.equal(long.mask, torch.cat([mask, torch.ones(2, 3, dtype=torch.bool)], dim=1))
    wide = join("base", {"tokens": {"join": "width", "of": ["a", "b"]}}, said)
    assert bool(wide.mask.all())  # a position counts if any of its halves does


@pytest.mark.parametrize(
    ("listens", "refusal"),
    [
        (("a", "b"), "condition-join-missing: 'a'"),
        ({"tokens": {"join": "length", "of": ["a", "b"]}}, "condition-width-unfit"),
        ({"tokens": {"join": "width", "of": ["a", "c"]}}, "condition-width-unfit"),
        ({"label": "a"}, "condition-field-missing: 'a'"),
    ],
)
def test_what_cant_join_is_refused_and_never_replaced(listens, refusal):
    with refused(refusal, UsageError):
        join("base", listens, given(a=A, b=B, c=StandIn(context_width=4, length=2)))


def config(listens, *, width=10, vector=None, **conditioners):
    network = {
        "name": "unet", "in_channels": 3, "out_channels": 3, "width": 32, "mult": [1], "blocks": 1, "groups": 8,
        "heads": 4, "attention_levels": [0], "context_width": width, "vector_width": vector,
        **({} if width else {"attention": "plain"}),
    }  # fmt: skip
    made = pixels(network=network, size=8, guidance=[{"name": "classifier-free", "scale": 2.0}])
    stage = {**made["stages"][0], "listens": listens}
    standing = {
        "a": {"name": "stand-in", "context_width": 4, "length": 3, "vector_width": 2},
        "b": {"name": "stand-in", "context_width": 6, "length": 3, "vector_width": 5},
        "sizes": {"name": "numbers", "width": 4}, **conditioners,
    }  # fmt: skip
    return {**made, "conditioners": standing, "stages": [stage]}


JOINED = {"tokens": {"join": "width", "of": ["a", "b"]}, "vector": ["b", "sizes"]}


def test_declared_joins_are_checked_built_and_drawn():
    checked = zoo.check(config(JOINED, vector=29))
    assert checked["stages"][0]["listens"] == JOINED
    assert zoo.check(checked)["stages"][0]["listens"] == JOINED
    made = zoo.build(checked, steps=2)
    randomise(made.stages[0].denoiser.network, 3)  # a fresh network's last layer is zero
    assert made.stages[0].conditioners == ("a", "b", "sizes")
    one = made("apple", seed=1).samples
    assert torch.equal(one, made("apple", seed=1).samples)
    assert not torch.allclose(one, made("pear", seed=1).samples, atol=1e-4)
    assert not torch.allclose(one, made("apple", negative="pear", seed=1).samples, atol=1e-5)


@pytest.mark.parametrize(
    ("listens", "changes", "refusal"),
    [
        (
            ["a", "b"],
            {},
            "condition-join-missing: 'a'",
        ),
        ({"tokens": ["a", "b"]}, {}, "condition-join-missing"),
        ({"tokens": {"join": "depth", "of": ["a", "b"]}}, {}, "choice-unknown: 'depth'"),
        ({"tokens": {"join": "length", "of": ["a", "b"]}}, {}, "condition-width-unfit"),
        ({"tokens": {"join": "width", "of": ["a", "a"]}}, {}, "entries-repeated: 'a'"),
        ({"tokens": "a"}, {}, "condition-width-unfit: 'a'"),
        (JOINED, {"vector": 28}, "condition-width-unfit: 'sizes'"),
        ({"tokens": "c"}, {}, "conditioner-unknown: 'c'"),
        ({"token": "a"}, {}, "condition-field-unknown: 'tokens'"),
        ({"tokens": "sizes"}, {}, "condition-field-missing: 'sizes'"),
        ({"label": ["a", "b"]}, {}, "listens-invalid: label"),
        ({"vector": ["sizes"]}, {"width": None, "vector": 24}, "conditioner-missing"),
        ("a", {}, "listens-invalid"),
    ],
)
def test_what_doesnt_join_is_refused_by_the_check(listens, changes, refusal):
    with refused(refusal, ConfigError):
        zoo.check(config(listens, **changes))


def test_a_width_that_a_check_refuses_fails_when_it_is_forced():
    for bad in (config({"tokens": "a"}), config(JOINED, vector=28), config(["a", "b"])):
        with pytest.raises((RuntimeError, UsageError)):
            forced.built(bad)("apple", steps=1)


# -- other sources than prompts and labels


class Seen(nn.Module):
    """Answers by what it is conditioned on."""

    reads = ("vector", "image", "guidance", "level")
    scalars = ("guidance",)

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x, time, *, vector, image=None, guidance=None, level=None):
        self.seen.append({"vector": vector, "image": image, "guidance": guidance})
        shift = vector.mean(1) * 1e-3 + (0 if image is None else image.mean(1))
        return 0.1 * x + shift.view(-1, 1, 1, 1)


class Means:
    """An image's mean colours, twice."""

    source = "image"
    fills: ClassVar = {"image": ()}

    def __init__(self):
        self.asked = []

    def __call__(self, images):
        self.asked.append(len(images))
        return Condition(image=torch.stack([i.mean((1, 2)) for i in images]))

    def null(self, batch):
        return Condition(image=torch.zeros(batch, 3))


def seen_pipeline(**conditioners):
    denoiser = Denoiser(network=Seen(), schedule=CosineSchedule(), parameterization=V())
    stages = [
        Stage(
            name=f"s{size}", denoiser=denoiser, autoencoder=Identity(), sampler=DDIM(steps=2), space=Images(size),
            guidance=(ClassifierFree(scale=3.0),), listens=tuple(conditioners),
            takes="noise" if size == 8 else "image",
        )
        for size in (8, 16)
    ]  # fmt: skip
    return Pipeline(conditioners=conditioners, stages=stages)


def test_a_requests_numbers_are_each_stages_own_and_the_same_with_and_without_a_prompt():
    numbers = Numbers(names=["target_height", "target_width", "guidance"], width=4)
    pipe = seen_pipeline(text=StandIn(context_width=3, length=2), sizes=numbers)
    pipe("apple", size=(32, 16), n=2, guidance=5.0)
    seen = pipe.stages[0].denoiser.network.seen
    for call, (height, width) in zip(seen, [(16.0, 8.0)] * 2 + [(32.0, 16.0)] * 2, strict=True):
        wanted = numbers([{"target_height": height, "target_width": width, "guidance": 5.0}] * 4)
        assert torch.equal(call["vector"], wanted.vector)
        assert call["guidance"].tolist() == [5.0] * 4


def test_an_image_may_be_what_a_conditioner_is_given():
    means, image = Means(), torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))
    pipe = seen_pipeline(sizes=Numbers(names=["height"], width=2), image=means)
    made = pipe(image=image, n=3, batch_size=2, seed=1)
    assert means.asked == [1]  # one image, whatever is drawn of it
    seen = pipe.stages[0].denoiser.network.seen[0]["image"]
    torch.testing.assert_close(seen[0], (image * 2 - 1).mean((1, 2)), atol=0.01, rtol=0)
    assert seen[2].tolist() == [0.0] * 3  # the null condition's rows
    other = pipe(image=1 - image, n=3, seed=1)
    assert not torch.allclose(made.samples, other.samples, atol=1e-3)
    for changes, refusal in (({}, "image-missing"), ({"image": image, "strength": 0.5}, "image-is-no-start")):
        with refused(refusal):
            pipe(**changes)


def test_networks_without_words_for_what_they_read_are_handed_all_but_scalars():
    network = randomise(TinyNet(), 1)
    cond = Condition(tokens=torch.ones(1, 2, WIDTH), scalars={"guidance": torch.ones(1)})
    denoiser = Denoiser(network=network, schedule=CosineSchedule(), parameterization=V())
    assert denoiser(torch.ones(1, 3, 8, 8), 0.5, cond).x0.shape == (1, 3, 8, 8)
