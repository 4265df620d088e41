"""Weights of words: the brackets, and what both schemes make of a window's states."""

import pytest
import torch

from tests.refusals import refused
from zoo.conditioners.emphasis import parse, weigh

READ = {
    "a (red:1.3) apple": [("a ", 1.0), ("red", 1.3), (" apple", 1.0)],
    "(red)": [("red", 1.1)],
    "((red)) [apple]": [("red", 1.21), (" ", 1.0), ("apple", 1 / 1.1)],
    "(a (red:2) one:0.5)": [("a ", 0.5), ("red", 1.0), (" one", 0.5)],
    r"a \(red\) apple\\": [("a (red) apple\\", 1.0)],
    "(red:.5)": [("red", 0.5)],
    "at 10:30 (at 9:x)": [("at 10:30 ", 1.0), ("at 9:x", 1.1)],
    "": [],
    "()": [],
}


@pytest.mark.parametrize("prompt", READ)
def test_brackets_give_words_their_weights(prompt):
    found = parse(prompt)
    assert [text for text, _ in found] == [text for text, _ in READ[prompt]]
    assert [weight for _, weight in found] == pytest.approx([weight for _, weight in READ[prompt]])


@pytest.mark.parametrize("prompt", ["a (red", "red) apple", "[red)", "(a [b) c]"])
def test_a_bracket_without_its_other_half_is_refused(prompt):
    with refused("prompt-brackets-unbalanced"):
        parse(prompt)


def test_a_weight_of_more_than_ten_is_refused():
    with refused("number-out-of-range", naming="30"):
        parse("(at 9:30)")


def test_both_schemes_are_what_they_say_window_by_window():
    draw = torch.Generator().manual_seed(0)
    states, empty = torch.randn(3, 5, 4, generator=draw) + 0.3, torch.randn(1, 5, 4, generator=draw)
    weights = torch.ones(3, 5)
    weights[0, 2], weights[2, 1:3] = 1.5, 0.5
    by_mean, by_empty = (weigh(states, weights, scheme, empty) for scheme in ("mean", "empty"))
    for row in range(3):
        for token in range(5):
            w = weights[row, token]
            expected = empty[0, token] + w * (states[row, token] - empty[0, token])
            assert torch.allclose(by_empty[row, token], expected)
        plain = torch.stack([weights[row, token] * states[row, token] for token in range(5)])
        assert torch.allclose(by_mean[row], plain * (states[row].mean() / plain.mean()))
    assert torch.equal(by_mean[1], states[1])
    assert torch.equal(by_empty[1], states[1])
    assert not torch.allclose(by_mean[0], states[0])
