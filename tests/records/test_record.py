"""Records read back out of pictures: what zoo wrote comes back, and a stranger's file gets one sentence."""

from __future__ import annotations

import json
import struct
import zlib

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from tests.refusals import refused
from zoo.records.reading import MAX_BYTES, RECORD_KEY, check_whole, read_record
from zoo.schema.errors import UsageError

RECORD = {"schema": "zoo.generation/1", "seed": 7, "images": [{"prompt": "naïve 猫", "negative": "", "sample": 0}]}


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(*chunks: bytes) -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 1, 1, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def text_chunk(text: bytes) -> bytes:
    return chunk(b"iTXt", b"zoo\0\0\0\0\0" + text)


@pytest.mark.parametrize("packed", [False, True])
def test_what_pillow_writes_comes_back(tmp_path, packed):
    information = PngInfo()
    information.add_text("Title", "another chunk")
    information.add_itxt(RECORD_KEY, json.dumps(RECORD), zip=packed)
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png", pnginfo=information)
    assert read_record(tmp_path / "a.png") == RECORD


def test_a_record_in_any_kind_of_text_chunk_is_found(tmp_path):
    told = json.dumps(RECORD).encode()
    kinds = [chunk(b"tEXt", b"zoo\0" + told), chunk(b"zTXt", b"zoo\0\0" + zlib.compress(told)), text_chunk(told)]
    for i, written in enumerate(kinds):
        (tmp_path / f"{i}.png").write_bytes(png(chunk(b"tEXt", b"zoological\0no"), written))
        assert read_record(tmp_path / f"{i}.png")["seed"] == 7


def whole(text: bytes) -> bytes:
    return png(text_chunk(text))


GOOD = json.dumps(RECORD).encode()
BOMB = zlib.compress(b"[" * (64 << 20), 9)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "record-missing: is no PNG"),
        (b"GIF89a", "record-missing: is no PNG"),
        (png(), "record-missing: no record"),
        (whole(GOOD)[:20], "image-truncated: cut off"),
        (whole(GOOD)[:70], "image-truncated: cut off within its record"),
        (whole(GOOD).replace(b'"seed": 7', b'"seed": 8'), "record-damaged: checksum"),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"iTXtzoo\0", "record-too-large: larger than"),
        (b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 2**32 - 1) + b"IDAT", "image-truncated: cut off"),
        (whole(b" " * (MAX_BYTES + 1)), "record-too-large: larger than"),
        (png(chunk(b"zTXt", b"zoo\0\0" + BOMB)), "record-too-large: larger than"),
        (png(chunk(b"zTXt", b"zoo\0\0" + b"not zlib")), "record-damaged: unpacked"),
        (png(*[chunk(b"tEXt", b"")] * 20_001), "record-missing: chunks"),
        (whole(b"{"), "record-damaged: not JSON"),
        (whole(b"\xff\xfe"), "record-damaged: not JSON"),
        (whole(b"[" * 100_000), "record-damaged: nested"),
        (whole(b'{"schema": ' + b'{"a":' * 40 + b"1" + b"}" * 41), "config-too-deep: nested"),
        (whole(b'{"seed": NaN}'), "record-damaged: finite"),
        (whole(b'{"seed": 1e999}'), "record-damaged: finite"),
        (whole(b'{"seed": ' + b"9" * 5000 + b"}"), "record-damaged: not JSON"),
        (whole(b'{"seed": 1, "seed": 2}'), "record-damaged: twice"),
        (whole(b"[1]"), "record-changed: no mapping"),
        (whole(b"{}"), "schema-unknown: no schema"),
        (whole(b'{"schema": "zoo.generation/2"}'), "schema-unknown: zoo.generation/2"),
        (whole(b'{"schema": "zoo.generation/1", "images": 5}'), "record-changed: 'images' has another form"),
        (whole(b'{"schema": "zoo.generation/1", "device": {}}'), "record-changed: 'device' has another form"),
    ],
)
def test_a_hostile_or_broken_picture_is_one_sentence_that_names_it(tmp_path, content, code):
    (tmp_path / "bad.png").write_bytes(content)
    with refused(code, UsageError) as caught:
        read_record(tmp_path / "bad.png")
    assert "bad.png" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_files_that_are_none_are_refused(tmp_path):
    for name in ("none.png", ""):
        with refused("file-missing", UsageError):
            read_record(tmp_path / name)


@pytest.mark.parametrize(
    "change",
    [{"config": None}, {"weights": {}}, {"stages": [5]}, {"images": ["x"]}, {"config": {"stages": 5}}],
)
def test_a_record_that_a_run_needs_is_whole(change):
    good = {**RECORD, "config": {"stages": [{}]}, "weights": {"a": "b"}, "stages": [{}]}
    assert check_whole(good, source="x.png") is good
    with refused("record-changed|record-incomplete", UsageError, naming="x.png"):
        check_whole({**good, **change}, source="x.png")
