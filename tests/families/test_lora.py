"""LoRAs of every spelling change the weights as peft does; what isn't read is refused by name.

The networks are diffusers' and transformers', tiny and random; peft adapts them, its files are read, and the weights
that it merges are the reference.
"""

from __future__ import annotations

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.refusals import refused
from zoo.conditioners.clip_text import ClipText
from zoo.families.diffusers.layout import open_clip_names, unet_names
from zoo.families.key_lists import key_lists
from zoo.families.lora.merge import merged, read_lora
from zoo.families.lora.spelling import parse, spelling, text_targets, unet_targets
from zoo.networks.unet import UNet
from zoo.schema.errors import WeightsError

peft = pytest.importorskip("peft", reason="peft isn't installed; pip install peft")
pytestmark = pytest.mark.peer

LINEAR = ["to_q", "to_v", "to_out.0", "ff.net.0.proj", "proj_in"]
CONVOLUTIONS = ["conv1", "conv_in", "conv_shortcut", "time_emb_proj", "downsamplers.0.conv"]
CLOSE = {"atol": 1e-6, "rtol": 1e-6}


@pytest.fixture(scope="module")
def unet():
    """diffusers' U-Net, and the names of zoo's U-Net -> its names."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    theirs = UNet2DConditionModel(
        block_out_channels=(32, 64), layers_per_block=1, cross_attention_dim=24, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    with torch.device("meta"):
        ours = UNet(width=32, mult=(1, 2), blocks=1, attention_levels=(0,), heads=4, context_width=24)
    names = unet_names(ours.state_dict())
    assert set(names.values()) == set(theirs.state_dict())
    return theirs, names


def adapted(network, **config):
    """The network with a LoRA of peft's in it, both matrices random."""
    import copy

    model = peft.get_peft_model(copy.deepcopy(network), peft.LoraConfig(**{"r": 4, "lora_alpha": 6, **config}))
    torch.manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) * 0.2 + ("magnitude" in name))
    return model


def reference(model):
    """What peft merges the adapter to: name -> weight."""
    return {n: t.detach() for n, t in model.merge_and_unload().state_dict().items()}


def zoos(network, names):
    state = network.state_dict()
    return {ours: state[theirs] for ours, theirs in names.items()}


def check(tensors, network, names, wanted, *, scale=1.0, **settings):
    """The merged weights are the reference's; at least one differs from what it was."""
    weights = zoos(network, names)
    found = read_lora(tensors, {"unet": unet_targets(names)}, what="x", **settings)
    changed = merged(weights, [(found, scale)], what="the U-Net")
    assert changed
    for ours, theirs in names.items():
        torch.testing.assert_close(changed.get(ours, weights[ours]), wanted[theirs], **CLOSE)
    assert any(not torch.equal(changed[n], weights[n]) for n in changed)
    return found


CONFIGS = {
    "linear": {"target_modules": LINEAR},
    "convolutions": {"target_modules": CONVOLUTIONS},
    "all": {"target_modules": LINEAR + CONVOLUTIONS},
    "dora": {"target_modules": LINEAR, "use_dora": True},
    "dora of convolutions": {"target_modules": CONVOLUTIONS, "use_dora": True},
    "rank-stabilized": {"target_modules": LINEAR, "use_rslora": True},
    "alphas by module": {"target_modules": LINEAR, "alpha_pattern": {"to_q": 3}, "rank_pattern": {"to_v": 2}},
}


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
def test_a_file_of_peft_changes_the_weights_as_peft_does(unet, tmp_path, name):
    network, names = unet
    model = adapted(network, **CONFIGS[name])
    model.save_pretrained(tmp_path)
    with safe_open(tmp_path / "adapter_model.safetensors", framework="pt") as file:
        tensors = {n: file.get_tensor(n) for n in file.keys()}  # noqa: SIM118
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert spelling(tensors) == "PEFT"
    check(tensors, network, names, reference(model), config=config)
    if name == "linear":  # the switch: without its config the alpha is another
        with pytest.raises(AssertionError):
            check(tensors, network, names, reference(model))


def of_peft(model):
    """An adapter's tensors by diffusers' module paths, without peft's prefix."""
    return {n.removeprefix("base_model.model."): t for n, t in peft.get_peft_model_state_dict(model).items()}


@pytest.mark.peer
@pytest.mark.slow
def test_a_file_of_diffusers_says_its_alphas_in_its_metadata(unet, tmp_path):
    from diffusers import StableDiffusionPipeline

    network, names = unet
    model = adapted(network, **CONFIGS["all"])
    StableDiffusionPipeline.save_lora_weights(
        tmp_path, unet_lora_layers=of_peft(model),
        unet_lora_adapter_metadata=json.loads(json.dumps(model.peft_config["default"].to_dict(), default=list)),
    )  # fmt: skip
    with safe_open(tmp_path / "pytorch_lora_weights.safetensors", framework="pt") as file:
        tensors, metadata = {n: file.get_tensor(n) for n in file.keys()}, file.metadata()  # noqa: SIM118
    check(tensors, network, names, reference(model), metadata=metadata)


def kohya(tensors, alpha, rename=lambda path: path, prefix="lora_unet_"):
    """peft's tensors as kohya's scripts name them: the module's path with underscores, and an alpha each."""
    out = {}
    for name, tensor in tensors.items():
        path, _, matrix = name.removesuffix(".weight").rpartition(".")
        module = prefix + rename(path).replace(".", "_")
        role = {"lora_A": "lora_down", "lora_B": "lora_up"}.get(matrix, "dora_scale")
        if role == "dora_scale":  # of a row each, where peft's of a convolution is (1, out, 1, 1)
            out[f"{module}.{role}"] = tensor.reshape(-1, 1)
        else:
            out[f"{module}.{role}.weight"] = tensor
        out[f"{module}.alpha"] = torch.tensor(float(alpha))
    return out


@pytest.mark.peer
@pytest.mark.slow
def test_every_spelling_is_the_same_lora(unet):
    from diffusers.utils import convert_state_dict_to_kohya

    network, names = unet
    original = {theirs.rpartition(".")[0]: ours.rpartition(".")[0] for ours, theirs in names.items()}
    model = adapted(network, **CONFIGS["all"])
    tensors, wanted = of_peft(model), reference(model)

    def renamed(prefix, down, up, rename):
        out = {}
        for name, tensor in tensors.items():
            path, _, matrix = name.removesuffix(".weight").rpartition(".")
            out[f"{prefix}{rename(path)}.{down if matrix == 'lora_A' else up}.weight"] = tensor
            out[f"{prefix}{rename(path)}.alpha"] = torch.tensor(6.0)
        return out

    spelt = {
        "kohya": kohya(tensors, 6),
        "kohya, original blocks": kohya(tensors, 6, original.__getitem__),
        "Comfy": renamed("diffusion_model.", "lora_A", "lora_B", original.__getitem__),
        "Comfy with kohya's matrices": renamed("diffusion_model.", "lora_down", "lora_up", original.__getitem__),
        "OneTrainer": renamed("unet.", "lora_down", "lora_up", original.__getitem__),
        "OneTrainer, inside": renamed("lora_unet.", "lora_down", "lora_up", str),
    }
    for name, file in spelt.items():
        found = check(file, network, names, wanted)
        assert len(found) == len(tensors) // 2, name
    assert [spelling(file) for file in spelt.values()] == ["kohya"] * 2 + ["Comfy"] * 2 + ["OneTrainer"] * 2
    # diffusers' own kohya: alpha is the rank there, so the factor is 1.
    plain = adapted(network, target_modules=LINEAR, lora_alpha=4)
    file = convert_state_dict_to_kohya({f"unet.{n}": t for n, t in of_peft(plain).items()})
    check(file, network, names, reference(plain))


@pytest.mark.peer
def test_the_older_names_of_diffusers_are_read(unet):
    network, names = unet
    model = adapted(network, target_modules=["to_q", "to_out.0"], lora_alpha=4)
    old = {}
    for name, tensor in of_peft(model).items():
        path, _, matrix = name.removesuffix(".weight").rpartition(".")
        stem, _, layer = path.removesuffix(".0").rpartition(".")
        old[f"unet.{stem}.processor.{layer}_lora.{'down' if matrix == 'lora_A' else 'up'}.weight"] = tensor
    assert spelling(old) == "diffusers (before PEFT)"
    check(old, network, names, reference(model))


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize("dora", [False, True])
def test_a_text_encoders_q_k_and_v_are_thirds_of_one_matrix(dora):
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    tower = CLIPTextModel(CLIPTextConfig(hidden_size=32, intermediate_size=128, num_attention_heads=4, vocab_size=99,
                                         num_hidden_layers=2, bos_token_id=0, eos_token_id=2))  # fmt: skip
    model = adapted(tower, target_modules=["q_proj", "v_proj", "out_proj", "fc1"], use_dora=dora)
    tensors, wanted = of_peft(model), reference(model)
    names = open_clip_names(tower.state_dict())
    weights: dict[str, torch.Tensor] = {}
    for theirs, ours in names.items():
        weights[ours] = torch.cat([weights[ours], tower.state_dict()[theirs]]) if ours in weights else (
            tower.state_dict()[theirs])  # fmt: skip
    # transformers lists k before q; zoo's rows are q, k, v.
    for layer in range(2):
        stem = f"encoder.layers.{layer}.self_attn"
        for leaf in ("weight", "bias"):
            parts = [
                next(t for n, t in tower.state_dict().items() if n.endswith(f"{stem}.{p}_proj.{leaf}")) for p in "qkv"
            ]
            weights[f"transformer.resblocks.{layer}.attn.in_proj_{leaf}"] = torch.cat(parts)
    with torch.device("meta"):
        zoo_names = set(ClipText(width=32, heads=4, layers=2, embed_dim=32).state_dict())
    assert set(weights) <= zoo_names
    spelt = {
        "kohya": kohya(tensors, 6, lambda p: p if p.startswith("text_model.") else f"text_model.{p}", "lora_te_"),
        "PEFT": {f"text_encoder.{n}": t for n, t in tensors.items()},
        "OneTrainer": {f"clip_l.{n}".replace("lora_A", "lora_down").replace("lora_B", "lora_up"): t
                       for n, t in tensors.items()},
    }  # fmt: skip
    for name, file in spelt.items():
        config = {"lora_alpha": 6} if name != "kohya" else None
        found = read_lora(file, {"text_encoder": text_targets(weights)}, what=name, config=config)
        changed = merged(weights, [(found, 1.0)], what="the tower")
        for layer in range(2):
            stem = f"encoder.layers.{layer}.self_attn"
            parts = [next(t for n, t in wanted.items() if n.endswith(f"{stem}.{p}_proj.weight")) for p in "qkv"]
            fused = changed[f"transformer.resblocks.{layer}.attn.in_proj_weight"]
            torch.testing.assert_close(fused, torch.cat(parts), **CLOSE)
            fc1 = next(t for n, t in wanted.items() if n.endswith(f"encoder.layers.{layer}.mlp.fc1.weight"))
            torch.testing.assert_close(changed[f"transformer.resblocks.{layer}.mlp.c_fc.weight"], fc1, **CLOSE)


# -- several, scales, precisions, Tucker's form


def one(name="proj_in", rank=2, alpha=None, seed=0, shape=(32, 32)):
    generator = torch.Generator().manual_seed(seed)
    path = f"lora_unet_input_blocks_1_1_{name}"
    file = {f"{path}.lora_down.weight": torch.randn(rank, shape[1], generator=generator),
            f"{path}.lora_up.weight": torch.randn(shape[0], rank, generator=generator)}  # fmt: skip
    return {**file, f"{path}.alpha": torch.tensor(float(alpha))} if alpha else file


def test_several_add_up_in_any_order_and_a_scale_of_zero_changes_nothing(unet):
    network, names = unet
    weights, targets = zoos(network, names), {"unet": unet_targets(names)}
    a, b = (read_lora(one(seed=s, alpha=1), targets, what="x") for s in (0, 1))
    name = "input_blocks.1.1.proj_in.weight"
    both, turned = (merged(weights, loras, what="x")[name] for loras in ([(a, 0.5), (b, 2)], [(b, 2), (a, 0.5)]))
    torch.testing.assert_close(both, turned, **CLOSE)
    each = [merged(weights, [(lora, s)], what="x")[name] - weights[name] for lora, s in ((a, 0.5), (b, 2))]
    torch.testing.assert_close(both, weights[name] + each[0] + each[1], atol=1e-5, rtol=1e-5)
    assert torch.equal(merged(weights, [(a, 0.0)], what="x")[name], weights[name])
    half = {n: t.half() for n, t in weights.items()}
    assert merged(half, [(a, 1)], what="x")[name].dtype == torch.float16


def test_alpha_over_rank_is_the_factor_and_no_alpha_is_one(unet):
    targets = {"unet": unet_targets(unet[1])}
    plain, twice, zero = (read_lora(one(rank=2, alpha=a), targets, what="x")[0].difference() for a in (None, 4, 0))
    torch.testing.assert_close(twice, 2 * plain)
    torch.testing.assert_close(zero, plain)


def test_tuckers_form_is_the_convolutions_one_after_another():
    from zoo.families.lora.merge import Adapted
    from zoo.families.lora.spelling import Target

    torch.manual_seed(0)
    down, mid, up = torch.randn(3, 5, 1, 1), torch.randn(4, 3, 3, 3), torch.randn(6, 4, 1, 1)
    x = torch.randn(1, 5, 8, 8)
    conv = torch.nn.functional.conv2d
    wanted = conv(conv(conv(x, down), mid, padding=1), up)
    whole = Adapted("unet", Target("x"), down, up, mid).difference()
    torch.testing.assert_close(conv(x, whole, padding=1), wanted, atol=1e-4, rtol=1e-4)


# -- refused


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"lora_unet_nowhere.lora_down.weight": torch.zeros(2, 2)}, "lora-unfit: lora_unet_nowhere.lora_down.weight"),
        ({"lora_unet_mid_block_resnets_0_conv1.hada_w1_a": torch.zeros(2, 2)}, "lora-unfit"),
        ({"lora_unet_mid_block_resnets_0_conv1.lokr_w1": torch.zeros(2, 2)}, "lora-unfit"),
        ({"diffusion_model.out.2.diff": torch.zeros(2)}, "lora-unfit"),
        ({"unet.conv_in.lora_B.bias": torch.zeros(2)}, "lora-unfit"),
        ({"bundle_emb.x.string_to_param": torch.zeros(2)}, "lora-unfit"),
        ({"something": torch.zeros(2)}, "lora-unfit: something"),
        ({"lora_te_text_model_encoder_layers_0_mlp_fc1.alpha": torch.tensor(1.0)}, "lora-unfit: text_encoder"),
        ({"lora_te2_x.alpha": torch.tensor(1.0)}, "lora-unfit: text_encoder_2"),
        (
            {"lora_unet_conv_out.lora_down.weight": torch.zeros(2, 2)},
            "lora-damaged: conv_out",
        ),
        ({"lora_unet_conv_out.alpha": torch.tensor(1.0)}, "lora-damaged"),
        ({"unet.input_blocks.1.1.proj_in.lora_down.weight": torch.zeros(2, 2)}, "lora-damaged"),
        ({"lora_unet_input_blocks_1_1_proj_in.lora_up.weight": torch.zeros(32, 5)}, "lora-damaged"),
    ],
)
def test_what_is_no_lora_of_this_network_is_refused_by_name(unet, change, reason):
    with refused(reason, WeightsError):
        read_lora({**one(), **change}, {"unet": unet_targets(unet[1])}, what="x.safetensors")


def test_a_lora_of_another_size_is_refused(unet):
    network, names = unet
    found = read_lora(one(shape=(32, 48)), {"unet": unet_targets(names)}, what="x")
    with refused("lora-unfit", WeightsError):
        merged(zoos(network, names), [(found, 1.0)], what="the U-Net")
    with refused("lora-unfit", WeightsError):
        merged({}, [(read_lora(one(), {"unet": unet_targets(names)}, what="x"), 1.0)], what="the U-Net")


def test_a_pattern_that_is_no_path_is_refused(unet):
    file = {
        "unet.conv_in.lora_A.weight": torch.zeros(2, 4, 3, 3),
        "unet.conv_in.lora_B.weight": torch.zeros(32, 2, 1, 1),
    }
    with refused("lora-damaged", WeightsError):
        read_lora(
            file, {"unet": unet_targets(unet[1])}, what="x", config={"alpha_pattern": {"(a+)+$": 1}, "lora_alpha": 1}
        )


# -- full-size names


@pytest.mark.parametrize("name", ["ldm_unet/v1-inference", "sd2_unet/v2-inference", "sdxl_unet/sd_xl_base",
                                  "sdxl_unet/sd_xl_refiner", "sd2_unet/x4-upscaling",
                                  "sd2_unet/v2-1-stable-unclip-h-inference"])  # fmt: skip
def test_no_two_modules_of_a_published_unet_have_one_spelling(name):
    names = unet_names(key_lists()[name])
    targets = unet_targets(names)
    modules = {ours.rpartition(".")[0] for ours in names}
    for ours, theirs in names.items():
        for path in (ours, theirs):
            assert targets[path.rpartition(".")[0].replace(".", "_")].module == ours.rpartition(".")[0]
    assert {t.module for t in targets.values()} == modules
    for spelt in ("lora_unet_{}.alpha", "diffusion_model.{}.alpha", "unet.{}.alpha", "lora_unet.{}.alpha"):
        for module in modules:
            key = parse(spelt.format(module.replace(".", "_") if "_{}" in spelt else module))
            assert key is not None
            assert targets[key.path.replace(".", "_")].module == module


@pytest.mark.parametrize("name", ["openclip-h/text", "openclip-bigG/text"])
def test_no_two_modules_of_a_published_tower_have_one_spelling(name):
    targets = text_targets(key_lists()[name])
    layers = 24 if "-h/" in name else 32
    split = [t for t in targets.values() if t.third is not None]
    assert len(split) == 2 * 3 * layers  # with text_model and without
    assert len({(t.module, t.third) for t in split}) == 3 * layers


@pytest.mark.peer
@pytest.mark.slow
def test_files_that_are_saved_say_what_they_are(unet, tmp_path):
    from zoo.families.explain import explain

    network, _ = unet
    model = adapted(network, **CONFIGS["dora of convolutions"])
    save_file(kohya(of_peft(model), 6), tmp_path / "x.safetensors")
    facts = dict(explain(tmp_path / "x.safetensors").facts)
    assert facts["spelling"] == "kohya"
    assert facts["rank"] == "4"
    assert "LoCon" in facts["3x3 convolutions"]
    assert facts["magnitudes"] == "it is a DoRA"
