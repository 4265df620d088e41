"""Variants: image and caption change together, and nothing that is reserved is said."""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.colour_requests import requests
from benchmarks.guided_interval import HELD_OUT, RESERVED
from tests.data.test_colours import drawing, rgb
from tests.data.test_image_folder import make
from tests.refusals import refused
from zoo.data.colours import COLOURS, dominant, name_of
from zoo.data.image_folder import ImageFolder
from zoo.data.reserved import ReservedNames, normalised
from zoo.data.variants import Variants, held_out
from zoo.schema.errors import ConfigError
from zoo.schema.registry import registry
from zoo.training.recipe import read_recipe

NAMES = {
    "red apple": "red", "ball": "yellow", "blue heart": "blue", "man, red hair": "red", "left arrow": "green",
    "mouse": None, "light bulb": "yellow", "blue apple": "blue",
}  # fmt: skip


@pytest.fixture
def data(tmp_path):
    rows, files = [], {}
    for i, (name, colour) in enumerate(NAMES.items()):
        image = drawing((128, 128, 128) if colour is None else rgb(colour), stem=(128, 128, 128))
        image[:, 26:30, 2:6] = 40  # not its own mirror image
        out = io.BytesIO()
        Image.fromarray(np.moveaxis(image, 0, -1)).save(out, "PNG")
        files[f"{i}.png"] = out.getvalue()
        rows.append({
            "file_name": f"{i}.png", "text": f"{name}, flat style", "name": name, "concept": name, "group": f"g{i}",
            "keywords": ["thing", "red", f"word{i}"],
        })  # fmt: skip
    return ImageFolder(path=str(make(tmp_path / "data", files, rows, zipped=False)), size=32)


def base(text):
    return text.removeprefix("mirrored ").removesuffix(", flat style")


def test_the_first_variant_is_the_row_and_all_are_the_same_each_time(data):
    settings = {"count": 8, "recolour": 0.5, "mirror": 0.5, "name_colour": 0.5, "synonyms": True, "seed": 3}
    made, again = Variants(data, **settings), Variants(data, **settings)
    assert len(made) == 8 * len(data)
    assert made.rows == again.rows
    assert made.fingerprint() == again.fingerprint() != data.fingerprint()
    assert made.fingerprint() != Variants(data, **{**settings, "seed": 4}).fingerprint()
    images = made.images()
    for i in range(len(made)):
        assert np.array_equal(images[i], made.image(i))
        assert np.array_equal(images[i], again.image(i))
        if i % 8 == 0:
            assert np.array_equal(images[i], data.image(i // 8))
            assert made.rows[i]["text"] == data.rows[i // 8]["text"]


@pytest.mark.slow
def test_a_caption_says_what_was_done_to_its_image(data):
    made = Variants(data, count=120, mirror=0.5, recolour=0.6, name_colour=0.3)
    seen = set()
    for i, row in enumerate(made.rows):
        own, image = data.image(i // 120), made.image(i)
        mirrored = row["text"].startswith("mirrored ")
        plain = image[:, :, ::-1] if mirrored else image
        first, *thing = base(row["text"]).split()
        old = data.rows[i // 120]["name"]
        seen.add((old, first if first in COLOURS else None, mirrored))
        if base(row["text"]) == old:
            assert np.array_equal(plain, own)
        else:
            assert (name_of(dominant(plain)) == first) if COLOURS[first].width else (plain != own).any()
            assert " ".join(thing) == old.removeprefix("red ").removeprefix("blue ")
            assert "red" not in row["keywords"]
        assert row["name"] == row["text"].removesuffix(", flat style")
    assert {colour for name, colour, _ in seen if name == "ball"} == {None, *COLOURS}
    # Not what another row is called.
    assert {colour for name, colour, _ in seen if name == "red apple"} == {*COLOURS} - {"blue"}
    assert {colour for name, colour, _ in seen if name == "blue apple"} == {*COLOURS} - {"red"}
    # Not what has other colours in its name, and not what no hue dominates.
    assert {colour for name, colour, _ in seen if name in ("man, red hair", "mouse", "light bulb")} == {None}
    assert {mirrored for name, _, mirrored in seen if name == "left arrow"} == {False}
    assert {mirrored for name, _, mirrored in seen if name == "ball"} == {False, True}


def test_shares_are_as_requested(data):
    made = Variants(data, count=400, mirror=0.25, recolour=0.5)
    balls = [row["text"] for row in made.rows if row["concept"] == "ball"][1:]
    assert 0.2 < np.mean(["mirrored" in text for text in balls]) < 0.3
    assert 0.43 < np.mean([base(text) != "ball" for text in balls]) < 0.57


def test_what_is_never_to_be_changed_is_not(data):
    made = Variants(data, count=30, mirror=1.0, mirror_unless=["group=g1"], recolour=1.0, recolour_unless=["apple"])
    of_balls = {row["text"] for row in made.rows if row["concept"] == "ball"}
    assert not any("mirrored" in text for text in of_balls)
    assert {base(row["text"]) for row in made.rows if row["concept"] == "red apple"} == {"red apple"}


def test_no_made_caption_holds_a_reserved_name(data, tmp_path):
    listed = tmp_path / "reserved"
    listed.write_text("\n".join(hashlib.sha256(n.encode()).hexdigest() for n in ("green apple", "word1", "light bulb")))
    made = Variants(data, count=60, mirror=0.5, recolour=1.0, synonyms=True, reserved=[str(listed)])
    said = [text for row in made.rows for text in (row["text"], *row["captions"])]
    assert any("purple apple" in text for text in said)
    for name in ("green apple", "word1"):
        assert not any(name in normalised(text) for text in said)
    # A row's own text stays; what is made of it does not say it otherwise.
    bulbs = [row for row in made.rows if row["concept"] == "light bulb"]
    assert {row["text"] for row in bulbs} == {"light bulb, flat style"}
    assert not any("light bulb" in text for row in bulbs for text in row["captions"])


def test_no_made_caption_is_that_of_another_row(tmp_path):
    rows = [
        {"file_name": "0.png", "text": f"{name}, flat style", "name": name, "keywords": keywords}
        for name, keywords in (
            ("horse", ["racing", "pony"]),
            ("horse racing", ["racing"]),
            ("cart", ["racing"]),
            ("boat", ["racing"]),
        )
    ]
    out = io.BytesIO()
    Image.new("RGB", (8, 8)).save(out, "PNG")
    plain = ImageFolder(path=str(make(tmp_path / "data", {"0.png": out.getvalue()}, rows * 2, zipped=False)), size=8)
    said = Variants(plain, count=1, synonyms=True).rows[0]["captions"]
    assert "pony, flat style" in said
    assert not any("horse racing, " in text for text in said)


def test_colour_names_held_out_are_the_same_whatever_the_seed(data):
    names = {f"{colour} ball" for colour in COLOURS}
    out = {name for name in names if held_out(name, 0.5)}
    assert 0 < len(out) < len(names)
    for seed in (0, 1):
        made = Variants(data, count=100, recolour=0.9, mirror=0.5, hold_out=0.5, seed=seed)
        assert {base(row["text"]) for row in made.rows if row["concept"] == "ball"} == names - out - {"yellow ball"} | {
            "ball"
        }
    share = np.mean([held_out(f"{colour} {i}", 0.25) for colour in COLOURS for i in range(300)])
    assert 0.2 < share < 0.3
    assert not held_out("red apple", 0.0)


@pytest.mark.parametrize(
    ("settings", "refusal"),
    [
        ({"count": 0}, "number-out-of-range: count"),
        ({"recolour": 1.5}, "number-out-of-range: recolour"),
        ({"mirror": -1.0}, "number-out-of-range: mirror"),
    ],
)
def test_what_cannot_be_meant_is_refused(data, settings, refusal):
    with refused(refusal, ConfigError):
        Variants(data, **settings)


def test_variants_of_what_changes_at_random_are_refused(data):
    with refused("crops-at-random"):
        Variants(ImageFolder(path=str(data.source.root), size=32, flip=0.5))


def test_captions_can_be_written_down(data):
    made = Variants(data, count=3, recolour=1.0, synonyms=True)
    assert json.loads(json.dumps(made.rows)) == made.rows


def test_the_base_recipe_says_no_colour_request_and_no_reserved_name():
    recipes = Path(__file__).resolve().parents[2] / "recipes/emoji"
    listed = ReservedNames([str(recipes / "colour-requests.sha256")])
    made = [f"{r['colour']} {r['thing']}" for r in requests()]
    assert listed.hashes == {hashlib.sha256(normalised(name).encode()).hexdigest() for name in made}
    for name in ("base-32-deep", "base-32-next", "latent-64-fourth"):
        block = read_recipe(recipes / f"{name}.yaml", registry()).raw["variants"]
        assert {Path(p).name for p in block["reserved"]} == {"reserved-names.sha256", "colour-requests.sha256"}
        assert (str(recipes / "reserved-names.sha256"), block["hold_out"]) == (RESERVED, HELD_OUT)
