"""Tar shards: the members Python's tarfile sees, the pictures a folder gives, and nothing a hostile archive wants."""

from __future__ import annotations

import io
import json
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_image_folder import make, png
from tests.refusals import refused
from zoo.data import tar_index
from zoo.data.dataset import Dataset
from zoo.data.image_folder import ImageFolder
from zoo.data.pack import pack
from zoo.data.web_dataset import WebDataset, expand
from zoo.schema.errors import UsageError, ZooError


def tar(path, members, *, format=tarfile.PAX_FORMAT):
    """Members as (name, bytes) or a ready TarInfo."""
    with tarfile.open(path, "w", format=format) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size, info.mtime = len(member[1]), 1.5  # a fraction makes a pax header
            archive.addfile(info, io.BytesIO(member[1]))
    return str(path)


def sample(key, colour=(200, 10, 10), text="red"):
    return [(f"{key}.png", png(colour)), (f"{key}.txt", text.encode())]


names = st.text(st.characters(codec="utf-8", exclude_characters="/\\\0", exclude_categories=["Cs"]), min_size=1).filter(
    lambda n: n not in (".", "..") and n.strip("\0")
)


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    members=st.lists(st.tuples(st.one_of(names, st.just("long/" * 40 + "n")), st.binary(max_size=1500)), max_size=5),
    format=st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_the_index_agrees_with_tarfile(tmp_path_factory, members, format):
    path = tmp_path_factory.mktemp("t") / "a.tar"
    tar(path, members, format=format)
    found, _ = tar_index.index(path)
    with tarfile.open(path) as archive:
        theirs = [(m.name, archive.extractfile(m).read()) for m in archive]
    assert [(m.name, tar_index.read(path, m)) for m in found] == theirs


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_damaged_shard_is_refused_or_read_and_nothing_else(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("t") / "a.tar"
    tar(path, [*sample("a"), *sample("b")])
    whole = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        whole = whole[:at]
    else:
        whole[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(whole)
    said = ""
    try:
        WebDataset(path=str(path), size=4).images()
    except ZooError as error:
        said = str(error)
    assert not said or "a.tar" in said or "sample" in said


def test_every_truncation_is_refused(tmp_path):
    path = tmp_path / "a.tar"
    tar(path, [*sample("a"), *sample("b")])
    whole = path.read_bytes()
    end = len(whole.rstrip(b"\0"))  # after the last byte of data come padding and the end mark
    for cut in range(0, end, 100):
        path.write_bytes(whole[:cut])
        with refused("shard-truncated"):
            WebDataset(path=str(path), size=4)


def test_packed_shards_give_what_the_folder_gives(tmp_path):
    rows = [
        {"file_name": f"images/{i}.png", "text": f"picture {i}", "split": "val" if i == 3 else "train", "n": i}
        for i in range(7)
    ]
    files = {f"images/{i}.png": png((i * 30, 0, 99), (20 + i, 20)) for i in range(7)}
    folder = make(tmp_path / "d", files, rows, zipped=False)
    shards = pack(folder, tmp_path / "s", rows=3)
    assert [s.name for s in shards] == ["000000.tar", "000001.tar", "000002.tar"]
    for split in (None, "train", "val"):
        ours, theirs = (
            WebDataset(path=str(tmp_path / "s"), split=split, size=8),
            ImageFolder(path=folder, split=split, size=8),
        )
        assert (ours.images() == theirs.images()).all()
        strip = [{k: v for k, v in row.items() if k != "file_name"} for row in theirs.rows]
        assert [{k: v for k, v in row.items() if k != "file_name"} for row in ours.rows] == strip
        assert isinstance(ours, Dataset)
        assert isinstance(theirs, Dataset)
    again = pack(folder, tmp_path / "again", rows=3)
    assert [s.read_bytes() for s in again] == [s.read_bytes() for s in shards]


def test_patterns_name_shards_in_order_and_a_missing_one_is_told(tmp_path):
    assert list(expand("a-{08..11}.tar")) == ["a-08.tar", "a-09.tar", "a-10.tar", "a-11.tar"]
    assert list(expand("{x,y}/{0..1}")) == ["x/0", "x/1", "y/0", "y/1"]
    for wrong in ("{3..1}", "{a}", "{}", "{0..999999999999}", "{0..9999}{0..9999}"):
        with refused("shard-pattern-invalid"):
            list(expand(wrong))
    tar(tmp_path / "s-0.tar", sample("a"))
    tar(tmp_path / "s-1.tar", sample("a", (0, 0, 255), "blue"))
    data = WebDataset(path=str(tmp_path / "s-{0..1}.tar"), size=4)
    assert [(r["file_name"], r["text"]) for r in data.rows] == [("s-0.tar/a.png", "red"), ("s-1.tar/a.png", "blue")]
    with refused("data-missing", naming="s-2.tar'"):
        WebDataset(path=str(tmp_path / "s-{0..2}.tar"), size=4)


def test_the_split_can_name_the_shards(tmp_path):
    tar(tmp_path / "train-0.tar", sample("a"))
    tar(tmp_path / "val-0.tar", sample("b", text="held back"))
    path = str(tmp_path / "{split}-{0..0}.tar")
    assert [r["text"] for r in WebDataset(path=path, split="val", size=4).rows] == ["held back"]
    with refused("split-missing"):
        WebDataset(path=path, size=4)


def test_captions_come_from_txt_or_json_and_other_keys_stay(tmp_path):
    said = json.dumps({"caption": "an apple", "name": "apple", "split": "train"}).encode()
    members = [("x/1.jpg", png()), ("x/1.json", said), ("x/2.png", png()), ("x/2.txt", b" pear \n"), ("README", b"hi")]
    rows = WebDataset(path=tar(tmp_path / "a.tar", members), size=4).rows
    assert [(r["file_name"], r["text"], r.get("name")) for r in rows] == [
        ("a.tar/x/1.jpg", "an apple", "apple"),
        ("a.tar/x/2.png", "pear", None),
    ]


def linked(kind, name="a.png", target="/etc/passwd"):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    ("member", "refusal"),
    [
        (linked(tarfile.SYMTYPE), "shard-member-unread"),
        (linked(tarfile.LNKTYPE), "shard-member-unread"),
        (linked(tarfile.CHRTYPE), "shard-member-unread"),
        (linked(tarfile.BLKTYPE), "shard-member-unread"),
        (linked(tarfile.FIFOTYPE), "shard-member-unread"),
        (("../a.png", b""), "file-outside-folder"),
        (("/a.png", b""), "file-outside-folder"),
        (("a/../../b.png", b""), "file-outside-folder"),
        (("a\\..\\b.png", b""), "file-outside-folder"),
    ],
)
@pytest.mark.parametrize("on_bad", ["error", "skip"])
def test_hostile_members_are_refused_even_where_bad_rows_are_skipped(tmp_path, member, refusal, on_bad):
    path = tar(tmp_path / "a.tar", [*sample("ok"), member])
    with refused(refusal, UsageError):
        WebDataset(path=path, size=4, on_bad=on_bad)


def test_a_member_that_claims_more_than_there_is_is_refused_without_reading_it(tmp_path):
    info = tarfile.TarInfo("a.png")
    info.size = 2**62
    path = tmp_path / "a.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with refused("shard-truncated"):
        WebDataset(path=str(path), size=4)


def test_a_compressed_shard_is_told_from_a_broken_one(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w:gz") as archive:
        archive.addfile(tarfile.TarInfo("a.txt"), io.BytesIO())
    with refused("shard-truncated", naming="compressed"):
        WebDataset(path=str(tmp_path / "a.tar"), size=4)


BAD = {
    "missing caption": [("b.png", png())],
    "missing file": [("b.txt", b"no picture")],
    "duplicate": [("b.png", png()), ("b.png", png()), ("b.txt", b"x")],
    "not a picture": [("b.png", b"text"), ("b.txt", b"x")],
    "too small": [("b.png", png(size=(3, 30))), ("b.txt", b"x")],
}


@pytest.mark.parametrize("reason", BAD)
def test_bad_samples_stop_or_are_counted(tmp_path, reason):
    path = tar(tmp_path / "a.tar", [*sample("a"), *BAD[reason], *sample("c", text="last")])
    with pytest.raises(UsageError):
        WebDataset(path=path, size=4, smallest=4).images()
    data = WebDataset(path=path, size=4, smallest=4, on_bad="skip")
    assert [r["text"] for r in data.rows] == ["red", "last"]
    assert dict(data.reasons) == {reason: 1}
    assert data.images().shape == (2, 3, 4, 4)


def test_a_changed_shard_changes_the_fingerprint(tmp_path):
    path = tar(tmp_path / "a.tar", sample("a"))
    before = WebDataset(path=path, size=4).fingerprint()
    assert WebDataset(path=path, size=4).fingerprint() == before
    assert WebDataset(path=path, size=8).fingerprint() != before
    tar(tmp_path / "a.tar", [*sample("a"), *sample("b")])
    assert WebDataset(path=path, size=4).fingerprint() != before


def test_any_order_of_reading_gives_the_same_pictures(tmp_path):
    path = tar(tmp_path / "a.tar", [m for i in range(5) for m in sample(str(i), (i * 40, 0, 0))])
    data = WebDataset(path=path, size=4)
    assert [int(data.image(i)[0, 0, 0]) for i in (4, 0, 3, 0)] == [160, 0, 120, 0]
    assert np.array_equal(data.images(), np.stack([data.image(i) for i in range(5)]))


def test_packing_that_breaks_off_leaves_no_shards(tmp_path):
    """Shards of the first rows were left, which read as the whole data."""
    folder = tmp_path / "data"
    folder.mkdir()
    names = ["0.png", "1.png", "2.bmp"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(png((number, 0, 0)))
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps({"file_name": n, "text": "x"}) for n in names))
    with refused("image-format-unread", UsageError):
        pack(folder, tmp_path / "s", rows=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data"]
