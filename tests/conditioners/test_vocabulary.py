"""Token ids are open_clip's, also of texts whose words are encoded one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.tokenizer import SimpleTokenizer

from zoo.conditioners import vocabulary

pytestmark = pytest.mark.peer
THEIRS = SimpleTokenizer()
TEXTS = (
    "red apple, 3d style", "Red  APPLE,3D style ", "a cat-face in noto style", "e.g. U.S. flag, no. 10", "-- , .",
    "it's a dog's life", "&amp; more", "<end_of_text> x", "naïve café", "ａｂｃ ｄ", "tab\tand\nline", "1st 2nd 10,000",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_as_open_clip_encodes(text):
    assert list(vocabulary.encode(text)) == THEIRS.encode(text)


@given(st.lists(st.text("aAzZ019 ,.-'&;<ß", max_size=6), max_size=6).map(" ".join))
@settings(max_examples=300, deadline=None)
def test_as_open_clip_encodes_anything(text):
    assert list(vocabulary.encode(text)) == THEIRS.encode(text)


def test_as_open_clip_pads():
    ours = vocabulary.tokenize(TEXTS, context_length=77, pad=0)
    assert ours.equal(THEIRS(list(TEXTS), context_length=77))
