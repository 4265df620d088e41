"""Published values against one's own, on a toy pipeline with a toy claim."""

import json

import numpy as np
import pytest
from PIL import Image

from tests.refusals import refused
from tests.tiny import tiny_pipeline
from zoo.config.cards import read_card
from zoo.config.check import Resolved
from zoo.config.presets import read_preset
from zoo.evaluation import evaluate, reproduction
from zoo.evaluation.comparison import Evaluation, Value
from zoo.evaluation.published import Claim, claims, of_split
from zoo.evaluation.reproduction import judge, reproduce
from zoo.evaluation.requirements import needs, seconds_of
from zoo.schema.errors import UsageError

CLAIM = {"metric": "fd", "value": 1.0, "n": 12, "steps": 2, "extractor": "random", "tolerance": 0.1, "source": "a toy"}


@pytest.fixture
def toy(tmp_path, monkeypatch):
    """A config with claims, which builds a tiny pipeline, and data with captions."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("ZOO_INCEPTION_2015", raising=False)
    rng, rows = np.random.default_rng(0), []
    for i in range(15):
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": f"thing {i}"})
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    asked = []

    def build(config, *, overrides=None, device=None, dtype=None, steps=4):
        steps = config.config["stages"][0]["sampler"]["steps"] if isinstance(config, Resolved) else steps
        asked.append({"steps": steps})
        return tiny_pipeline(**asked[-1], record={"config": {"name": "toy"}, "config_sha256": "ab"})

    monkeypatch.setattr("zoo.build", build)

    def write(*entries):
        config, _ = read_preset("latent-text2img")
        (tmp_path / "toy.yaml").write_text(json.dumps({**config, "name": "toy", "published": list(entries)}))
        return asked

    write(CLAIM)
    return write


def size_32(monkeypatch):
    """The tiny pipeline's pictures are smaller than those of the config that stands in for it."""
    check = reproduction.evaluate

    def smaller(*words, **named):
        return check(*words, **named, size=32)

    monkeypatch.setattr(reproduction, "evaluate", smaller)


@pytest.mark.slow
def test_a_claim_is_measured_by_its_own_protocol_and_judged(toy, monkeypatch):
    size_32(monkeypatch)
    (first,) = reproduce("toy.yaml", data=".")
    assert first.verdict == "differs"
    assert toy(CLAIM)[0] == {"steps": 2}
    own = evaluate(tiny_pipeline(steps=2), ".", extractors=["random"], n=12, size=32).values[0]
    assert (first.own, first.key) == (pytest.approx(own.value, rel=1e-6), own.key)
    toy({**CLAIM, "value": first.own + 0.05}, {**CLAIM, "metric": "fid-tf1"}, {**CLAIM, "metric": "recall"})
    agrees, lacks, recall = reproduce("toy.yaml", data=".")
    assert agrees.verdict == "agrees"
    assert lacks.verdict == "unavailable"
    assert "SHA-256 6726825d" in lacks.why
    assert recall.key.startswith("recall[random")
    (fewer,) = reproduce("toy.yaml", data=".", n=6)[:1]
    assert (fewer.verdict, fewer.why) == ("not comparable", "N is 6 where 12 was published")
    assert json.loads(json.dumps(agrees.to_dict()))["published"]["source"] == "a toy"


@pytest.mark.parametrize(("own", "verdict"), [(1.1, "agrees"), (0.9, "agrees"), (1.2, "differs"), (0.8, "differs")])
def test_the_tolerance_is_absolute_and_goes_both_ways(own, verdict):
    (published,) = (c.published for c in [Claim(pipeline="toy", published=_published(value=1.0, tolerance=0.1001))])
    value = Value(metric="fd", key="fd[random@00000000]@12", value=own, count=12)
    found = Evaluation(
        generated={}, reference=None, extractors=[], values=[value], absent=[], warnings=[], settings={}
    )  # fmt: skip
    assert judge(Claim(pipeline="toy", published=published), found).verdict == verdict


def _published(**changes):
    from zoo.config.published import read_published

    return read_published([{**CLAIM, **changes}], "x")[0]


@pytest.mark.slow
def test_a_dry_run_says_what_is_needed_and_measures_nothing(toy, monkeypatch):
    monkeypatch.setattr(reproduction, "evaluate", lambda *a, **k: pytest.fail("it was run"))
    toy(CLAIM, {**CLAIM, "metric": "fid-tf1", "extractor": None, "ranges": 3})
    one, other = needs("toy.yaml", data=".", batch_size=2)
    assert [w["name"] for w in one.weights] == ["emoji-base-32-text", "emoji-latent-64", "emoji-kl-f4"]
    assert all(w["there"] for w in one.weights)
    assert one.images == 12
    assert one.evaluations == 12 * 2
    assert one.seconds is not None
    assert one.seconds > 0
    assert one.reference == "'.' with 15 pictures, there"
    assert one.extractor.startswith("random-0-64x4-64@")
    assert other.images == 36
    assert "needs weights-inception-2015-12-05-6726825d.pth, SHA-256 6726825d" in other.extractor
    assert json.loads(json.dumps(one.to_dict()))["images"] == 12
    assert "none was given" in needs("toy.yaml", batch_size=2)[0].reference


def test_time_is_unknown_where_so_few_steps_can_not_be_run():
    pipe = tiny_pipeline()

    def refuses(*words, **named):
        raise UsageError("not so few", code="images-too-few")

    class Refusing:
        conditioners, stages = pipe.conditioners, pipe.stages
        __call__ = staticmethod(refuses)

    assert seconds_of(Refusing(), 10, batch_size=2) is None
    assert seconds_of(pipe, 1000, batch_size=2) > seconds_of(pipe, 10, batch_size=2) * 10


def test_a_name_without_claims_is_told(toy):
    toy()
    with refused("published-missing"):
        claims("toy.yaml")
    with refused("name-unknown", naming="'latent-text2img'"):
        claims("latent-text2im")


def test_a_cards_claims_are_those_of_the_pipelines_that_draw_with_it(toy, tmp_path):
    card = dict(read_card("emoji-latent-64").raw)
    mine = [{**CLAIM, "pipeline": "toy"}, {**CLAIM, "pipeline": "another"}, CLAIM]
    (tmp_path / "card.yaml").write_text(json.dumps({**card, "published": mine}))
    config = json.loads((tmp_path / "toy.yaml").read_text())
    config["stages"][0]["denoiser"] = {"weights": str(tmp_path / "card.yaml")}
    (tmp_path / "toy.yaml").write_text(json.dumps({**config, "published": None}))
    assert [c.published.pipeline for c in claims("toy.yaml")] == ["toy", None]


@pytest.mark.slow
def test_a_value_is_of_the_split_that_it_was_published_of(toy, tmp_path, monkeypatch):
    size_32(monkeypatch)
    lines = [json.loads(line) for line in (tmp_path / "metadata.jsonl").read_text().splitlines()]
    rows = [{**row, "split": "test" if i < 13 else "train"} for i, row in enumerate(lines)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    toy({**CLAIM, "split": "test", "n": 4})
    own = evaluate(tiny_pipeline(steps=2), ".:test", extractors=["random"], n=4, size=32).values[0].value
    (found,) = reproduce("toy.yaml", data=".")
    assert (found.own, found.verdict) == (pytest.approx(own, rel=1e-6), "differs")
    assert needs("toy.yaml", data=".", batch_size=2)[0].reference == "'.:test' with 13 pictures, there"
    toy({**CLAIM, "split": "train", "n": 4, "tolerance": 1e9})
    (found,) = reproduce("toy.yaml", data=".:test")
    assert (found.verdict, found.why) == ("not comparable", "the split is 'test' where 'train' was published")
    assert of_split("reference.npz", "test") == "reference.npz"
    assert of_split(".:train", "test") == ".:train"


def test_unlike_keys_are_not_comparable_and_what_the_metric_told_besides_is_kept():
    values = [
        Value(metric="fd", key="fd[random@00000000]@12", value=1.0, count=12),
        Value(metric="fd", key="fd-floor[random@00000000,n_ref=9]@12", value=0.5, count=12),
        Value(metric="prdc", key="recall[random@00000000]@12", value=0.1, count=12),
    ]
    found = Evaluation(
        generated={}, reference=None, extractors=[], values=values, absent=[], warnings=[], settings={}
    )  # fmt: skip
    same = judge(Claim(pipeline="toy", published=_published(key="fd[random@00000000]@12")), found)
    assert (same.verdict, same.beside) == ("agrees", {"fd-floor[random@00000000,n_ref=9]@12": 0.5})
    other = judge(Claim(pipeline="toy", published=_published(key="fd[random@11111111]@12")), found)
    assert other.verdict == "not comparable"
    assert other.why == "the key is fd[random@00000000]@12 where fd[random@11111111]@12 was published"


def test_pictures_that_two_values_are_of_are_needed_once(toy):
    toy(CLAIM, {**CLAIM, "metric": "recall"}, {**CLAIM, "steps": 3})
    assert [need.again for need in needs("toy.yaml", data=".", batch_size=2)] == [False, True, False]


def test_weights_publish_what_they_do_alone_and_what_pipelines_reach_with_them(toy, tmp_path, monkeypatch):
    from zoo.evaluation import published as claims_module
    from zoo.evaluation import requirements as needs_module

    card = {k: v for k, v in read_card("emoji-kl-f4").raw.items() if k != "published"}
    entry = {"metric": "psnr", "value": 30.0, "n": 6, "tolerance": 0.1, "source": "a toy"}
    file = {**card["file"], "name": str(read_card("emoji-kl-f4").file.name)}
    (tmp_path / file["name"]).symlink_to(read_card("emoji-kl-f4").file)
    (tmp_path / "kl.yaml").write_text(json.dumps({**card, "file": file, "published": [entry]}))
    path = str(tmp_path / "kl.yaml")
    told = [Value(metric="reconstruction", key="psnr[kl@848b04b4]@6", value=30.05, count=6)]
    for module in (reproduction, needs_module):
        monkeypatch.setattr(module, "measure_weights", lambda *words, **named: told)
    (found,) = reproduce(path, data=".")
    assert (found.pipeline, found.verdict, found.own) == (path, "agrees", 30.05)
    (need,) = needs(path, data=".")
    assert [w["name"] for w in need.weights] == ["kl"]
    assert (need.evaluations, need.extractor) == (None, "none: the weights are measured by themselves")
    with refused("data-missing", naming="give them as `data`"):
        reproduce(path)
    network = {k: v for k, v in read_card("emoji-latent-64").raw.items() if k != "published"}
    (tmp_path / "latent.yaml").write_text(json.dumps({**network, "published": [entry]}))
    with refused("published-missing"):
        claims(str(tmp_path / "latent.yaml"))
    config, _ = read_preset("latent-text2img")
    monkeypatch.setattr(claims_module, "presets_with", lambda name: ["latent-text2img"])
    monkeypatch.setattr(claims_module, "read_preset", lambda name: ({**config, "published": [CLAIM]}, "a toy"))
    assert [c.name for c in claims(path)] == [path, "latent-text2img"]
