"""Pictures to features: sources, shards, resuming."""

import io
import struct
import zipfile
import zlib
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from tests.refusals import refused
from zoo.data.image_sets import LEFT_OUT, ArrayPictures, DatasetPictures, DrawnPictures, FolderPictures
from zoo.evaluation import build_extractor
from zoo.evaluation.extractors import features as shards_module
from zoo.evaluation.extractors.features import extract, fill
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.schema.errors import UsageError


def pictures(count=25, size=(8, 8)):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, *size), dtype=np.uint8))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD", 10)


class Counting:
    """An extractor that counts what it is shown; a feature is a channel's mean."""

    name, sha256 = "counting", "ab" * 32

    def __init__(self):
        self.seen = 0

    def images(self, shown, *, batch=64):
        self.seen += len(shown)
        return shown.float().mean(dim=(2, 3))


def test_a_run_that_was_stopped_makes_what_is_missing_and_counts_nothing_twice(tmp_path, small_shards):
    source, extractor = ArrayPictures(pictures()), Counting()
    whole = extract(source, extractor)
    fill(source, extractor, folder=tmp_path, rank=1, world=2)
    assert [f.name for f in tmp_path.iterdir()] == ["000000010-000000020.npz"]
    extractor.seen = 0
    found = extract(source, extractor, folder=tmp_path)
    assert extractor.seen == 15
    again = extract(source, extractor, folder=tmp_path)
    assert extractor.seen == 15
    for other in (found, again):
        np.testing.assert_array_equal(other.array(), whole.array())
        np.testing.assert_array_equal(other.moment().scatter, whole.moment().scatter)
        assert other.pictures_sha256 == whole.pictures_sha256
    np.testing.assert_allclose(whole.array(), pictures().float().mean(dim=(2, 3)).numpy(), rtol=1e-6)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_value_does_not_depend_on_the_number_of_processes(tmp_path, small_shards, world):
    source, extractor = ArrayPictures(pictures()), build_extractor("random", width=4, size=16)
    for rank in range(world):
        fill(source, extractor, folder=tmp_path, rank=rank, world=world)
    found, alone = extract(source, extractor, folder=tmp_path), extract(source, extractor)
    assert frechet_distance(found.array()[:12], found.array()[12:]) == frechet_distance(
        alone.array()[:12], alone.array()[12:]
    )


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_the_value_hardly_depends_on_the_batch(small_shards, batch):
    source, extractor = ArrayPictures(pictures()), build_extractor("random", width=4, size=16)
    found, usual = extract(source, extractor, batch=batch), extract(source, extractor)
    np.testing.assert_allclose(found.array(), usual.array(), rtol=1e-5, atol=1e-6)


def test_a_damaged_shard_is_made_again_and_another_extractors_is_refused(tmp_path, small_shards):
    source, extractor = ArrayPictures(pictures()), Counting()
    whole = extract(source, extractor, folder=tmp_path)
    spoilt = tmp_path / "000000010-000000020.npz"
    data = bytearray(spoilt.read_bytes())
    data[len(data) // 2] ^= 255
    spoilt.write_bytes(data)
    np.testing.assert_array_equal(extract(source, extractor, folder=tmp_path).array(), whole.array())
    extract(source, extractor, folder=tmp_path)
    renamed = spoilt.read_bytes().replace(b"layer_", b"layer-")
    spoilt.write_bytes(renamed)  # names are in no checksum
    np.testing.assert_array_equal(extract(source, extractor, folder=tmp_path).array(), whole.array())
    newer = bytearray(data)
    newer[newer.index(b"PK\x01\x02") + 6] = 173  # the version of zip that a member needs
    spoilt.write_bytes(newer)
    np.testing.assert_array_equal(extract(source, extractor, folder=tmp_path).array(), whole.array())
    spoilt.write_bytes(data[:100])
    np.testing.assert_array_equal(extract(source, extractor, folder=tmp_path).array(), whole.array())
    extractor.sha256 = "cd" * 32
    with refused("features-folder-taken"):
        extract(source, extractor, folder=tmp_path)
    with refused("features-folder-taken"):
        extract(ArrayPictures(pictures() // 2), Counting(), folder=tmp_path)


def test_what_was_noted_and_counted_of_a_part_is_kept_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "PART", 0.0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(6):
        (folder / f"{i}.png").write_bytes(picture("L" if i % 2 else "RGB"))
    whole = extract(FolderPictures(folder), Counting(), batch=2)

    class Stopping(Counting):
        def images(self, shown, *, batch=64):
            if self.seen == 4:
                raise KeyboardInterrupt
            return super().images(shown)

    with pytest.raises(KeyboardInterrupt):
        extract(FolderPictures(folder), Stopping(), batch=2, folder=tmp_path / "kept")
    told, extractor = [], Counting()
    found = extract(
        FolderPictures(folder), extractor, batch=2, folder=tmp_path / "kept", progress=lambda *n: told.append(n)
    )
    assert extractor.seen == 2
    assert told == [(4, 6), (6, 6)]
    assert (found.notes, found.sizes, found.pictures_sha256) == (whole.notes, whole.sizes, whole.pictures_sha256)
    assert found.notes == {"grey, made RGB": 3}
    np.testing.assert_array_equal(found.array(), whole.array())


def test_above_a_number_of_samples_moments_alone_are_kept(small_shards):
    found, whole = (extract(ArrayPictures(pictures()), Counting(), keep=k) for k in (20, 25))
    np.testing.assert_array_equal(found.moment().mean, whole.moment().mean)
    with refused("moments-only"):
        found.array()
    with refused("layer-unknown"):
        found.moment("logits")


def test_pictures_of_several_sizes_keep_their_order():
    mixed = [p for pair in zip(pictures(4), pictures(4, (6, 9)), strict=True) for p in pair]

    class Mixed(ArrayPictures):
        def __call__(self, ids):
            return [mixed[i] for i in ids]

    found = extract(Mixed(pictures(8)), Counting()).array()
    np.testing.assert_allclose(found, torch.stack([p.float().mean(dim=(1, 2)) for p in mixed]).numpy(), rtol=1e-6)


def test_drawn_pictures_are_asked_for_by_sample_id():
    asked = []

    def draw(ids):
        asked.extend(ids)
        return torch.stack([torch.full((3, 2, 2), i / 255) for i in ids])

    found = extract(DrawnPictures(draw, count=7, mark="m"), Counting(), batch=3)
    assert asked == list(range(7))
    np.testing.assert_allclose(found.array()[:, 0], np.arange(7))
    with refused("images-miscounted"):
        DrawnPictures(lambda ids: torch.zeros(1, 3, 2, 2), count=7, mark="m")(range(2))


def test_dataset_pictures_are_the_rows_asked_for():
    class Data:
        size = 8
        rows = [{"file_name": f"{i}.png"} for i in range(25)]  # noqa: RUF012

        def image(self, index):
            return pictures()[index].numpy()

    found = extract(DatasetPictures(Data(), rows=[4, 2]), Counting()).array()
    np.testing.assert_allclose(found, pictures()[[4, 2]].float().mean(dim=(2, 3)).numpy(), rtol=1e-6)


def picture(mode="RGB", **how):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).convert(mode).save(
        buffer, **{"format": "PNG", **how}
    )
    return buffer.getvalue()


def test_a_folder_and_a_zip_give_the_same_pictures_in_the_order_of_names(tmp_path):
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    files = {"b.png": picture(), "a.png": picture("L"), "below/c.jpg": picture(format="JPEG"), "notes.txt": b"no"}
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for name, data in files.items():
            (folder / name).write_bytes(data)
            archive.writestr(name, data)
    sources = FolderPictures(folder), FolderPictures(tmp_path / "all.zip")
    for source in sources:
        assert source.files == ["a.png", "b.png", "below/c.jpg"]
        shown = source(range(3))
        assert shown[0].shape == (3, 8, 8)
        assert torch.equal(shown[1], torch.from_numpy(np.arange(192, dtype=np.uint8).reshape(8, 8, 3)).permute(2, 0, 1))
        assert source.notes == Counter({"grey, made RGB": 1, "JPEG, which scores otherwise than PNG": 1})
    one, other = (extract(s, Counting()) for s in sources)
    assert one.pictures_sha256 == other.pictures_sha256
    assert one.notes == {"grey, made RGB": 1, "JPEG, which scores otherwise than PNG": 1}


def test_what_would_change_numbers_silently_is_refused(tmp_path):
    def of(data, name="x.png", **settings):
        (tmp_path / "x.png").unlink(missing_ok=True)
        (tmp_path / name).write_bytes(data)
        return FolderPictures(tmp_path, **settings)(range(1))

    with refused("image-format-unread"):
        of(picture("RGBA"))
    assert of(picture("RGBA"), background="white")[0].shape == (3, 8, 8)
    for data in (sixteen_bits(), sixteen_bits_of(3), sixteen_bits_of(1), b"P6 2 2 65535\n" + bytes(24)):
        with refused("image-depth-unread"):
            of(data)
    with refused("image-depth-unread"):
        of(sixteen_bits_of(4), background="white")
    with refused("image-format-unread"):
        of(b"no picture")
    frames = [Image.new("RGB", (8, 8), c) for c in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, format="GIF", save_all=True, append_images=frames[1:])
    (tmp_path / "x.png").unlink()
    with refused("image-format-unread"):
        of(buffer.getvalue(), name="x.gif")
    for format, name in (("PNG", "x.png"), ("WEBP", "x.webp"), ("TIFF", "x.tiff")):
        buffer = io.BytesIO()
        frames[0].save(buffer, format=format, save_all=True, append_images=frames[1:])
        for file in tmp_path.iterdir():
            file.unlink()
        with refused("image-format-unread", naming=f"'{name}'"):
            of(buffer.getvalue(), name=name)


def test_other_colours_than_rgb_are_made_rgb_and_counted(tmp_path):
    (tmp_path / "a.jpg").write_bytes(picture("CMYK", format="JPEG"))
    (tmp_path / "b.png").write_bytes(picture("P"))  # a palette's colours are RGB as they are
    source = FolderPictures(tmp_path)
    assert [p.shape for p in source(range(2))] == [(3, 8, 8)] * 2
    assert source.notes == Counter({"CMYK, made RGB": 1, "JPEG, which scores otherwise than PNG": 1})


def test_two_files_of_one_name_in_a_zip_are_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "twice.zip", "w") as archive:
        archive.writestr("a.png", picture())
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("a.png", picture("L"))
    with refused("file-names-repeated"):
        FolderPictures(tmp_path / "twice.zip")


def sixteen_bits():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8), 40_000, dtype=np.uint16)).save(buffer, format="PNG")
    return buffer.getvalue()


def sixteen_bits_of(channels):
    """A PNG of 16 bits a channel, which PIL hands out as 8."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    kinds = {1: 0, 3: 2, 4: 6}
    head = struct.pack(">IIBBBBB", 2, 2, 16, kinds[channels], 0, 0, 0)
    rows = zlib.compress((b"\0" + bytes(4 * channels)) * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def test_a_source_without_pictures_is_told(tmp_path):
    with refused("data-empty"):
        FolderPictures(tmp_path)
    with refused("data-missing"):
        FolderPictures(tmp_path / "absent")
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with refused("zip-damaged"):
        FolderPictures(tmp_path / "x.zip")
    with refused("image-shape-wrong"):
        ArrayPictures(torch.zeros(1, 3, 8, 8))
    with refused("data-empty"):
        extract(ArrayPictures(pictures(0)), Counting())


def test_what_systems_and_editors_leave_is_no_sample_and_is_counted(tmp_path):
    folder, beside = tmp_path / "set", tmp_path / "beside"
    image = Image.new("RGB", (8, 8), "red")
    for name in ("a.png", "sub/b.png", ".ipynb_checkpoints/a.png", "__MACOSX/a.png", ".cache/c.png"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        image.save(folder / name)
    (folder / "._a.png").write_bytes(b"\0\5\26\7")
    beside.mkdir()
    image.save(beside / "c.png")
    (folder / "linked").symlink_to(beside)
    (folder / "linked_back").symlink_to(folder)
    source = FolderPictures(folder)
    assert source.files == ["a.png", "linked/c.png", "sub/b.png"]
    assert extract(source, build_extractor("random")).notes == {LEFT_OUT: 4}
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("a.png", "__MACOSX/._a.png"):
            archive.write(folder / "a.png", name)
    assert FolderPictures(tmp_path / "a.zip").files == ["a.png"]


@pytest.mark.parametrize("forged", [False, True])
def test_a_file_of_a_zip_is_looked_at_before_it_is_read(forged, tmp_path, monkeypatch):
    monkeypatch.setattr("zoo.images.zips.read_member.__kwdefaults__", {"limit": 1000})
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"0" * 1_000_000)
    if forged:  # an entry that says it is small
        data = path.read_bytes()
        path.write_bytes(data.replace((1_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with refused("zip-damaged" if forged else "file-too-large", UsageError):
        FolderPictures(path)([0])
