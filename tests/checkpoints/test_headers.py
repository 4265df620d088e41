"""Headers of weight files without torch: what libraries write is read, any other is refused by its reason."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import struct
import sys
import tracemalloc
import zipfile

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.refusals import refused
from tests.weight_files import raw, sparse
from zoo.checkpoints.containers import read_header
from zoo.checkpoints.folders import read_folder, read_index
from zoo.checkpoints.headers import TENSOR_LIMIT
from zoo.checkpoints.pickles import PickleError, read_pickle
from zoo.schema.errors import UsageError, WeightsError

TENSORS = {
    "a.weight": torch.arange(6.0).reshape(2, 3),
    "a.bias": torch.zeros(3, dtype=torch.float16),
    "b": torch.zeros(2, 2, dtype=torch.bfloat16),
    "count": torch.tensor(7),
    "none": torch.zeros(0, 4, dtype=torch.uint8),
}
NAMES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64", torch.uint8: "U8"}


def described(header):
    return {name: (t.dtype, tuple(t.shape)) for name, t in header.tensors.items()}


EXPECTED = {name: (NAMES[t.dtype], tuple(t.shape)) for name, t in TENSORS.items()}


def read_bytes(entry):
    with entry.file.open("rb") as file:
        file.seek(entry.start)
        return file.read(entry.end - entry.start)


# -- what libraries write


def test_a_file_of_safetensors_is_read_with_its_metadata(tmp_path):
    save_file(TENSORS, tmp_path / "x.safetensors", metadata={"title": 'a "b" \\ é', "empty": ""})
    found = read_header(tmp_path / "x.safetensors")
    assert described(found) == EXPECTED
    assert found.metadata == {"title": 'a "b" \\ é', "empty": ""}
    assert read_bytes(found.tensors["a.weight"]) == TENSORS["a.weight"].numpy().tobytes()


@pytest.mark.parametrize("new", [True, False], ids=["zip", "before 1.6"])
@pytest.mark.parametrize("wrap", ["bare", "state_dict", "ema", "parameters"])
def test_a_file_of_torch_is_read_and_its_bytes_are_where_they_are_said_to_be(tmp_path, new, wrap):
    held = dict(TENSORS)
    saved = {
        "bare": held,
        "state_dict": {"state_dict": held, "global_step": 875000, "epoch": 3},
        "ema": {"model": {"other": torch.zeros(1)}, "ema": held, "step": 9},
        "parameters": {n: torch.nn.Parameter(t) if t.is_floating_point() else t for n, t in held.items()},
    }[wrap]
    torch.save(saved, tmp_path / "x.ckpt", _use_new_zipfile_serialization=new)
    found = read_header(tmp_path / "x.ckpt")
    assert described(found) == EXPECTED
    assert read_bytes(found.tensors["a.weight"]) == TENSORS["a.weight"].numpy().tobytes()
    assert found.values.get("global_step") == (875000 if wrap == "state_dict" else None)
    assert any("'model' holds 1 more" in note for note in found.notes) == (wrap == "ema")


def test_tensors_that_share_a_storage_are_placed_in_it(tmp_path):
    base = torch.arange(24.0).reshape(4, 6)
    torch.save({"rows": base[1:3], "turned": base.T, "whole": base}, tmp_path / "x.pt")
    found = read_header(tmp_path / "x.pt").tensors
    assert read_bytes(found["rows"]) == base[1:3].numpy().tobytes()
    assert found["turned"].stride == (1, 6)
    assert found["rows"].stride is None


def test_an_optimizer_is_not_read_for_a_model(tmp_path):
    model = torch.nn.Linear(3, 4)
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"state_dict": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "x.ckpt")
    assert described(read_header(tmp_path / "x.ckpt")) == {"weight": ("F32", (4, 3)), "bias": ("F32", (4,))}


# -- damaged and hostile files; each with a part of the reason

ENTRY = b'"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
UNREAD = "weights-header-damaged|weights-format-unread|weights-unreadable"
HEADERS = {
    "twice": (b"{" + ENTRY + b"," + ENTRY + b"}", "lists the tensor 'a' twice"),
    "metadata twice": (b'{"__metadata__":{},"__metadata__":{},' + ENTRY + b"}", "'__metadata__' twice"),
    "a key of metadata twice": (b'{"__metadata__":{"k":"1","k":"2"},' + ENTRY + b"}", "says 'k' twice"),
    "nested": (b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "doesn't say what 'a' is"),
    "nested metadata": (b'{"__metadata__":{"a":{"b":"c"}},' + ENTRY + b"}", "no object of strings"),
    "a list": (b"[]", "no safetensors"),
    "not JSON": (b"{nothing}", "no tensor's name"),
    "goes on": (b"{" + ENTRY + b"}{}", "goes on after its end"),
    "another key": (ENTRY.join([b"{", b"}"]).replace(b"]}}", b'],"x":1}}'), "doesn't say what 'a' is"),
    "a key twice": (ENTRY.join([b"{", b"}"]).replace(b"]}}", b'],"shape":[1]}}'), "doesn't say what 'a' is"),
    "negative": (b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', "doesn't say what 'a' is"),
    "fractions": (b'{"a":{"dtype":"F32","shape":[1.0],"data_offsets":[0,4]}}', "doesn't say what 'a' is"),
    "true": (b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}', "doesn't say what 'a' is"),
    "huge": (b'{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,4]}}', "doesn't say what 'a'"),
    "overflow": (b'{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}}', "shape of no tensor"),
    "dtype": (b'{"a":{"dtype":"F33","shape":[1],"data_offsets":[0,4]}}', "dtype 'F33'"),
    "too few bytes": (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', "has 4 bytes where 2 numbers"),
    "a hole": (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[3,4]}}', "begins at byte"),
    "overlap": (b'{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[2],'
                b'"data_offsets":[2,4]}}', "begins at byte"),
    "backwards": (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[4,3]}}', "-1 bytes"),
    "not UTF-8": (b'{"\xff":1}', "no UTF-8"),
    "a control character": (b'{"a\n":1}', "no tensor's name"),
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_that_is_no_list_of_tensors_is_refused_by_its_reason(tmp_path, name):
    header, reason = HEADERS[name]
    path = raw(tmp_path / "x.safetensors", header, 4)
    with refused("weights-header-damaged|weights-format-unread", WeightsError, naming="x.safetensors") as caught:
        read_header(path)
    assert reason in str(caught.value)


def test_a_headers_length_may_begin_as_a_pickle_or_a_zip_does(tmp_path):
    for low in (0x0280, 0x4B50, 0x8B1F):
        header = b"{" + ENTRY + b"}"
        header += b" " * (low - len(header))
        assert described(read_header(raw(tmp_path / "x.safetensors", header, 4))) == {"a": ("F32", (1,))}


def test_spaces_and_another_order_are_json_too(tmp_path):
    text = b'{ "__metadata__" : { } ,\n "a" : { "shape" : [ ] , "data_offsets" : [ 0 , 4 ] , "dtype" : "F32" } }   '
    assert described(read_header(raw(tmp_path / "x.safetensors", text, 4))) == {"a": ("F32", ())}


@pytest.mark.parametrize("kept", [0, 3, 7, 8, 9, 40, 250, -1])
def test_a_file_that_is_cut_off_is_refused(tmp_path, kept):
    for name, save in (("x.safetensors", save_file), ("x.ckpt", torch.save)):
        save(TENSORS, tmp_path / name)
        data = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(data[:kept])
        with refused(UNREAD, WeightsError, naming=name):
            read_header(tmp_path / name)


@settings(max_examples=60, deadline=None)
@given(place=st.floats(0, 1), value=st.integers(1, 255), which=st.sampled_from(["safetensors", "zip", "legacy"]))
def test_a_flipped_byte_ends_in_a_header_or_in_a_reason(tmp_path_factory, place, value, which):
    path = tmp_path_factory.mktemp("flip") / "x.bin"
    if which == "safetensors":
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=which == "zip")
    data = bytearray(path.read_bytes())
    data[int(place * (len(data) - 1))] ^= value
    path.write_bytes(data)
    said = str(path)
    with contextlib.suppress(WeightsError):
        read_header(path)
        return
    with refused(
        f"{UNREAD}|weights-truncated|weights-not-tensors|weights-no-state-dict|pickle-refused",
        WeightsError,
        naming=said,
    ):
        read_header(path)


class Payload:
    """What unpickling runs: `echo` would write a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"echo ran > {self.path}",)


@pytest.mark.parametrize("wrap", ["zip", "legacy", "pickle", "inside"])
def test_a_pickle_with_a_payload_is_refused_by_what_it_would_run_and_nothing_runs(tmp_path, wrap):
    witness, path = tmp_path / "witness", tmp_path / "x.ckpt"
    payload = Payload(witness)
    if wrap == "pickle":
        path.write_bytes(pickle.dumps({"a": payload}))
    elif wrap == "inside":
        torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": [[{"x": payload}]]}, path)
    else:
        torch.save({"a": payload}, path, _use_new_zipfile_serialization=wrap == "zip")
    with refused("pickle-refused", WeightsError):
        read_header(path)
    assert not witness.exists()
    if wrap == "pickle":  # the switch: it does run where it is unpickled
        pickle.loads(path.read_bytes())
        assert witness.exists()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"cos\nsystem\n(S'true'\ntR.", None),
        (b"(cos\nsystem\nS'true'\no.", None),
        (b"(S'true'\nios\nsystem\n.", None),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", None),
        (b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00true\x85\x81.", None),
        (b"\x80\x02}(K\x01", "cut off"),
        (b"\x80\x02\x85.", "isn't there"),
        (b"\x80\x02h\x05.", "before it is there"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "number of"),
        (b"\x80\x02\x82\x01.", "isn't read"),
        (b"\x80\x02N" + b"2" * 2_000_000 + b".", "more than"),
    ],
)
def test_every_way_to_call_is_seen_and_every_other_end_is_named(text, reason):
    if reason is None:
        assert read_pickle(text).calls == ["os.system"]
        return
    with pytest.raises(PickleError, match=reason):
        read_pickle(text)


def test_a_name_that_is_only_named_is_a_note(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": {os.path.join: 1}}, tmp_path / "x.ckpt")
    assert any("posixpath.join" in note for note in read_header(tmp_path / "x.ckpt").notes)


def zip_of(path, members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_zips_that_are_no_weights_are_named(tmp_path):
    with refused("weights-unreadable", WeightsError):
        read_header(zip_of(tmp_path / "x.pt", {"a.txt": "a"}))
    torch.jit.save(torch.jit.script(torch.nn.Linear(1, 1)), str(tmp_path / "s.pt"))
    with refused("weights-unreadable", WeightsError):
        read_header(tmp_path / "s.pt")
    with refused("weights-unreadable", WeightsError):
        read_header(zip_of(tmp_path / "m.pt", {f"m/data/{i}": b"" for i in range(20_001)}))
    torch.save({"a": torch.zeros(4)}, tmp_path / "short.pt")
    with zipfile.ZipFile(tmp_path / "short.pt") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members = {name: data[:7] if name.endswith("data/0") else data for name, data in members.items()}
    with refused("weights-truncated", WeightsError):
        read_header(zip_of(tmp_path / "short.pt", members))


@pytest.mark.parametrize(
    ("data", "kind"),
    [(b"GGUF\x03", "weights-format-unread: GGUF"), (b"<!DOCTYPE html>", "weights-format-unread: web page"),
     (b"version https://git-lfs.github.com", "weights-format-unread: LFS pointer"),
     (b"\x89PNG\r\n\x1a\n", "weights-format-unread: PNG"), (b"\x93NUMPY", "weights-format-unread: NumPy"),
     (b"hello world", "weights-format-unread: none of torch's")],
)  # fmt: skip
def test_other_files_are_named_as_what_they_are(tmp_path, data, kind):
    (tmp_path / "x.safetensors").write_bytes(data)
    with refused(kind, WeightsError):
        read_header(tmp_path / "x.safetensors")


def test_a_file_that_is_not_there_and_a_pipe_are_refused(tmp_path):
    with refused("file-missing", UsageError):
        read_header(tmp_path / "nothing")
    os.mkfifo(tmp_path / "pipe")
    with refused("weights-unreadable", WeightsError):
        read_header(tmp_path / "pipe")


BOMBS = {
    "a header as long as a file": lambda p: raw(p, b" " * 0 + b"{" + b" " * (9 * 2**20) + b"}"),
    "a length of 2^63": lambda p: p.write_bytes(struct.pack("<Q", 2**63) + b"{}"),
    "braces": lambda p: raw(p, b'{"a":' * 1_600_000),
    "brackets": lambda p: raw(p, b'{"a":{"dtype":"F32","shape":' + b"[" * 8_000_000),
    "empty lists": lambda p: raw(p, b'{"a":[' + b"[]," * 2_700_000 + b"]}"),
    "tensors": lambda p: sparse(p, {str(i): () for i in range(TENSOR_LIMIT + 1)}),
    "a name of 8 MB": lambda p: raw(p, b'{"' + b"a" * 8_000_000 + b'":{}}'),
    "wide letters": lambda p: raw(p, ('{"' + "a" * 8_000_000 + "\U0001f600" + '":{}}').encode()),
    "metadata": lambda p: raw(p, b'{"__metadata__":{' + b'"a":"b",' * 1_000_000 + b"}}"),
    "pickle of lists": lambda p: p.write_bytes(b"\x80\x02" + b"]" * 8_000_000 + b"."),
    "pickle of doubling tuples": lambda p: p.write_bytes(b"\x80\x02N" + b"2\x86" * 4_000_000 + b"."),
    "pickle with a long text": lambda p: p.write_bytes(b"\x80\x02X\xff\xff\xff\x7f" + b"a" * 100),
    "zip of a pickle of zeros": lambda p: zip_bomb(p),
}


def zip_bomb(path):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x/data.pkl", "w") as file:
        for _ in range(200):
            file.write(bytes(2**20))


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little_memory(tmp_path, name):
    path = tmp_path / "x.safetensors"
    BOMBS[name](path)
    tracemalloc.start()
    try:
        with refused(UNREAD, WeightsError, naming="x.safetensors"):
            read_header(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 64 * 2**20, f"{peak / 2**20:.0f} MiB"


# -- shards and folders


def sharded(folder, **changes):
    """Two shards as transformers and diffusers write them."""
    folder.mkdir(exist_ok=True)
    names = ["diffusion_pytorch_model-00001-of-00002.safetensors", "diffusion_pytorch_model-00002-of-00002.safetensors"]
    save_file({"a": torch.zeros(2), "b": torch.zeros(3)}, folder / names[0])
    save_file({"c": torch.zeros(4)}, folder / names[1])
    mapped = {"a": names[0], "b": names[0], "c": names[1], **changes}
    path = folder / "diffusion_pytorch_model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {}, "weight_map": {n: f for n, f in mapped.items() if f}}))
    return path


def test_shards_are_one_model(tmp_path):
    found = read_index(sharded(tmp_path))
    assert described(found) == {"a": ("F32", (2,)), "b": ("F32", (3,)), "c": ("F32", (4,))}
    assert read_folder(tmp_path).parts[""].header.tensors.keys() == {"a", "b", "c"}


@pytest.mark.parametrize(
    "outside", ["../x.safetensors", "/etc/passwd", "a/b.safetensors", "..", "C:\\x", ".hidden", "a\0b", ""]
)
def test_a_shard_outside_the_folder_is_refused(tmp_path, outside):
    path = sharded(tmp_path / "in")
    said = json.loads(path.read_text())
    said["weight_map"]["c"] = outside
    path.write_text(json.dumps(said))
    save_file({"c": torch.zeros(4)}, tmp_path / "x.safetensors")
    with refused("file-outside-folder", WeightsError):
        read_index(path)


def test_shards_that_are_missing_or_of_two_models_are_refused(tmp_path):
    second = "diffusion_pytorch_model-00002-of-00002.safetensors"
    path = sharded(tmp_path)
    (tmp_path / second).unlink()
    with refused("weights-missing", WeightsError, naming="00002"):
        read_index(path)
    for tensors, reason in (
        ({"c": torch.zeros(4), "d": torch.zeros(1)}, "index-unfit"),
        ({"d": torch.zeros(1)}, "index-unfit: c"),
        ({"c": torch.zeros(4), "a": torch.zeros(2)}, "index-unfit: a"),
    ):
        path = sharded(tmp_path)
        save_file(tensors, tmp_path / second)
        with refused(reason, WeightsError):
            read_index(path)
    with refused("index-unfit", WeightsError):
        read_index(sharded(tmp_path, b=second))
    path.write_text('{"weight_map": {"a": "x", "a": "y"}}')
    with refused("index-damaged", WeightsError):
        read_index(path)
    path.write_text("[" * 100_000)
    with refused("index-damaged", WeightsError, naming=path.name):
        read_index(path)


@pytest.mark.parametrize("name", ["../unet", "/unet", ""])
def test_a_part_outside_the_folder_is_refused(tmp_path, name):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model_index.json").write_text(json.dumps({"_class_name": "X", name: ["diffusers", "Y"]}))
    with refused("file-outside-folder", WeightsError):
        read_folder(tmp_path / "m")


def test_reading_a_header_needs_no_torch(tmp_path):
    import subprocess

    torch.save(TENSORS, tmp_path / "x.ckpt")
    code = "import sys; from zoo.checkpoints.containers import read_header; from pathlib import Path\n"
    code += f"assert len(read_header(Path({str(tmp_path / 'x.ckpt')!r})).tensors) == 5\n"
    code += "assert not {'torch', 'safetensors', 'numpy'} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).returncode == 0


def test_the_flipped_bytes_of_a_zip_are_seen_by_its_checksum(tmp_path):
    torch.save(TENSORS, tmp_path / "x.ckpt")
    data = bytearray((tmp_path / "x.ckpt").read_bytes())
    place = data.index(b"a.weight")
    data[place] ^= 1
    (tmp_path / "x.ckpt").write_bytes(data)
    with refused("weights-unreadable", WeightsError):
        read_header(tmp_path / "x.ckpt")
