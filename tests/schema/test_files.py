"""Files appear whole or not at all, under any number of writers, and nothing is written outside the folder."""

from __future__ import annotations

import errno
import os
import stat
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image

from tests.processes import context, started
from tests.refusals import refused
from zoo.pipeline.generation import Generation
from zoo.schema import files
from zoo.schema.errors import UsageError, ZooError
from zoo.schema.files import LOCK, atomic, lines_of, locked, read_plain, sha256_of, write_atomically, write_text


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_there_when_the_block_ends_and_nothing_beside_it(tmp_path):
    with atomic(tmp_path / "a") as file:
        file.write(b"new")
        assert not (tmp_path / "a").exists()
    assert (tmp_path / "a").read_bytes() == b"new"
    assert names(tmp_path) == ["a"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    write_atomically(tmp_path / "a", b"old")

    def broken():
        with atomic(tmp_path / "a") as file:
            file.write(b"half")
            raise ValueError("broke")

    with pytest.raises(ValueError, match="broke"):
        broken()
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
def test_a_disk_that_refuses_leaves_the_old_file(number, tmp_path, monkeypatch):
    write_atomically(tmp_path / "a", b"old")

    def full(_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=os.strerror(number)):
        write_atomically(tmp_path / "a", b"new")
    assert (tmp_path / "a").read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_modes_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").write_bytes(b"")
    write_text(tmp_path / "ours", "x")
    assert stat.S_IMODE((tmp_path / "ours").stat().st_mode) == stat.S_IMODE((tmp_path / "plain").stat().st_mode)


def test_a_link_at_the_place_is_replaced_and_what_it_names_is_left(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "a").symlink_to(outside)
    write_atomically(inside / "a", b"ours")
    assert outside.read_bytes() == b"theirs"
    assert (inside / "a").read_bytes() == b"ours"
    assert not (inside / "a").is_symlink()


def test_links_under_the_old_temporary_names_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    outside.write_bytes(b"theirs")
    inside = tmp_path / "inside"
    inside.mkdir()
    for name in (".a.png.tmp", f".a.png.{os.getpid()}.tmp"):
        (inside / name).symlink_to(outside)
    made(1, 8).save(inside / "a.png")
    assert outside.read_bytes() == b"theirs"


def test_a_name_as_long_as_a_name_can_be_is_written(tmp_path):
    place = tmp_path / ("a" * 255)
    write_atomically(place, b"x")
    assert place.read_bytes() == b"x"


def made(seed: int, side: int) -> Generation:
    tensor = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(seed))
    return Generation(samples=torch.zeros(1), drawn=tensor, record={"images": [{}]})


def _saver(place: Path, seed: int, side: int, times: int, refused) -> None:
    one = made(seed, side)
    for _ in range(times):
        try:
            one.save(place)
        except ZooError:
            refused.value += 1


@pytest.mark.slow
def test_of_several_writers_of_one_name_the_last_wins_and_no_reader_sees_half(tmp_path):
    place, refused = tmp_path / "a.png", context().Value("i", 0)
    made(0, 64).save(place)
    writers = [started(partial(_saver, place, i, 160 + 40 * i, 12, refused)) for i in range(3)]
    seen = set()
    while any(writer.is_alive() for writer in writers):
        with Image.open(place) as image:
            image.load()
            seen.add(image.size)
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    assert refused.value == 0
    assert len(seen) > 1
    assert names(tmp_path) == ["a.png"]


def _hanging(place: Path, ready) -> None:
    with atomic(place) as file:
        file.write(b"half")
        file.flush()
        ready.set()
        time.sleep(60)


@pytest.mark.slow
def test_what_a_killed_writer_left_is_taken_away_and_a_living_ones_is_not(tmp_path, monkeypatch):
    ready = context().Event()
    writer = started(partial(_hanging, tmp_path / "a", ready))
    ready.wait()
    assert len(names(tmp_path)) == 1
    monkeypatch.setattr(files, "FRESH", -1.0)
    files._tidied.clear()
    write_text(tmp_path / "b", "x")  # while it lives
    assert len(names(tmp_path)) == 2
    writer.kill()
    writer.join()
    files._tidied.clear()
    write_text(tmp_path / "b", "y")
    assert names(tmp_path) == ["b"]


def _hanging_folder(place, ready):
    with files.atomic_folder(place) as folder:
        (folder / "part").mkdir()
        (folder / "part" / "half").write_bytes(b"x" * 1000)
        ready.set()
        time.sleep(600)


@pytest.mark.slow
def test_the_folder_that_a_killed_writer_left_is_taken_away_and_a_living_ones_is_not(tmp_path, monkeypatch):
    """An export or a conversion that was killed left gigabytes for good."""
    ready = context().Event()
    writer = started(partial(_hanging_folder, tmp_path / "a", ready))
    ready.wait()
    monkeypatch.setattr(files, "FRESH", -1.0)
    files._tidied.clear()
    write_text(tmp_path / "b", "x")  # while it lives
    assert len(names(tmp_path)) == 2
    writer.kill()
    writer.join()
    files._tidied.clear()
    with files.atomic_folder(tmp_path / "a") as folder:
        (folder / "whole").write_bytes(b"y")
    assert names(tmp_path) == ["a", "b"]
    assert names(tmp_path / "a") == ["whole"]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    def broken():
        with files.atomic_folder(tmp_path / "new" / "a") as folder:
            (folder / "half").write_bytes(b"x")
            raise ValueError("broke")

    with pytest.raises(ValueError, match="broke"):
        broken()
    assert names(tmp_path / "new") == []
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "theirs").write_bytes(b"")
    with pytest.raises(OSError, match="not empty") as told, files.atomic_folder(tmp_path / "taken"):
        pass
    assert told.value.filename == str(tmp_path / "taken")
    assert names(tmp_path / "taken") == ["theirs"]


def test_the_hash_is_of_the_bytes(tmp_path):
    write_atomically(tmp_path / "a", b"abc")
    assert sha256_of(tmp_path / "a").startswith("ba7816bf")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_a_lock_that_is_no_plain_file_is_refused_and_what_a_link_names_is_left(kind, tmp_path):
    precious, lock = tmp_path / "precious", tmp_path / "run" / LOCK
    precious.write_text("kept")
    lock.parent.mkdir()
    {"link": lambda: lock.symlink_to(precious), "pipe": lambda: os.mkfifo(lock), "folder": lock.mkdir}[kind]()
    with refused("lock-not-a-file"), locked(lock.parent, mend="wait"):
        pass
    assert precious.read_text() == "kept"


def test_a_lock_names_its_holder_while_it_is_held(tmp_path):
    with locked(tmp_path, mend="wait"):
        assert f"process {os.getpid()} on " in (tmp_path / LOCK).read_text()
        holder = f"in use by process {os.getpid()} "
        with refused("folder-in-use", UsageError, naming=holder) as caught, locked(tmp_path, mend="wait"):
            pass
        assert str(caught.value).endswith("; wait")
    assert (tmp_path / LOCK).read_text() == ""


def test_what_never_ends_or_never_begins_is_no_file_to_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "plain.json").write_bytes(b"{}")
    assert read_plain(tmp_path / "plain.json", 100) == b"{}"
    assert read_plain(tmp_path / "plain.json", 1) == b"{}"  # one more than the limit: there is more
    for read in (lambda p: read_plain(p, 10), sha256_of):
        for place in (tmp_path / "pipe.json", Path("/dev/zero"), tmp_path):
            with pytest.raises(OSError, match=r"no regular file|directory"):
                read(place)


def test_lines_are_read_one_at_a_time_and_long_ones_left_out(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"one\n" + b"x" * 100 + b"\ntwo\n" + b"y" * 9 + b"\n\nthree\ncut o")
    assert list(lines_of(tmp_path / "a.csv", 10)) == [b"one\n", b"two\n", b"yyyyyyyyy\n", b"\n", b"three\n"]
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="no regular file"):
        list(lines_of(tmp_path / "pipe", 10))


def readers():
    """Whatever reads a JSON, a list or a checkpoint of somebody's."""
    from zoo.bench.record import read as suite_record
    from zoo.bench.report import read_record
    from zoo.checkpoints import folders
    from zoo.conditioners.words import read_words
    from zoo.data.reserved import ReservedNames
    from zoo.inspection.sides import read_side
    from zoo.records.reading import read_json
    from zoo.schema.registry import registry
    from zoo.training.engine import checkpoint

    return {
        "record": read_json, "report": read_record, "bench": suite_record, "words": read_words,
        "folder": folders.read_json,
        "reserved": lambda p: ReservedNames([str(p)]),
        "diff": lambda p: read_side(str(p), components=registry()), "checkpoint": lambda p: checkpoint.read(p.parent),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["words", "folder", "record", "report", "bench", "reserved", "diff", "checkpoint"])
def test_no_reader_waits_for_a_pipe(name, tmp_path):
    os.mkfifo(tmp_path / "manifest.json")
    with refused("checkpoint-damaged|file-unreadable|reserved-list-unreadable|weights-unreadable"):
        readers()[name](tmp_path / "manifest.json")


@pytest.mark.parametrize("call", ["open", "replace", "fsync"])
def test_a_refusal_names_the_file_that_was_asked_for(call, tmp_path, monkeypatch):
    """It named the temporary one beside it, or none."""
    real = getattr(Path if call == "replace" else os, call)

    def refuses(path, *rest, **words):
        if call == "fsync" or ".zoo-" in str(path):
            raise OSError(errno.EACCES, "Permission denied", None if call == "fsync" else str(path))
        return real(path, *rest, **words)

    monkeypatch.setattr(Path if call == "replace" else os, call, refuses)
    with pytest.raises(OSError, match="Permission denied") as told:
        write_atomically(tmp_path / "a.txt", b"")
    assert told.value.filename == str(tmp_path / "a.txt")
