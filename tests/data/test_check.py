"""`zoo data check` finds what is planted, and nothing in clean data."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.data.test_image_folder import make, png
from tests.refusals import refused
from zoo.cli.main import run
from zoo.data.check import check
from zoo.data.image_folder import ImageFolder
from zoo.data.latents import _identity
from zoo.schema.errors import UsageError


def noise(seed, size=(32, 32)):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).resize(size, Image.Resampling.NEAREST).save(out, "PNG")
    return out.getvalue()


def bomb(side=60000):
    """A valid PNG header that promises 3.6 gigapixels."""
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    packed = (struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def rows_of(files, **more):
    return [{"file_name": name, "text": f"a {name}", **more} for name in files]


@pytest.fixture
def clean(tmp_path):
    files = {f"{i}.png": noise(i) for i in range(6)}
    return make(tmp_path / "clean", files, rows_of(files, split="train", group="g"), zipped=False)


def test_clean_data_is_clean(clean, capsys):
    report = check(clean, size=32)
    assert report.clean
    assert report.findings == ()
    assert report.splits == {"train": 6}
    assert run(["data", "check", clean, "--size", "32"]) == 0
    assert "ok: 6 rows" in capsys.readouterr().out


def test_every_planted_trouble_is_found_and_named(tmp_path, capsys):
    alike = np.asarray(Image.open(io.BytesIO(noise(1)))).copy()
    alike[0, 0] ^= 3
    near = io.BytesIO()
    Image.fromarray(alike).save(near, "PNG")
    files = {
        "ok.png": noise(0), "one.png": noise(1), "same.png": noise(1), "leak.png": noise(1),
        "near.png": near.getvalue(),
        "small.png": noise(2, (8, 8)), "text.png": b"hello", "bomb.png": bomb(), "long.png": noise(3, (200, 40)),
        "silent.png": noise(4), "wordy.png": noise(5), "grey.png": png(1000, (32, 32), "I;16"),
    }  # fmt: skip
    rows = rows_of(files, split="train", group="g")
    for row in rows:
        row["split"] = "val" if row["file_name"] in ("leak.png", "near.png") else "train"
        row["group"] = "b" if row["file_name"] == "ok.png" else "a"
    by_name = {row["file_name"]: row for row in rows}
    by_name["silent.png"]["text"] = " "
    by_name["wordy.png"]["text"] = "word " * 90
    rows += [{"file_name": "lost.png", "text": "x"}, {"file_name": "ok.png"}, "{", {"file_name": "../x", "text": "x"}]
    path = make(tmp_path / "d", files, rows, zipped=False)
    report = check(path, size=32)
    problems = {f.what: f.count for f in report.findings if f.problem}
    assert problems == {
        "same picture twice": 1, "same picture in two splits": 1, "smaller than 32": 1, "not a picture": 1,
        "too large": 1, "empty caption": 1, "missing file": 1, "missing caption": 1, "not JSON": 1,
        "leaves the folder": 1,
    }  # fmt: skip
    notes = {f.what: f.examples for f in report.findings if not f.problem}
    assert notes["look alike, in two splits"] == ("one.png (train) = near.png (val)",)
    assert {"long and narrow", "over-long caption", "unusual mode I;16"} <= set(notes)
    assert report.labels["group"] == {"a": 11, "none": 2, "b": 1}
    assert run(["data", "check", path, "--size", "32", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["clean"] is False
    assert {f["what"] for f in said["findings"]} == {f.what for f in report.findings}


def test_unknown_words_are_noted(clean):
    report = check(clean, size=32, unknown_words=lambda text: ["3"] if "3" in text else [])
    assert [(f.what, f.count) for f in report.findings] == [("words the conditioner does not know", 1)]


def test_shards_are_checked_as_the_folder_they_were_packed_from(clean, tmp_path, capsys):
    assert run(["data", "pack", clean, str(tmp_path / "shards"), "--rows", "4"]) == 0
    assert check(str(tmp_path / "shards"), size=32).rows == 6
    assert run(["data", "pack", clean, str(tmp_path / "shards")]) == 2
    assert "not empty" in capsys.readouterr().err


def test_what_is_not_there_is_a_usage_error(tmp_path, capsys):
    assert run(["data", "check", str(tmp_path / "none")]) == 2
    assert "does not exist" in capsys.readouterr().err
    assert run(["data"]) == 2
    assert "needs one of check, pack" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["bomb.png", "eps.png"])
def test_bombs_and_formats_that_start_programs_are_refused_or_skipped(tmp_path, name):
    bad = bomb() if name == "bomb.png" else b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"
    path = make(tmp_path / "d", {name: bad, "a.png": png()}, rows_of([name, "a.png"]), zipped=True)
    with refused("image-too-large|image-format-unread", UsageError, naming=name):
        ImageFolder(path=path, size=8).images()
    data = ImageFolder(path=path, size=8, on_bad="skip")
    assert [r["file_name"] for r in data.rows] == ["a.png"]
    assert sum(data.reasons.values()) == 1


def test_a_member_that_unpacks_to_more_than_is_read_is_refused(tmp_path):
    path = tmp_path / "d.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.jsonl", json.dumps({"file_name": "a.png", "text": "x"}))
        with archive.open("a.png", "w") as member:
            for _ in range(65):
                member.write(bytes(2**20))
    assert path.stat().st_size < 2**20
    with refused("file-too-large", UsageError):
        ImageFolder(path=str(path), size=8).image(0)


def test_the_identity_of_cached_latents_is_what_it_always_was(tmp_path):
    """Caches of runs made before there were shards stay valid: pinned by the formula they were made with."""
    import hashlib

    import torch

    path = make(tmp_path / "d.zip", {"a.png": png()}, rows_of(["a.png"], split="train"), zipped=True)
    data = ImageFolder(path=path, split="train", size=8)
    weights = torch.nn.Linear(2, 2)
    digest = hashlib.sha256(f"8 train d.zip {(tmp_path / 'd.zip').stat().st_size}".encode() + b"a.png")
    for name, tensor in weights.state_dict().items():
        digest.update(name.encode() + tensor.numpy().tobytes())
    assert _identity(weights, data) == digest.hexdigest()[:16]  # type: ignore[arg-type]
