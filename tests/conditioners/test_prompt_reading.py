"""Windows of a CLIP's prompts: what is cut is named, what is long is read whole, and no prompt depends on another."""

import warnings

import pytest
import torch

from tests.networks.random_weights import randomise, relative
from tests.refusals import refused
from zoo.conditioners import vocabulary
from zoo.conditioners.clip_text import ClipText
from zoo.conditioners.prompt_reading import Reading
from zoo.diffusion.types import Condition
from zoo.schema.errors import RequestNote

ROOM = 10
SMALL = {"width": 16, "heads": 2, "layers": 3, "context_length": ROOM + 2, "embed_dim": 8}
LONG = "one two three four five six seven eight nine ten eleven twelve"  # a token each


def tower(**reading):
    made = randomise(ClipText(**SMALL))
    made.reading = Reading(**reading)
    return made.eval()


def ids(window):
    return [vocabulary.text_of([i]) for i in window.ids]


def test_a_longer_prompt_is_refused_unless_something_else_is_said():
    with refused("prompt-too-long", naming="12 tokens; this model reads 10"):
        Reading().windows(LONG, ROOM)


def test_what_is_cut_off_is_named():
    model = tower(long="cut")
    assert [ids(w) for w in model.reading.windows(LONG, ROOM)] == [LONG.split()[:ROOM]]
    with pytest.warns(RequestNote, match="left out: 'eleven twelve'"):
        model.check([LONG])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.check(["one two"])
    with torch.no_grad():
        assert torch.equal(model([LONG]).tokens, model([" ".join(LONG.split()[:ROOM])]).tokens)


@torch.no_grad()
def test_a_long_prompt_is_its_windows_one_after_the_other():
    model = tower(long="chunks")
    words = LONG.split()
    assert [ids(w) for w in model.reading.windows(LONG, ROOM)] == [words[:ROOM], words[ROOM:]]
    whole, parts = model([LONG]), [model([" ".join(words[:ROOM])]), model([" ".join(words[ROOM:])])]
    assert relative(whole.tokens, torch.cat([part.tokens for part in parts], dim=1)) < 1e-12
    assert relative(whole.vector, parts[0].vector) < 1e-12
    assert whole.mask is None


@torch.no_grad()
def test_a_short_prompt_beside_a_long_one_counts_its_own_tokens_alone():
    model = tower(long="chunks")
    both, alone = model([LONG, "one"]), model(["one"])
    assert both.tokens.shape == (2, 2 * (ROOM + 2), 16)
    assert both.mask.tolist() == [[True] * 2 * (ROOM + 2), [True] * (ROOM + 2) + [False] * (ROOM + 2)]
    assert relative(both.tokens[1:, : ROOM + 2], alone.tokens) < 1e-12
    stacked = Condition.stack([model([LONG]), alone])
    assert torch.equal(stacked.mask, both.mask)
    assert torch.equal(Condition.stack([both, stacked]).mask, torch.cat([both.mask, stacked.mask]))


@torch.no_grad()
def test_words_are_weighted_where_they_stand():
    model, plain = tower(weighting="empty"), tower()
    states, empty = plain(["one two three"]).tokens, plain([""]).tokens
    found = model(["one (two:1.5) three"]).tokens
    expected = states.clone()
    expected[:, 2] = empty[:, 2] + 1.5 * (states[:, 2] - empty[:, 2])
    assert relative(found, expected) < 1e-6
    assert relative(found, states) > 1e-3
    assert torch.equal(model(["one two three"]).tokens, states)
    assert torch.equal(model(["one (two:1.5) three"]).vector, plain(["one two three"]).vector)
    # Without a scheme brackets are signs.
    assert relative(plain(["one (two:1.5) three"]).tokens, states) > 1e-3


def test_learned_tokens_are_whole_words_in_any_case_and_stay_together():
    start = vocabulary.VOCABULARY
    learned = {"<cat>": range(start, start + 3), "toy": range(start + 3, start + 4)}
    reading = Reading("chunks", None, learned)

    def read(prompt, room=75):
        return [w.ids for w in reading.windows(prompt, room)]

    a, b = vocabulary.encode("a")[0], vocabulary.encode("b")[0]
    assert read("a <Cat>b TOY") == [[a, start, start + 1, start + 2, b, start + 3]]
    assert read("toys") == [list(vocabulary.encode("toys"))]
    assert read("a b <cat>", room=4) == [[a, b], [start, start + 1, start + 2]]
    assert Reading("cut", None, learned).lost("a b <cat> toy a", 4) == "<cat> toy a"
