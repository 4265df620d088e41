"""The arguments of a call as callers have them: numpy's and torch's numbers and arrays, odd sizes, too many samples."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

import zoo
from tests.refusals import refused
from tests.tiny import tiny_pipeline
from zoo.pipeline.pipeline import Pipeline
from zoo.schema.errors import UsageError, ZooError


@pytest.fixture(scope="module")
def pipe() -> Pipeline:
    return tiny_pipeline(steps=1)


@pytest.fixture(scope="module")
def classes() -> Pipeline:
    return zoo.build("class2img", steps=1)


def seeds_of(made) -> list[tuple[int, int]]:
    return [(entry.get("seed", made.record.get("seed")), entry["sample"]) for entry in made.record["images"]]


@pytest.mark.parametrize(
    "seed", [[3, 4], (3, 4), np.array([3, 4]), torch.tensor([3, 4]), range(3, 5), [np.int64(3), torch.tensor(4)]]
)
def test_seeds_are_listed_in_any_way(pipe, seed):
    assert seeds_of(pipe(["cat", "dog"], seed=seed)) == [(3, 0), (4, 0)]


@pytest.mark.parametrize("seed", [5, np.int64(5), np.array(5), torch.tensor(5), np.uint8(5)])
def test_one_seed_is_any_whole_number(pipe, seed):
    assert seeds_of(pipe("cat", n=2, seed=seed)) == [(5, 0), (5, 1)]


@pytest.mark.parametrize(
    "seed",
    [
        None, 1.0, "1", b"1", True, -1, 2**64, np.array([1.5]), np.array([[1]]), {1}, {1: 2}, [1.5], [None], [],
        np.array([]), torch.tensor(1.0), itertools.count(), object(), [True],
    ],
)  # fmt: skip
def test_what_is_no_seed_is_refused(pipe, seed):
    with refused("seed-invalid|counts-differ", UsageError, naming="seed"):
        pipe("cat", seed=seed)


@pytest.mark.parametrize(
    "size", [32, np.int64(32), (32, 32), [32, 32], np.array([32, 32]), torch.tensor([32, 32]), np.array(32)]
)
def test_a_size_is_any_whole_number_or_two(pipe, size):
    assert pipe("cat", size=size).tensor.shape[2:] == (32, 32)


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ([32], "size-invalid"), ((32, 32, 32), "size-invalid"), (np.array([32]), "size-invalid"),
        ("32", "size-invalid: 32"), ("32x32", "size-invalid"), (32.0, "size-invalid: 32.0"), (True, "size-invalid"),
        ((), "size-invalid"),
        (0, "size-invalid"), ([32, -32], "size-invalid"), ({32}, "size-invalid"), (b"ab", "size-invalid"), ([32, None],
         "size-invalid"),
        (30, "size-indivisible"), (2**20, "size-invalid: 64000000"), ((8, 2**40), "size-invalid: 64000000"),
        (itertools.repeat(32), "size-invalid"),
    ],
)  # fmt: skip
def test_what_is_no_size_is_refused(pipe, size, sentence):
    with refused(sentence, UsageError):
        pipe("cat", size=size)


@pytest.mark.parametrize("labels", [3, np.int64(3), np.array(3), torch.tensor(3), [np.int64(3)], np.array([3])])
def test_labels_are_numpys_too(classes, labels):
    made = classes(labels=labels)
    assert [entry["label"] for entry in made.record["images"]] == [3]


@pytest.mark.parametrize("labels", [True, 1.0, [[1]], [{}], {}, [], np.array([]), np.array([1.5]), object(), [b"a"]])
def test_what_is_no_label_is_refused(classes, labels):
    with refused("label-invalid", UsageError):
        classes(labels=labels)


@pytest.mark.parametrize("n", [2**16 + 1, 10**12])
def test_more_samples_than_memory_holds_are_refused(pipe, n):
    with refused("count-out-of-range", UsageError):
        pipe("cat", n=n)


def _shown(value):
    """As text, that of a set in one order: workers compare the names of tests."""
    return str(sorted(value)) if isinstance(value, set) else repr(value)


@pytest.mark.parametrize(
    "wrong",
    [
        {"n": 0}, {"n": 1.0}, {"n": "2"}, {"steps": 10**9},
        {"steps": 2.0}, {"guidance": "3"}, {"guidance": torch.tensor(3.0)}, {"stages": 0}, {"stages": 1.0},
        {"batch_size": 0}, {"batch_size": 1.5}, {"strength": "1"}, {"noise": 5}, {"noise": "x"}, {"image": 5},
        {"prompts": {"cat", "dog"}}, {"prompts": {"cat": 1}}, {"labels": {1, 2}}, {"negative": {"cat"}},
        {"guidance": 10**400}, {"strength": 10**400}, {"noise": torch.zeros(2, 3, 32, 32)}, {"callback": 3},
        {"noise": {}}, {"noise": {"start": 3}}, {"noise": torch.zeros(1)}, {"noise": {5: torch.zeros(1, 4, 4, 4)}},
        {"noise": np.zeros((1, 4, 4, 4))}, {"noise": torch.full((1, 3, 4, 4), float("nan"))}, {"noise": [1]},
    ],
    ids=lambda wrong: f"{next(iter(wrong))} {_shown(next(iter(wrong.values()))):.20}",
)  # fmt: skip
def test_any_other_wrong_argument_is_refused_in_a_sentence(pipe, wrong):
    with pytest.raises(UsageError):
        pipe(**{"prompts": "cat", **wrong})


def test_noise_is_numpys_too(pipe):
    stage = pipe.stages[0]
    noise = torch.randn(1, stage.autoencoder.channels, *(s // stage.autoencoder.factor for s in stage.lengths(None)))
    assert torch.equal(pipe("cat", noise=noise.numpy()).tensor, pipe("cat", noise=noise).tensor)


def test_check_refuses_what_a_call_refuses_and_runs_no_network(pipe):
    ran = []
    handle = pipe.stages[0].denoiser.network.register_forward_hook(lambda *_: ran.append(1))
    for wrong in ({"seed": -1}, {"image": "none.png"}, {"strength": 0.5}, {"size": 30}, {"steps": 10**9}):
        with pytest.raises(ZooError):
            pipe.check("cat", **wrong)
    checked = pipe.check("cat", seed=3)
    assert not ran
    assert torch.equal(pipe.draw(checked).tensor, pipe("cat", seed=3).tensor)
    assert ran
    handle.remove()
