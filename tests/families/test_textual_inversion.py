"""Textual inversion files in the layouts people have: the embeddings and images of diffusers, and bad files refused."""

import pickle
import zipfile

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.families.written import SAME, grey_levels, stable_diffusion, stable_diffusion_xl
from tests.refusals import refused
from zoo.conditioners.embedding_files import read_embedding
from zoo.schema.errors import ZooError

pytestmark = [pytest.mark.peer, pytest.mark.slow]
STEPS, SCALE = 4, 7.5
NOISE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
PROMPT, NEGATIVE = "a photo of <cat-toy> on a table", "blurry"


def vectors(count, width=64, seed=0):
    return 0.5 * torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def automatic1111(found, name="<cat-toy>"):
    """As its training saves an embedding."""
    return {
        "string_to_token": {"*": 265}, "string_to_param": {"*": found}, "name": name, "step": 500,
        "sd_checkpoint": "cc6cb27103", "sd_checkpoint_name": "v1-5-pruned-emaonly",
    }  # fmt: skip


# Layout -> how the vectors are written; the token is in each but the last.
LAYOUTS = {
    "diffusers.safetensors": lambda path, v: save_file({"<cat-toy>": v}, path),
    "diffusers.bin": lambda path, v: torch.save({"<cat-toy>": v}, path),
    "diffusers-half.bin": lambda path, v: torch.save({"<cat-toy>": v.half()}, path),
    "a1111.pt": lambda path, v: torch.save(automatic1111(v), path),
    "a1111-old.pt": lambda path, v: torch.save(automatic1111(v), path, _use_new_zipfile_serialization=False),
    "a1111.safetensors": lambda path, v: save_file({"emb_params": v}, path),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("sd")
    stable_diffusion().save_pretrained(place)
    return place


def drawn_by_zoo(pipe, prompt=PROMPT):
    return pipe(prompt, negative=NEGATIVE, noise=NOISE, steps=STEPS, guidance=SCALE).tensor


def drawn_by_diffusers(pipe, prompt=PROMPT, **more):
    return pipe(
        prompt, negative_prompt=NEGATIVE, latents=NOISE.clone(), num_inference_steps=STEPS, guidance_scale=SCALE,
        output_type="pt", **more,
    ).images  # fmt: skip


@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_learned_token_is_diffusers_own(layout, count, place, tmp_path):
    path = tmp_path / layout
    LAYOUTS[layout](path, vectors(count))
    nameless = layout == "a1111.safetensors"
    theirs = stable_diffusion()
    theirs.load_textual_inversion(str(tmp_path), weight_name=layout, token="<cat-toy>" if nameless else None)
    ours = zoo.load(place, embeddings=[f"{path}:<cat-toy>" if nameless else path])
    learned = theirs.text_encoder.get_input_embeddings().weight[49408:]
    assert torch.equal(ours.conditioners["text"].learned, learned)
    expected = drawn_by_diffusers(theirs)
    assert grey_levels(drawn_by_zoo(ours), expected) <= SAME
    assert grey_levels(drawn_by_zoo(zoo.load(place)), expected) > SAME


def test_a_single_vector_may_have_one_axis(place, tmp_path):
    save_file({"<cat-toy>": vectors(1)[0]}, tmp_path / "flat.safetensors")
    theirs = stable_diffusion()
    theirs.load_textual_inversion(str(tmp_path), weight_name="flat.safetensors")
    ours = zoo.load(place, embeddings=tmp_path / "flat.safetensors")
    assert grey_levels(drawn_by_zoo(ours), drawn_by_diffusers(theirs)) <= SAME


def test_several_and_with_weights_and_windows(place, tmp_path):
    save_file({"<cat-toy>": vectors(3)}, tmp_path / "cat.safetensors")
    torch.save(automatic1111(vectors(1, seed=1), "oldStyle"), tmp_path / "style.pt")
    theirs = stable_diffusion()
    for name in ("cat.safetensors", "style.pt"):
        theirs.load_textual_inversion(str(tmp_path), weight_name=name)
    files = [tmp_path / "cat.safetensors", tmp_path / "style.pt"]
    prompt = "oldstyle, <cat-toy>"
    assert grey_levels(
        drawn_by_zoo(zoo.load(place, embeddings=files), prompt), drawn_by_diffusers(theirs, prompt)
    ) <= SAME  # fmt: skip
    both = zoo.load(place, embeddings=files, long_prompts="chunks", prompt_weighting="mean")
    assert torch.equal(drawn_by_zoo(both, prompt), drawn_by_zoo(zoo.load(place, embeddings=files), prompt))
    assert grey_levels(drawn_by_zoo(both, "oldstyle, (<cat-toy>:1.5)"), drawn_by_zoo(both, prompt)) > SAME


def test_two_text_encoders_take_their_own_part(tmp_path):
    pipe = stable_diffusion_xl()
    pipe.save_pretrained(tmp_path / "xl")
    parts = {"clip_l": vectors(2), "clip_g": vectors(2, 128, 1)}
    save_file(parts, tmp_path / "web_y2k.safetensors")
    for part, encoder, tokenizer in (
        ("clip_l", pipe.text_encoder, pipe.tokenizer), ("clip_g", pipe.text_encoder_2, pipe.tokenizer_2),
    ):  # fmt: skip
        pipe.load_textual_inversion({"y2k": parts[part]}, text_encoder=encoder, tokenizer=tokenizer)
    file = tmp_path / "web_y2k.safetensors"
    prompt = "y2k, a table"
    expected = drawn_by_diffusers(pipe, prompt)
    ours = zoo.load(tmp_path / "xl", embeddings=[f"{file}:y2k"])
    assert grey_levels(drawn_by_zoo(ours, prompt), expected) <= SAME
    assert grey_levels(drawn_by_zoo(zoo.load(tmp_path / "xl"), prompt), expected) > SAME
    assert zoo.check(tmp_path / "xl", embeddings=[file])["prompts"]["embeddings"][0]["token"] == "web_y2k"
    save_file({"y2k": vectors(2)}, tmp_path / "one.safetensors")
    with refused("embedding-width-unfit", naming="clip-g' reads 128"):
        zoo.check(tmp_path / "xl", embeddings=[tmp_path / "one.safetensors"])


def test_a_record_holds_the_embedding_and_draws_again_with_that_file_alone(place, tmp_path):
    file = tmp_path / "cat.safetensors"
    save_file({"<cat-toy>": vectors(2)}, file)
    made = zoo.load(place, embeddings=[file])(PROMPT, seed=3, steps=STEPS)
    (said,) = made.record["config"]["prompts"]["embeddings"]
    assert said == {"file": str(file), "token": "<cat-toy>", "sha256": read_embedding(str(file)).sha256}
    made.save(tmp_path / "cat.png")
    again = zoo.build(tmp_path / "cat.png")
    assert torch.equal(again(PROMPT, seed=3, steps=STEPS).tensor, made.tensor)
    save_file({"<cat-toy>": vectors(2, seed=9)}, file)
    with refused("weights-hash-wrong", naming="cat.safetensors"):
        zoo.build(tmp_path / "cat.png")


class Payload:
    def __reduce__(self):
        return (print, ("executed",))


def truncated(path):
    save_file({"<cat-toy>": vectors(2)}, path)
    path.write_bytes(path.read_bytes()[:-7])


def flipped(path):
    torch.save(automatic1111(vectors(2)), path)
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        at = next(m for m in archive.infolist() if m.filename.endswith("data.pkl")).header_offset
    data[at + 90] ^= 0xFF
    path.write_bytes(bytes(data))


BAD = {
    "width.safetensors": (lambda p: save_file({"x": vectors(2, 48)}, p), "embedding-width-unfit"),
    "nan.safetensors": (lambda p: save_file({"x": vectors(2) * float("nan")}, p), "weights-not-finite"),
    "infinite.pt": (lambda p: torch.save(automatic1111(vectors(1) / 0), p), "weights-not-finite"),
    "payload.pt": (lambda p: torch.save({"<cat-toy>": vectors(1), "x": Payload()}, p), "pickle-refused"),
    "plain-payload.bin": (lambda p: p.write_bytes(pickle.dumps(Payload())), "pickle-refused"),
    "truncated.safetensors": (truncated, "weights-header-damaged"),
    "flipped.pt": (flipped, None),
    "whole.numbers.safetensors": (
        lambda p: save_file({"x": torch.ones(2, 64, dtype=torch.int64)}, p), "embedding-file-wrong",
    ),
    "cube.safetensors": (lambda p: save_file({"x": torch.ones(2, 2, 64)}, p), "embedding-file-wrong"),
    "many.safetensors": (lambda p: save_file({"x": vectors(76)}, p), "embedding-file-wrong"),
    "none.safetensors": (lambda p: save_file({"x": vectors(1)[:0]}, p), "embedding-file-wrong"),
    "model.safetensors": (lambda p: save_file({"a": vectors(1), "b": vectors(1)}, p), "embedding-file-wrong"),
    "unlike.safetensors": (
        lambda p: save_file({"clip_l": vectors(1), "clip_g": vectors(2, 128)}, p), "embedding-file-wrong",
    ),
    "absent.pt": (lambda p: None, "weights-missing"),
    "text.pt": (lambda p: p.write_text("an embedding"), None),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_before_any_weight_is_read(name, place, tmp_path, monkeypatch, capsys):
    write, code = BAD[name]
    write(tmp_path / name)
    monkeypatch.setattr("zoo.families.stable_diffusion.containers.Safetensors.tensors", None)  # nothing may call it
    with pytest.raises(ZooError) as told:
        zoo.load(place, embeddings=[tmp_path / name])
    assert name in str(told.value)
    assert code in (None, told.value.code)
    assert "executed" not in capsys.readouterr().out


def test_two_embeddings_of_one_name_and_a_pipeline_of_few_words_are_refused(place, tmp_path):
    save_file({"<cat-toy>": vectors(1)}, tmp_path / "a.safetensors")
    save_file({"<Cat-toy>": vectors(1)}, tmp_path / "b.safetensors")
    with refused("entries-repeated", naming="<cat-toy>"):
        zoo.check(place, embeddings=[tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    with refused("prompt-option-unread", naming="emoji-base-32-text"):
        zoo.check("latent-text2img", embeddings=[tmp_path / "a.safetensors"])
    with refused("prompts-unread"):
        zoo.check("class2img", long_prompts="chunks")
    with refused("choice-unknown", naming="chunk"):
        zoo.check(place, long_prompts="chunk")
