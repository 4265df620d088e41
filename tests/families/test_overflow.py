"""An autoencoder whose middle overflows float16, as SDXL's does, is named, goes on in float32, and draws its image."""

import pytest
import torch

import zoo
from tests.families.written import grey_levels, stable_diffusion_xl
from zoo.schema.errors import RequestNote

pytestmark = [pytest.mark.peer, pytest.mark.slow]
PROMPT, CALL = "a red apple on a table, 3d style", {"num_inference_steps": 3, "guidance_scale": 5.0}
NOISE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
# diffusers' module whose weights are so large that its output isn't float16's -> zoo's name of it.
LARGE = {
    "mid_block.resnets.0.conv2": "decoder.mid.block_1.conv2",
    "mid_block.attentions.0.to_out.0": "decoder.mid.attn_1.proj_out",
    "up_blocks.0.resnets.1.conv1": "decoder.up.2.block.1.conv1",
}


def first_overflow(decoder, z):
    """The name of diffusers' first module, of those that have no others inside, whose output isn't finite."""
    found = []
    for name, module in decoder.named_modules():
        if not list(module.children()):
            module.register_forward_hook(
                lambda _, __, out, name=name: None if bool(torch.isfinite(out).all()) else found.append(name)
            )
    with torch.no_grad():
        decoder(z)
    return found[0]


@pytest.mark.parametrize("where", LARGE)
def test_an_autoencoder_that_overflows_is_named_and_draws_its_float32_image(where, tmp_path):
    pipe = stable_diffusion_xl()
    with torch.no_grad():
        pipe.vae.decoder.mid_block.attentions[0].to_v.weight.mul_(20.0)
        weight = pipe.vae.decoder.get_submodule(where).weight
        weight.mul_(6e4 / weight.abs().max())  # which float16 holds
    pipe.save_pretrained(tmp_path / "xl")
    expected = pipe(PROMPT, latents=NOISE.clone(), output_type="pt", **CALL).images
    assert expected.std() > 0.05
    latents = pipe(PROMPT, latents=NOISE.clone(), output_type="latent", **CALL).images
    z = pipe.vae.post_quant_conv(latents / pipe.vae.config.scaling_factor).half()
    assert first_overflow(pipe.vae.decoder.half(), z).startswith(where)  # in diffusers, too

    def drawn(dtype):
        loaded = zoo.load(tmp_path / "xl", dtype=dtype)
        return loaded(PROMPT, noise=NOISE, steps=3, guidance=5.0)

    plain = drawn("float32")
    with pytest.warns(RequestNote, match=f"base.autoencoder overflowed float16 in '{LARGE[where]}'"):
        made = drawn({"autoencoder": "float16", "rest": "float32"})
    assert made.record["widened"] == [
        {"part": "base.autoencoder", "module": LARGE[where], "from": "float16", "to": "float32"}
    ]
    assert "widened" not in plain.record
    assert grey_levels(plain.tensor, expected) < 1
    assert grey_levels(made.tensor, plain.tensor) < 1
    assert grey_levels(made.tensor, expected) < 1
