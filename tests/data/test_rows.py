"""What rows, metadata and the block `data` may hold: read right, or refused before any work, in folders and shards."""

import io
import json
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from zoo.data.check import check
from zoo.data.dataset import room_for
from zoo.data.image_folder import ImageFolder
from zoo.data.pack import pack
from zoo.data.sines import Sines
from zoo.data.variants import Variants
from zoo.data.web_dataset import WebDataset
from zoo.schema.errors import ConfigError, UsageError


def image(value=0):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(file, "PNG")
    return file.getvalue()


def folder(place, metadata):
    """A folder with one image, a.png, and this metadata (bytes, or rows)."""
    place.mkdir()
    (place / "a.png").write_bytes(image())
    if not isinstance(metadata, bytes):
        metadata = "\n".join(json.dumps(row) for row in metadata).encode()
    (place / "metadata.jsonl").write_bytes(metadata)
    return str(place)


def shard(place, **files):
    """A shard of one sample: a.png beside a.json or a.txt."""
    with tarfile.open(place, "w") as archive:
        for extension, data in {"png": image(), **files}.items():
            member = tarfile.TarInfo(f"a.{extension}")
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return str(place)


ROW = {"file_name": "a.png", "text": "red apple"}
ODD = [
    {"split": 5}, {"split": ["train"]}, {"split": {}}, {"name": 3}, {"name": ["x"]}, {"keywords": 7}, {"keywords": [1]},
    {"keywords": {"a": 1}}, {"captions": "one"}, {"captions": [None]}, {"concept": 1}, {"also": []},
    {"text": "a\0b"}, {"text": "\ud800"},
]  # fmt: skip


@pytest.mark.parametrize("odd", ODD, ids=[str(o) for o in ODD])
def test_columns_of_another_kind_are_a_problem_in_folders_and_shards(odd, tmp_path):
    row = {**ROW, **odd}
    with refused("data-row-broken"):
        ImageFolder(path=folder(tmp_path / "data", [row]), size=8)
    report = check(str(tmp_path / "data"), size=8)
    assert [(f.what, f.count) for f in report.findings if f.problem] == [("odd column", 1)]
    said = {k: v for k, v in row.items() if k != "file_name"}
    with refused("data-row-broken"):
        WebDataset(path=shard(tmp_path / "a.tar", json=json.dumps(said).encode()), size=8)
    assert not check(str(tmp_path / "a.tar"), size=8).clean


def test_a_name_with_half_a_character_is_a_problem(tmp_path):
    with refused("data-row-broken", naming="file_name"):
        ImageFolder(path=folder(tmp_path / "data", [{**ROW, "file_name": "\ud800.png"}]), size=8)


def test_columns_may_be_empty_and_keywords_one_word(tmp_path):
    row = {**ROW, "split": None, "name": None, "keywords": "fruit", "captions": [], "year": 1999}
    assert len(ImageFolder(path=folder(tmp_path / "data", [row]), size=8)) == 1


@pytest.mark.parametrize("encoding", ["utf-32", "utf-32-le", "utf-32-be", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", [True, False])
def test_metadata_in_wide_characters_is_called_what_it_is(encoding, mark, tmp_path):
    text = json.dumps(ROW)
    text = text if mark is False or encoding in ("utf-32", "utf-16") else "\ufeff" + text
    with refused("metadata-unreadable", UsageError, naming=encoding[:6].upper()):
        ImageFolder(path=folder(tmp_path / "data", text.encode(encoding)), size=8)


@pytest.mark.parametrize("metadata", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_data_without_rows_is_not_clean_and_not_packed(metadata, tmp_path):
    path = folder(tmp_path / "data", metadata)
    report = check(path, size=8)
    assert not report.clean
    assert report.findings[0].what == "no rows"
    with refused("data-empty"):
        ImageFolder(path=path, size=8)
    with refused("data-empty"):
        pack(path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("files", "text"),
    [
        ({"txt": b"\xef\xbb\xbfred apple"}, "red apple"),
        ({"json": b"\xef\xbb\xbf" + json.dumps({"text": "red apple"}).encode()}, "red apple"),
        ({"json": b'{"text": null, "caption": "red apple"}'}, "red apple"),
    ],
)
def test_a_mark_of_the_byte_order_is_no_part_of_a_caption(files, text, tmp_path):
    assert WebDataset(path=shard(tmp_path / "a.tar", **files), size=8).rows[0]["text"] == text


def test_a_caption_in_utf_16_is_refused_with_or_without_a_mark(tmp_path):
    for encoding in ("utf-16", "utf-16-le"):
        with refused("data-row-broken"):
            WebDataset(path=shard(tmp_path / "a.tar", txt="red apple".encode(encoding)), size=8)


def traced(call):
    tracemalloc.start()
    try:
        with pytest.raises(UsageError):
            call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_rows_that_unfold_to_much_memory_are_refused(tmp_path):
    """Each of these lines was below every limit, and the rows kept held all of it."""
    line = json.dumps({**ROW, "x": [[]] * 250_000}).encode() + b"\n"
    with zipfile.ZipFile(tmp_path / "lists.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.jsonl", line * 8)
    assert traced(lambda: ImageFolder(path=str(tmp_path / "lists.zip"), size=8)) < 24 * 2**20
    with zipfile.ZipFile(tmp_path / "rows.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.jsonl", b'{"file_name":"","text":""}\n' * 200_000)
    assert traced(lambda: ImageFolder(path=str(tmp_path / "rows.zip"), size=8)) < 24 * 2**20
    assert (tmp_path / "rows.zip").stat().st_size < 50_000
    said = json.dumps({"text": "x", "x": [[]] * 250_000}).encode()
    assert traced(lambda: WebDataset(path=shard(tmp_path / "a.tar", json=said), size=8)) < 24 * 2**20


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ({"size": 10**12}, "size-invalid: 10"),
        ({"size": 0}, "size-invalid"),
        ({"resize": 10**12}, "number-out-of-range: 10"),
        ({"resize": 4}, "number-out-of-range"),
        ({"smallest": 0}, "number-out-of-range"),
        ({"smallest": -1}, "number-out-of-range"),
        ({"smallest": 2**70}, "number-out-of-range"),
        ({"flip": 1.5}, "number-out-of-range: 1.5"),
        ({"flip": float("nan")}, "number-out-of-range"),
    ],
)
def test_numbers_of_the_block_data_have_a_range(setting, said, tmp_path):
    with refused(said, ConfigError):
        ImageFolder(path=folder(tmp_path / "data", [ROW]), **{"size": 8, **setting})
    with refused(said, ConfigError):
        WebDataset(path=shard(tmp_path / "a.tar", txt=b"red apple"), **{"size": 8, **setting})


@pytest.mark.parametrize(
    ("setting", "refusal"),
    [
        ({"count": 0}, "number-out-of-range: count"),
        ({"count": 10**12}, "number-out-of-range: count"),
        ({"seed": -1}, "seed-invalid: -1"),
        ({"seed": 2**64}, "seed-invalid: 18"),
        ({"mirror": 2.0}, "number-out-of-range: mirror"),
        ({"recolour": -0.5}, "number-out-of-range: recolour"),
    ],
)
def test_numbers_of_the_block_variants_have_a_range(setting, refusal, tmp_path):
    data = ImageFolder(path=folder(tmp_path / "data", [ROW]), size=8)
    with refused(refusal, ConfigError):
        Variants(data, **setting)


@pytest.mark.parametrize(
    ("setting", "refusal"),
    [({"seed": -1}, "seed-invalid: -1"), ({"seed": 2**64}, "seed-invalid"), ({"split": "x"}, "split-unknown: 'x'")],
)
def test_what_waves_are_made_by_has_a_range(setting, refusal):
    with refused(refusal, ConfigError):
        Sines(size=16, count=4, **setting)


def test_images_that_no_memory_holds_are_refused_before_one_is_decoded():
    with refused("memory-exceeded", UsageError):
        room_for((10**6, 3, 8000, 8000))
