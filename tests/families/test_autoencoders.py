"""An autoencoder from a file of its own: KL-f8 in both layouts and TAESD, against diffusers' classes."""

import pytest
import torch
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import save_file

import zoo
from tests.families.test_stable_diffusion import NOISE, picture
from tests.families.written import SAME, VAE, grey_levels, randomise, stable_diffusion
from tests.refusals import refused

pytestmark = [pytest.mark.peer, pytest.mark.slow]
PROMPT, STEPS = "a red apple on a table", 4


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    # TAESD's factor is 8, as every published U-Net's latents are.
    vae = {"block_out_channels": (32, 32, 64, 64), "down_block_types": ("DownEncoderBlock2D",) * 4,
           "up_block_types": ("UpDecoderBlock2D",) * 4}  # fmt: skip
    pipe, place = stable_diffusion(vae=vae), tmp_path_factory.mktemp("base")
    pipe.save_pretrained(place)
    return pipe, place


def expected(pipe, vae):
    replaced = type(pipe)(**{**pipe.components, "vae": vae}, requires_safety_checker=False)
    replaced.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": STEPS, "guidance_scale": 5.0, "output_type": "pt"}
    return replaced(PROMPT, latents=NOISE.clone(), **call).images


def made(place, autoencoder):
    pipe = zoo.load(place, autoencoder=autoencoder)
    return pipe, pipe(PROMPT, noise=NOISE, steps=STEPS, guidance=5.0).tensor


def taesd(seed):
    return randomise(AutoencoderTiny(latent_channels=4), seed, out=0.5)


def by_its_author(tiny):
    """TAESD's tensors by the names of its author's two files; diffusers' rule, backwards."""
    halves = {"encoder": {}, "decoder": {}}
    for name, tensor in tiny.state_dict().items():
        half, _, number, rest = name.split(".", 3)
        halves[half][f"{int(number) + (half == 'decoder')}.{rest}"] = tensor.clone()
    return halves


def test_a_kl_autoencoder_alone_is_read_from_diffusers_file_and_folder(base, tmp_path):
    pipe, place = base
    shape = {key: pipe.vae.config[key] for key in ("block_out_channels", "down_block_types", "up_block_types")}
    other = randomise(AutoencoderKL(**{**VAE, **shape}), 12, out=0.5)
    other.save_pretrained(tmp_path / "vae")
    wanted = expected(pipe, other)
    for path in (tmp_path / "vae", tmp_path / "vae" / "diffusion_pytorch_model.safetensors"):
        assert grey_levels(made(place, path)[1], wanted) <= SAME
    assert grey_levels(made(place, place)[1], wanted) > SAME  # a whole model's own


def test_taesd_draws_what_diffusers_tiny_autoencoder_draws(base, tmp_path):
    pipe, place = base
    tiny = taesd(21)
    tiny.save_pretrained(tmp_path / "taesd")
    for half, tensors in by_its_author(tiny).items():
        save_file(tensors, tmp_path / f"taesd_{half}.safetensors")
        torch.save(tensors, tmp_path / f"taesd_{half}.pth")
    wanted = expected(pipe, tiny)
    names = ("taesd", "taesd/diffusion_pytorch_model.safetensors", "taesd_decoder.safetensors", "taesd_encoder.pth")
    for name in names:
        assert grey_levels(made(place, tmp_path / name)[1], wanted) <= SAME, name
    taesd(22).save_pretrained(tmp_path / "other")
    assert grey_levels(made(place, tmp_path / "other")[1], wanted) > SAME
    drawing, _ = made(place, tmp_path / "taesd")
    image = picture()[None] * 2 - 1
    with torch.no_grad():
        theirs, ours = tiny.encode(image).latents, drawing.stages[0].autoencoder.encode(image)
    assert (ours - theirs).abs().max() <= 1e-5 * theirs.std()
    drawing.compile(compile=False)
    assert grey_levels(drawing(PROMPT, noise=NOISE, steps=STEPS, guidance=5.0).tensor, wanted) <= SAME


def test_half_a_tiny_autoencoder_and_one_of_another_factor_are_refused(base, tmp_path):
    place = base[1]
    save_file(by_its_author(taesd(21))["decoder"], tmp_path / "taesd_decoder.safetensors")
    with refused("model-part-missing", naming="put its encoder beside it"):
        made(place, tmp_path / "taesd_decoder.safetensors")
    AutoencoderTiny(latent_channels=4, act_fn="gelu").save_pretrained(tmp_path / "gelu")
    with refused("model-switch-unfit", naming="act_fn"):
        made(place, tmp_path / "gelu")
    AutoencoderTiny(latent_channels=16).save_pretrained(tmp_path / "taef1")
    with refused("channels-unfit", naming="gives 16"):
        made(place, tmp_path / "taef1")
    with refused("model-part-missing", naming="is an autoencoder alone"):
        zoo.load(tmp_path / "gelu" / "diffusion_pytorch_model.safetensors")
