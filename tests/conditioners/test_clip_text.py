"""CLIP's text tower against transformers' CLIPTextModel and open_clip's own CLIP, with the same weights."""

import pytest
import torch
import torch.nn.functional as F

from tests.networks.random_weights import randomise, relative
from tests.refusals import refused
from zoo.checkpoints.files import load_strict
from zoo.conditioners import vocabulary
from zoo.conditioners.clip import build_clip
from zoo.conditioners.clip_text import ClipText
from zoo.families.diffusers.config import clip_text_config
from zoo.families.diffusers.layout import CLIP_PREFIX, clip_text_tensors
from zoo.schema.errors import WeightsError

AGREES = 1e-8  # in float64
DIFFERS = 1e-6
SMALL = {"width": 16, "heads": 2, "layers": 3, "context_length": 12, "embed_dim": 8}
PROMPTS = ["red apple, 3d style", "a fox!", ""]
CHOICES = [
    {"activation": "quick-gelu", "pad": "end"},  # SD 1
    {"activation": "gelu", "layer": 2, "pad": "zero"},  # SD 2
    {"activation": "gelu", "pad": "zero"},  # zoo's own
]


def tower(**choice):
    return randomise(ClipText(**SMALL, **choice))


def transformers_states(ours):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(**clip_text_config(ours))
    theirs = CLIPTextModel(config).double().eval()
    tensors = clip_text_tensors(ours.state_dict(), layers=config.num_hidden_layers)
    theirs.load_state_dict({k.removeprefix(CLIP_PREFIX): t for k, t in tensors.items()}, strict=True)
    return theirs(ours.tokenize(PROMPTS)).last_hidden_state


@pytest.mark.peer
@pytest.mark.parametrize("choice", CHOICES, ids=["sd1", "sd2", "zoo"])
@torch.no_grad()
def test_token_states_are_those_of_transformers(choice):
    ours = tower(**choice)
    assert relative(ours(PROMPTS).tokens, transformers_states(ours)) < AGREES


def flipped(**choice):
    return lambda ours: (other := tower(**{**CHOICES[1], **choice})).load_state_dict(ours.state_dict()) and other


def without_causal_mask(ours):
    for block in ours.transformer.resblocks:
        right = block.forward
        block.forward = lambda x, attn_mask, right=right: right(x, attn_mask=torch.zeros_like(attn_mask))
    return ours


@pytest.mark.slow
@pytest.mark.peer
@pytest.mark.parametrize(
    "flip",
    [
        flipped(activation="quick-gelu"), flipped(layer=1), flipped(final_norm=False), flipped(pad="end"),
        without_causal_mask,
    ],
    ids=["activation", "layer", "final-norm", "pad", "causal-mask"],
)  # fmt: skip
@torch.no_grad()
def test_comparison_fails_when_one_switch_is_flipped(flip):
    ours = tower(**CHOICES[1])
    expected = transformers_states(ours)
    assert relative(ours(PROMPTS).tokens, expected) < AGREES
    assert relative(flip(ours)(PROMPTS).tokens, expected) > DIFFERS


@pytest.mark.peer
@torch.no_grad()
def test_pooled_vector_is_open_clips():
    from open_clip import tokenizer as open_clip_tokenizer

    clip = randomise(
        build_clip(
            embed_dim=8, image_size=32, image_width=4, image_layers=(1, 1, 1, 1), text_width=16, text_heads=2,
            text_layers=3, context_length=12,
        )
    )  # fmt: skip
    state = {k: t for k, t in clip.state_dict().items() if k != "attn_mask"}
    ours = ClipText(**SMALL, activation="gelu", pad="zero")
    load_strict(ours, state, what="open_clip's", other=["visual.", "logit_scale"], dtype=None)
    expected = clip.encode_text(open_clip_tokenizer.SimpleTokenizer()(PROMPTS, context_length=12))
    assert relative(ours(PROMPTS).vector, expected) < AGREES
    other = ClipText(**SMALL, activation="quick-gelu", pad="zero").double()
    other.load_state_dict(ours.state_dict())
    assert relative(other(PROMPTS).vector, expected) > DIFFERS


@pytest.mark.peer
def test_tokens_are_open_clips():
    from open_clip import tokenizer as open_clip_tokenizer

    ours, theirs = ClipText(**SMALL, pad="zero"), open_clip_tokenizer.SimpleTokenizer()
    prompts = [*PROMPTS, "It's 3 Cafés & more...", "日本 🍎", "end ends"]
    assert torch.equal(ours.tokenize(prompts), theirs(prompts, context_length=12))


# -- compact vocabulary


def compact_file(full):
    ids = vocabulary.used_ids(["red apple , 3d style"])
    state = dict(full.state_dict())
    state["token_embedding.weight"] = vocabulary.compact(state["token_embedding.weight"], ids)
    return {**state, "token_ids": ids, "visual.stem": torch.zeros(3), "logit_scale": torch.zeros(())}


def compact_tower(tensors):
    with torch.device("meta"):
        model = ClipText(**SMALL, activation="gelu", pad="zero", compact=True)
    load_strict(model, tensors, what="the text weights", other=("visual.", "logit_scale"), dtype=torch.float64)
    return model.eval()


@torch.no_grad()
def test_compact_weights_read_known_prompts_as_the_full_ones_do():
    full = tower(activation="gelu", pad="zero")
    small = compact_tower(compact_file(full))
    prompts = ["red apple, 3d style", ""]
    assert torch.equal(small.token_embedding(small.tokenize(prompts)), full.token_embedding(full.tokenize(prompts)))
    assert relative(small(prompts).tokens, full(prompts).tokens) < 1e-12
    assert relative(small(prompts).vector, full(prompts).vector) < 1e-12
    assert relative(small.null(2).tokens, full(["", ""]).tokens) < 1e-12


def test_a_prompt_of_unknown_words_or_too_many_is_refused():
    model = compact_tower(compact_file(tower(activation="gelu", pad="zero")))
    with refused("word-unknown", naming="'zebra'"):
        model(["red zebra"])
    with refused("prompt-too-long", naming="16 tokens; this model reads 10"):
        model(["red apple " * 8])


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t.pop("token_ids"),
        lambda t: t.update(token_ids=t["token_ids"][1:]),
        lambda t: t.update(token_ids=t["token_ids"].clone().fill_(3)),
        lambda t: t.update(token_ids=t["token_ids"] + vocabulary.VOCABULARY),
        lambda t: t.update(token_ids=t["token_ids"].float() + 0.5),
    ],
    ids=["absent", "one-too-few", "repeated", "out-of-range", "no-integers"],
)
def test_a_token_table_that_says_nonsense_is_refused(damage):
    tensors = compact_file(tower(activation="gelu", pad="zero"))
    damage(tensors)
    with refused("tensor-missing|token-table-damaged", WeightsError, naming="token_ids"):
        compact_tower(tensors)


def test_sequences_are_normalised_where_the_final_norm_is_read():
    states = tower(activation="gelu", pad="zero")(PROMPTS).tokens
    plain = tower(activation="gelu", pad="zero", final_norm=False)(PROMPTS).tokens
    norm = tower(activation="gelu", pad="zero").ln_final
    assert torch.allclose(states, F.layer_norm(plain, (16,), norm.weight, norm.bias))
