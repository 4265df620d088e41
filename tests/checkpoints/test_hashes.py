"""Kept hashes: a file is hashed once while it stays, and again whenever its size, times or inode changed."""

import json
import os
import time

import pytest

from zoo.checkpoints import hashes
from zoo.schema.files import sha256_of

OLD = time.time() - 3600


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A cache folder of the test's own, and how often a file was hashed."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hashes, "SMALLEST", 10)
    monkeypatch.setattr(hashes, "FRESH", 0.0)
    calls = []
    monkeypatch.setattr(hashes, "sha256_of", lambda path: calls.append(path) or sha256_of(path))
    return calls


def written(path, data=b"0123456789abcdef"):
    path.write_bytes(data)
    os.utime(path, (OLD, OLD))
    return path


def test_a_file_that_stays_is_hashed_once(tmp_path, counted):
    file = written(tmp_path / "w.bin")
    time.sleep(0.02)
    assert {hashes.known_sha256(file) for _ in range(3)} == {sha256_of(file)}
    assert len(counted) == 1
    hashes.known_sha256(written(tmp_path / "small.bin", b"123"))
    assert list(hashes._read()) == [str(file)]


CHANGES = {
    "content of the same size and time": lambda f: written(f, b"0123456789abcdeF"),
    "size": lambda f: written(f, b"0123456789abcdefg"),
    "time": lambda f: os.utime(f, (OLD + 1, OLD + 1)),
    "inode": lambda f: written(f.with_name("other")).replace(f),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_that_changed_is_hashed_again(change, tmp_path, counted):
    file = written(tmp_path / "w.bin")
    time.sleep(0.02)
    hashes.known_sha256(file)
    CHANGES[change](file)
    time.sleep(0.02)
    assert hashes.known_sha256(file) == sha256_of(file)
    assert len(counted) == 2


DAMAGES = {
    "torn": lambda text: text[: len(text) // 2],
    "another hash": lambda text: text.replace(json.loads(text)["seal"], "0" * 64),
    "an edited entry": lambda text: text.replace(sha256_of_kept(text), "f" * 64),
    "no object": lambda text: "[1]",
    "another schema": lambda text: text.replace("zoo.hashes/1", "zoo.hashes/9"),
    "too large": lambda text: text + " " * hashes.LIMIT,
}


def sha256_of_kept(text):
    return next(iter(json.loads(text)["files"].values()))[-1]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_cache_is_an_empty_one(damage, tmp_path, counted):
    file = written(tmp_path / "w.bin")
    time.sleep(0.02)
    hashes.known_sha256(file)
    kept = tmp_path / "cache" / hashes.NAME
    kept.write_text(DAMAGES[damage](kept.read_text()))
    assert hashes.known_sha256(file) == sha256_of(file)
    assert hashes.known_sha256(file) == sha256_of(file)
    assert len(counted) == 2


def test_a_file_that_was_written_just_now_is_not_kept(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(hashes, "FRESH", 3600.0)
    file = tmp_path / "w.bin"
    file.write_bytes(b"0123456789abcdef")
    hashes.known_sha256(file)
    assert hashes._read() == {}


def test_no_more_are_kept_than_there_is_room_for(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(hashes, "MOST", 3)
    files = [written(tmp_path / f"{i}.bin") for i in range(5)]
    time.sleep(0.02)
    for file in files:
        hashes.known_sha256(file)
    assert list(hashes._read()) == [str(file) for file in files[-3:]]


def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(tmp_path, counted, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    file = written(tmp_path / "w.bin")
    assert hashes.known_sha256(file) == sha256_of(file)
