"""Reference statistics: what is written is read, and files from outside can neither lie nor explode."""

import io
import zipfile

import numpy as np
import pytest

from tests.refusals import refused
from zoo.evaluation.extractors import statistics_file
from zoo.evaluation.extractors.features import Features
from zoo.evaluation.extractors.inception import WEIGHTS
from zoo.evaluation.extractors.moments import Moments
from zoo.evaluation.extractors.statistics_file import read_statistics, save_statistics
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.schema.errors import WeightsError, ZooError


def features(count=40, seed=1, width=6):
    array = np.random.default_rng(seed).standard_normal((count, width)).astype(np.float32)
    return Features(
        source="some/where/set", extractor="toy", sha256="ab" * 32, count=count, arrays={"pool": array},
        moments={"pool": Moments.of(array)}, pictures_sha256="cd" * 32,
    )  # fmt: skip


def common(path, width=2048, **more):
    arrays = {"mu": np.arange(width, dtype=np.float64), "sigma": np.eye(width) * 2.0, **more}
    np.savez(path, **arrays)
    return path


def test_what_is_written_is_read_and_gives_the_same_distance(tmp_path):
    written = save_statistics(features(), tmp_path / "below" / "set.npz")
    found = read_statistics(written)
    assert (found.extractor, found.sha256, found.count) == ("toy", "ab" * 32, 40)
    assert found.pictures_sha256 == "cd" * 32
    other = features(50, seed=2)
    expected = frechet_distance(other.moment(), features().moment())
    assert frechet_distance(other.moment(), found.gaussian()) == expected
    with refused("moments-only"):
        found.array()
    assert b"some/where" not in written.read_bytes()  # whose machine it was is nobody's business


def test_a_name_that_says_something_else_is_refused(tmp_path):
    with refused("output-format-unknown"):
        save_statistics(features(), tmp_path / "set.pt")
    with refused("statistics-missing"):
        read_statistics(tmp_path / "absent.npz")


@pytest.mark.slow
def test_mu_and_sigma_alone_need_a_stated_protocol(tmp_path):
    path = common(tmp_path / "common.npz", arr_0=np.zeros((3, 4, 4, 3), dtype=np.uint8))
    with refused("protocol-missing"):
        read_statistics(path)
    with refused("protocol-unknown", naming="fid-tf1"):
        read_statistics(path, protocol="fid")
    found = read_statistics(path, protocol="fid-clean")
    assert (found.extractor, found.sha256, found.count) == ("inception-2015-clean", WEIGHTS.sha256, 0)
    np.testing.assert_array_equal(found.moment().mean, np.arange(2048))
    np.testing.assert_array_equal(found.moment().covariance, np.eye(2048) * 2.0)
    with refused("statistics-of-another", naming="64"):
        read_statistics(common(tmp_path / "small.npz", width=64), protocol="fid-tf1")


@pytest.mark.slow
def test_adms_spatial_statistics_are_put_in_our_order(tmp_path):
    """Theirs are (17, 17, 7) laid out, ours (7, 17, 17); one order against the other would be another distance."""
    rng = np.random.default_rng(0)
    theirs = rng.standard_normal((6, 17, 17, 7)) * np.arange(1, 8)
    ours = theirs.transpose(0, 3, 1, 2).reshape(6, -1)
    flat = theirs.reshape(6, -1)
    path = common(tmp_path / "adm.npz", mu_s=flat.mean(axis=0), sigma_s=np.cov(flat, rowvar=False))
    found = read_statistics(path, protocol="fid-tf1").moment("spatial")
    np.testing.assert_allclose(found.mean, ours.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(ours, rowvar=False), rtol=1e-9, atol=1e-12)
    with refused("statistics-of-another", naming="2023"):
        read_statistics(common(tmp_path / "other.npz", mu_s=np.zeros(9), sigma_s=np.eye(9)), protocol="fid-tf1")


def test_statistics_of_unknown_n_give_the_distance_of_their_gaussian():
    array, other = features(40).array(), features(50, seed=2)
    known = Moments.of(array)
    unknown = statistics_file._moments(known.mean, known.covariance, count=None, where="x")
    assert frechet_distance(other.moment(), unknown) == pytest.approx(frechet_distance(other.moment(), known), rel=1e-9)


def test_a_protocol_against_what_the_file_says_is_refused(tmp_path):
    path = save_statistics(features(), tmp_path / "set.npz")
    with refused("statistics-of-another"):
        read_statistics(path, protocol="fid-tf1")


def npz(path, members, how=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", how) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return path


def npy(array, **settings):
    buffer = io.BytesIO()
    np.save(buffer, array, **settings)
    return buffer.getvalue()


def claiming(shape):
    """A header without the numbers."""
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": shape})
    return buffer.getvalue()


@pytest.mark.parametrize(
    "members",
    [
        [("mu.npy", claiming((2**31,))), ("sigma.npy", npy(np.eye(2)))],
        [("mu.npy", npy(np.array([{}], dtype=object), allow_pickle=True)), ("sigma.npy", npy(np.eye(2)))],
        [("mu.npy", npy(np.array(["x"]))), ("sigma.npy", npy(np.eye(2)))],
        [("mu.npy", npy(np.zeros(2048) * np.nan)), ("sigma.npy", npy(np.eye(2048)))],
        [("mu.npy", npy(np.zeros(2048))), ("sigma.npy", npy(np.eye(64)))],
        [("mu.npy", npy(np.zeros(3))), ("sigma.npy", npy(-np.eye(3)))],
        [("mu.npy", npy(np.zeros(3))), ("sigma.npy", npy(np.arange(9.0).reshape(3, 3)))],
        [("mu", b"x"), ("sigma.npy", npy(np.eye(3)))],
        [("mu.npy", b"\x93NUMPY"), ("sigma.npy", npy(np.eye(3)))],
        [("header.npy", npy(np.frombuffer(b"[[[[", dtype=np.uint8)))],
        [("header.npy", npy(np.frombuffer(b'{"schema": "zoo.statistics/9"}', dtype=np.uint8)))],
        [("other.npy", npy(np.zeros(3)))],
    ],
    ids=["claims", "pickle", "text", "nan", "shapes", "negative", "skew", "name", "cut", "header", "schema", "other"],
)  # fmt: skip
def test_what_is_no_statistics_is_refused_by_name(tmp_path, members):
    with refused("statistics-damaged|schema-unknown", naming="x.npz"):
        read_statistics(npz(tmp_path / "x.npz", members), protocol="fid-tf1")


@pytest.mark.slow
def test_an_array_that_unpacks_beyond_reason_is_not_unpacked(tmp_path):
    path = npz(tmp_path / "bomb.npz", [("mu.npy", bytes(2**27))], zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 200_000
    with refused("statistics-damaged", WeightsError):
        read_statistics(path, protocol="fid-tf1")


def test_damage_anywhere_changes_no_number_silently(tmp_path):
    path = save_statistics(features(), tmp_path / "set.npz")
    whole, sound = path.read_bytes(), read_statistics(path)
    rng = np.random.default_rng(0)
    refused = 0
    for i in range(150):
        data = bytearray(whole)
        if i % 3 == 0:
            data = data[: int(rng.integers(0, len(data)))]
        else:
            data[int(rng.integers(0, len(data)))] ^= 1 << int(rng.integers(0, 8))
        path.write_bytes(data)
        found = tried(path)
        if isinstance(found, ZooError):
            refused += "set.npz" in str(found)
        else:  # a time or an attribute in the zip's directory, which nobody reads
            np.testing.assert_array_equal(found.moment().mean, sound.moment().mean)
            np.testing.assert_array_equal(found.moment().scatter, sound.moment().scatter)
    assert refused > 100


def tried(path):
    try:
        return read_statistics(path)
    except ZooError as error:
        return error
