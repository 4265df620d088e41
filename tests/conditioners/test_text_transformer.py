"""The text transformer is open_clip's, from its first weights on, and a prompt brings none of open_clip's imports."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from zoo.conditioners.text_transformer import TextTransformer

SHAPE = {"width": 24, "heads": 3, "layers": 3, "context_length": 9}


@pytest.mark.peer
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("embed_dim", [None, 10])
def test_parameters_and_first_weights_are_open_clips(quick, embed_dim):
    from open_clip.transformer import QuickGELU
    from open_clip.transformer import TextTransformer as Theirs

    torch.manual_seed(3)
    theirs = Theirs(
        vocab_size=50, output_dim=embed_dim, act_layer=QuickGELU if quick else torch.nn.GELU, **SHAPE
    ).state_dict()
    torch.manual_seed(3)
    ours = TextTransformer(vocabulary=50, embed_dim=embed_dim, quick=quick, **SHAPE).state_dict()
    assert list(ours) != []
    assert sorted(ours) == sorted(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.peer
@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quick", [False, True])
def test_a_block_is_open_clips_to_the_bit(quick, dtype):
    from open_clip.transformer import QuickGELU
    from open_clip.transformer import TextTransformer as Theirs

    theirs = Theirs(vocab_size=50, act_layer=QuickGELU if quick else torch.nn.GELU, **SHAPE).eval().to(dtype)
    ours = TextTransformer(vocabulary=50, embed_dim=512, quick=quick, **SHAPE).eval().to(dtype)
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 9, 24).to(dtype)
    mask = torch.full((9, 9), float("-inf"), dtype=dtype).triu_(1)
    for one, other in zip(ours.transformer.resblocks, theirs.transformer.resblocks, strict=True):
        assert torch.equal(one(x, attn_mask=mask), other(x, attn_mask=mask))
        x = one(x, attn_mask=mask)


@pytest.mark.slow
def test_drawing_imports_neither_torchvision_nor_timm_nor_transformers(tmp_path):
    code = (
        "import sys, zoo; zoo.build('latent-text2img', steps=1)('red apple');"
        "print(sorted({'open_clip', 'torchvision', 'timm', 'transformers', 'diffusers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
