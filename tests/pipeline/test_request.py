"""A request as plain data: JSON and back, unlike samples in one call, each as it would be alone, and its record."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import zoo
from tests.refusals import refused
from tests.tiny import tiny_cascade, tiny_pipeline
from zoo.diffusion.noise import AddressedNoise
from zoo.inspection.replay import replay
from zoo.pipeline.pipeline import Pipeline
from zoo.pipeline.request import Request, SampleSpec
from zoo.records.reading import read_record, record_of
from zoo.schema.errors import UsageError

WITHIN = 1.0 / 255.0  # of images
ROUNDED = 2e-5  # of toys' samples, whose decoder shows little of what differs
SHA = "0" * 64
UNLIKE = (
    SampleSpec(prompt="cat", seed=1, guidance=3.0),
    SampleSpec(prompt="a dog", negative="blue", seed=2, index=5, guidance=1.0),
    SampleSpec(seed=1, index=7, guidance=-2.5),
    SampleSpec(prompt="cat", seed=2**63, guidance=0.0),
    SampleSpec(prompt="bird", negative="red"),  # the stage's own scale
)
PICTURE = Image.fromarray(np.random.default_rng(3).integers(0, 255, (32, 32, 3), dtype=np.uint8))
WHITE = Image.fromarray(np.pad(np.full((12, 12), 255, dtype=np.uint8), 10))

specs = st.builds(
    SampleSpec,
    prompt=st.text(max_size=9), negative=st.text(max_size=9), label=st.none() | st.integers(0, 9) | st.text(max_size=5),
    seed=st.integers(0, 2**64 - 1), index=st.integers(0, 2**32), guidance=st.none() | st.floats(-50, 50),
    steps=st.none() | st.integers(1, 99), sampler=st.none() | st.just("heun") | st.just({"name": "ddim", "eta": 0.5}),
    image=st.none() | st.just(SHA), mask=st.none() | st.just(SHA), strength=st.none() | st.floats(0.01, 1.0),
)  # fmt: skip


@given(st.lists(specs, min_size=1, max_size=4), st.none() | st.tuples(st.integers(1, 99), st.integers(1, 99)))
@settings(max_examples=60, deadline=None)
def test_a_request_is_the_same_after_json(samples, size):
    request = Request(samples=tuple(samples), size=size, batch_size=2)
    assert Request.from_json(request.to_json()) == request
    assert json.loads(request.to_json()) == request.to_dict()


def test_numpys_numbers_are_plain_ones_in_a_request():
    spec = SampleSpec(
        prompt="sun", label=np.int64(3), seed=np.int64(4), index=np.uint64(2**64 - 1), guidance=np.float32(2.5),
        steps=np.int32(6), strength=np.float32(0.5),
    )  # fmt: skip
    request = Request(samples=(spec for _ in range(2)), size=(np.int64(64), 64), batch_size=np.int64(2))
    assert len(request.samples) == 2
    assert Request.from_json(request.to_json()) == request


@pytest.mark.parametrize("size", [64, "64", (), (0.5, 64), (64, -1)])
def test_a_size_that_is_none_is_refused_in_python_too(size):
    with refused("size-invalid", UsageError):
        Request(samples=(SampleSpec(),), size=size)


def test_what_is_wrong_in_a_request_is_not_called_wrong_json():
    with refused("request-invalid", UsageError, naming="samples[0]"):
        Request.from_json('{"schema": "zoo.request/1", "samples": [{"steps": 0}]}')


WRONG = {
    "no schema": ({"samples": [{}]}, "schema-unknown: zoo.request/1"),
    "no samples": ({"schema": "zoo.request/1"}, "request-invalid"),
    "none": ({"schema": "zoo.request/1", "samples": []}, "request-invalid"),
    "a key": ({"schema": "zoo.request/1", "samples": [{}], "path": "/"}, "request-key-unknown: path"),
    "a sample's key": ({"schema": "zoo.request/1", "samples": [{"file": "a.png"}]}, "request-key-unknown: file"),
    "a prompt": ({"schema": "zoo.request/1", "samples": [{"prompt": 5}]}, "request-invalid: 5"),
    "a seed": ({"schema": "zoo.request/1", "samples": [{"seed": -1}]}, "request-invalid: -1"),
    "a true seed": ({"schema": "zoo.request/1", "samples": [{"seed": True}]}, "request-invalid: True"),
    "guidance": ({"schema": "zoo.request/1", "samples": [{"guidance": "3"}]}, "guidance-out-of-range: 3"),
    "steps": ({"schema": "zoo.request/1", "samples": [{"steps": 0}]}, "request-invalid"),
    "an image": ({"schema": "zoo.request/1", "samples": [{"image": "/etc/passwd"}]}, "request-invalid: 64"),
    "strength": ({"schema": "zoo.request/1", "samples": [{"strength": 2}]}, "request-invalid: 2"),
    "size": ({"schema": "zoo.request/1", "samples": [{}], "size": "64"}, "size-invalid: 64"),
    "batch": ({"schema": "zoo.request/1", "samples": [{}], "batch_size": 0}, "request-invalid: batch_size"),
}


@pytest.mark.parametrize(("written", "sentence"), WRONG.values(), ids=WRONG)
def test_a_request_of_another_form_is_refused(written, sentence):
    with refused(sentence, UsageError):
        Request.from_dict(written)
    with refused("request-invalid", UsageError):
        Request.from_json("{")


TEXTS = {
    "a key twice": ('{"schema": "zoo.request/1", "samples": [{"seed": 1, "seed": 2}]}', "request-invalid: seed"),
    "samples twice": ('{"schema": "zoo.request/1", "samples": [{}], "samples": [{}]}', "request-invalid: samples"),
    "NaN": ('{"schema": "zoo.request/1", "samples": [{"guidance": NaN}]}', "request-invalid"),
    "another encoding": ('{"schema": "zoo.request/1", "samples": [{}]}'.encode("utf-16"), "request-invalid"),
    "deep": ("[" * 10**5, "request-invalid"),
    "a bomb": ("[" + "{}," * 10**6 + "{}]", "request-invalid: 500000"),
    "no text": (5, "request-invalid"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), TEXTS.values(), ids=TEXTS)
def test_a_text_that_says_no_one_request_is_refused(text, sentence):
    with refused(sentence, UsageError):
        Request.from_json(text)


def test_more_samples_than_memory_holds_are_refused():
    with refused("count-out-of-range", UsageError, naming="65537"):
        Request(samples=(SampleSpec(),) * (2**16 + 1))
    with refused("count-out-of-range", UsageError, naming="65537"):
        Request.from_dict({"schema": "zoo.request/1", "samples": [{}] * (2**16 + 1)})


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"steps": 0}, "request-invalid"), ({"file": "a"}, "request-key-unknown"), ({"seed": 2**64}, "request-invalid"),
        ({"sampler": {"a": float("nan")}}, "config-not-finite"),
    ],
)  # fmt: skip
def test_an_error_says_which_sample_it_is_about(wrong, code):
    with refused(code, UsageError, naming="samples[2]: "):
        Request.from_dict({"schema": "zoo.request/1", "samples": [{}, {}, wrong]})


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline(steps=3, eta=0.5)


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def alone(pipe: Pipeline, spec: SampleSpec, **named):
    return pipe.run(Request(samples=(spec,)), **named)


def test_a_call_is_a_request(pipe):
    made = pipe(["cat", "dog"], negative="red", n=2, seed=4, guidance=2.0)
    samples = tuple(
        SampleSpec(prompt=p, negative="red", seed=4, index=i, guidance=2.0)
        for i, p in enumerate(["cat", "cat", "dog", "dog"])
    )
    again = pipe.run(Request(samples=samples))
    assert torch.equal(again.tensor, made.tensor)
    assert {**again.record, "seconds": 0} == {**made.record, "seconds": 0}


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_cascade])
def test_each_of_unlike_samples_is_what_it_is_alone(make):
    pipe = make(steps=3)
    for samples in (UNLIKE, UNLIKE[::-1], UNLIKE[1:3]):
        made = pipe.run(Request(samples=samples))
        for i, spec in enumerate(samples):
            assert apart(made.samples[i], alone(pipe, spec).samples[0]) <= ROUNDED
    assert apart(made.samples[0], made.samples[1]) > 100 * ROUNDED


@pytest.mark.parametrize("words", [5, [], [None, "sun"], ["sun", 3]])
def test_words_that_are_no_texts_are_refused(pipe, words):
    with refused("prompt-type-wrong", UsageError):
        pipe(words)
    with refused("prompt-type-wrong", UsageError):
        pipe(["sun", "moon"], negative=words)


def test_a_scale_of_ones_own_is_followed(pipe):
    samples = tuple(SampleSpec(prompt="cat", seed=1, guidance=scale) for scale in (1.5, 3.0, 8.0))
    made = pipe.run(Request(samples=samples))
    assert apart(made.samples[0], made.samples[1]) > 10 * ROUNDED
    assert apart(made.samples[1], pipe("cat", seed=1, guidance=3.0).samples[0]) <= ROUNDED


def test_samples_of_one_plan_share_network_calls(pipe):
    calls = []
    handle = pipe.stages[0].denoiser.network.register_forward_hook(lambda *a: calls.append(len(a[1][0])))
    samples = [spec for spec in UNLIKE if spec.guidance != 0.0]
    pipe.run(Request(samples=tuple(samples)))
    assert calls == [2 * len(samples)] * 3
    calls.clear()
    pipe.run(Request(samples=tuple(samples), batch_size=2))
    assert calls == [4] * 6
    calls.clear()
    pipe.run(Request(samples=(*samples, dataclasses.replace(samples[0], steps=2))))
    assert calls == [2 * len(samples)] * 3 + [2] * 2
    handle.remove()


def test_progress_counts_all_plans(pipe):
    seen = []
    samples = tuple(SampleSpec(prompt="cat", steps=steps) for steps in (3, 2, 3))
    pipe.run(Request(samples=samples), callback=lambda p: seen.append((p.done, p.total, p.steps)))
    assert seen == [(1, 5, 3), (2, 5, 3), (3, 5, 3), (4, 5, 2), (5, 5, 2)]


def test_starts_of_every_kind_stand_in_one_request(pipe):
    whole, part = pipe.inputs(image=PICTURE), pipe.inputs(image=PICTURE, mask=WHITE)
    other = pipe.inputs(image=PICTURE.rotate(90), mask=WHITE.rotate(45))
    tensors = {**whole.tensors, **part.tensors, **other.tensors}
    samples = (
        SampleSpec(prompt="cat", image=part.image, mask=part.mask, seed=3),
        SampleSpec(prompt="cat", seed=3),
        SampleSpec(prompt="cat", image=other.image, mask=other.mask, seed=3, guidance=2.0),
        SampleSpec(prompt="cat", image=whole.image, strength=0.5, seed=3),
    )
    made = pipe.run(Request(samples=samples), inputs=tensors)
    assert apart(made.samples[0], pipe("cat", image=PICTURE, mask=WHITE, seed=3).samples[0]) <= ROUNDED
    assert apart(made.samples[1], pipe("cat", seed=3).samples[0]) <= ROUNDED
    assert apart(made.samples[3], pipe("cat", image=PICTURE, strength=0.5, seed=3).samples[0]) <= ROUNDED
    turned = pipe("cat", image=PICTURE.rotate(90), mask=WHITE.rotate(45), seed=3, guidance=2.0)
    assert apart(made.samples[2], turned.samples[0]) <= ROUNDED
    assert record_of(made.record, 2)["inputs"] == turned.record["inputs"] == {"image": other.image, "mask": other.mask}


def test_what_a_pipeline_cannot_do_is_refused_before_a_network_runs(pipe):
    found = pipe.inputs(image=PICTURE)
    wrong = {SHA: found.tensors[found.image]}
    for spec, inputs, sentence in (
        (SampleSpec(label=3), {}, "labels-unread"),
        (SampleSpec(image=SHA), {}, "input-missing"),
        (SampleSpec(image=SHA), wrong, "input-hash-wrong"),
        (SampleSpec(mask=SHA), {}, "image-missing"),
        (SampleSpec(strength=0.5), {}, "image-missing"),
        (SampleSpec(sampler="heun"), {}, "sampler-by-hand"),
    ):
        with refused(sentence, UsageError):
            alone(pipe, spec, inputs=inputs)


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"label": 3}, "labels-unread"), ({"image": SHA}, "input-missing"), ({"mask": SHA}, "image-missing"),
        ({"strength": 0.5}, "image-missing"), ({"image": SHA, "mask": SHA}, "input-missing"),
    ],
)  # fmt: skip
def test_what_a_pipeline_cannot_do_is_said_of_a_sample(pipe, wrong, code):
    with refused(code, UsageError, naming="samples[1]"):
        pipe.run(Request(samples=(SampleSpec(prompt="cat"), SampleSpec(**wrong))))


def test_a_label_that_is_none_is_said_of_its_sample():
    pipe = zoo.build("class2img", steps=1)
    with refused("label-unknown", UsageError, naming="samples[2]"):
        pipe.run(Request(samples=tuple(SampleSpec(label=label) for label in (0, 1, 99, 1))))


def test_given_noise_takes_the_place_of_seeds(pipe):
    made = pipe.run(Request(samples=(SampleSpec(prompt="cat", seed=9),)), noise=AddressedNoise(4))
    assert torch.equal(made.tensor, pipe("cat", seed=4).tensor)


MIXED = (
    SampleSpec(prompt="red apple, 3d style", seed=1),
    SampleSpec(prompt="sun", seed=2, steps=3, guidance=2.0),
    SampleSpec(prompt="sun", seed=2, sampler="heun", steps=2),
    SampleSpec(prompt="green apple", negative="red apple", seed=1, index=3, guidance=6.0),
)


def test_samplers_and_steps_of_ones_own_and_a_record_that_is_replayed(tmp_path: Path):
    pipe = zoo.build("latent-text2img", steps=4)
    made = pipe.run(Request(samples=MIXED))
    heun = zoo.build("latent-text2img", sampler="heun", steps=2)("sun", seed=2)
    assert apart(made.tensor[2], heun.tensor[0]) <= WITHIN
    own = record_of(made.record, 2)
    assert own["config"]["stages"][0]["sampler"]["name"] == "heun"
    assert own["stages"] == heun.record["stages"]
    assert record_of(made.record, 1)["asked"]["steps"] == 3
    assert [record_of(made.record, i)["asked"]["guidance"] for i in range(4)] == [None, 2.0, None, 6.0]
    for file in made.save(tmp_path):
        assert "run" not in read_record(file)["images"][0]
        assert replay(file).verdict in ("equal", "within")
    (grid,) = made.save(tmp_path / "grid.png", grid=True)
    verdict = replay(grid)
    assert verdict.verdict in ("equal", "within"), str(verdict)


def test_labels_of_ones_own():
    pipe = zoo.build("class2img", steps=2)
    samples = tuple(SampleSpec(label=label, seed=1, index=i, guidance=1.0 + i) for i, label in enumerate((2, 0, None)))
    made = pipe.run(Request(samples=samples))
    for i, spec in enumerate(samples):
        assert apart(made.tensor[i], alone(pipe, spec).tensor[0]) <= WITHIN
    assert [entry.get("label") for entry in made.record["images"]] == [2, 0, None]
