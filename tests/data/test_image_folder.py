"""Reading pictures: folders and zips alike, and nothing outside them."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from zoo.data.arrays import ArrayFile
from zoo.data.captions import caption, style_of
from zoo.data.image_folder import LONGEST_LINE, FolderSource, ImageFolder
from zoo.data.image_sets import FolderPictures
from zoo.diffusion.draws import stream
from zoo.evaluation.extractors.statistics_file import read_arrays
from zoo.images.decode import FORMATS, open_picture
from zoo.schema.errors import UsageError


def png(color=(200, 10, 10), size=(20, 20), mode="RGB"):
    out = io.BytesIO()
    Image.new(mode, size, color).save(out, "PNG")
    return out.getvalue()


def make(path, files, rows, *, zipped):
    lines = "\n".join(json.dumps(r) if isinstance(r, dict) else r for r in rows).encode()
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in {**files, "metadata.jsonl": lines}.items():
                archive.writestr(name, data)
    else:
        path.mkdir()
        for name, data in {**files, "metadata.jsonl": lines}.items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
    return str(path)


@pytest.mark.parametrize("zipped", [False, True])
def test_folder_and_zip_give_the_same_pictures_and_rows(tmp_path, zipped):
    rows = [
        {"file_name": "images/a.png", "text": "red", "split": "train"},
        {"file_name": "images/b.png", "text": "blue", "split": "val"},
    ]
    files = {"images/a.png": png(), "images/b.png": png((0, 0, 255), (30, 20))}
    data = ImageFolder(path=make(tmp_path / "d", files, rows, zipped=zipped), size=8)
    assert [r["text"] for r in data.rows] == ["red", "blue"]
    assert data.images().shape == (2, 3, 8, 8)
    assert data.image(0)[:, 4, 4].tolist() == [200, 10, 10]
    assert data.image(1)[:, 4, 4].tolist() == [0, 0, 255]
    only = ImageFolder(path=str(tmp_path / "d"), split="val", size=8)
    assert [r["text"] for r in only.rows] == ["blue"]
    assert len(ImageFolder(path=str(tmp_path / "d"), split="train+val", size=8)) == 2
    assert len(ImageFolder(path=str(tmp_path / "d"), split="test+val", size=8)) == 1


def test_transparent_parts_are_white_and_grey_becomes_colour(tmp_path):
    files = {"a.png": png((0, 0, 0, 0), mode="RGBA"), "b.png": png(100, mode="L")}
    rows = [{"file_name": "a.png", "text": ""}, {"file_name": "b.png", "text": ""}]
    data = ImageFolder(path=make(tmp_path / "d", files, rows, zipped=False), size=4)
    assert (data.image(0) == 255).all()
    assert (data.image(1) == 100).all()


def test_shrinking_averages_areas(tmp_path):
    pixels = np.zeros((8, 8, 3), dtype=np.uint8)
    pixels[::2] = 200
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    rows = [{"file_name": "a.png", "text": ""}]
    data = ImageFolder(path=make(tmp_path / "d", {"a.png": out.getvalue()}, rows, zipped=False), size=4)
    assert (data.image(0) == 100).all()


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "a/../../secret.png", "a\\..\\b.png", "x\0.png"])
def test_names_that_leave_the_root_are_refused(tmp_path, name, zipped):
    (tmp_path / "secret.png").write_bytes(png())
    path = make(tmp_path / "d", {"ok.png": png()}, [{"file_name": name, "text": "x"}], zipped=zipped)
    with refused("file-outside-folder", UsageError):
        ImageFolder(path=path, size=8).image(0)


def test_a_link_out_of_the_folder_is_refused(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    path = make(tmp_path / "d", {}, [{"file_name": "a.png", "text": "x"}], zipped=False)
    (tmp_path / "d" / "a.png").symlink_to(tmp_path / "secret.png")
    with refused("file-outside-folder", UsageError):
        ImageFolder(path=path, size=8).image(0)


@pytest.mark.parametrize(
    ("rows", "files", "code"),
    [
        (["{"], {}, "data-row-broken: line 1"),
        (["[" * 100000], {}, "data-row-broken: line 1"),
        (['{"file_name": "a.png", "text": "x", "text": "y"}'], {}, "data-row-broken: 'text' twice"),
        ([{"file_name": "a.png"}], {}, "data-row-broken: 'text'"),
        ([{"file_name": 3, "text": "x"}], {}, "data-row-broken: 'file_name'"),
        ([{"file_name": "a.png", "text": "x"}], {}, "file-missing: 'a.png'"),
        ([{"file_name": "a.png", "text": "x"}], {"a.png": b"text"}, "image-format-unread: 'a.png'"),
        ([{"file_name": "a.png", "text": "x"}], {"a.png": png()[:40]}, "image-damaged: 'a.png'"),
        ([], {}, "data-empty"),
    ],
)
def test_broken_data_is_named(tmp_path, rows, files, code):
    path = make(tmp_path / "d", files, rows, zipped=False)
    with refused(code, UsageError):
        ImageFolder(path=path, size=8).image(0)


def test_a_zip_that_lists_more_than_it_holds_is_refused_before_its_list_is_read(tmp_path):
    place = Path(make(tmp_path / "d", {"0.png": png()}, [{"file_name": "0.png", "text": "x"}], zipped=True))
    whole = place.read_bytes()
    end = whole.rfind(b"PK\5\6")
    size, start = (int.from_bytes(whole[end + i : end + i + 4], "little") for i in (12, 16))
    entry = struct.pack("<4s4B4HL2L5H2L", b"PK\1\2", 20, 3, 20, 0, 0, 0, 0, 33, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0) + b"x"
    count = 40_000
    forged = whole[: start + size] + entry * count
    listed = size + len(entry) * count
    forged += struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, listed, start, 0)
    place.write_bytes(forged)
    with refused("zip-damaged", UsageError, naming="lists files"):
        FolderSource(str(place))
    with refused("zip-damaged", UsageError, naming="lists files"):
        FolderPictures(place)
    with refused("array-unreadable", UsageError, naming="lists files"):
        ArrayFile(path=str(shutil.copy(place, tmp_path / "a.npz")))
    with refused("statistics-damaged", naming="lists files"):
        read_arrays(tmp_path / "a.npz")


def test_two_files_of_one_name_in_a_zip_are_refused(tmp_path):
    place = Path(make(tmp_path / "d", {"0.png": png()}, [{"file_name": "0.png", "text": "x"}], zipped=True))
    with zipfile.ZipFile(place, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("0.png", png())
    with refused("file-names-repeated", UsageError, naming="0.png"):
        FolderSource(str(place))


def test_a_missing_path_and_a_file_that_is_no_zip_are_named(tmp_path):
    with refused("data-missing"):
        ImageFolder(path=str(tmp_path / "none"))
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with refused("zip-damaged"):
        ImageFolder(path=str(tmp_path / "a.zip"))


ROW = {"text": "red apple, 3d style", "name": "red apple", "keywords": ["fruit", "red", "ripe"]}


def test_captions_are_kept_as_often_as_asked_and_always_say_something_of_the_row():
    said = [caption(ROW, stream(0, "c", i), keep=0.5) for i in range(1000)]
    assert 0.45 < sum(c == ROW["text"] for c in said) / 1000 < 0.55
    assert all("apple" in c or any(k in c for k in ROW["keywords"]) for c in said)
    assert {"3d style, red apple", "a red apple, 3d style", "red apple"} <= set(said)
    assert all(caption(ROW, stream(0, "c", i), keep=1.0) == ROW["text"] for i in range(20))


def test_a_row_without_name_keeps_its_text():
    assert {caption({"text": "a photo"}, stream(0, "c", i), keep=0.0) for i in range(50)} == {"a photo"}
    assert style_of(ROW) == "3d style"
    assert style_of({"text": "a photo"}) == ""


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_that_is_read_is_read(format):
    out = io.BytesIO()
    Image.new("RGB", (8, 6), (40, 80, 120)).save(out, format)
    picture = open_picture(out.getvalue(), name="a", where="b")
    assert picture.size == (8, 6)
    assert np.abs(np.asarray(picture.convert("RGB")).astype(int) - (40, 80, 120)).max() <= 4


def test_a_photograph_lies_as_its_camera_says():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    out = io.BytesIO()
    Image.new("RGB", (8, 4)).save(out, "JPEG", exif=exif)
    assert open_picture(out.getvalue(), name="a", where="b").size == (4, 8)


def write_metadata(folder, data: bytes):
    folder.mkdir()
    Image.new("RGB", (8, 8), "red").save(folder / "a.png")
    (folder / "metadata.jsonl").write_bytes(data)
    return str(folder)


CAFE = '{"file_name": "a.png", "text": "café, flat style"}\n'


@pytest.mark.parametrize("zipped", [False, True])
def test_a_mark_of_byte_order_costs_no_row(zipped, tmp_path):
    path = write_metadata(tmp_path / "d", b"\xef\xbb\xbf" + CAFE.encode() * 2)
    if zipped:
        with zipfile.ZipFile(tmp_path / "d.zip", "w") as archive:
            for file in Path(path).iterdir():
                archive.write(file, file.name)
        path = str(tmp_path / "d.zip")
    assert [row["text"] for row in FolderSource(path).rows] == ["café, flat style"] * 2


def test_other_encodings_are_refused_with_line_and_byte(tmp_path):
    found = FolderSource(write_metadata(tmp_path / "d", CAFE.encode() + CAFE.encode("latin-1")))
    assert len(found.rows) == 1
    (broken,) = found.broken
    assert "line 2" in broken.sentence
    assert f"byte {CAFE.encode('latin-1').index(0xE9) + 1} of it is 0xe9" in broken.sentence
    assert "save the file as UTF-8" in broken.sentence
    with refused("metadata-unreadable", UsageError, naming="is UTF-16; save it as UTF-8"):
        FolderSource(write_metadata(tmp_path / "e", CAFE.encode("utf-16")))


def test_a_line_has_a_length_and_what_follows_it_is_read(tmp_path):
    long = b'{"file_name": "a.png", "text": "' + b"x" * 2 * LONGEST_LINE + b'"}\n'
    found = FolderSource(write_metadata(tmp_path / "d", long + CAFE.encode()))
    assert len(found.rows) == 1
    assert found.broken[0].reason == "too long"


@pytest.mark.slow
def test_a_zip_of_one_huge_line_takes_no_memory(tmp_path):
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("metadata.jsonl", "w") as member:
        for _ in range(60):
            member.write(b"[]," * (2**20 // 3))
    tracemalloc.start()
    found = FolderSource(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (found.rows, len(found.broken)) == ([], 1)
    assert peak < 16 * 2**20


def test_data_is_a_folder_or_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in ("/dev/zero", str(tmp_path / "pipe")):
        with refused("file-not-regular"):
            FolderSource(path)
    (tmp_path / "d").mkdir()
    os.mkfifo(tmp_path / "d" / "metadata.jsonl")
    with refused("file-not-regular"):
        FolderSource(str(tmp_path / "d"))


@pytest.mark.parametrize(("line", "refusal"), [(b"{}\n", "metadata-unreadable"), (b"\n", "metadata-too-large")])
def test_a_small_zip_of_millions_of_lines_is_refused_soon(line, refusal, tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.jsonl", line * 200_000)
    with refused(refusal, UsageError):
        FolderSource(str(tmp_path / "data.zip"))
