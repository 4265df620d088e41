"""How prompts are read by the words of a model's data."""

from __future__ import annotations

import importlib.util
import json
import warnings
from pathlib import Path

import pytest

import zoo
from tests.refusals import refused
from zoo.conditioners.vocabulary import encode
from zoo.conditioners.words import Name, Words, of_captions, read_words, refuse_unknown, words_of
from zoo.config.check import resolve
from zoo.schema.errors import RequestNote, WeightsError

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "zoo" / "weights" / "emoji-words.json"


@pytest.fixture(scope="module")
def words() -> Words:
    return read_words(FILE)


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("apples, 3d style", "apple, 3d style"),
        ("wolves", "wolf"),
        ("cherry", "cherry"),
        ("berries", "berries"),  # as the data says it
        ("mice", "mouse"),
        ("boxes", "box"),
        ("scissor", "scissors"),
        ("\N{RED APPLE}", "red apple"),
        ("\N{RED APPLE}, 3d style", "red apple, 3d style"),
        ("red apple \N{RED APPLE}, 3d style", "red apple, 3d style"),
        ("\N{HEAVY BLACK HEART}\ufe0f", "red heart"),
        ("\N{HEAVY BLACK HEART}", "red heart"),
        ("\N{ADULT}\u200d\N{ROCKET}", "astronaut"),  # a sequence, not an adult and a rocket
    ],
)
def test_a_prompt_is_read_in_words_of_the_data(words, prompt, text):
    reading = words.read(prompt)
    assert reading.text == text
    assert reading.unknown is None
    assert bool(reading.notes) == (text != prompt)


def test_every_caption_is_read_as_it_stands(words):
    """So nothing that was measured with them changes."""
    for name in words.names:
        for style in words.styles:
            for caption in (
                f"{name.name}, {style} style",
                f"{style} style, {name.name}",
                f"a {name.name} in {style} style",
            ):
                reading = words.read(caption)
                assert (reading.text, reading.notes, reading.unknown) == (caption, (), None)


def test_what_is_unusual_is_noted(words):
    assert "no style" in words.read("pizza, photo style").notes[0]
    assert "no style" in words.read("pizza in old style").notes[0]
    assert "puts words together" in words.read("a cat on a pizza").notes[0]
    assert words.read("blue banana, noto style").notes == ()  # colours go with everything
    assert words.read("").notes == ()


@pytest.mark.parametrize(
    ("prompt", "refusal"),
    [
        ("appel", "word-unknown"),
        ("automobil", "word-unknown"),
        ("apple, watercolor style", "word-unknown: 3d"),
    ],
)
def test_unknown_words_come_with_words_of_the_data(words, prompt, refusal):
    with refused(refusal):
        refuse_unknown([words.read(prompt)])


def test_suggestions_are_words_of_the_data_and_no_pieces(words):
    pieces = [near for word in ("pple", "zoooo", "tre", "hous") for near in words.near(word)]
    assert pieces
    assert set(pieces) <= words.known


def test_names_are_found_by_word_emoji_and_keyword(words):
    assert words.find("wolf")[0].name == "wolf"
    assert words.find("\N{WOLF FACE}")[0].name == "wolf"
    assert "automobile" in [name.name for name in words.find("car")]
    assert words.find("qqqq") == []


def test_the_file_is_what_the_data_says():
    spec = importlib.util.spec_from_file_location("words_of_the_recipe", ROOT / "recipes" / "emoji" / "words.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.words(json.loads(FILE.read_text(encoding="utf-8"))["styles"]) == FILE.read_text(encoding="utf-8")


def test_the_weights_know_every_word_of_the_file(words):
    known = zoo.load("emoji-base-32-text").known
    assert [word for word in words.known if not known.issuperset(encode(word))] == []


def test_python_callers_are_told_too():
    pipe = zoo.build("latent-text2img", steps=1)
    with refused("word-unknown"):
        pipe("appel")
    with pytest.warns(RequestNote, match="'apples' is read as 'apple'"):
        said = pipe("apples, 3d style")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plain = pipe("apple, 3d style")
    assert said.tensor.equal(plain.tensor)
    assert said.record["images"][0]["prompt"] == "apples, 3d style"  # as it was asked
    with pytest.warns(RequestNote, match="learned images of 64x64; at 32x32"):
        pipe("apple, 3d style", size=32)


def test_words_that_training_adds_are_not_refused():
    """Only a pipeline reads prompts by the words; a conditioner that is trained on has the captions as they are."""
    assert zoo.load("emoji-base-32-text").words is None
    assert [len(w.names) for w in words_of(resolve("latent-text2img"))] == [1544]
    assert words_of(resolve("class2img")) == []


@pytest.mark.parametrize("damage", ["{", "[]", '{"schema": "zoo.words/2"}', '{"schema": "zoo.words/1", "styles": []}'])
def test_a_damaged_file_is_one_sentence(tmp_path, damage):
    (tmp_path / "words.json").write_text(damage)
    with refused("words-file-damaged", WeightsError, naming="words.json"):
        read_words(tmp_path / "words.json")
    with refused("file-unreadable", WeightsError):
        read_words(tmp_path / "none.json")


def test_words_with_no_names_refuse_everything():
    assert Words((), ("3d",)).read("apple").unknown == {"apple": ""}
    assert Words((Name("apple", "", "food", ()),), ("3d",)).read("apple").unknown is None


def test_the_page_says_how_many_names_and_which_styles(words):
    page = (ROOT / "docs" / "prompts.md").read_text(encoding="utf-8")
    assert f"{len(words.names):,} names in eight styles" in page
    assert all(f"`{style}`" in page for style in words.styles)
    assert len(words.styles) == 8


def test_captions_of_any_data_have_words():
    """Sentences, captions with styles, rows with names; the last style is one, whatever stands before it."""
    rows = [
        {"text": "a red tulip in a glass, seen from above"},
        {"text": "roses in a vase in watercolor style"},
        {"text": "Pine tree, the Old style", "keywords": ["conifer"], "captions": ["fir, old style"]},
        {"text": "oak, old style", "name": "oak", "group": "trees", "emoji": "\N{DECIDUOUS TREE}"},
        {"text": " "},
    ]
    words = of_captions(rows)
    assert words.styles == ("watercolor", "old")
    assert [(n.name, n.group) for n in words.names] == [
        ("a red tulip in a glass, seen from above", ""), ("roses in a vase", ""), ("Pine tree", ""), ("oak", "trees"),
    ]  # fmt: skip
    assert words.read("a tulip, seen from above").notes == ()
    assert words.read("roses and an oak, old style").notes[0].endswith("'roses in a vase'")
    assert words.read("oak, blue style").unknown == {"blue": "the styles are watercolor, old"}
    assert words.read("fir").unknown is None
    assert words.read("tulpi").unknown == {"tulpi": "did you mean tulip?"}
    assert words.read("tulips").text == "tulip"
    assert words.find("conifer")[0].name == "Pine tree"


def test_words_of_an_earlier_model_stay():
    before = Words((Name("apple", "", "food", ("fruit",)),), ("3d",))
    words = of_captions([{"text": "apple, flat style"}, {"text": "my dog"}], before)
    assert [(n.name, n.group, n.keywords) for n in words.names] == [("apple", "food", ("fruit",)), ("my dog", "", ())]
    assert words.styles == ("3d", "flat")


def test_data_without_styles_has_none_to_speak_of():
    words = of_captions([{"text": "my dog"}])
    assert words.read("my dog").notes == ()
    assert words.read("my dog, noto style").unknown == dict.fromkeys(("noto", "style"), "it knows dog, my")


@pytest.mark.parametrize(
    ("word", "hint"),
    [("watercolor", "the styles are 3d, flat"), ("sketch", "the styles are"),
     ("spaceman", "astronaut"), ("appel", "did you mean apple")],
)  # fmt: skip
def test_a_hint_is_of_what_was_meant(words, word, hint):
    assert hint in (words.read(word).unknown or {})[word]


def test_of_few_words_all_are_listed_and_the_command_names_the_model():
    few = of_captions([{"text": "red circle"}, {"text": "blue square"}])
    with refused("word-unknown") as told:
        refuse_unknown([few.read("hexagon")], "zoo prompts --model shapes-draw.yaml")
    assert str(told.value).endswith(
        "'hexagon' (it knows blue, circle, red, square); `zoo prompts --model shapes-draw.yaml` lists what it knows"
    )
