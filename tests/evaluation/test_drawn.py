"""Pictures of a pipeline by sample id: the same in any batch and order, and for the words of their rows."""

import pytest
import torch

from tests.refusals import refused
from tests.tiny import LetterCounts, tiny_cascade, tiny_pipeline
from zoo.conditioners.class_label import ClassLabel
from zoo.data.image_sets import ArrayPictures
from zoo.data.pixels import to_uint8
from zoo.diffusion.draws import stream
from zoo.diffusion.noise import AddressedNoise, Renumbered
from zoo.evaluation.inputs.generated import HALVINGS, PipelinePictures
from zoo.schema.errors import UsageError

ROWS = [{"text": text, "file_name": f"{i}.png"} for i, text in enumerate(("cat", "dog", "sun"))]


def drawn(count=7, **settings):
    return PipelinePictures(tiny_pipeline(steps=2, eta=1.0), count=count, **{"rows": ROWS, "seed": 3, **settings})


def test_a_samples_noise_is_its_own_wherever_it_stands_in_a_call():
    whole = AddressedNoise(5)((2, 2), purpose="step", samples=range(8), stage=1, step=2)
    some = Renumbered(source=AddressedNoise(5), numbers=(6, 2))((2, 2), purpose="step", samples=[1, 0], stage=1, step=2)
    assert torch.equal(some, whole[[2, 6]])


def test_pictures_are_the_pipelines_for_the_words_of_shuffled_rows():
    pictures = drawn()
    order = [int(i) for i in stream(0, "captions").permutation(3)]
    words = [ROWS[order[i % 3]]["text"] for i in range(7)]
    assert pictures.captions() == words
    expected = to_uint8(tiny_pipeline(steps=2, eta=1.0)(words, seed=3).tensor * 2 - 1)
    later, earlier = pictures([5, 6]), pictures([0, 1, 2, 3, 4])
    found = torch.stack([*earlier, *later])
    assert (found.int() - expected.int()).abs().max() <= 1
    assert (found != expected).float().mean() < 1e-3
    assert not torch.equal(found[0], found[3])  # the same words, other noise


def test_the_mark_names_what_decides_pictures_and_not_how_many():
    assert drawn(7).fingerprint() == drawn(9, batch_size=2).fingerprint()
    marks = {drawn().fingerprint(), drawn(seed=4).fingerprint(), drawn(rows=ROWS[:2]).fingerprint()}
    assert len(marks) == 3


@pytest.mark.slow
def test_out_of_memory_halves_the_batch_and_says_so():
    pictures, whole = drawn(8), drawn(8, batch_size=2)
    calls, ask = [], pictures.pipe

    class Small:
        def __getattr__(self, name):
            return getattr(ask, name)

        def __call__(self, *words, batch_size, **named):
            calls.append(batch_size)
            if batch_size > 2:
                raise torch.OutOfMemoryError("no memory")
            return ask(*words, batch_size=batch_size, **named)

    pictures.pipe = Small()
    found = pictures(range(8))
    assert calls == [8, 4, 2]
    assert dict(pictures.notes) == {"out of memory: batch halved to 4": 1, "out of memory: batch halved to 2": 1}
    assert all(torch.equal(a, b) for a, b in zip(found, whole(range(8)), strict=True))
    pictures(range(4))
    assert calls == [8, 4, 2, 2]


def test_memory_that_never_suffices_is_told_and_other_errors_are_left_alone():
    pictures = drawn(500)

    def never(*words, **named):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    def broken(*words, **named):
        raise RuntimeError("shapes don't fit")

    pictures._draw = never
    with refused("memory-exceeded"):
        pictures(range(500))
    assert sum(pictures.notes.values()) == HALVINGS
    pictures._draw = broken
    with pytest.raises(RuntimeError, match="shapes"):
        pictures(range(3))


def test_what_a_pipeline_needs_to_hear_must_be_there():
    with refused("caption-missing"):
        drawn(rows=None)
    pipe = tiny_pipeline()
    pipe.conditioners = {"text": LetterCounts(), "label": ClassLabel(names=["a", "b"])}
    with refused("metadata-key-missing", UsageError):
        PipelinePictures(pipe, count=2, rows=ROWS)
    with refused("count-out-of-range"):
        drawn(0)


def test_words_that_nobody_knows_are_told_before_anything_is_drawn():
    pipe = tiny_pipeline()
    pipe.conditioners = {"text": ClassLabel(names=["food", "animals"])}
    groups = [{**row, "group": group} for row, group in zip(ROWS, ("food", "animal", "food"), strict=True)]
    with refused("label-unknown", UsageError, naming="'animals'"):
        PipelinePictures(pipe, count=3, rows=groups)
    known = [{**row, "group": "food"} for row in ROWS]
    assert len(PipelinePictures(pipe, count=3, rows=known)) == 3


def test_labels_without_rows_are_every_class_in_turn():
    pipe = tiny_pipeline()
    asked = []
    pipe.conditioners = {"text": ClassLabel(names=["a", "b", "c"])}
    pictures = PipelinePictures(pipe, count=7)
    assert pictures.scheme == "every class in turn"
    pictures.pipe = Recorder(pipe, asked)
    pictures([2, 3, 4])
    assert asked == [[2, 0, 1]]


class Recorder:
    def __init__(self, pipe, asked):
        self.stages, self.conditioners, self.asked = pipe.stages, pipe.conditioners, asked

    def __call__(self, *, labels, n, noise, batch_size):
        self.asked.append(labels)
        from zoo.pipeline.generation import Generation

        made = torch.zeros(len(labels), 3, 8, 8)
        return Generation(samples=made, drawn=made, record={"images": []})


def test_an_enlarging_pipeline_is_shown_the_rows_own_pictures_made_small():
    true = ArrayPictures(torch.arange(3 * 3 * 16 * 16, dtype=torch.uint8).reshape(3, 3, 16, 16))
    pipe = tiny_cascade(sizes=(8, 16), steps=1).stage(1)
    pictures = PipelinePictures(pipe, count=4, rows=ROWS, true=true)
    order = [int(i) for i in stream(0, "captions").permutation(3)]
    small = pictures._small([1, 3])
    expected = torch.stack(true([order[1], order[0]])).float().div(255)
    assert torch.allclose(small, expected.unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)))
    assert pictures(range(2))[0].shape == (3, 16, 16)
    with refused("low-res-missing", UsageError):
        PipelinePictures(pipe, count=4, rows=ROWS)
