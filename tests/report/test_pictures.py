"""Pictures come from inside the record's folder and nowhere else, and a bad one is a reason, not a failure."""

from __future__ import annotations

import base64
import struct
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from zoo.bench.report import pictures
from zoo.bench.report.pictures import SIDE, SIGNATURE, picture
from zoo.schema.errors import UsageError


@pytest.fixture
def folder(tmp_path):
    """A records' folder with a picture, and one outside of it."""
    inside = tmp_path / "records"
    (inside / "sheets").mkdir(parents=True)
    for place in (inside / "a.png", inside / "sheets" / "b.png", tmp_path / "secret.png"):
        Image.new("RGB", (6, 4), (9, 8, 7)).save(place)
    return inside


@pytest.mark.parametrize("name", ["a.png", "sheets/b.png", "./a.png"])
def test_a_picture_is_carried_as_it_is(folder, name):
    found = picture(folder, name)
    assert (found.width, found.height) == (6, 4)
    assert found.uri is not None
    assert base64.b64decode(found.uri.partition(",")[2]) == (folder / name).read_bytes()


@pytest.mark.parametrize(
    "name",
    ["../secret.png", "sheets/../../secret.png", "/etc/passwd.png", "", "..\\secret.png", "a\0.png", "sheets/.."],
)
def test_what_lies_elsewhere_is_refused(folder, name):
    with refused("file-outside-folder", UsageError):
        picture(folder, name)


def test_a_link_does_not_lead_out(folder):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "away").symlink_to(folder.parent)
    for name in ("link.png", "away/secret.png"):
        with refused("file-outside-folder", UsageError):
            picture(folder, name)


@pytest.mark.parametrize("name", ["a.svg", "a.html", "record.json"])
def test_only_png_files_are_named(folder, name):
    with refused("benchmark-record-invalid"):
        picture(folder, name)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "is not there"),
        (b"<svg onload='x()'/>" * 9, "is no PNG file"),
        (SIGNATURE + struct.pack(">I", 13) + b"IHDR" + struct.pack(">II", 60_000, 60_000) + b"\0" * 9, "60000 x 60000"),
    ],
)
def test_what_cannot_be_shown_says_why(folder, data, said):
    if data is not None:
        (folder / "x.png").write_bytes(data)
    found = picture(folder, "x.png")
    assert found.uri is None
    assert said in found.reason


def test_a_large_picture_is_made_smaller_and_a_damaged_one_is_not(folder):
    noise = np.random.default_rng(0).integers(0, 255, (256, 4 * SIDE, 3), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "wide.png")
    found = picture(folder, "wide.png")
    assert (found.width, found.height) == (SIDE, 64)
    assert found.uri is not None
    assert Image.open(BytesIO(base64.b64decode(found.uri.partition(",")[2]))).size == (SIDE, 64)
    whole = (folder / "wide.png").read_bytes()
    (folder / "wide.png").write_bytes(whole[: len(whole) // 2])
    assert picture(folder, "wide.png").reason == "wide.png is damaged"


def test_a_file_that_is_far_too_large_is_not_read(folder, monkeypatch):
    monkeypatch.setattr(pictures, "LARGEST", 20)
    assert "larger than" in picture(folder, "a.png").reason
