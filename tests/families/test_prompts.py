"""Prompt options of Stable Diffusion's pipelines against diffusers: long prompts, weights of words, clip skip.

What diffusers doesn't do itself it is given as states (`prompt_embeds`), made here by transformers' encoder and the
formula in its plainest form.
"""

import json

import pytest
import torch
from PIL import Image

import zoo
from tests.families.written import SAME, grey_levels, stable_diffusion, stable_diffusion_xl
from tests.refusals import refused
from zoo.cli.main import run
from zoo.schema.errors import RequestNote

pytestmark = [pytest.mark.peer, pytest.mark.slow]
STEPS, SCALE = 4, 7.5
NOISE = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(5))
PLAIN, NEGATIVE = "a red apple on a table, 3d style", "blurry"
LONG = ", ".join(["a red apple", "a green pear on a wooden table", "a bright window", "an old painting"] * 6)
LONG_NEGATIVE = ", ".join(["blurry", "a dark photograph of nothing in particular", "text"] * 8)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    pipe, place = stable_diffusion(), tmp_path_factory.mktemp("sd")
    pipe.save_pretrained(place)
    return pipe, place


def drawn_by_zoo(pipe, prompt=PLAIN, negative=NEGATIVE):
    return pipe(prompt, negative=negative, noise=NOISE, steps=STEPS, guidance=SCALE).tensor


def drawn_by_diffusers(pipe, **given):
    return pipe(
        latents=NOISE.clone(), num_inference_steps=STEPS, guidance_scale=SCALE, output_type="pt", **given
    ).images


@torch.no_grad()
def encoded(pipe, prompt):
    """(1, 77 n, D): windows of 75 tokens between start and end, by transformers' tokenizer and encoder."""
    ids = pipe.tokenizer(prompt, truncation=False).input_ids[1:-1]
    parts = [ids[i : i + 75] for i in range(0, len(ids), 75)] or [[]]
    rows = [[49406, *part, 49407] + [49407] * (75 - len(part)) for part in parts]
    return torch.cat([pipe.text_encoder(torch.tensor([row]))[0] for row in rows], dim=1)


def test_a_long_prompt_is_cut_as_diffusers_cuts_it_and_the_rest_is_named(written):
    pipe, place = written
    expected = drawn_by_diffusers(pipe, prompt=LONG, negative_prompt=NEGATIVE)
    loaded = zoo.load(place)
    with pytest.warns(RequestNote, match=r"left out: '.*an old painting'"):
        found = drawn_by_zoo(loaded, LONG)
    assert grey_levels(found, expected) <= SAME
    with refused("prompt-too-long"):
        drawn_by_zoo(zoo.load(place, long_prompts="refuse"), LONG)


def test_long_prompts_are_read_in_windows_one_after_the_other(written):
    pipe, place = written
    expected = drawn_by_diffusers(
        pipe, prompt_embeds=encoded(pipe, LONG), negative_prompt_embeds=encoded(pipe, LONG_NEGATIVE)
    )
    assert encoded(pipe, LONG).shape[1] == encoded(pipe, LONG_NEGATIVE).shape[1] == 2 * 77
    loaded = zoo.load(place, long_prompts="chunks")
    assert grey_levels(drawn_by_zoo(loaded, LONG, LONG_NEGATIVE), expected) <= SAME
    with pytest.warns(RequestNote):
        assert grey_levels(drawn_by_zoo(zoo.load(place), LONG, LONG_NEGATIVE), expected) > SAME


@torch.no_grad()
def test_a_long_prompt_beside_a_short_negative_one_is_each_evaluated_with_its_own_tokens(written):
    pipe, place = written
    cond, null = encoded(pipe, LONG), encoded(pipe, NEGATIVE)
    assert cond.shape[1] == 2 * null.shape[1]
    pipe.scheduler.set_timesteps(STEPS)
    x = NOISE * pipe.scheduler.init_noise_sigma
    for t in pipe.scheduler.timesteps:
        with_prompt, without = (pipe.unet(x, t, encoder_hidden_states=states).sample for states in (cond, null))
        x = pipe.scheduler.step(without + SCALE * (with_prompt - without), t, x).prev_sample
    expected = (pipe.vae.decode(x / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    loaded = zoo.load(place, long_prompts="chunks")
    assert grey_levels(drawn_by_zoo(loaded, LONG), expected) <= SAME
    loaded.compile(compile=False)
    assert grey_levels(drawn_by_zoo(loaded, LONG), expected) <= SAME
    both = loaded([PLAIN, LONG], negative=NEGATIVE, noise=NOISE.expand(2, -1, -1, -1), steps=STEPS, guidance=SCALE)
    assert grey_levels(both.tensor[1:], expected) <= SAME
    assert grey_levels(both.tensor[:1], drawn_by_zoo(loaded)) <= SAME


@pytest.mark.parametrize("scheme", ["mean", "empty"])
def test_weights_of_words_are_those_of_the_formula(scheme, written):
    pipe, place = written
    states, empty = encoded(pipe, PLAIN), encoded(pipe, "")
    weights = torch.ones(77)
    weights[2], weights[3] = 1.4, 1.4 * 1.1  # red, apple
    if scheme == "mean":
        weighted = states * weights[:, None]
        weighted = weighted * (states.mean() / weighted.mean())
    else:
        weighted = empty + weights[:, None] * (states - empty)
    expected = drawn_by_diffusers(pipe, prompt_embeds=weighted, negative_prompt_embeds=encoded(pipe, NEGATIVE))
    loaded = zoo.load(place, prompt_weighting=scheme)
    assert grey_levels(drawn_by_zoo(loaded, PLAIN.replace("red apple", "(red (apple):1.4)")), expected) <= SAME
    assert grey_levels(drawn_by_zoo(loaded, PLAIN), expected) > SAME
    assert grey_levels(drawn_by_zoo(loaded, PLAIN.replace("red apple", "(red apple:1.4)")), expected) > SAME


def states(pipe, prompt, skip):
    return pipe.encode_prompt(prompt, "cpu", 1, False, clip_skip=skip)[0]


def test_clip_skip_leaves_out_layers_at_the_encoders_end(written, monkeypatch):
    pipe, place = written
    # diffusers looks for the norm where transformers had it before its version 5.6.
    monkeypatch.setitem(pipe.text_encoder.__dict__, "text_model", pipe.text_encoder)
    # diffusers skips for the prompt alone and reads the negative one whole; here both are given.
    expected = drawn_by_diffusers(
        pipe, prompt_embeds=states(pipe, PLAIN, 1), negative_prompt_embeds=states(pipe, NEGATIVE, 1)
    )
    loaded = zoo.load(place, clip_skip=1)
    assert grey_levels(drawn_by_zoo(loaded), expected) <= SAME
    assert grey_levels(drawn_by_zoo(zoo.load(place, clip_skip=0)), expected) > SAME
    for wrong in (3, -1, "x"):
        with refused("number-out-of-range", naming="clip_skip"):
            zoo.check(place, clip_skip=wrong)


def test_clip_skip_and_long_prompts_of_two_encoders(tmp_path):
    pipe = stable_diffusion_xl()
    pipe.save_pretrained(tmp_path)

    def read(prompt, skip):
        tokens, _, pooled, _ = pipe.encode_prompt(prompt, device="cpu", do_classifier_free_guidance=False,
                                                  clip_skip=skip)  # fmt: skip
        return tokens, pooled

    (tokens, pooled), (unwanted, unwanted_pooled) = read(PLAIN, 1), read(NEGATIVE, 1)
    expected = drawn_by_diffusers(
        pipe, prompt_embeds=tokens, pooled_prompt_embeds=pooled, negative_prompt_embeds=unwanted,
        negative_pooled_prompt_embeds=unwanted_pooled,
    )  # fmt: skip
    assert grey_levels(drawn_by_zoo(zoo.load(tmp_path, clip_skip=1)), expected) <= SAME
    assert grey_levels(drawn_by_zoo(zoo.load(tmp_path)), expected) > SAME
    # Windows of both encoders, side by side; the pooled state is the first window's.
    ids = pipe.tokenizer(LONG, truncation=False).input_ids[1:-1]
    (one, pooled), (two, _) = (read(pipe.tokenizer.decode(part), None) for part in (ids[:75], ids[75:]))
    negative = read(LONG_NEGATIVE, None)  # cut by diffusers: its first window
    both = torch.cat([one, two], dim=1)
    expected = drawn_by_diffusers(
        pipe, prompt_embeds=both, pooled_prompt_embeds=pooled,
        negative_prompt_embeds=torch.cat([negative[0], negative[0]], dim=1), negative_pooled_prompt_embeds=negative[1],
    )  # fmt: skip
    loaded = zoo.load(tmp_path, long_prompts="chunks")
    unlong = pipe.tokenizer.decode(pipe.tokenizer(LONG_NEGATIVE, truncation=False).input_ids[1:76])
    # Twice the same tokens are the same attention as once.
    assert grey_levels(drawn_by_zoo(loaded, LONG, unlong), expected) <= SAME


def test_the_command_line_says_what_is_left_out_and_replays_the_rest(written, tmp_path, capsys):
    _, place = written
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    common = ["--model", str(place), "--steps", "2", "--device", "cpu"]
    assert run(["generate", LONG, *common, "-o", str(first)]) == 0
    assert "note: the prompt" in capsys.readouterr().err
    options = ["--long-prompts", "chunks", "--prompt-weighting", "empty", "--clip-skip", "1", "--json"]
    assert run(["generate", f"({LONG}:1.2)", *common, *options, "-o", str(first), "--overwrite"]) == 0
    told = capsys.readouterr()
    record = json.loads(told.out)["record"]
    assert record["config"]["prompts"] == {"long": "chunks", "weighting": "empty", "embeddings": []}
    assert record["config"]["conditioners"]["text"]["weights"].endswith("#text?clip_skip=1")
    assert run(["generate", "--from", str(first), "--device", "cpu", "-o", str(again)]) == 0
    assert Image.open(first).tobytes() == Image.open(again).tobytes()
