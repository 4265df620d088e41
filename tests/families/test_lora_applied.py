"""LoRAs of a pipeline: set, scaled and swapped in place without compiling again, taken out bit for bit, recorded.

The files are written by safetensors and torch, under names written out here: modules of the shipped latent model as
diffusers calls them.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.refusals import refused
from zoo.acceleration.fast import Fast
from zoo.checkpoints.headers import read_safetensors
from zoo.cli.main import run
from zoo.config.cards import read_card
from zoo.inspection import compare
from zoo.inspection.replay import replay
from zoo.records.reading import read_record
from zoo.schema.errors import ConfigError, NumericError, UsageError, WeightsError
from zoo.schema.files import sha256_of

MODEL, PROMPT = "latent-text2img", "red apple, 3d style"
BLOCK = "down_blocks.1.attentions.0.transformer_blocks.0"
# Module -> (outputs, inputs), with the kernel of a convolution.
SHAPES = {
    f"{BLOCK}.attn1.to_q": (144, 144), f"{BLOCK}.attn2.to_k": (144, 160), f"{BLOCK}.attn1.to_out.0": (144, 144),
    "down_blocks.1.attentions.0.proj_in": (144, 144, 1, 1), "mid_block.resnets.0.conv1": (144, 144, 3, 3),
}  # fmt: skip
TEXT = {
    "encoder.layers.0.self_attn.q_proj": (160, 160), "encoder.layers.1.mlp.fc1": (640, 160),
}  # fmt: skip


def tensors(seed=0, rank=4, size=0.2, unet=SHAPES, text=TEXT):
    draw = torch.Generator().manual_seed(seed)
    out = {}
    for part, shapes in (("unet", unet), ("text_encoder", text)):
        for path, (outputs, *inputs) in shapes.items():
            out[f"{part}.{path}.lora_A.weight"] = torch.randn(rank, *inputs, generator=draw) * size
            up = torch.randn(outputs, rank, *[1] * (len(inputs) - 1), generator=draw)
            out[f"{part}.{path}.lora_B.weight"] = up * size
    return out


@pytest.fixture
def lora(tmp_path):
    """A function of a name and `tensors`' arguments: a LoRA's file."""

    def write(name="style", change=None, **arguments):
        path = tmp_path / f"{name}.safetensors"
        save_file({**tensors(**arguments), **(change or {})}, path)
        return str(path)

    return write


def built(**more):
    return zoo.build(MODEL, steps=2, **more)


def drawn(pipe):
    return pipe(PROMPT, seed=1).tensor


def weights(pipe):
    modules = [pipe.stages[0].denoiser.network, *pipe.conditioners.values()]
    return {(i, n): p.detach().clone() for i, m in enumerate(modules) for n, p in m.named_parameters()}


def equal(one, other):
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_loras_are_set_scaled_swapped_and_taken_out_bit_for_bit(lora):
    pipe = built()
    before, plain, files = weights(pipe), drawn(pipe), (lora("a"), lora("b", seed=1, rank=2))
    pipe.adapters.set([f"{files[0]}:0.8"])
    assert repr(pipe.adapters) == "Adapters(a.safetensors:0.8 on base)"
    changed = [name for name, value in weights(pipe).items() if not torch.equal(value, before[name])]
    assert len(changed) == len(SHAPES) + len(TEXT)
    one = drawn(pipe)
    assert (one - plain).abs().max() > 0.05
    assert torch.equal(one, drawn(built(adapters=[f"{files[0]}:0.8"])))
    pipe.adapters.set([{"file": files[1], "scale": -0.5}, f"{files[0]}:0.3"])
    both = drawn(pipe)
    assert torch.equal(both, drawn(built(adapters=[f"{files[1]}:-0.5", f"{files[0]}:0.3"])))
    pipe.adapters.set([f"{files[0]}:0.3", f"{files[1]}:-0.5"])
    assert (drawn(pipe) - both).abs().max() < 1e-4  # sums are in another order
    pipe.adapters.set(Path(files[0]))  # one alone, scale 1
    assert [(e["scale"], e["stage"]) for e in pipe.adapters] == [(1.0, "base")]
    pipe.adapters.set([f"{files[0]}:0"])
    assert equal(weights(pipe), before)
    pipe.adapters.set([files[1]])
    pipe.adapters.set([])
    assert len(pipe.adapters) == 0
    assert equal(weights(pipe), before)
    assert torch.equal(drawn(pipe), plain)


@pytest.mark.slow
def test_a_weight_file_that_is_mapped_is_never_written_to(lora):
    cards = [read_card(name) for name in ("emoji-latent-64", "emoji-base-32-text")]
    pipe = built(adapters=[lora()])
    pipe.adapters.set([lora(seed=2)])
    assert all(sha256_of(card.file) == card.sha256 for card in cards)


@pytest.mark.slow
def test_nothing_is_compiled_again_for_other_loras(lora):
    graphs = []

    def counting(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    pipe = built()
    plain = drawn(pipe)
    pipe._speed_up(Fast(precompute=True, compile=True, backend=counting))  # type: ignore[arg-type]
    assert (drawn(pipe) - plain).abs().max() < 1e-3
    count = len(graphs)
    assert count
    for adapters in ([lora("a")], [f"{lora('a')}:0.5"], [lora("b", seed=1, rank=7), lora("a")], []):
        pipe.adapters.set(adapters)
        found = drawn(pipe)
        assert (found - drawn(built(adapters=adapters))).abs().max() < 1e-3
        assert len(graphs) == count
    layer = pipe.stages[0].denoiser.network.input_blocks[0][0]
    layer.weight = torch.nn.Parameter(layer.weight.detach().to(memory_format=torch.channels_last))
    drawn(pipe)
    assert len(graphs) > count  # a weight in other memory is compiled for: the count can rise
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_precision_chosen_later_gives_what_one_chosen_first_gives(lora, dtype):
    file = lora()
    first = built(dtype=dtype, adapters=[f"{file}:0.5"])
    later = built(adapters=[file]).to(dtype=getattr(torch, dtype))
    later.adapters.set([f"{file}:0.5"])
    assert equal(weights(first), weights(later))
    later.adapters.set([])
    assert equal(weights(built(dtype=dtype)), weights(later))


@pytest.mark.slow
def test_a_weight_that_overflows_is_named_and_the_pipeline_is_as_it_was(lora):
    pipe = built(dtype="float16")
    before = weights(pipe)
    pipe.adapters.set([lora("small")])
    with refused("network-not-finite", NumericError, naming="float16"):
        pipe.adapters.set([lora("large", size=200.0)])
    assert equal(weights(pipe), before)
    assert list(pipe.adapters) == []
    assert "adapters" not in pipe.record["config"]


# -- what is recorded


@pytest.mark.slow
def test_an_image_records_its_loras_and_is_drawn_again_by_them(lora, tmp_path, capsys):
    file, picture = lora(), str(tmp_path / "apple.png")
    quick = ["--model", MODEL, "--steps", "2", "--seed", "3"]
    assert run(["generate", PROMPT, *quick, "--lora", f"{file}:0.7", "-o", picture]) == 0
    said = {"file": file, "scale": 0.7, "stage": "base", "sha256": sha256_of(Path(file))}
    assert read_record(picture)["config"]["adapters"] == [said]
    assert replay(picture).verdict == "equal"
    again = str(tmp_path / "again.png")
    assert run(["generate", "--from", picture, "-o", again]) == 0
    assert read_record(again)["config"]["adapters"] == [said]
    assert run(["generate", "--from", picture, "--lora", f"{file}:0.2", "-o", str(tmp_path / "less.png")]) == 0
    assert read_record(tmp_path / "less.png")["config"]["adapters"] == [{**said, "scale": 0.2}]
    assert [d.what for d in compare(picture, again).differences] == []
    assert "style.safetensors:0.7" in str(compare(picture, tmp_path / "less.png"))
    capsys.readouterr()
    lora(seed=9)  # another file in its place
    assert run(["replay", picture, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "weights-hash-wrong"
    Path(file).unlink()
    with refused("weights-missing", UsageError, naming="style.safetensors"):
        replay(picture)


@pytest.mark.slow
def test_loras_set_later_are_in_the_record_too(lora):
    pipe, file = built(), lora()
    before = pipe(PROMPT, seed=1).record
    pipe.adapters.set([f"{file}:0.5"])
    assert pipe(PROMPT, seed=1).record["config_sha256"] == built(adapters=[f"{file}:0.5"]).record["config_sha256"]
    assert pipe.stage(0).record["config"]["adapters"][0]["scale"] == 0.5
    pipe.adapters.set([])
    assert pipe.record["config_sha256"] == before["config_sha256"]
    assert pipe.record["config"] == before["config"]


@pytest.mark.slow
def test_a_config_has_loras_and_a_call_its_own(lora, tmp_path):
    file = lora()
    config = {**zoo.check(MODEL), "adapters": [{"file": file, "scale": 0.5}]}
    assert zoo.check(config)["adapters"][0]["scale"] == 0.5
    assert zoo.check(config, {"adapters.0.scale": 0.25})["adapters"][0]["scale"] == 0.25
    assert zoo.check(config, adapters=[file])["adapters"][0]["scale"] == 1.0
    assert "adapters" not in zoo.check(config, adapters=[])
    again = zoo.check(zoo.check(config))
    assert again == zoo.check(config)


@pytest.mark.slow
def test_a_lora_is_of_the_first_stage_or_of_the_one_that_it_names(lora):
    base = {f"{BLOCK}.attn1.to_q": (144, 144)}
    file = lora(unet=base, text={})
    pipe = zoo.build("cascade-text2img", adapters=[file])
    names = {n for n, p in pipe.stages[0].denoiser.network.named_parameters()}
    assert pipe.adapters.entries[0]["stage"] == "base"
    assert any("attn1.to_q" in name for name in names)
    with refused("lora-unfit", WeightsError, naming=f"'unet.{BLOCK}.attn1.to_q.lora_A.weight'"):
        zoo.check("cascade-text2img", adapters=[{"file": file, "stage": "sr-64"}])
    with refused("stage-unknown", ConfigError, naming="'bass'"):
        zoo.check("cascade-text2img", adapters=[{"file": file, "stage": "bass"}])


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("style.safetensors:strong", "number-out-of-range: 'strong'"),
        ("style.safetensors:1000", "number-out-of-range: 1000"),
        ("style.safetensors:nan", "number-out-of-range: nan"),
        ({"file": "style.safetensors", "scale": True}, "number-out-of-range: true"),
        ({"file": "style.safetensors", "weight": 1}, "config-key-unknown: 'weight'"),
        ({"scale": 1.0}, "config-key-missing: adapters.0"),
        (7, "config-value-invalid: adapters.0"),
        ("nowhere.safetensors", "weights-missing: nowhere.safetensors"),
        ("x.yaml", "weights-format-unread: x.yaml"),
        ({"file": "style.safetensors", "sha256": "0" * 64}, "weights-hash-wrong: 000000000000"),
    ],
)
def test_an_entry_that_says_nothing_of_use_is_refused(lora, tmp_path, monkeypatch, entry, told):
    lora()
    (tmp_path / "x.yaml").write_text("a: 1\n")
    monkeypatch.chdir(tmp_path)
    with refused(told):
        zoo.check(MODEL, adapters=[entry])


def test_a_file_stands_once_for_a_stage(lora):
    with refused("entries-repeated", ConfigError):
        zoo.check(MODEL, adapters=[lora(), f"{lora()}:0.5"])
    with refused("config-value-invalid", ConfigError):
        zoo.check({**zoo.check(MODEL), "adapters": {"file": lora()}})


# -- files that can't be used


def broken(path):
    """name -> a function that makes of a good file at `path` another one, and what is said of that."""
    good = path.read_bytes()
    first = f"unet.{BLOCK}.attn1.to_q"

    def header(old, new):
        length = 8 + int.from_bytes(good[:8], "little")
        changed = good[8:length].replace(old, new)
        return len(changed).to_bytes(8, "little") + changed + good[length:]

    def saved(change, drop=()):
        held = {n: t for n, t in tensors().items() if n not in drop}
        save_file({**held, **change}, path)
        return path.read_bytes()

    nan = tensors()[f"{first}.lora_A.weight"]
    nan[0, 0] = float("nan")
    return {
        "cut off": (good[: len(good) // 2], "weights-header-damaged: is cut off"),
        "empty": (b"", "weights-format-unread"),
        "a longer header than there is": (b"\xff" * 8 + good[8:], "weights-header-damaged"),
        "a flipped name": (header(b"to_q.lora_A", b"to_Q.lora_A"), f"lora-unfit: '{first[:-1]}Q.lora_A.weight'"),
        "a flipped type": (header(b'"F32"', b'"I32"'), "lora-damaged: int32"),
        "a flipped shape": (header(b"[4,144]", b"[144,4]"), "lora-damaged: don't fit"),
        "NaN": (saved({f"{first}.lora_A.weight": nan}), f"lora-damaged: '{first.removeprefix('unet.')}' has NaN"),
        "a rank over both sides": (
            saved({f"{first}.lora_A.weight": torch.zeros(300, 144), f"{first}.lora_B.weight": torch.zeros(144, 300)}),
            "lora-damaged: rank 300",
        ),
        "no rank": (
            saved({f"{first}.lora_A.weight": torch.zeros(0, 144), f"{first}.lora_B.weight": torch.zeros(144, 0)}),
            "lora-damaged: 0x144",
        ),
        "half of it": (saved({}, [f"{first}.lora_B.weight"]), "lora-damaged: has down and no up"),
        "two alphas": (saved({f"{first}.alpha": torch.ones(2)}), "lora-damaged: alpha"),
        "an endless alpha": (saved({f"{first}.alpha": torch.tensor(float("inf"))}), "lora-damaged: infinity"),
        "another model's": (saved({"unet.x.lora_A.weight": torch.zeros(1, 2)}), "lora-unfit: 'unet.x.lora_A.weight'"),
        "another width": (
            saved({f"{first}.lora_A.weight": torch.zeros(4, 320)}), "lora-unfit: 144x320 where the model's is 144x144",
        ),
        "an encoder that isn't there": (
            saved({"text_encoder_2.x.lora_A.weight": torch.zeros(1, 2)}), "lora-unfit: 'text_encoder_2'",
        ),
        "LoHa": (saved({f"{first}.hada_w1_a": torch.zeros(2, 2)}), "lora-unfit: LoHa"),
        "LoKr": (saved({f"{first}.lokr_w1": torch.zeros(2, 2)}), "lora-unfit: LoKr"),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", [
    "cut off", "empty", "a longer header than there is", "a flipped name", "a flipped type", "a flipped shape", "NaN",
    "a rank over both sides", "no rank", "half of it", "two alphas", "an endless alpha", "another model's",
    "another width", "an encoder that isn't there", "LoHa", "LoKr",
])  # fmt: skip
def test_a_damaged_or_unfit_file_is_refused_by_its_name_before_a_weight_is_read(lora, monkeypatch, name):
    path = Path(lora())
    data, told = broken(path)[name]
    path.write_bytes(data)
    monkeypatch.setattr("zoo.assemble.load_strict", lambda *_, **__: pytest.fail("weights were read"))
    by_numbers = name in ("NaN", "an endless alpha")  # which a header doesn't show
    if not by_numbers:
        for use in (zoo.check, built):
            with refused(told, WeightsError) as error:
                use(MODEL, adapters=[str(path)]) if use is zoo.check else use(adapters=[str(path)])
            assert "style.safetensors" in str(error.value)
        return
    zoo.check(MODEL, adapters=[str(path)])
    monkeypatch.undo()
    pipe = built()
    before = weights(pipe)
    with refused(told, WeightsError, naming="style.safetensors" if name == "NaN" else ""):
        pipe.adapters.set([str(path)])
    assert equal(weights(pipe), before)


def test_a_pickle_is_read_as_tensors_alone_and_nothing_in_it_runs(tmp_path):
    good, bad, mark = tmp_path / "good.pt", tmp_path / "bad.pt", tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return os.system, (f"touch {mark}",)

    torch.save(tensors(), good)
    pipe = built(adapters=[str(good)])
    assert read_safetensors(read_card("emoji-latent-64").file).tensors  # and not of the pickle's kind
    assert len(pipe.adapters) == 1
    torch.save({**tensors(), "payload": Payload()}, bad)
    for use in (zoo.check, zoo.build):
        with refused("weights-not-tensors", WeightsError, naming="bad.pt"):
            use(MODEL, adapters=[str(bad)])
    assert not mark.exists()


def test_a_card_beside_a_lora_holds_it_to_its_hash(lora, tmp_path):
    file = lora()
    card = {"schema": "zoo.lora/1", "file": {"name": "style.safetensors", "sha256": sha256_of(Path(file))}}
    (tmp_path / "style.yaml").write_text(json.dumps(card))
    zoo.check(MODEL, adapters=[file])
    lora(seed=4)
    with refused("weights-hash-wrong", WeightsError, naming="style.yaml"):
        zoo.check(MODEL, adapters=[file])
    for other in ("unrelated: true\n", "a: &b 1\n", "schema: zoo.lora/1\nfile: 3\n"):
        (tmp_path / "style.yaml").write_text(other)
        zoo.check(MODEL, adapters=[file])


# -- PEFT's folder


@pytest.fixture
def folder(tmp_path):
    """A function of settings: the folder that PEFT writes."""

    def write(**settings):
        place = tmp_path / "peft"
        place.mkdir(exist_ok=True)
        own = {name.replace("unet.", "base_model.model."): t for name, t in tensors(text={}).items()}
        save_file(own, place / "adapter_model.safetensors")
        said = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, **settings}
        (place / "adapter_config.json").write_text(json.dumps(said))
        return str(place)

    return write


@pytest.mark.slow
def test_pefts_folder_is_read_with_its_settings_which_its_hash_covers(folder):
    place = folder()
    entry = zoo.check(MODEL, adapters=[place])["adapters"][0]
    assert entry["file"].endswith("adapter_model.safetensors")
    twice = drawn(built(adapters=[place]))
    folder(lora_alpha=4)
    assert torch.equal(drawn(built(adapters=[f"{place}:2"])), twice)
    with refused("weights-hash-wrong", WeightsError):
        zoo.check(MODEL, adapters=[entry])


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"peft_type": "LOHA"}, "LOHA"),
        ({"init_lora_weights": "pissa"}, "'pissa'"),
        ({"modules_to_save": ["conv_in"]}, "modules_to_save"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"alpha_pattern": {"(a+)+": 1}}, "(a+)+"),
        ({"lora_alpha": float("inf")}, "alpha"),
    ],
)
def test_what_pefts_settings_say_beyond_a_lora_is_refused(folder, settings, told):
    with refused("lora-damaged" if "alpha" in told or "a+" in told else "lora-unfit", WeightsError, naming=told):
        zoo.check(MODEL, adapters=[folder(**settings)])


@pytest.mark.parametrize(
    "more", [{}, {"dtype": "bfloat16"}, {"memory": {"weights": "int8"}}], ids=["float32", "bfloat16", "int8"]
)
@pytest.mark.slow
def test_offloaded_parts_are_read_again_with_their_loras(lora, more):
    files, plain = [f"{lora('a')}:0.7", lora("b", seed=1, rank=2)], drawn(built(**more))
    memory = {**more.get("memory", {}), "offload": True}
    wanted = drawn(built(adapters=files, **more))
    made = built(adapters=files, **{**more, "memory": memory})
    assert {p.device.type for module in made.modules() for p in module.parameters()} == {"meta"}
    for _ in range(2):  # read again for each
        assert torch.equal(drawn(made), wanted)
    assert not torch.allclose(wanted, plain, atol=0.02)
    assert made.record["config"]["adapters"][0]["scale"] == 0.7
    for other in ([files[1]], []):
        with refused("option-conflict", UsageError, naming="offloaded"):
            made.adapters.set(other)
    assert torch.equal(drawn(made), wanted)  # as it was


@pytest.mark.slow
def test_what_is_offloaded_later_has_the_loras_that_it_has_then(lora):
    pipe = built(memory={"decode": "rows"}, adapters=[lora("a")])
    pipe.adapters.set([lora("b", seed=1)])
    wanted = drawn(pipe)
    pipe.save_memory(offload=True, decode="rows")
    assert torch.equal(drawn(pipe), wanted)
    assert not torch.allclose(wanted, drawn(built()), atol=0.02)
