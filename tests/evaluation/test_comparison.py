"""`zoo.evaluation.evaluate`: values, their errors, what is unavailable or refused, and runs that stop and go on."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.refusals import refused
from tests.tiny import tiny_pipeline
from zoo.data.image_sets import ArrayPictures
from zoo.diffusion.draws import stream
from zoo.evaluation import build_extractor, comparison, evaluate
from zoo.evaluation.extractors import features as shards_module
from zoo.evaluation.extractors.features import extract
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.evaluation.metrics.hit_score import Judge
from zoo.evaluation.metrics.kernel import cmmd, kernel_distance
from zoo.evaluation.processes import Processes
from zoo.schema.errors import UsageError, WeightsError

TOY = {"name": "random", "width": 4, "size": 16, "layers": 2}
OTHER = {"name": "random", "width": 3, "size": 16, "layers": 2}


def pictures(count=30, seed=0, size=8, name="set"):
    rng = np.random.default_rng(seed)
    array = rng.integers(0, 200 + 50 * (seed % 2), (count, 3, size, size), dtype=np.uint8)
    return ArrayPictures(array, name=f"{name} {seed}")


@pytest.fixture(autouse=True)
def no_weights(tmp_path, monkeypatch):
    """As on a machine without any published file."""
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.delenv("ZOO_INCEPTION_2015", raising=False)


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(shards_module, "SHARD", 10)


def by_front(found):
    return {v.key.partition("[")[0]: v for v in found.values}


def test_values_are_those_of_the_functions_and_carry_n_and_an_error():
    x, y = pictures(30, 1), pictures(70, 2)
    found = evaluate(x, y, metrics=["fd", {"name": "kid", "size": 10, "subsets": 5}, "prdc"], extractors=[TOY])
    values, judge = by_front(found), build_extractor(**TOY)
    a, b = extract(x, judge).array(), extract(y, judge).array()
    assert values["fd"].value == frechet_distance(a, b)
    assert values["fd"].key == f"fd[{judge.name}@{judge.sha256[:8]}]@30"
    assert values["kid"].value == kernel_distance(a, b, subsets=5, size=10).mean
    thirds = [frechet_distance(a[i::3], b) for i in range(3)]
    assert values["fd"].error == pytest.approx(np.std(thirds, ddof=1))
    assert (values["fd"].ranges, values["fd"].range_count, values["fd"].count) == (3, 10, 30)
    assert {"fd-floor", "fd-infinity", "precision", "recall", "density", "coverage"} <= set(values)
    assert not found.absent
    assert found.exit_code == 0
    assert json.loads(json.dumps(found.to_dict()))["schema"] == "zoo.evaluation/1"
    assert found.reference["pictures_sha256"] == extract(y, judge).pictures_sha256


def test_a_reference_too_small_for_the_floor_at_n_tells_that_of_its_halves():
    found = by_front(evaluate(pictures(30, 1), pictures(30, 2), extractors=[TOY]))
    assert found["fd-floor"].count == 15
    assert "n_ref=15" in found["fd-floor"].key


def test_ranges_are_disjoint_and_their_mean_is_the_value():
    x, y = pictures(31, 1), pictures(40, 2)
    found = by_front(evaluate(x, y, extractors=[TOY], ranges=3, n=10))["fd"]
    kept = sorted(int(i) for i in stream(0, "pictures").permutation(31)[:30])
    judge = build_extractor(**TOY)
    a, b = extract(x, judge).array()[kept], extract(y, judge).array()
    expected = [frechet_distance(a[i::3], b) for i in range(3)]
    assert found.values == pytest.approx(expected)
    assert found.value == pytest.approx(np.mean(expected))
    assert (found.count, found.ranges, found.range_count) == (10, 3, 10)
    with refused("count-out-of-range", naming="31"):
        evaluate(x, y, extractors=[TOY], ranges=3, n=11)


def test_every_extractor_sees_each_picture_once_and_has_rows_of_its_own():
    class Watched(ArrayPictures):
        asked = 0

        def __call__(self, ids):
            Watched.asked += len(ids)
            return super().__call__(ids)

    found = evaluate(Watched(pictures(30, 1).images), pictures(40, 2), metrics=["fd"], extractors=[TOY, OTHER])
    assert Watched.asked == 30
    alone = [by_front(evaluate(pictures(30, 1), pictures(40, 2), extractors=[e]))["fd"] for e in (TOY, OTHER)]
    assert [v.value for v in found.values if v.key.startswith("fd[")] == [v.value for v in alone]


def test_metrics_without_their_weights_are_listed_with_what_they_need_and_what_serves_meanwhile():
    found = evaluate(pictures(30, 1), pictures(40, 2), metrics=["fid", "is", "fd"], extractors=[TOY])
    assert [a.metric for a in found.absent] == ["fid", "is"]
    said = str(found.absent[0])
    assert said.startswith("fid: unavailable: needs weights-inception-2015-12-05-6726825d.pth, SHA-256 6726825d0af5f7")
    assert said.endswith("meanwhile: metrics=['fd'], extractors=['random']")
    assert found.exit_code == 0
    nothing = evaluate(pictures(30, 1), pictures(40, 2), metrics=["fid"])
    assert nothing.exit_code == 1
    assert not nothing.values
    assert str(nothing.absent[0]).endswith("meanwhile: metrics=['fd'], extractors=['emoji-evaluator']")
    timm = evaluate(pictures(30, 1), pictures(40, 2), metrics=["kid"], extractors=["timm"]).absent
    assert "needs weights: FILE" in str(timm[0])


def test_a_wrong_weight_file_is_refused_before_anything_is_looked_at(tmp_path, monkeypatch):
    (tmp_path / "inception.pth").write_bytes(b"something else")
    monkeypatch.setenv("ZOO_INCEPTION_2015", str(tmp_path / "inception.pth"))
    with refused("weights-hash-wrong", WeightsError):
        evaluate("nowhere-yet.npz", pictures(40, 2), metrics=["fid"], n=3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("metrics", "count", "said"),
    [
        (["kid"], 30, "kid: refused: it needs 1000 pictures of each set, and 30 of 'set 1'"),
        ([{"name": "kid", "size": 20}], 15, "needs 20 pictures of each set, and 15 of"),
        ([{"name": "prdc", "k": 30}], 30, "it needs 31 pictures"),
        (["fd"], 1, "fd: refused: it needs 2 pictures of each set, and 1 of 'set 1'"),
        (["clip"], 30, "asked to show; give metadata.jsonl"),
        (["hit-score"], 30, "asked to show"),
    ],
)
def test_what_can_not_be_had_is_refused_by_a_sentence_before_anything_is_extracted(metrics, count, said):
    class Untouched(ArrayPictures):
        def __call__(self, ids):
            raise AssertionError("looked at")

    # a name of metrics that are of a CLIP alone: the shipped evaluator is it
    found = evaluate(Untouched(pictures(count, 1).images, name="set 1"), pictures(40, 2), metrics=metrics,
                     extractors=[TOY])  # fmt: skip
    assert said in str(found.absent[0])
    assert found.exit_code == 2


def test_wrong_requests_are_one_sentence():
    x, y = pictures(30, 1), pictures(40, 2)
    for named, said in (
        ({"device": "cuda:99"}, "device-missing: cuda:99"),
        ({"device": "abacus"}, "device-missing: abacus"),
        ({"metrics": ["fdi"]}, "component-unknown: fd"),
        ({"metrics": [{"name": "kid", "sizes": 3}]}, "argument-unknown: size"),
        ({"extractors": ["emoji-evaluato"]}, "component-unknown: emoji-evaluator"),
        ({"extractors": ["emoji-base-32-text"]}, "weights-kind-wrong: conditioner"),
        ({"ranges": 0}, "count-out-of-range"),
        ({"ranges": 31, "extractors": [TOY]}, "images-too-few: 31"),
        ({"extractors": [TOY, OTHER], "save_statistics": "x.npz"}, "extractor-ambiguous"),
    ):
        with refused(said, UsageError):
            evaluate(x, y, **named)
    with refused("extractor-unavailable", WeightsError):
        evaluate(y, metrics=[], extractors=["inception-2015"], save_statistics="x.npz")
    assert "give a second one" in str(evaluate(x, extractors=[TOY]).absent[0])


def test_statistics_stand_for_the_pictures_that_they_are_of_and_for_no_others(tmp_path):
    x, y, file = pictures(30, 1), pictures(40, 2), tmp_path / "y.npz"
    made = evaluate(y, metrics=[], extractors=[TOY], save_statistics=file)
    assert (made.statistics, made.exit_code, made.values) == (str(file), 0, [])
    direct = by_front(evaluate(x, y, extractors=[TOY]))["fd"]
    found = evaluate(x, file, metrics=["fd", "prdc"], extractors=[TOY])
    assert by_front(found)["fd"].value == pytest.approx(direct.value, rel=1e-9)
    assert by_front(found)["fd"].key == direct.key
    assert "it needs features" in str(found.absent[0])
    of_file = by_front(evaluate(file, y, metrics=["fd"], extractors=[TOY]))["fd"]
    assert (of_file.count, of_file.error) == (40, None)
    assert of_file.value == pytest.approx(0.0, abs=1e-9)
    unknown = replace(extract(x, build_extractor(**TOY)), arrays={}, count=0)
    assert "doesn't say of how many" in str(evaluate(unknown, y, extractors=[TOY]).absent[0])
    other = evaluate(x, file, extractors=[OTHER])
    assert "give those of one extractor" in str(other.absent[0])
    assert other.exit_code == 2


def test_what_was_decided_without_being_asked_is_a_warning(tmp_path):
    for i in range(6):
        picture = Image.fromarray(np.full((8, 8 + i % 2, 3), 40 * i, dtype=np.uint8))
        picture.convert("L" if i == 0 else "RGB").save(tmp_path / f"{i}.{'jpg' if i == 1 else 'png'}")
    found = evaluate(tmp_path, pictures(40, 2, size=16), extractors=[TOY])
    said = " ".join(found.warnings)
    for part in (
        "JPEG, which scores otherwise than PNG (1)",
        "grey, made RGB (1)",
        "of 2 sizes (3 of 8x8, 3 of 8x9)",
    ):
        assert part in said
    found = evaluate(pictures(300, 1), pictures(400, 2, size=16), extractors=[TOY])
    assert found.warnings == ["pictures of 8x8 are compared with pictures of 16x16; `size` makes them one size"]
    told = evaluate(pictures(30, 1), pictures(40, 2), metrics=["fd"])
    assert told.warnings[0] == "the weights of inception-2015 aren't there, so emoji-evaluator is the extractor"


def test_too_few_images_for_a_number_to_mean_something_are_a_warning():
    few = evaluate(pictures(30, 1), pictures(400, 2), metrics=["fd", {"name": "kid", "size": 20}], extractors=[TOY])
    said = [warning for warning in few.warnings if "says little" in warning]
    assert [warning.partition(" of ")[0] for warning in said] == ["'fd'", "'kid'"]
    assert all("30 images" in warning for warning in said)
    wide = evaluate(pictures(60, 1), pictures(400, 2), metrics=["fd"], extractors=["random"])  # has 100s of features
    assert any("needs more images than features" in warning for warning in wide.warnings)
    enough = evaluate(pictures(300, 1), pictures(400, 2), metrics=["fd"], extractors=[TOY])
    assert not any("says little" in w for w in enough.warnings)
    assert any("says little" in w for w in evaluate(pictures(300, 1), pictures(30, 2), extractors=[TOY]).warnings)


@pytest.mark.parametrize("world", [1, 2, 4])
def test_the_value_is_the_same_for_any_number_of_processes(tmp_path, small_shards, monkeypatch, world):
    x, y = pictures(35, 1), pictures(42, 2)
    expected = [(v.key, v.value, v.error) for v in evaluate(x, y, extractors=[TOY]).values]
    results = []
    for rank in reversed(range(world)):  # the first waits for all others, so here it comes last

        class Here(Processes):
            def wait(self):
                files = sorted(f.name for f in tmp_path.rglob("*.npz"))
                assert len(files) >= (8 if self.world > 1 and self.rank == 0 else 0)

        monkeypatch.setattr(comparison, "started", lambda rank=rank, made=Here: _Context(made(rank, world)))
        results.append(evaluate(x, y, extractors=[TOY], features=tmp_path))
    assert results[:-1] == [None] * (world - 1)
    assert [(v.key, v.value, v.error) for v in results[-1].values] == expected


class _Context:
    def __init__(self, value):
        self.value = value

    def __enter__(self):
        return self.value

    def __exit__(self, *_):
        return None


def test_several_processes_without_a_folder_are_refused(monkeypatch):
    monkeypatch.setattr(comparison, "started", lambda: _Context(Processes(0, 2)))
    with refused("features-folder-missing"):
        evaluate(pictures(30, 1), pictures(40, 2), extractors=[TOY])


@pytest.fixture
def captions(tmp_path):
    folder, rows = tmp_path / "captions", []
    folder.mkdir()
    for i, picture in enumerate(pictures(12, 5, size=40).images):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(folder / f"{i}.png")
        name, style = ("red apple", "sun", "cat face", "dog", "moon", "star")[i % 6], ("3d style", "flat style")[i // 6]
        rows.append({"file_name": f"{i}.png", "text": f"{name}, {style}", "name": name, "concept": name})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return folder


@pytest.mark.slow
def test_a_pipeline_is_measured_as_the_pictures_it_draws_for_the_captions(captions):
    pipe = tiny_pipeline(steps=1, record={"config": {"name": "tiny"}, "config_sha256": "ab", "weights": {}})
    found = evaluate(pipe, captions, metrics=["fd", "clip"], extractors=[TOY], n=20, seed=3)
    rows = [json.loads(line) for line in (captions / "metadata.jsonl").read_text().splitlines()]
    order = [int(i) for i in stream(0, "captions").permutation(12)]
    words = [rows[order[i % 12]]["text"] for i in range(20)]
    drawn = pipe(words, seed=3).tensor.mul(255).round().to(torch.uint8)
    kept = ArrayPictures(drawn)
    alone = by_front(evaluate(kept, captions, extractors=[TOY], size=32))
    assert by_front(found)["fd"].value == pytest.approx(alone["fd"].value, rel=1e-5)
    assert found.generated["config_sha256"] == "ab"
    assert found.generated["count"] == 20
    assert found.reference["sizes"] == {"32x32": 12}  # made as large as the pipeline's
    score = by_front(found)["clip-score"]
    assert score.key.startswith("clip-score[emoji-evaluator@")
    import zoo

    clip = zoo.load("emoji-evaluator")
    expected = (clip.images(drawn) * clip.texts(words)).sum(1).clamp(min=0).mean() * 100
    assert score.value == pytest.approx(float(expected), rel=1e-4)


def test_metrics_of_a_clip_are_of_whichever_clip_was_given(captions):
    class Means:
        name, sha256 = "means", "ab" * 32

        def images(self, shown, *, batch=64):
            return torch.nn.functional.normalize(shown.float().flatten(2)[:, :, :8].flatten(1), dim=-1)

        def texts(self, words, *, batch=512):
            return torch.stack([torch.nn.functional.normalize(torch.tensor([len(w), *range(23)]).float(), dim=0)
                                for w in words])  # fmt: skip

    found = evaluate(captions, pictures(14, 3, size=40), metrics=["cmmd", "clip"], extractors=[Means(), TOY])
    values, judge = by_front(found), Means()
    rows = [json.loads(line) for line in (captions / "metadata.jsonl").read_text().splitlines()]
    x, y = (judge.images(p.images) for p in (pictures(12, 5, size=40), pictures(14, 3, size=40)))
    assert values["cmmd"].key == "cmmd[means@abababab]@12"
    assert values["cmmd"].value == pytest.approx(cmmd(x, y))
    expected = 100 * (x * judge.texts([r["text"] for r in rows])).sum(1).clamp(min=0).mean()
    assert values["clip-score"].value == pytest.approx(float(expected), rel=1e-5)
    assert len(found.extractors) == 1


@pytest.mark.slow
def test_the_hit_score_is_the_judges(captions):
    import zoo

    found = evaluate(captions, metrics=["hit-score"])
    rows = [json.loads(line) for line in (captions / "metadata.jsonl").read_text().splitlines()]
    clip = zoo.load("emoji-evaluator")
    real = torch.stack(
        [torch.from_numpy(np.array(Image.open(captions / f"{i}.png"))).permute(2, 0, 1) for i in range(12)]
    )
    expected = Judge(clip, rows).score(clip.images(real), rows)
    values = by_front(found)
    assert values["hit-score"].value == expected.hit
    assert (values["concept-at-1"].value, values["style"].value) == (expected.concept_at_1, expected.style)
    assert "concepts=6,styles=2" in values["hit-score"].key


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_and_draws_nothing_twice(tmp_path, captions, small_shards):
    pipe = tiny_pipeline(steps=1, record={"config_sha256": "ab"})
    asked = []

    class Stopping:
        left = 2

        def __getattr__(self, name):
            return getattr(pipe, name)

        def __call__(self, *, noise, **named):
            if Stopping.left == 0:
                raise KeyboardInterrupt
            Stopping.left -= 1
            asked.extend(noise.numbers)
            return pipe(noise=noise, **named)

    whole = [(v.key, v.value, v.error) for v in evaluate(pipe, captions, extractors=[TOY], n=35).values]
    from zoo.evaluation.inputs import sources

    stopping = Stopping()
    original = sources.PipelinePictures

    def pictures_of(made, **named):
        found = original(made, **named)
        found.pipe = stopping
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "PipelinePictures", pictures_of)
        with pytest.raises(KeyboardInterrupt):
            evaluate(pipe, captions, extractors=[TOY], n=35, features=tmp_path / "features")
        Stopping.left = 99
        found = evaluate(pipe, captions, extractors=[TOY], n=35, features=tmp_path / "features")
        assert sorted(asked) == list(range(35))
        longer = evaluate(pipe, captions, extractors=[TOY], n=45, features=tmp_path / "features")
        assert sorted(asked) == sorted([*range(35), *range(30, 45)])  # the last shard wasn't full
    assert [(v.key, v.value, v.error) for v in found.values] == whole
    assert longer.generated["count"] == 45


@pytest.mark.slow
def test_out_of_memory_in_drawing_halves_the_batch_and_the_record_says_so(captions, monkeypatch):
    from zoo.evaluation.inputs.generated import PipelinePictures

    draw = PipelinePictures._draw

    def small(self, ids, batch):
        if batch > 5:
            raise torch.OutOfMemoryError("no memory")
        return draw(self, ids, batch)

    def measured(**settings):
        return evaluate(tiny_pipeline(steps=1), captions, extractors=[TOY], n=20, **settings)

    expected = measured(batch_size=5)
    monkeypatch.setattr(PipelinePictures, "_draw", small)
    found = measured(batch_size=20)
    assert found.generated["notes"] == {"out of memory: batch halved to 10": 1, "out of memory: batch halved to 5": 1}
    assert sum("out of memory: batch halved" in w for w in found.warnings) == 2
    assert [(v.key, v.value) for v in found.values] == [(v.key, v.value) for v in expected.values]
    monkeypatch.setattr(PipelinePictures, "_draw", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with refused("memory-exceeded"):
        measured(batch_size=8)


def test_a_device_that_is_not_there_is_refused_before_anything_is_opened():
    with refused("device-missing", naming="'cuda:77'"):
        evaluate("nowhere", "nowhere", device="cuda:77")


def test_the_floor_has_no_deviation_of_ranges_that_all_see_one_reference():
    found = by_front(evaluate(pictures(30, 1), pictures(40, 2), extractors=[TOY], ranges=3))
    assert found["fd"].ranges == 3
    assert (found["fd-floor"].error, found["fd-floor"].ranges) == (None, None)


def test_a_distance_under_a_named_extractor_is_of_the_one_that_was_given_under_that_name():
    found = evaluate(pictures(30, 1), pictures(40, 2), metrics=["fd-random"], extractors=[TOY])
    assert [e["name"] for e in found.extractors] == ["random-0-4x2-16"]
    absent = evaluate(pictures(30, 1), pictures(40, 2), metrics=["fd-dinov2"]).absent
    assert str(absent[0]).startswith("fd: unavailable: needs weights: FILE, a state dict of 'dinov2_vitl14_pretrain'")


def test_moments_alone_of_very_many_pictures_still_have_a_distance():
    x, y = pictures(30, 1), pictures(40, 2)
    found = evaluate(x, y, extractors=[TOY], keep=20)
    assert [v.key.partition("[")[0] for v in found.values] == ["fd"]
    assert found.values[0].error is None
    expected = by_front(evaluate(x, y, extractors=[TOY]))["fd"].value
    assert found.values[0].value == pytest.approx(expected, rel=1e-6)


def test_absent_says_whether_weights_lack_or_the_request_is_wrong():
    absent = evaluate(pictures(30, 1), pictures(40, 2), metrics=["fid"]).absent[0]
    assert str(replace(absent, meanwhile=None)).startswith("fid: refused")


def test_an_extractor_whose_metrics_were_all_refused_sees_nothing():
    found = evaluate(pictures(30, 1), pictures(40, 2), metrics=["clip", "fd"], extractors=[TOY])
    assert [e["name"] for e in found.extractors] == ["random-0-4x2-16"]
    assert [a.metric for a in found.absent] == ["clip"]
    alone = evaluate(pictures(30, 1), pictures(40, 2), extractors=[TOY])
    assert by_front(found)["fd"].value == by_front(alone)["fd"].value
