"""Files of arrays are read as numbers and nothing else, and made-up waves have the frequencies they are made with."""

from __future__ import annotations

import io
import tracemalloc
import zipfile

import numpy as np
import pytest

from tests.refusals import refused
from zoo.data.arrays import ArrayDataset, ArrayFile
from zoo.data.dataset import Dataset
from zoo.data.sines import Sines
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.npy import read_npy

WAVES = np.random.default_rng(0).uniform(-3.0, 5.0, (20, 2, 6)).astype(np.float32)


def header(shape, dtype="<f4", fortran=False):
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": fortran, "shape": shape})
    return file.getvalue()


def test_the_same_numbers_come_from_a_file_an_archive_and_a_folder(tmp_path):
    np.save(tmp_path / "a.npy", WAVES)
    np.savez_compressed(tmp_path / "b.npz", waves=WAVES, other=WAVES[:1])
    np.save(tmp_path / "columns.npy", np.asfortranarray(WAVES))
    (tmp_path / "folder").mkdir()
    for i, wave in enumerate(WAVES):
        np.save(tmp_path / "folder" / f"{i:03d}.npy", wave)
    expected = (WAVES - 1.0) / 4.0
    for path, more in (("a.npy", {}), ("b.npz", {"key": "waves"}), ("columns.npy", {}), ("folder", {})):
        data = ArrayFile(path=str(tmp_path / path), values=(-3.0, 5.0), **more)
        assert data.arrays().dtype == np.float32
        np.testing.assert_allclose(data.arrays(), expected, atol=1e-6)
        assert len(data) == len(data.rows) == 20
    assert isinstance(data, ArrayDataset)
    assert not isinstance(data, Dataset)


def test_the_last_share_of_the_rows_validates(tmp_path):
    np.save(tmp_path / "a.npy", WAVES[:, 0])
    parts = [
        ArrayFile(path=str(tmp_path / "a.npy"), values=(-3, 5), channels=False, held_out=0.2, split=s)
        for s in (None, "train", "val")
    ]
    whole, train, validation = (p.arrays() for p in parts)
    assert (whole.shape, train.shape, validation.shape) == ((20, 1, 6), (16, 1, 6), (4, 1, 6))
    assert np.array_equal(np.concatenate([train, validation]), whole)
    assert parts[2].rows[0]["file_name"] == "row 16"
    assert len({p.fingerprint() for p in parts}) == 3


HOSTILE = {
    "claims 16 GiB": (header((2**32,)), "array-truncated: 17179869184"),
    "claims more than an integer holds": (header((2**62, 2**62)), "array-truncated"),
    "cut off": (header((4, 1, 8)) + b"\0" * 64, "array-truncated"),
    "too long": (header((1, 1, 2)) + b"\0" * 64, "array-truncated"),
    "objects": (header((1, 1, 2), "|O") + b"\0" * 16, "array-not-numbers"),
    "complex": (header((1, 1, 2), "<c8") + b"\0" * 16, "array-not-numbers"),
    "text": (header((1, 1, 2), "<U4") + b"\0" * 32, "array-not-numbers"),
    "no array": (b"GIF89a" + b"\0" * 64, "array-unreadable"),
    "nothing": (b"", "array-unreadable"),
    "code for a header": (b"\x93NUMPY\x01\x00\x20\x00__import__('os').system('true')\n", "array-unreadable"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "sentence"), HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_is_refused_by_name_and_takes_no_memory(content, sentence, tmp_path):
    path = tmp_path / "bad.npy"
    path.write_bytes(content)
    with zipfile.ZipFile(tmp_path / "bad.npz", "w") as archive:
        archive.writestr("bad.npy", content)
    tracemalloc.start()
    for file in ("bad.npy", "bad.npz"):
        with refused(sentence, UsageError, naming=file):
            ArrayFile(path=str(tmp_path / file))
    with refused(sentence, UsageError):
        read_npy(path)
    assert tracemalloc.get_traced_memory()[1] < 2**22
    tracemalloc.stop()


def test_pickled_objects_are_not_read(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with refused("array-not-numbers"):
        read_npy(tmp_path / "a.npy")


def test_an_archive_that_would_unpack_to_too_much_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header((1, 1, 2**22)) + bytes(2**24))
    with refused("file-too-large", UsageError):
        ArrayFile(path=str(tmp_path / "bomb.npz"))


def test_data_that_can_not_be_meant_is_refused(tmp_path):
    def wrong(code, array=WAVES, error=UsageError, **arguments):
        np.save(tmp_path / "a.npy", array)
        with refused(code, error):
            ArrayFile(**{"path": str(tmp_path / "a.npy"), "values": (-3.0, 5.0), **arguments})

    wrong("array-out-of-range: set values", values=(-1.0, 1.0))
    wrong("array-not-finite", np.where(WAVES > 0, np.nan, WAVES))
    wrong("array-shape-wrong: channels: false", WAVES[:, 0])
    wrong("data-too-few: one row", WAVES[:1], split="val")
    wrong("array-shape-wrong", WAVES[:0])
    wrong("values-range-invalid: [low, high]", error=ConfigError, values=(1.0, 1.0))
    wrong("number-out-of-range: held_out", error=ConfigError, held_out=1.0)
    wrong("split-unknown: train and val", error=ConfigError, split="test")
    wrong("array-key-unfit: no .npz", error=ConfigError, key="a")
    wrong("file-missing", path=str(tmp_path / "none.npy"))
    wrong("data-missing", path=str(tmp_path / "none.npz"))
    (tmp_path / "folder").mkdir()
    wrong("data-empty", path=str(tmp_path / "folder"))
    np.save(tmp_path / "folder" / "0.npy", WAVES[0])
    np.save(tmp_path / "folder" / "1.npy", WAVES[0, :, :3])
    wrong("array-shapes-differ", path=str(tmp_path / "folder"))
    np.savez(tmp_path / "b.npz", one=WAVES, two=WAVES)
    wrong("array-key-unfit: one, two", path=str(tmp_path / "b.npz"))


@pytest.mark.parametrize("size", [64, (32, 48), (16, 16, 24)])
def test_a_wave_has_its_peak_between_low_and_high(size):
    data = Sines(size=size, count=12, low=2.0, high=4.0)
    waves = data.arrays()
    assert waves.shape == (12, 1, *((size,) if isinstance(size, int) else size))
    assert np.abs(waves).max() <= 1.0
    axes = tuple(range(1, waves.ndim - 1))
    power = np.abs(np.fft.fftn(waves[:, 0], axes=axes)) ** 2
    for one in power:
        peak = np.unravel_index(one.argmax(), one.shape)
        cycles = [min(p, n - p) for p, n in zip(peak, one.shape, strict=True)]
        assert all(2 <= c <= 4 for c in cycles)


def test_waves_are_the_same_each_time_and_others_for_validation():
    first = Sines(size=16, count=30, split="train", high=4)
    again = Sines(size=16, count=10, split="train", high=4)
    validation = Sines(size=16, count=30, split="val", high=4)
    assert np.array_equal(first.arrays()[:10], again.arrays())
    assert len(validation) == 3
    assert not np.array_equal(validation.arrays(), first.arrays()[:3])
    assert first.fingerprint() != validation.fingerprint()
    assert isinstance(first, ArrayDataset)


@pytest.mark.parametrize("wrong", [{"high": 9.0}, {"low": 0.0}, {"size": (1, 8)}, {"count": 0}, {"amplitude": 0.0}])
def test_waves_that_can_not_be_are_refused(wrong):
    with refused("number-out-of-range|size-invalid", ConfigError, naming="give"):
        Sines(**{"size": 16, **wrong})
