"""`zoo explain` says what a file is: every published list is found again, and what differs is named."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from tests import golden_sets
from tests.weight_files import MANIFESTS, manifest, sparse, stable_diffusion_1, under
from zoo.cli.main import run
from zoo.families.explain import explain
from zoo.families.explain_text import lines
from zoo.families.identify import match
from zoo.families.key_lists import KeyLists, encode, key_lists, template
from zoo.families.published_models import QUESTIONS, published

SDXL_TEXT = {"clip-vit-l-14/text": "conditioner.embedders.0.transformer.text_model.",
             "openclip-bigG/text": "conditioner.embedders.1.model."}  # fmt: skip


def sdxl():
    lists = key_lists()
    found = under("model.diffusion_model.", lists["sdxl_unet/sd_xl_base"])
    found |= under("first_stage_model.", manifest("autoencoder_kl", "original/kl-f8"))
    for name, prefix in SDXL_TEXT.items():
        found |= under(prefix, lists[name])
    return found


def averaged(shapes):
    prefix = "model.diffusion_model."
    return {
        "model_ema.diffusion_model" + n.removeprefix(prefix).replace(".", ""): s
        for n, s in shapes.items()
        if n.startswith(prefix)
    }


# -- the lists


@pytest.mark.parametrize("file", sorted(p.name for p in MANIFESTS.glob("*.json.gz")))
def test_counted_lists_are_in_the_package_and_found_again(file):
    for name, entry in json.loads(gzip.decompress((MANIFESTS / file).read_bytes())).items():
        shapes = {n: tuple(s) for n, s in entry.get("keys", entry).items()}
        found = match(shapes)
        assert found is not None
        assert found.exact, (name, found.name)
        if name in key_lists().names:
            assert name in key_lists().same(found.name)


@pytest.mark.slow
@pytest.mark.gold(golden_sets.MANIFESTS)
def test_every_counted_list_is_found_again():
    count = 0
    for path in golden_sets.folder(golden_sets.MANIFESTS).glob("*.json.gz"):
        for name, entry in json.loads(gzip.decompress(path.read_bytes())).items():
            shapes = {n.removeprefix("model.diffusion_model."): tuple(s) for n, s in entry["keys"].items()}
            found = match(shapes)
            assert found is not None
            assert found.exact, name
            assert name in key_lists().same(found.name)
            assert key_lists()[name] == shapes
            count += 1
    assert count > 150


def test_every_list_has_a_row_and_every_question_an_answer():
    for name in key_lists().names:
        own = published(name)
        assert own.family
        assert own.variant
        assert set(own.questions) <= QUESTIONS.keys(), name
    assert all(len(q.choices) > 1 for q in QUESTIONS.values())


def test_lists_are_read_back_as_they_were_written():
    lists = {"a": {"x.0.1.y": (2, 3), "x.10.1.y": (2, 3), "z": ()}, "b": {"x.0.1.y": (2, 3)}, "c": {"z": (5,)}}
    lists["d"] = dict(lists["a"])
    read = KeyLists(encode(lists))
    assert {name: read[name] for name in read.names} == lists
    assert read.same("d") == ("a", "d")
    assert template("x.10.1.y") == "x.#.#.y"


# -- whole files


def test_a_checkpoint_is_named_with_its_parts_its_average_and_what_is_open(tmp_path):
    shapes = stable_diffusion_1()
    path = sparse(tmp_path / "x.safetensors", {**shapes, **averaged(shapes), "alphas_cumprod": (1000,)})
    found = explain(path)
    assert (found.family, found.kind) == ("Stable Diffusion 1", "pipeline")
    assert {p.name: (p.exact, p.published) for p in found.parts} == {
        "unet": (True, "ldm_unet/v1-inference"), "vae": (True, "ldm_ae/kl-f8"),
        "text_encoder": (True, "clip-vit-l-14/text"),
    }  # fmt: skip
    assert found.average == "686 tensors under model_ema., whole"
    assert {q.argument for q in found.questions} == {"prediction", "zero_snr", "clip_skip", "copy"}
    assert found.precision == {"F16": found.parameters}
    assert not found.notes
    assert len(lines(found)) < 30


@pytest.mark.parametrize(("channels", "variant"), [(9, "1.5 inpainting"), (8, "InstructPix2Pix")])
def test_the_first_convolution_tells_the_variant(tmp_path, channels, variant):
    path = sparse(tmp_path / "x.safetensors", stable_diffusion_1(channels=channels))
    assert explain(path).variant == variant


def test_sdxl_is_named_and_its_metadata_answers(tmp_path):
    found = explain(sparse(tmp_path / "x.safetensors", sdxl(), metadata={"modelspec.prediction_type": "v"}))
    assert (found.family, found.variant) == ("Stable Diffusion XL", "base, and fine-tunes")
    assert {p.name for p in found.parts} == {"unet", "vae", "text_encoder", "text_encoder_2"}
    assert {q.argument: q.said for q in found.questions} == {"prediction": "v", "zero_snr": None}
    marked = explain(sparse(tmp_path / "y.safetensors", {**sdxl(), "v_pred": (0,), "ztsnr": (0,)}))
    assert {q.argument: q.said for q in marked.questions} == {"prediction": "v", "zero_snr": "true"}


def test_what_is_missing_unused_and_of_another_shape_is_named(tmp_path):
    shapes = stable_diffusion_1()
    del shapes["model.diffusion_model.out.2.bias"]
    shapes["model.diffusion_model.time_embed.0.weight"] = (1280, 321)
    shapes["first_stage_model.extra.weight"] = (3,)
    shapes["another_model.weight"] = (4,)
    shapes["cond_stage_model.transformer.stray.weight"] = (5,)
    found = explain(sparse(tmp_path / "x.safetensors", shapes))
    unet, vae = (next(p for p in found.parts if p.name == n) for n in ("unet", "vae"))
    assert unet.missing == ("out.2.bias",)
    assert unet.other_shape == ("time_embed.0.weight (1280, 321) for (1280, 320)",)
    assert vae.unused == ("extra.weight",)
    text = next(p for p in found.parts if p.name == "text_encoder")
    assert (text.published, text.unused) == ("clip-vit-l-14/text", ("stray.weight",))
    assert not unet.exact
    assert any("another_model.weight" in note for note in found.notes)


def test_an_average_that_is_not_whole_is_said_so(tmp_path):
    shapes = stable_diffusion_1()
    average = averaged(shapes)
    del average["model_ema.diffusion_modelout2bias"]
    found = explain(sparse(tmp_path / "x.safetensors", {**shapes, **average}))
    assert found.average == "685 tensors under model_ema., 1 tensors short"
    assert any("out.2.bias" in note for note in found.notes)
    assert "copy" not in {q.argument for q in found.questions}


@pytest.mark.parametrize(
    ("shapes", "kind", "family"),
    [
        (lambda: manifest("autoencoder_kl", "original/kl-f8"), "autoencoder alone", "Stable Diffusion's KL-f8"),
        (lambda: manifest("stable_diffusion", "transformers/clip-text"), "text encoder alone", "CLIP ViT-L/14"),
        (lambda: under("text_model.", manifest("stable_diffusion", "transformers/clip-text")), "text encoder alone",
         "CLIP ViT-L/14"),
        (lambda: manifest("stable_diffusion", "original/unet-2"), "denoiser alone", "Stable Diffusion 2"),
        (lambda: under("module.", manifest("adm", "adm/64x64_diffusion")), "denoiser alone", "ADM"),
        (lambda: under("model.diffusion_model.", key_lists()["sd3/sd3-medium-mmdit"]), "denoiser alone",
         "Stable Diffusion 3"),
        (lambda: key_lists()["dit/DiT-B-2-256"], "denoiser alone", "DiT or SiT"),
        (lambda: {"a": (1,), "b.weight": (2, 2)}, "unknown", None),
    ],
)  # fmt: skip
def test_a_part_alone_is_named_as_one(tmp_path, shapes, kind, family):
    found = explain(sparse(tmp_path / "x.safetensors", shapes()))
    assert (found.kind, found.family) == (kind, family)


# -- files that belong to a model


@pytest.mark.peer
def test_a_control_net_of_diffusers_is_one(tmp_path):
    from diffusers import ControlNetModel

    net = ControlNetModel(block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=768,
                          down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), attention_head_dim=8,
                          norm_num_groups=8)  # fmt: skip
    net.save_pretrained(tmp_path)
    found = explain(tmp_path / "diffusion_pytorch_model.safetensors")
    assert (found.kind, found.family) == ("ControlNet", "Stable Diffusion 1")
    assert explain(tmp_path).kind in ("ControlNetModel", "unknown", "ControlNet")


def test_adapters_are_named_with_the_family_they_fit(tmp_path):
    files = {
        "embedding": ({"emb_params": (4, 768)}, "textual inversion", "Stable Diffusion 1"),
        "word": ({"<cat>": (1024,)}, "textual inversion", "Stable Diffusion 2"),
        "two": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "textual inversion", "Stable Diffusion XL"),
        "ip": ({"image_proj.proj.weight": (3072, 1024), "ip_adapter.1.to_k_ip.weight": (320, 768)}, "IP-Adapter",
               "Stable Diffusion 1"),
        "control": ({"control_model.input_hint_block.0.weight": (16, 3, 3, 3),
                     "control_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight": (320, 1024)},
                    "ControlNet", "Stable Diffusion 2"),
        "kohya": ({"lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_down.weight": (8, 768),
                   "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight": (320, 8)},
                  "LoRA", "Stable Diffusion 1"),
        "xl": ({"lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_down.weight": (4, 1280),
                "lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight": (5120, 4)}, "LoRA",
               "Stable Diffusion XL"),
        "flux": ({"transformer.single_transformer_blocks.0.attn.to_q.lora_A.weight": (4, 3072),
                  "transformer.single_transformer_blocks.0.attn.to_q.lora_B.weight": (3072, 4)}, "LoRA", "FLUX.1"),
        "loha": ({"lora_unet_mid.hada_w1_a": (4, 4), "lora_unet_mid.hada_w1_b": (4, 4)}, "LoHa (LyCORIS)", None),
    }  # fmt: skip
    for name, (shapes, kind, family) in files.items():
        found = explain(sparse(tmp_path / f"{name}.safetensors", shapes))
        assert (found.kind, found.family) == (kind, family), name


def test_an_adapter_in_a_torch_file_is_one(tmp_path):
    torch.save({"string_to_token": {"*": 265}, "string_to_param": {"*": torch.zeros(3, 768)}, "name": "cat"},
               tmp_path / "cat.pt")  # fmt: skip
    assert explain(tmp_path / "cat.pt").kind == "textual inversion"
    groups = {"image_proj": {"proj.weight": torch.zeros(4, 4)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(4, 768)}}
    torch.save(groups, tmp_path / "ip.bin")
    assert explain(tmp_path / "ip.bin").kind == "IP-Adapter"


def test_half_a_lora_is_said_to_be_half(tmp_path):
    found = explain(sparse(tmp_path / "x.safetensors", {"lora_unet_conv_in.lora_down.weight": (4, 4, 3, 3)}))
    assert "1 modules have one matrix of two, first 'conv_in'" in dict(found.facts)["half a LoRA"]


def test_zoos_own_weights_are_known_by_their_card():
    from zoo.config.cards import FOLDER

    found = explain(FOLDER / "emoji-base-32-text.safetensors")
    assert (found.family, found.kind) == ("zoo's own weights", "conditioner")
    assert "its size is the card's" in dict(found.facts)["card"]


# -- folders


@pytest.mark.peer
def test_a_folder_of_diffusers_is_named_by_its_parts_and_its_scheduler_answers(tmp_path):
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    unet = UNet2DConditionModel(block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=32,
                                down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), norm_num_groups=8,
                                up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"), attention_head_dim=8)  # fmt: skip
    vae = AutoencoderKL(block_out_channels=(32, 64), down_block_types=["DownEncoderBlock2D"] * 2, norm_num_groups=8,
                        up_block_types=["UpDecoderBlock2D"] * 2)  # fmt: skip
    text = CLIPTextModel(CLIPTextConfig(hidden_size=32, intermediate_size=37, num_attention_heads=4, vocab_size=99,
                                        num_hidden_layers=2, bos_token_id=0, eos_token_id=2))  # fmt: skip
    scheduler = DDIMScheduler(prediction_type="v_prediction", steps_offset=1, clip_sample=False)
    pipeline = StableDiffusionPipeline(
        unet=unet, vae=vae, text_encoder=text, tokenizer=None, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(tmp_path, max_shard_size="200KB")
    assert list(tmp_path.glob("unet/*.index.json"))
    found = explain(tmp_path)
    assert "StableDiffusionPipeline" in found.container
    assert {p.name: p.tensors for p in found.parts} == {
        "unet": len(unet.state_dict()), "vae": len(vae.state_dict()), "text_encoder": len(text.state_dict()),
    }  # fmt: skip
    assert {p.layout for p in found.parts} == {"diffusers", "transformers"}
    assert found.parameters == sum(p.numel() for m in (unet, vae, text) for p in m.parameters())
    assert found.kind == "pipeline"
    assert all("in another size" in p.what for p in found.parts)


# -- the command


def test_the_command_prints_a_screen_and_json(tmp_path, capsys):
    path = sparse(tmp_path / "x.safetensors", stable_diffusion_1())
    assert run(["explain", str(path)]) == 0
    text = capsys.readouterr().out
    assert "Stable Diffusion 1" in text
    assert len(text.splitlines()) <= 40
    assert run(["explain", str(path), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["parts"][0]["published"] == "ldm_unet/v1-inference"
    assert run(["explain", str(tmp_path / "nothing")]) == 2
    (tmp_path / "bad.safetensors").write_bytes(b"hello")
    assert run(["explain", str(tmp_path / "bad.safetensors")]) == 1
    assert "bad.safetensors" in capsys.readouterr().err


def test_names_of_a_file_do_not_reach_the_terminal_as_commands(tmp_path):
    shapes = {"a\x1b[31m.weight": (1,), "b": (2,)}
    found = explain(sparse(tmp_path / "x.safetensors", shapes, metadata={"t": "\x1b]0;x\x07"}))
    assert "\x1b" not in "\n".join(lines(found))


@pytest.mark.slow
def test_the_command_needs_no_torch(tmp_path):
    path = sparse(tmp_path / "x.safetensors", stable_diffusion_1())
    code = f"from zoo.cli.main import run; assert run(['explain', {str(path)!r}]) == 0\n"
    code += "import sys; assert not {'torch', 'safetensors', 'numpy', 'scipy'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_file_that_no_rule_knows_is_unknown(tmp_path):
    save_file({"a": torch.zeros(2)}, tmp_path / "x.safetensors")
    found = explain(tmp_path / "x.safetensors")
    assert found.kind == "unknown"
    assert "unknown" in "\n".join(lines(found))
