"""The stand-in for text encoders: shapes, and equal tokens for equal prompts."""

import torch

from zoo.conditioners.placeholder import StandIn


def test_tokens_and_vector_depend_on_the_prompt_alone():
    made = StandIn(context_width=6, length=3, vector_width=5)(["apple", "pear", "apple"])
    assert made.tokens.shape == (3, 3, 6)
    assert made.vector.shape == (3, 5)
    assert torch.equal(made.tokens[0], made.tokens[2])
    assert not torch.equal(made.tokens[0], made.tokens[1])
    assert torch.equal(StandIn(context_width=6, length=3)(["pear"]).tokens[0], made.tokens[1])


def test_nothing_asked_is_the_empty_prompt_and_what_is_off_is_none():
    stand_in = StandIn(context_width=None, vector_width=2)
    assert torch.equal(stand_in.null(2).vector, stand_in(["", ""]).vector)
    assert stand_in.null(1).tokens is None
