"""A weight file is read only as its card describes it, and put in place whole or not at all."""

import hashlib
import struct
import time
import tracemalloc

import numpy as np
import pytest
import safetensors
import torch
from safetensors.torch import load, save
from torch import nn

from tests.refusals import refused
from zoo.checkpoints.files import load_strict, read_verified
from zoo.checkpoints.headers import HEADER_LIMIT, TENSOR_LIMIT
from zoo.schema.errors import WeightsError


def network():
    return nn.Sequential(nn.Linear(16, 24), nn.GroupNorm(4, 24), nn.Linear(24, 3, bias=False))


def facts(data):
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def sound_file(tmp_path, *, seed=0):
    torch.manual_seed(seed)
    data = save({n: t.half() for n, t in network().state_dict().items()})
    path = tmp_path / f"small-{seed}.safetensors"
    path.write_bytes(data)
    return path, data


def snapshot(module):
    return {n: t.clone() for n, t in module.state_dict().items()}


def unchanged(module, before):
    after = module.state_dict()
    return after.keys() == before.keys() and all(torch.equal(after[n], before[n]) for n in before)


def test_a_sound_file_is_read_and_loaded_in_float32(tmp_path):
    path, data = sound_file(tmp_path)
    tensors = read_verified(path, **facts(data))
    module = network()
    load_strict(module, tensors, what="weights 'small'")
    assert all(torch.equal(t.half(), tensors[n]) for n, t in module.state_dict().items())
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert all(p.requires_grad for p in module.parameters())


def mutants(data, other):
    """(name, bytes), none of them the file itself."""
    generator = np.random.default_rng(5)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for length in [0, 1, 7, 8, 9, header - 1, header, header + 1, len(data) - 1, *generator.integers(1, len(data), 40)]:
        yield f"cut at {length}", data[: int(length)]
    for where, low, high in (("length", 0, 8), ("header", 8, header), ("data", header, len(data))):
        for _ in range(100):
            place, bit = int(generator.integers(low, high)), 1 << int(generator.integers(8))
            yield f"{where} flipped at {place}", data[:place] + bytes([data[place] ^ bit]) + data[place + 1 :]
    for start in range(0, len(data), 256):
        yield f"zeros at {start}", data[:start] + bytes(len(data[start : start + 256])) + data[start + 256 :]
    for count in [1, 2, 7, 8, 64, 4096]:
        yield f"{count} zeros appended", data + bytes(count)
        yield f"{count} of its own bytes appended", data + data[:count]
    yield "swapped with another sound file of its size", other
    yield "itself twice", data + data
    swapped = bytearray(data)
    swapped[header : header + 64], swapped[header + 64 : header + 128] = (
        data[header + 64 : header + 128],
        data[header : header + 64],
    )
    yield "two runs of data exchanged", bytes(swapped)


DAMAGED = "weights-format-unread|weights-hash-wrong|weights-header-damaged|weights-size-wrong"


def test_every_mutant_of_a_file_is_refused_by_name_and_changes_nothing(tmp_path):
    path, data = sound_file(tmp_path)
    other = sound_file(tmp_path, seed=1)[1]
    assert len(other) == len(data)
    module = network()
    before, described = snapshot(module), facts(data)
    count = silent = 0
    for name, mutant in mutants(data, other):
        if mutant == data:
            continue
        path.write_bytes(mutant)
        with refused(DAMAGED, WeightsError, naming=path.name):
            load_strict(module, read_verified(path, **described), what=name)
        assert unchanged(module, before), name
        count += 1
        try:
            load(mutant)
            silent += 1
        except (safetensors.SafetensorError, KeyError):
            pass
    assert count > 350
    assert silent > 100  # what the format itself would have let pass


def test_sentences_say_what_is_wrong_with_the_file(tmp_path):
    path, data = sound_file(tmp_path)
    told = facts(data)
    for change, sentence in (
        (data[:-1], "weights-size-wrong"),
        (data + b"\0", "weights-size-wrong"),
        (data[:-1] + bytes([data[-1] ^ 1]), "weights-hash-wrong"),
    ):
        path.write_bytes(change)
        with refused(sentence, WeightsError):
            read_verified(path, **told)
    path.unlink()
    with refused("weights-missing", WeightsError):
        read_verified(path, **told)
    path.mkdir()
    with refused("weights-missing", WeightsError):
        read_verified(path, **told)


def entry(i):
    return f'"t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}'


BOMBS = {
    "a header that says it is huge": lambda: struct.pack("<Q", 2**62) + b"{}",
    "a header over the limit": lambda: struct.pack("<Q", HEADER_LIMIT + 1) + b" " * (HEADER_LIMIT + 1),
    "a header longer than the file": lambda: struct.pack("<Q", 5000) + b"{}",
    "no header": lambda: b"\x01\x02",
    "too many tensors": lambda: header("{" + ",".join(entry(i) for i in range(TENSOR_LIMIT + 1)) + "}"),
    "metadata without end": lambda: header(
        '{"__metadata__":{' + ",".join(f'"{i:x}":""' for i in range(700_000)) + "}}"
    ),
    "a shape without end": lambda: header(
        '{"a":{"dtype":"U8","shape":[' + "1," * 4_000_000 + '1],"data_offsets":[0,1]}}'
    ),
    "a tensor of all the memory there is": lambda: header(
        '{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
    ),
    "a shape that overflows": lambda: header(
        '{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}'
    ),
    "nothing but nesting": lambda: header("[" * 5_000_000),
    "no JSON": lambda: header("\xff\xfe" * 100),
}


def header(text):
    data = text.encode()
    assert len(data) <= HEADER_LIMIT
    return struct.pack("<Q", len(data)) + data


@pytest.mark.slow
@pytest.mark.parametrize("name", BOMBS)
def test_a_header_bomb_is_refused_before_it_takes_memory(name, tmp_path):
    data = BOMBS[name]()
    path = tmp_path / "bomb.safetensors"
    path.write_bytes(data)
    told = facts(data)  # a card that describes the bomb: its hash doesn't save us
    del data
    tracemalloc.start()
    begun = time.process_time()
    with refused("weights-format-unread|weights-header-damaged", WeightsError, naming="bomb.safetensors"):
        read_verified(path, **told)
    seconds, peak = time.process_time() - begun, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 * 2**20
    assert seconds < 5.0  # 0.1 in truth; nothing here may go on for ever


@pytest.mark.slow
def test_as_many_tensors_as_are_allowed_are_read(tmp_path):
    tensors = {f"t{i}": torch.zeros(0, dtype=torch.uint8) for i in range(TENSOR_LIMIT)}
    data = save(tensors)
    (tmp_path / "many.safetensors").write_bytes(data)
    assert len(read_verified(tmp_path / "many.safetensors", **facts(data))) == TENSOR_LIMIT


# -- load_strict


def test_a_module_on_the_meta_device_is_filled():
    with torch.device("meta"):
        module = network()
    state = network().state_dict()
    load_strict(module, state, what="weights")
    assert all(torch.equal(t, state[n]) for n, t in module.state_dict().items())


@pytest.mark.parametrize("meta", [False, True])
@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        (lambda t: t.pop("0.bias"), "tensors-unfit: '0.bias'"),
        (lambda t: t.update(extra=torch.zeros(2)), "tensors-unfit: 'extra'"),
        (lambda t: t.update({"0.bias": torch.zeros(25)}), "tensors-unfit: '0.bias'"),
        (
            lambda t: t.update({"0.bias": torch.zeros(24, dtype=torch.int64)}),
            "tensors-unfit: '0.bias'",
        ),
        (lambda t: [t.pop(n) for n in list(t)], "tensors-unfit: '0.weight'"),
        (lambda t: t.update(other=t.pop("0.bias")), "tensors-unfit: '0.bias'"),
    ],
)
def test_tensors_that_dont_fit_are_named_and_change_nothing(change, refusal, meta):
    module, tensors = network(), network().state_dict()
    if meta:
        module.to("meta")
    before = snapshot(module)
    change(tensors)
    with refused(refusal, WeightsError):
        load_strict(module, tensors, what="weights 'small'")
    if meta:
        assert all(p.is_meta for p in module.parameters())
    else:
        assert unchanged(module, before)


def test_only_the_prefixes_that_are_named_belong_to_other_parts():
    tensors = {**network().state_dict(), "visual.stem": torch.zeros(1), "logit_scale": torch.zeros(())}
    load_strict(network(), tensors, what="weights", other=("visual.", "logit_scale"))
    with refused("tensors-unfit", WeightsError, naming="'logit_scale'"):
        load_strict(network(), tensors, what="weights", other=("visual.",))


def test_precision_is_what_was_asked_for_and_integers_stay():
    class Counted(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(2))
            self.register_buffer("count", torch.zeros(3, dtype=torch.int32))

    tensors = {"scale": torch.tensor([1.0, 2.0]).half(), "count": torch.tensor([1, 2, 3], dtype=torch.int32)}
    for dtype, expected in ((torch.float32, torch.float32), (torch.bfloat16, torch.bfloat16), (None, torch.float16)):
        module = Counted()
        load_strict(module, tensors, what="weights", dtype=dtype)
        assert module.scale.dtype == expected
        assert module.count.dtype == torch.int32
        assert module.count.tolist() == [1, 2, 3]
