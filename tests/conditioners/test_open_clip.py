"""The conditioner `open-clip` against open_clip itself, with random weights."""

import subprocess
import sys
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.config.test_incompatible import pixels
from tests.refusals import refused
from tests.test_assemble_cascade import card
from zoo.checkpoints import files
from zoo.conditioners import open_clip_text
from zoo.conditioners.open_clip_text import OpenClipText
from zoo.inspection.replay import replay
from zoo.schema.errors import ConfigError, UsageError, WeightsError
from zoo.schema.files import sha256_of

PROMPTS = ["a red apple", "", "two cats on a sofa"]
MODEL = "RN50-quickgelu"  # small, and 12 layers of width 512


@pytest.fixture(scope="module")
def theirs():
    import open_clip

    torch.manual_seed(0)
    return open_clip.create_model(MODEL, pretrained=None).eval()


@pytest.fixture(scope="module")
def file(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("open_clip") / "clip.safetensors"
    save_file({name: t.contiguous() for name, t in theirs.state_dict().items()}, path)
    return path


def penultimate(clip, ids):
    """The states after all blocks but the last, and the pooled embedding, by open_clip's own modules."""
    seen = []
    hook = clip.transformer.resblocks[-2].register_forward_hook(lambda _, __, out: seen.append(out))
    pooled = clip.encode_text(ids)
    hook.remove()
    return seen[0], pooled


def read(**block):
    """The conditioner with the weights of its file."""
    made = OpenClipText(**block)
    made.read_weights()
    return made


@pytest.mark.peer
@pytest.mark.parametrize("final_norm", [True, False])
@torch.no_grad()
def test_tokens_and_vector_are_open_clips(theirs, file, final_norm):
    import open_clip

    ids = open_clip.get_tokenizer(MODEL)(PROMPTS)
    states, pooled = penultimate(theirs, ids)
    wanted = theirs.ln_final(states) if final_norm else states
    made = read(model=MODEL, file=str(file), layer=2, final_norm=final_norm)
    assert torch.equal(made.tokenize(PROMPTS), ids)
    found = made(PROMPTS)
    torch.testing.assert_close(found.tokens, wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found.vector, pooled, rtol=1e-4, atol=1e-5)
    other = read(model=MODEL, file=str(file), layer=1, final_norm=final_norm)(PROMPTS)
    assert not torch.allclose(other.tokens, found.tokens, atol=1e-3)


@pytest.mark.peer
def test_weights_are_loaded_strictly_and_held_to_their_hash(theirs, file, tmp_path):
    read(model=MODEL, file=str(file), sha256=sha256_of(file))
    with refused("weights-hash-wrong", WeightsError):
        read(model=MODEL, file=str(file), sha256="0" * 64)
    with refused("tensors-unfit", WeightsError, naming="needed"):
        read(model="ViT-L-14", file=str(file))
    state = dict(theirs.state_dict())
    own = {k: v.contiguous() for k, v in state.items()}
    lacking, more = {k: v for k, v in own.items() if k != "ln_final.weight"}, {**own, "odd": torch.ones(1)}
    for changed, refusal in ((lacking, "tensors-unfit: 'ln_final.weight'"), (more, "tensors-unfit: 'odd'")):
        save_file(changed, tmp_path / "changed.safetensors")
        with refused(refusal, WeightsError):
            read(model=MODEL, file=str(tmp_path / "changed.safetensors"))
    torch.save({f"text.{k}": v for k, v in state.items() if not k.startswith(("visual", "logit", "attn"))},
               tmp_path / "text.pt")  # fmt: skip
    read(model=MODEL, file=str(tmp_path / "text.pt"))


@pytest.mark.peer
def test_its_file_is_read_when_all_else_is_made_and_its_hash_is_recorded(theirs, file, tmp_path, monkeypatch):
    reads = []
    whole = files.hash_of_file
    monkeypatch.setattr(open_clip_text, "hash_of_file", lambda *a: reads.append(a) or whole(*a))
    config = of({"name": "open-clip", "model": MODEL, "file": str(file)})
    with refused("device-missing", UsageError):
        zoo.build(config, device="cuda:99")
    with refused("prompt-too-long", UsageError):
        zoo.build(config, before_weights=lambda pipe: pipe.check("word " * 90))
    assert not reads
    network = dict(config["stages"][0]["denoiser"]["network"])
    made = zoo.build(of({"name": "open-clip", "model": MODEL})).stages[0].denoiser.network
    config["stages"][0]["denoiser"] = card(
        tmp_path, "base", made, network.pop("name"), denoiser={}, config=network, size=8, in_channels=3,
        context_width=512,
    )  # fmt: skip
    pipe = zoo.build(config, steps=1)
    assert len(reads) == 1
    made = pipe("a red apple")
    assert made.record["weights"][str(file)] == sha256_of(file)
    made.save(tmp_path / "a.png")
    assert replay(tmp_path / "a.png").verdict == "equal"
    changed = {name: t.contiguous() * 2 for name, t in theirs.state_dict().items()}
    save_file(changed, file)
    assert any("are others" in why for why in replay(tmp_path / "a.png").because)


def test_a_pickle_that_unfolds_is_refused_before_torch_reads_it(tmp_path):
    torch.save({"a": torch.zeros(2**20)}, tmp_path / "plain.pt")
    with (
        zipfile.ZipFile(tmp_path / "plain.pt") as plain,
        zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for name in plain.namelist():
            bomb.writestr(name, plain.read(name))
    with refused("weights-unreadable", WeightsError, naming="compressed"):
        read(model=MODEL, file=str(tmp_path / "bomb.pt"))


def of(block, width=512):
    network = {
        "name": "unet", "in_channels": 3, "out_channels": 3, "width": 32, "mult": [1], "blocks": 1, "groups": 8,
        "heads": 4, "attention_levels": [0], "context_width": width,
    }  # fmt: skip
    made = pixels(network=network, size=8)
    stage = {**made["stages"][0], "listens": ["text"]}
    return {**made, "conditioners": {"text": block}, "stages": [stage]}


@pytest.mark.parametrize(
    ("block", "error", "said"),
    [
        ({"model": "ViT-bigG-15"}, ConfigError, "backbone-unknown: ViT-bigG-15"),
        ({"model": "ViT-B-16-SigLIP"}, ConfigError, "backbone-unfit"),
        ({"model": MODEL, "layer": 13}, ConfigError, "number-out-of-range: 12"),
        ({"model": MODEL, "file": "nowhere.safetensors"}, WeightsError, "weights-missing: nowhere.safetensors"),
        ({"model": "ViT-L-14"}, ConfigError, "condition-width-unfit: text"),
    ],
)
def test_a_check_refuses_what_cant_be_built_and_a_width_that_doesnt_fit(block, error, said):
    with refused(said, error):
        zoo.check(of({"name": "open-clip", **block}))
    if "width" not in said:  # what the width prevents is held by the network's own shapes
        with refused(said, error):
            OpenClipText(**block)


def test_it_draws_and_needs_neither_torch_nor_open_clip_to_be_checked():
    config = of({"name": "open-clip", "model": MODEL})
    made = zoo.build(config, steps=2)("a red apple")
    assert torch.isfinite(made.tensor).all()
    code = f"import sys, zoo; zoo.check({config!r}); assert not {{'torch', 'open_clip'}} & set(sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stderr == ""


def test_too_long_a_prompt_is_refused():
    with refused("prompt-too-long", naming="75"):
        OpenClipText(model=MODEL).check(["word " * 90])
