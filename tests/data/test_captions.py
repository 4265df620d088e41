"""Captions in other words."""

from __future__ import annotations

import numpy as np

from zoo.data.captions import all_texts, caption, concepts_of_keywords, wordings
from zoo.diffusion.draws import stream

APPLE = {
    "text": "red apple, 3d style", "name": "red apple", "concept": "red apple",
    "keywords": ["apple", "diet", "food", "fruit"],
}  # fmt: skip
CONCEPTS = {"apple": 3, "diet": 1, "food": 48, "fruit": 18}


def test_a_row_without_name_or_keywords_keeps_its_text():
    row = {"text": "something else"}
    assert {caption(row, stream(0, "c", i), keep=0.0) for i in range(20)} == {"something else"}
    assert wordings(row, {}) == []


def test_captions_of_a_row_that_brings_several_are_drawn_from_them():
    row = {**APPLE, "captions": ["one", "two", "three"]}
    said = [caption(row, stream(0, "c", i), keep=0.4) for i in range(900)]
    assert set(said) == {APPLE["text"], "one", "two", "three"}
    assert 0.33 < np.mean([s == APPLE["text"] for s in said]) < 0.47
    assert 130 < said.count("two") < 230
    assert {caption(row, stream(0, "c", i), keep=1.0) for i in range(20)} == {APPLE["text"]}


def test_synonyms_stand_for_the_name_and_common_keywords_beside_it():
    made = wordings(APPLE, CONCEPTS)
    assert "diet, 3d style" in made
    assert "red apple fruit, 3d style" in made
    assert "fruit, 3d style" not in made
    assert "apple, 3d style" not in made  # part of the name
    assert {"a red apple, 3d style", "red apple in 3d style", "3d style, red apple", "red apple"} < set(made)
    assert APPLE["text"] not in made
    assert len(set(made)) == len(made)


def test_what_a_row_says_besides_every_caption_says():
    row = {**APPLE, "text": "mirrored green apple, 3d style", "name": "mirrored green apple", "also": "mirrored green"}
    made = wordings(row, CONCEPTS)
    assert "mirrored green diet, 3d style" in made
    assert all("mirrored green" in said for said in made)


def test_captions_that_are_not_allowed_are_left_out():
    made = wordings(APPLE, CONCEPTS, allowed=lambda text: "diet" not in text)
    assert made
    assert not any("diet" in said for said in made)


def test_concepts_are_counted_once():
    rows = [APPLE, {**APPLE, "text": "red apple, flat style"}, {"text": "x", "name": "pear", "keywords": ["fruit"]}]
    assert concepts_of_keywords(rows) == {"apple": 1, "diet": 1, "food": 1, "fruit": 2}


def test_the_name_of_another_row_is_no_synonym():
    rows = [{"text": "sunset, flat style", "name": "sunset"}] * 4
    sunrise = {"text": "sunrise, flat style", "name": "sunrise", "keywords": ["sunset", "dawn"]}
    made = wordings(sunrise, concepts_of_keywords([*rows, sunrise]))
    assert "dawn, flat style" in made
    assert "sunset, flat style" not in made
    assert "sunrise sunset, flat style" in made


def test_all_words_of_all_captions_are_listed():
    row = {**APPLE, "captions": ["braeburn, 3d style"]}
    assert {"braeburn", "fruit", "apple", "an"} <= {word for text in all_texts([row]) for word in text.split()}
