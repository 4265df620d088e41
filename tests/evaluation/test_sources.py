"""What a side of a comparison may be, and the sentences for what it may not."""

import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.refusals import refused
from tests.tiny import tiny_pipeline
from zoo.data.image_sets import ArrayPictures
from zoo.evaluation.extractors.features import extract
from zoo.evaluation.inputs.sources import kind_of, open_source, some_of
from zoo.schema.errors import UsageError


@pytest.fixture
def data(tmp_path):
    """Nine pictures, six of them of the split test, as a folder and as a zip."""
    folder, rng = tmp_path / "data", np.random.default_rng(0)
    folder.mkdir()
    rows = []
    for i in range(9):
        Image.fromarray(rng.integers(0, 255, (8, 12, 3), dtype=np.uint8)).save(folder / f"{i}.png")
        rows.append({"file_name": f"{8 - i}.png", "text": f"thing {i}", "split": "test" if i % 3 else "train"})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    return folder


def test_kinds_are_told_apart_before_anything_is_opened(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for what, kind in (
        (str(data), "pictures"), (tmp_path / "data.zip", "pictures"), (f"{data}:test", "pictures"),
        ("absent.npz", "statistics"), ("latent-text2img", "pipeline"), ("mine.yaml", "pipeline"),
        (torch.zeros(1, 3, 2, 2), "pictures"), (tiny_pipeline(), "pipeline"),
    ):  # fmt: skip
        assert kind_of(what) == kind, what
    with refused("source-unknown", naming="'latent-text2img'"):
        kind_of("latent-text2im")
    with refused("source-type-wrong"):
        kind_of([])
    (tmp_path / "latent-text2img").mkdir()
    with refused("source-ambiguous", naming="./latent-text2img"):
        kind_of("latent-text2img")
    assert kind_of("./latent-text2img") == "pictures"


def test_a_split_is_its_rows_in_their_order(data, tmp_path):
    for written, split in ((f"{data}:test", None), (str(data), "test"), (f"{tmp_path / 'data.zip'}:test", "train")):
        source = open_source(written, split=split)
        assert [row["text"] for row in source.rows] == [f"thing {i}" for i in (1, 2, 4, 5, 7, 8)]
        assert source.pictures.files[0] == "7.png"
        assert len(source.every) == 9
    plain = open_source(data)
    assert (plain.count, plain.facts["captions"]) == (9, True)
    (data / "metadata.jsonl").unlink()
    assert open_source(data).rows is None


def test_pictures_are_made_one_size_as_training_data_are(data):
    from zoo.data.image_folder import ImageFolder

    found = open_source(f"{data}:test", size=4).pictures(range(6))
    expected = ImageFolder(path=str(data), split="test", size=4).images()
    assert torch.equal(torch.stack(found), torch.from_numpy(expected))
    assert open_source(f"{data}:test").pictures([0])[0].shape == (3, 8, 12)


@pytest.mark.parametrize(
    ("written", "settings", "said"),
    [
        ("{}:", {}, "split-missing"),
        ("{}:val", {}, "data-split-empty"),
        ("{}", {"size": 0}, "size-invalid"),
        ("{}", {"background": "grey"}, "choice-unknown"),
    ],
)
def test_a_wrong_side_is_one_sentence(data, written, settings, said):
    with refused(said, UsageError):
        open_source(written.format(data), **settings)


def test_a_name_listed_twice_or_missing_is_refused(data):
    lines = (data / "metadata.jsonl").read_text().splitlines()
    (data / "metadata.jsonl").write_text("\n".join([*lines, lines[0]]))
    with refused("file-names-repeated", naming="'8.png'"):
        open_source(data)
    (data / "metadata.jsonl").write_text(lines[0].replace("8.png", "../8.png"))
    with refused("file-missing", UsageError):
        open_source(data)
    (data / "metadata.jsonl").write_text("{}")
    with refused("data-row-broken", naming="'file_name'"):
        open_source(data)
    (data / "metadata.jsonl").unlink()
    with refused("split-unknown", UsageError, naming="'test'"):
        open_source(data, split="test")


def test_fewer_pictures_are_a_fixed_choice_of_all_and_not_the_first():
    source = open_source(ArrayPictures(torch.arange(40).view(40, 1, 1, 1).expand(40, 3, 2, 2).to(torch.uint8)))
    some = some_of(source, 10)
    shown = [int(p[0, 0, 0]) for p in some.pictures(range(10))]
    assert shown == sorted(set(shown))
    assert len(shown) == 10
    assert max(shown) > 20
    assert shown == [int(p[0, 0, 0]) for p in some_of(source, 10).pictures(range(10))]
    assert some.pictures.fingerprint() != source.pictures.fingerprint()
    assert some_of(source, 40) is source
    with refused("count-out-of-range", naming="40"):
        some_of(source, 41)

    class Means:
        name, sha256 = "means", "ab" * 32

        def images(self, pictures, *, batch=64):
            return pictures.float().mean(dim=(2, 3))

    np.testing.assert_array_equal(extract(some.pictures, Means()).array()[:, 0], shown)


def test_a_pipe_and_a_device_are_refused_and_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for place in (tmp_path / "pipe", Path("/dev/full")):
        with refused("data-missing"):
            open_source(place)
