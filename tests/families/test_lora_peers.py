"""What each library makes of a LoRA's file: the table of docs/loras.md, measured row by row.

The reference is diffusers' own pipeline whose networks hold the weights that peft merges, or that are worked out here.
"""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import zoo
from tests.families.test_lora import CONVOLUTIONS, LINEAR, adapted, kohya, of_peft
from tests.families.test_lora_pictures import KOHYA, NEGATIVE, NOISE, PROMPT, SCALE, STEPS, TEXT, by_zoo, loras, saved
from tests.families.written import SAME, grey_levels, stable_diffusion
from zoo.families.diffusers.layout import unet_names
from zoo.networks.unet import UNet
from zoo.schema.errors import WeightsError

peft = pytest.importorskip("peft", reason="peft isn't installed; pip install peft")
pytestmark = [pytest.mark.peer, pytest.mark.slow]

PAGE = Path(__file__).resolve().parents[2] / "docs" / "loras.md"
CONV = "down_blocks.0.resnets.0.conv1"


@pytest.fixture(scope="module")
def sd(tmp_path_factory):
    """diffusers' pipeline, its folder, and diffusers' paths -> the original's."""
    pipe, place = stable_diffusion(), tmp_path_factory.mktemp("sd")
    pipe.save_pretrained(place)
    with torch.device("meta"):
        ours = UNet(width=64, mult=(1, 2), blocks=1, attention_levels=(0,), heads=8, context_width=64)
    names = unet_names(ours.state_dict())
    assert set(names.values()) == set(pipe.unet.state_dict())
    return pipe, place, {theirs.rpartition(".")[0]: own.rpartition(".")[0] for own, theirs in names.items()}


def spelt(models, prefix, down, up, rename=str):
    """peft's tensors under another prefix, other names of the matrices and other paths, with an alpha each."""
    out = {}
    for name, tensor in of_peft(models["unet"]).items():
        path, _, matrix = name.removesuffix(".weight").rpartition(".")
        out[f"{prefix}{rename(path)}.{down if matrix == 'lora_A' else up}.weight"] = tensor.contiguous()
        out[f"{prefix}{rename(path)}.alpha"] = torch.tensor(6.0)
    return out


def before_peft(models):
    """Attention alone, and no alpha: the rank."""
    out = {}
    for name, tensor in of_peft(models["unet"]).items():
        path, _, matrix = name.removesuffix(".weight").rpartition(".")
        stem, _, layer = path.removesuffix(".0").rpartition(".")
        out[f"unet.{stem}.processor.{layer}_lora.{'down' if matrix == 'lora_A' else 'up'}.weight"] = tensor.contiguous()
    return out


def tucker(pipe):
    """LyCORIS' LoCon of one convolution, and the U-Net that it makes."""
    unet, draw = copy.deepcopy(pipe.unet), torch.Generator().manual_seed(3)
    weight = unet.get_submodule(CONV).weight
    down, mid, up = (torch.randn(s, generator=draw) * 0.4 for s in (
        (3, weight.shape[1], 1, 1), (3, 3, 3, 3), (weight.shape[0], 3, 1, 1)))  # fmt: skip
    with torch.no_grad():
        weight += 2.0 * torch.einsum("or,rskl,si->oikl", up[:, :, 0, 0], mid, down[:, :, 0, 0])
    name = "lora_unet_" + CONV.replace(".", "_")
    file = {f"{name}.lora_{k}.weight": v for k, v in (("down", down), ("mid", mid), ("up", up))}
    return {**file, f"{name}.alpha": torch.tensor(6.0)}, {"unet": unet}


def other(kind):
    """What LyCORIS writes of another kind, for one layer."""
    name = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
    square = torch.randn(64, 4, generator=torch.Generator().manual_seed(1)) * 0.2
    if kind == "LoHa":
        found = {"hada_w1_a": square, "hada_w1_b": square.T, "hada_w2_a": square, "hada_w2_b": square.T}
    else:
        found = {"lokr_w1": square[:8, :4].repeat(1, 2), "lokr_w2": square[:8, :4].repeat(1, 2)}
    return {
        **{f"{name}.{k}": v.clone(memory_format=torch.contiguous_format) for k, v in found.items()},
        f"{name}.alpha": torch.tensor(4.0),
    }


def cases(pipe, folder, original):
    """row of the table -> (file, peft's models or None)."""

    def file(name, tensors):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        torch.save(tensors, path) if name.endswith(".bin") else save_file(tensors, path)
        return path

    def written(name, models):
        (folder / name).mkdir()
        return saved(pipe, models, folder / name)

    linear = loras(pipe, ("unet",))
    attention = {"unet": adapted(pipe.unet, target_modules=["to_q", "to_out.0"], lora_alpha=4)}
    both = {"unet": loras(pipe, ("unet",), target_modules=[*LINEAR, *CONVOLUTIONS])["unet"]}
    dora = loras(pipe, ("unet",), use_dora=True)
    text = loras(pipe, ("text_encoder",))
    dora_text = {"text_encoder": adapted(pipe.text_encoder, target_modules=TEXT, use_dora=True)}
    linear["unet"].save_pretrained(folder / "peft")
    locon, made = tucker(pipe)
    flat = KOHYA["unet"]
    old = file("c.safetensors", before_peft(attention))
    return {
        "diffusers, PEFT's settings in its metadata": (written("a", linear), linear),
        "diffusers, rank-stabilized": (written("b", rs := loras(pipe, ("unet",), use_rslora=True)), rs),
        "diffusers before PEFT (`processor.to_q_lora`)": (old, attention),
        "PEFT's folder, with `adapter_config.json`": (folder / "peft/adapter_model.safetensors", linear),
        "kohya, diffusers' blocks": (file("d.safetensors", kohya(of_peft(linear["unet"]), 6)), linear),
        "kohya, the original's blocks": (
            file("e.safetensors", kohya(of_peft(linear["unet"]), 6, original.__getitem__, flat)), linear,
        ),
        "kohya, text encoder": (
            file("f.safetensors", kohya(
                of_peft(text["text_encoder"]), 6, lambda p: "text_model." + p.removeprefix("text_model."), "lora_te_",
            )), text,
        ),
        "kohya, 3x3 convolutions (LoCon)": (file("g.safetensors", kohya(of_peft(both["unet"]), 6)), both),
        "LyCORIS, LoCon in Tucker's form": (file("h.safetensors", locon), made),
        "Comfy (`diffusion_model.`)": (
            file("i.safetensors", spelt(linear, "diffusion_model.", "lora_A", "lora_B", original.__getitem__)), linear,
        ),
        "OneTrainer": (
            file("j.safetensors", spelt(linear, "unet.", "lora_down", "lora_up", original.__getitem__)), linear,
        ),
        "a pickle (`.bin`) of tensors alone": (file("k.bin", kohya(of_peft(linear["unet"]), 6)), linear),
        "kohya, DoRA": (file("l.safetensors", kohya(of_peft(dora["unet"]), 6)), dora),
        "diffusers, DoRA": (written("m", dora), dora),
        "diffusers, DoRA of a text encoder": (written("n", dora_text), dora_text),
        "LoHa": (file("o.safetensors", other("LoHa")), None),
        "LoKr": (file("p.safetensors", other("LoKr")), None),
    }  # fmt: skip


def drawn(pipe):
    return pipe(
        PROMPT, negative_prompt=NEGATIVE, latents=NOISE.clone(), num_inference_steps=STEPS, guidance_scale=SCALE,
        output_type="pt",
    ).images  # fmt: skip


def reference(pipe, models):
    """diffusers' image with the weights merged."""
    before = {part: getattr(pipe, part) for part in models}
    for part, model in models.items():
        merged = copy.deepcopy(model)
        setattr(pipe, part, merged.merge_and_unload() if hasattr(merged, "merge_and_unload") else merged)
    try:
        return drawn(pipe)
    finally:
        for part, module in before.items():
            setattr(pipe, part, module)


def outcome(image, expected, plain):
    """In words, for an image and that of the pipeline without the LoRA."""
    if expected is not None and grey_levels(image, expected) <= SAME:
        return "same image"
    return "left out" if grey_levels(image, plain) <= SAME else "another image"


def of_diffusers(pipe, file, expected, plain):
    try:
        pipe.load_lora_weights(file.parent, weight_name=file.name, adapter_name="x")
        return outcome(drawn(pipe), expected, plain)
    except Exception:
        return "refused"
    finally:
        pipe.unload_lora_weights()


def of_zoo(place, file, expected, plain):
    try:
        pipe = zoo.load(place, adapters=[file])
    except WeightsError:
        return "refused"
    return outcome(by_zoo(pipe), expected, plain)


def table():
    """The rows of the page: file -> (zoo, diffusers with peft)."""
    text = PAGE.read_text(encoding="utf-8").partition("| file | zoo | diffusers with peft |")[2]
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (.+?) \|$", text.partition("\n\n")[0], re.MULTILINE)
    return {file: (one, two) for file, one, two in rows}


def test_the_table_of_the_page_is_what_each_library_makes_of_a_file(sd, tmp_path):
    pipe, place, original = sd
    plain, found = drawn(pipe), {}
    assert grey_levels(by_zoo(zoo.load(place)), plain) <= SAME
    for name, (file, models) in cases(pipe, tmp_path, original).items():
        expected = None if models is None else reference(pipe, models)
        assert expected is None or grey_levels(expected, plain) > SAME, name
        found[name] = (of_zoo(place, file, expected, plain), of_diffusers(pipe, file, expected, plain))
    print("\n".join(f"| {name} | {one} | {two} |" for name, (one, two) in found.items()))  # the page's rows
    assert found == table()
