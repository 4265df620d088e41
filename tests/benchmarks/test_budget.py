"""The weights' budget adds up and fits, and sizes are those that files have."""

from __future__ import annotations

import torch

from benchmarks import budget
from zoo.config.cards import card_names, read_card


def test_eight_bit_sizes_are_those_of_files_that_are_stored_so():
    card = read_card("emoji-classifier-32")
    assert card.file.stat().st_size == budget.int8_bytes(budget.tensors_of(card.name))


def test_a_low_rank_update_has_two_factors_a_matrix():
    tensors = {"a": torch.zeros(10, 4, 3, 3), "b": torch.zeros(7)}
    assert budget.low_rank_bytes(tensors, 2) == 2 * (10 + 36) + 2 * (10 + 2)


def test_the_plan_names_every_file_and_leaves_what_is_to_be_kept_free():
    *files, (name, today, planned, _) = budget.rows()
    assert name == "all"
    assert set(card_names()) <= {file[0] for file in files}
    assert today * budget.MIB == sum(read_card(n).bytes for n in card_names())
    assert abs(planned - sum(file[2] for file in files)) < 1e-9
    assert planned <= budget.ALL - budget.FREE
    # The next denoiser is the recipe's, which is what ships.
    sizes = {file[0]: file[2] for file in files}
    assert abs(sizes["emoji-base-32"] * budget.MIB / read_card("emoji-base-32").bytes - 1.0) < 0.01
