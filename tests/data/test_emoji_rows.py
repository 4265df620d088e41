"""The committed list of the emoji data, and the steps from an icon to a stored picture."""

from __future__ import annotations

import importlib.util
import io
import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

RECIPE = Path(__file__).resolve().parents[2] / "recipes" / "emoji" / "prepare.py"


@pytest.fixture(scope="module")
def prepare():
    spec = importlib.util.spec_from_file_location("prepare", RECIPE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_list_is_the_rule_for_what_may_be_trained_on(prepare):
    rows = list(prepare.read_rows())
    assert Counter(r["split"] for r in rows) == {"train": 8219, "val": 227, "test": 889}
    assert {r["style"] for r in rows} == set(prepare.STYLES)
    twice = [pair for pair, n in Counter((r["style"], r["hex"]) for r in rows).items() if n > 1]
    assert twice == [("fluent_3d", "26A7")]  # its package has the file under two names
    assert not any(0x1F3FB <= int(point, 16) <= 0x1F3FF for r in rows for point in r["hex"].split("-")), "skin tones"
    assert not any(r["subgroup"] == "country-flag" for r in rows)


def test_a_pair_of_concept_and_family_is_in_one_split_only(prepare):
    splits: dict[tuple[str, str], set[str]] = {}
    for number, row in enumerate(prepare.read_rows()):
        said = prepare.metadata(row, number)
        splits.setdefault((said["concept"], said["family"]), set()).add(said["split"])
    assert max(len(s) for s in splits.values()) == 1


def test_captions_name_the_thing_and_the_style(prepare):
    row = next(r for r in prepare.read_rows() if r["hex"] == "1F34E" and r["style"] == "twemoji")
    said = prepare.metadata(row, 42)
    assert (said["text"], said["file_name"]) == ("red apple, twemoji style", "images/00042.webp")
    assert "fruit" in said["keywords"]


def test_the_mean_of_four_pixels_rounds_halves_up(prepare):
    pixels = np.full((240, 240, 4), 255, dtype=np.uint8)
    pixels[0, 0, :3], pixels[0, 1, :3] = 253, 255  # a mean of 254.5
    small = np.asarray(prepare.on_white(Image.fromarray(pixels)))
    assert small.shape == (128, 128, 3)
    assert small[4, 4].tolist() == [255, 255, 255]
    pixels[1, 1, :3] = 254  # 254.25
    assert np.asarray(prepare.on_white(Image.fromarray(pixels)))[4, 4].tolist() == [254, 254, 254]


def test_ready_pictures_are_read_from_their_tarball_and_links_are_not(prepare, tmp_path):
    out = io.BytesIO()
    Image.new("RGBA", (256, 264), (0, 0, 0, 0)).save(out, "WEBP")
    path = tmp_path / "p.tgz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("package/assets/1f34e.webp")
        info.size = len(out.getvalue())
        archive.addfile(info, io.BytesIO(out.getvalue()))
        link = tarfile.TarInfo("package/assets/1f000.webp")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    pictures = prepare.Pictures(path)
    assert pictures.names() == ["1f34e"]
    assert pictures.draw("1f34e").size == (233, 240)
